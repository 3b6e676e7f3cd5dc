"""Where in the image a number comes from: salience of a target, pixel by pixel, for a cube.

A :class:`Target` is a number per chip, such as the logit of treatment or the effect, with the
encoder whose chips it reads. :func:`salience` asks one of the methods of
:mod:`eocausal.encoders.salience_methods` how much each pixel matters to it.
"""

from __future__ import annotations

import copy
from collections.abc import Hashable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Self

import numpy as np
import torch
from numpy.typing import NDArray

from eocausal.contracts import check_cube, check_same_neighborhoods, some
from eocausal.encoders.base import image_spec
from eocausal.encoders.core import (
    FittedEncoder,
    Float32,
    Progress,
    standardise,
)
from eocausal.encoders.dates import sequence_years
from eocausal.encoders.devices import float32_arithmetic, halved, resolve_device
from eocausal.encoders.salience_methods import Method, Score
from eocausal.errors import AlignmentError, EmptyInputError, EncoderError

if TYPE_CHECKING:
    import pandas as pd
    import xarray as xr

__all__ = ["Target", "feature_coefficients", "salience", "salience_by_fold"]

Float64 = NDArray[np.float64]


@dataclass(frozen=True, slots=True, eq=False)
class Target:
    """A number per chip whose salience is asked for.

    Parameters
    ----------
    name
        What the number is, e.g. ``'logit of treatment'``.
    encoder
        The encoder it comes from: which chips it reads, how they are scaled, whether it reads
        sequences.
    module
        ``(values (n, band, y, x), valid (n, y, x)) -> (n,)``, or of a sequence ``((n, period,
        band, y, x), (n, period, y, x), years (n, period)) -> (n,)``, with values standardised by
        ``encoder.scaling`` and 0 where invalid.
    units
        Units of the number.
    """

    name: str
    encoder: FittedEncoder
    module: torch.nn.Module
    units: str = "1"

    @classmethod
    def linear(
        cls,
        encoder: FittedEncoder,
        coefficients: NDArray[np.floating],
        intercept: float = 0.0,
        *,
        name: str,
        units: str = "1",
    ) -> Self:
        """Make a linear function of an embedding a target.

        Parameters
        ----------
        encoder
            What made the embedding.
        coefficients
            ``(feature,)``, on the features as the encoder gives them; see
            :func:`feature_coefficients` for a fit on standardised or rotated features.
        intercept
            Added; without effect on salience.

        Raises
        ------
        EncoderError
            If there is not one finite coefficient for each feature.
        """
        weights = np.asarray(coefficients, dtype=np.float64)
        if weights.shape != (encoder.n_features,) or not np.isfinite(weights).all():
            raise EncoderError(
                f"The coefficients have shape {weights.shape}, "
                f"{int(np.isfinite(weights).sum())} of them finite.",
                cause=f"{encoder.name} has {encoder.n_features} features, and each needs one.",
                next_step="Give the coefficients of a model fitted on all features.",
            )
        return cls(name, encoder, _Linear(encoder.network, weights, intercept).eval(), units)


class _Linear(torch.nn.Module):
    def __init__(self, network: torch.nn.Module, weights: Float64, intercept: float) -> None:
        super().__init__()
        self.network = network
        self.weights = torch.nn.Parameter(
            torch.tensor(weights, dtype=torch.float32), requires_grad=False
        )
        self.intercept = float(intercept)

    def forward(self, *inputs: torch.Tensor) -> torch.Tensor:
        features: torch.Tensor = self.network(*inputs)
        return features @ self.weights + self.intercept


def feature_coefficients(
    slopes: Float64,
    intercept: float = 0.0,
    *,
    mean: Float64,
    scale: Float64,
    rotation: Float64 | None = None,
) -> tuple[Float64, float]:
    """Write a linear function of standardised (and rotated) features in the features themselves.

    ``intercept + ((f - mean) / scale) R slopes = c + f b`` with ``b = R slopes / scale`` and
    ``c = intercept - mean b``.

    Parameters
    ----------
    slopes
        ``(k,)``, one for each column of ``rotation``; ``(feature,)`` without one.
    intercept
        Of the fit.
    mean, scale
        ``(feature,)``; a feature whose scale is infinite drops out.
    rotation
        ``(feature, k)``, e.g. principal components.

    Returns
    -------
    tuple
        Coefficients ``(feature,)`` and intercept, as :meth:`Target.linear` takes them.
    """
    along = slopes if rotation is None else rotation @ slopes
    coefficients = np.asarray(along / scale, dtype=np.float64)
    return coefficients, float(intercept - mean @ coefficients)


