"""Whether salience says something: its mass on known pixels, and random weights as the foil."""

from __future__ import annotations

import copy
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray

from eocausal.encoders.salience import Target
from eocausal.errors import AlignmentError, EmptyInputError

if TYPE_CHECKING:
    import pandas as pd
    import xarray as xr

__all__ = ["MassOn", "mass_on", "randomise", "rank_correlation"]


@dataclass(frozen=True, slots=True, eq=False)
class MassOn:
    """Share of the mass of salience on marked pixels, against their share of the area.

    Attributes
    ----------
    chips
        By neighborhood: ``mass``, the sum of absolute values; ``mass_share`` of it on marked
        pixels; ``area_share`` of marked pixels among those with salience; ``ratio``. Chips
        without mass have no ``mass_share`` and do not count in the attributes below.
    mass_share, area_share
        Means over chips, each chip counting the same.
    ratio
        ``mass_share / area_share``: 1 if salience knows nothing of the marks.
    std_error
        Of the ratio, by the delta method, chips independent.
    """

    chips: pd.DataFrame
    mass_share: float
    area_share: float
    ratio: float
    std_error: float

    @property
    def contrast(self) -> float:
        """Mass per marked pixel over mass per other pixel; NaN where every pixel is marked."""
        if self.area_share == 1.0:
            return float("nan")
        others = (1.0 - self.mass_share) / (1.0 - self.area_share)
        return self.ratio / others if others > 0 else float("inf")

    def __repr__(self) -> str:
        return (
            f"MassOn({self.mass_share:.1%} of the mass on {self.area_share:.1%} of the area: "
            f"ratio {self.ratio:.2f} ± {self.std_error:.2f}, "
            f"{int((self.chips['mass'] > 0).sum())} chips)"
        )


def mass_on(
    salience: xr.DataArray, mask: NDArray[np.bool_], *, among: NDArray[np.bool_] | None = None
) -> MassOn:
    """Measure how much of the mass of salience is on marked pixels.

    A method that multiplies by the pixel's value, as integrated gradients do, or that removes it,
    puts mass on whatever stands out, with random weights too (see :func:`randomise`). What a
    network has learnt shows against pixels that look the same and are not marked: give them,
    with the marked ones, as ``among``. Use ``salience.clip(min=0)`` for the mass that speaks for
    a higher target.

    Parameters
    ----------
    salience
        As :func:`~eocausal.encoders.salience.salience` gives it; absolute values count.
    mask
        Marked pixels, of the shape of ``salience``; without the axis of periods the same pixels
        are marked in all of them.
    among
        The pixels that count, shaped like ``mask``; None for all with salience.

    Raises
    ------
    AlignmentError
        If the shapes differ.
    EmptyInputError
        If no chip has salience, or no pixel with salience is marked.
    """
    import pandas as pd

    values = np.abs(salience.to_numpy().astype(np.float64))
    marked = _like(mask, salience)
    axes = tuple(range(1, values.ndim))
    known = np.isfinite(values)
    if among is not None:
        known &= _like(among, salience)
    values = np.where(known, values, 0.0)
    with np.errstate(invalid="ignore", divide="ignore"):
        mass = values.sum(axis=axes)
        mass_share = (values * marked).sum(axis=axes) / mass
        area_share = (known & marked).sum(axis=axes) / known.sum(axis=axes)
        ratio = mass_share / area_share
    chips = pd.DataFrame(
        {"mass": mass, "mass_share": mass_share, "area_share": area_share, "ratio": ratio},
        index=salience.indexes["neighborhood"],
    )
    counted = mass > 0
    if not counted.any() or not area_share[counted].any():
        raise EmptyInputError(
            f"{int(counted.sum())} of {len(chips)} chips have salience, none of them on a mark.",
            cause="A share needs some mass and some marked area.",
            next_step="Check that the mask marks pixels, and that the target reads these chips.",
        )
    on, area = mass_share[counted], area_share[counted]
    overall = on.mean() / area.mean()
    spread = np.std(on - overall * area) / (np.sqrt(len(on)) * area.mean())
    return MassOn(chips, float(on.mean()), float(area.mean()), float(overall), float(spread))


def _like(mask: NDArray[np.bool_], salience: xr.DataArray) -> NDArray[np.bool_]:
    """Give a mask the axis of periods if it lacks it; refuse another shape."""
    if "period" in salience.dims and mask.ndim == 3:
        mask = np.repeat(mask[:, None], salience.sizes["period"], axis=1)
    if mask.shape != salience.shape:
        raise AlignmentError(
            f"The mask has shape {mask.shape}, salience {salience.shape}.",
            cause="Each pixel of salience is marked or not.",
            next_step="Give the mask of the same neighborhoods in the same order.",
        )
    return mask


def randomise(target: Target, *, seed: int) -> Target:
    """Shuffle the weights of a target's network, each tensor within itself.

    What the network has learnt is gone; the sizes of its weights are what they were. Salience
    that looks the same afterwards shows the image, not what the target took from it: the model
    parameter randomisation test of Adebayo et al. (2018), NeurIPS, arXiv 1810.03292.
    """
    generator = torch.Generator().manual_seed(seed)
    module = copy.deepcopy(target.module)
    with torch.no_grad():
        for parameter in module.parameters():
            order = torch.randperm(parameter.numel(), generator=generator)
            shuffled = parameter.detach().cpu().flatten()[order].view(parameter.shape)
            parameter.copy_(shuffled)
    return replace(target, name=f"{target.name}, weights shuffled", module=module)


def rank_correlation(first: xr.DataArray, second: xr.DataArray) -> pd.Series:
    """Spearman correlation over pixels of the absolute values of two maps, by neighborhood.

    About 0 between the maps of a target and of :func:`randomise` of it means that salience
    depends on what was learnt. NaN where a map is constant or has no value.

    Raises
    ------
    AlignmentError
        If the two are not of the same neighborhoods, periods and pixels.
    """
    import pandas as pd

    labels = first.indexes["neighborhood"]
    same = first.dims == second.dims and first.shape == second.shape
    if not same or any(
        not index.equals(second.indexes.get(name)) for name, index in first.indexes.items()
    ):
        raise AlignmentError(
            f"The maps are {dict(first.sizes)} and {dict(second.sizes)}, or their labels differ.",
            cause="They are compared pixel by pixel.",
            next_step="Compute both from the same cube and the same neighborhoods.",
        )
    pairs = zip(_flat(first), _flat(second), strict=True)
    return pd.Series([_spearman(a, b) for a, b in pairs], labels, name="rank_correlation")


def _flat(salience: xr.DataArray) -> NDArray[np.float64]:
    return np.abs(salience.to_numpy().astype(np.float64)).reshape(len(salience), -1)


def _spearman(a: NDArray[np.float64], b: NDArray[np.float64]) -> float:
    from scipy.stats import rankdata

    known = np.isfinite(a) & np.isfinite(b)
    if not known.any() or np.ptp(a[known]) == 0 or np.ptp(b[known]) == 0:
        return float("nan")
    return float(np.corrcoef(rankdata(a[known]), rankdata(b[known]))[0, 1])