def salience(
    cube: xr.Dataset,
    target: Target,
    method: Method,
    *,
    neighborhoods: Sequence[Hashable] | None = None,
    batch_size: int = 64,
    device: str = "auto",
    progress: Progress | None = None,
) -> xr.DataArray:
    """Map how much each pixel matters to a target.

    The cube is read batch by batch, in its order.

    Parameters
    ----------
    cube
        As :func:`eocausal.contracts.check_cube` says, in memory or on disk.
    target
        What number.
    method
        How: :class:`~eocausal.encoders.salience_methods.Gradient`,
        :class:`~eocausal.encoders.salience_methods.IntegratedGradients` or
        :class:`~eocausal.encoders.salience_methods.Occlusion`.
    neighborhoods
        Labels; None for all. The result is in the order of the cube.
    batch_size
        Neighborhoods at a time; changes memory and speed, not results (to 1e-5). Halved where a
        GPU runs out of memory.
    device
        ``'auto'``, ``'cpu'``, ``'cuda[:i]'`` or ``'mps'``.
    progress
        Called with (neighborhoods done, neighborhoods in all).

    Returns
    -------
    xarray.DataArray
        ``(neighborhood, y, x)``, with ``period`` second if the cube has several or the target
        reads sequences. Float32; NaN where a pixel is invalid or the target gives no number.
        An encoder of single images maps each period's own number. Coordinate ``score``: the
        target of the chip (of the sequence). Attributes: ``method``, ``target``, ``units``,
        ``encoder``.

    Raises
    ------
    CubeError, EncoderError, DeviceError
    AlignmentError
        If a label is not in the cube.
    """
    target.encoder.check(image_spec(check_cube(cube)))
    mapper = _Mapper(target, method, batch_size=batch_size, device=resolve_device(device))
    chosen = cube if neighborhoods is None else _chosen(cube, neighborhoods)
    image = chosen["image"].transpose("neighborhood", "period", "band", "y", "x")
    seen = chosen["valid"].transpose("neighborhood", "period").to_numpy() > 0
    years = sequence_years(chosen) if target.encoder.sequence else None
    total, periods, _, height, width = image.shape
    maps = np.full((total, periods, height, width), np.nan, np.float32)
    scores = np.full((total,) if target.encoder.sequence else (total, periods), np.nan, np.float32)
    for start in range(0, total, batch_size):
        part = slice(start, start + batch_size)
        chips = image[part].to_numpy().astype(np.float32, copy=False)
        chips = np.where(seen[part, :, None, None, None], chips, np.float32(np.nan))
        if years is None:
            found, score = mapper(chips.reshape(-1, *chips.shape[2:]), None)
        else:
            found, score = mapper(chips, years[part])
        maps[part] = found.reshape(maps[part].shape)
        scores[part] = score.reshape(scores[part].shape)
        if progress is not None:
            progress(min(start + batch_size, total), total)
    return _labelled(chosen, maps, scores, target, method)


def salience_by_fold(
    cube: xr.Dataset,
    targets: Mapping[Hashable, Target],
    fold: pd.Series,
    method: Method,
    *,
    batch_size: int = 64,
    device: str = "auto",
) -> xr.DataArray:
    """Map the salience of cross-fitted targets: each neighborhood by the target of its fold.

    Parameters
    ----------
    targets
        By fold.
    fold
        Fold by neighborhood; those of the cube that are not in it are left out.
    cube, method, batch_size, device
        As in :func:`salience`.

    Raises
    ------
    CubeError, EncoderError, DeviceError
    AlignmentError
        If a fold has no target, or a neighborhood is not in the cube, or is there twice.
    EmptyInputError
        If no neighborhood has a fold.
    """
    import xarray as xr

    if len(fold) == 0:
        raise EmptyInputError(
            "There are no folds.",
            cause="The table of folds by neighborhood is empty.",
            next_step="Give the fold of at least one neighborhood.",
        )
    if not fold.index.is_unique:
        raise AlignmentError(
            f"Neighborhoods have several folds: {some(fold.index[fold.index.duplicated()])}.",
            cause="Each neighborhood is explained by the target of its one fold.",
            next_step="Give folds by neighborhood, not by unit.",
        )
    without = sorted(set(fold.unique()) - set(targets), key=str)
    if without:
        raise AlignmentError(
            f"There is no target for the folds {', '.join(map(str, without))}.",
            cause="Each neighborhood is explained by the network that did not see its labels.",
            next_step="Give one target for each fold.",
        )
    check_same_neighborhoods(fold.index, cube.indexes["neighborhood"], what="cube", of="folds")
    parts = [
        salience(
            cube, target, method, neighborhoods=list(fold.index[fold == k]),
            batch_size=batch_size, device=device,
        )
        for k, target in targets.items()
        if (fold == k).any()
    ]  # fmt: skip
    labels = cube.indexes["neighborhood"]
    return xr.concat(parts, "neighborhood", combine_attrs="drop_conflicts", join="exact").sel(
        neighborhood=labels[labels.isin(fold.index)]
    )


def _chosen(cube: xr.Dataset, neighborhoods: Sequence[Hashable]) -> xr.Dataset:
    import pandas as pd

    labels = cube.indexes["neighborhood"]
    wanted = pd.Index(list(neighborhoods))
    check_same_neighborhoods(wanted, labels, what="cube", of="salience asked for")
    return cube.isel(neighborhood=np.flatnonzero(labels.isin(wanted)))


def _labelled(
    cube: xr.Dataset, maps: Float32, scores: Float32, target: Target, method: Method
) -> xr.DataArray:
    import xarray as xr

    dims = ("neighborhood", "period", "y", "x")
    names = ("neighborhood", "period", "lon", "lat", "period_start", "period_end")
    found = xr.DataArray(
        maps,
        dims=dims,
        coords={name: cube[name] for name in names if name in cube.coords}
        | {"score": (dims[: scores.ndim], scores)},
        name="salience",
        attrs={
            "method": repr(method),
            "target": target.name,
            "units": method.units(target.units),
            "encoder": target.encoder.name,
        },
    )
    return found if target.encoder.sequence or maps.shape[1] > 1 else found.isel(period=0)


class _Mapper:
    """Runs a method on one device, batch by batch; halves the batch where memory runs out."""

    def __init__(
        self, target: Target, method: Method, *, batch_size: int, device: torch.device
    ) -> None:
        if batch_size < 1:
            raise EncoderError(
                f"batch_size is {batch_size}.",
                cause="A batch holds at least one neighborhood.",
                next_step="Use batch_size=64.",
            )
        if isinstance(method, type) or not isinstance(method, Method):
            raise EncoderError(
                f"{method!r} is not a method of salience.",
                cause="A method is an object with units and apply.",
                next_step="Use e.g. Gradient(), IntegratedGradients() or Occlusion().",
            )
        self.method = method
        self.device = device
        self.batch_size = batch_size
        self.module = copy.deepcopy(target.module).to(device).eval().requires_grad_(False)
        self._recurrent = any(isinstance(m, torch.nn.RNNBase) for m in self.module.modules())
        self._scaling = target.encoder.scaling.tensors(device)

    def __call__(self, images: Float32, years: Float32 | None) -> tuple[Float32, Float32]:
        """Map ``(n, [period,] band, y, x)`` to ``(n, [period,] y, x)`` and scores ``(n,)``."""
        maps = np.empty((*images.shape[:-3], *images.shape[-2:]), np.float32)
        scores = np.empty(len(images), np.float32)
        start = 0
        while start < len(images):
            part = slice(start, min(start + self.batch_size, len(images)))
            dates = None if years is None else years[part]
            try:
                with self._exact():
                    maps[part], scores[part] = self._map(images[part], dates)
            except torch.OutOfMemoryError as error:
                size = part.stop - start
                self.batch_size = halved(size, "neighborhood", self.device, error)
                continue
            start = part.stop
        return maps, scores

    @contextmanager
    def _exact(self) -> Iterator[None]:
        """Hold a GPU to float32; cuDNN cannot derive recurrent networks that are evaluated."""
        with ExitStack() as stack:
            if self.device.type == "cuda":
                stack.enter_context(float32_arithmetic())
                if self._recurrent:
                    stack.enter_context(torch.backends.cudnn.flags(enabled=False))
            yield

    def _map(self, images: Float32, years: Float32 | None) -> tuple[Float32, Float32]:
        batch = torch.from_numpy(np.ascontiguousarray(images)).to(self.device)
        values, valid = standardise(batch.flatten(0, -4), self._scaling)
        values, valid = values.view(batch.shape), valid.view(*batch.shape[:-3], *batch.shape[-2:])
        score: Score = self.module
        if years is not None:
            score = partial(self._of_sequence, torch.from_numpy(years).to(self.device))
        maps = self.method.apply(score, values, valid)
        with torch.no_grad():
            scores = score(values, valid)
        scores = torch.where(valid.flatten(1).any(dim=1), scores, torch.nan)
        unknown = ~valid | ~scores.isfinite().view(-1, *(1,) * (valid.dim() - 1))
        maps = torch.where(unknown, torch.nan, maps)
        return maps.float().cpu().numpy(), scores.float().cpu().numpy()

    def _of_sequence(
        self, years: torch.Tensor, values: torch.Tensor, valid: torch.Tensor
    ) -> torch.Tensor:
        scores: torch.Tensor = self.module(values, valid, years)
        return scores
