"""Statistics of bands, indices and texture: the baseline that any other encoder has to beat."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from eocausal.encoders.core import FittedEncoder, Float32, ImageSpec, Scaling
from eocausal.encoders.spectral_indices import KNOWN, Index, applicable
from eocausal.encoders.texture import MEASURES, Texture, grey_levels, texture_features
from eocausal.errors import EncoderError

__all__ = ["SpectralStats", "masked_moments", "masked_quantiles"]

_TEXTURE = Texture()


@dataclass(frozen=True, slots=True)
class SpectralStats:
    """What the pixels of a chip look like one by one, and in pairs.

    In this order: mean, standard deviation and quantiles of each band; mean and standard deviation
    of each spectral index; texture of each band (:class:`~eocausal.encoders.texture.Texture`). All
    in the units of the cube, over the valid pixels of the chip; :meth:`feature_names` names them.

    Parameters
    ----------
    quantiles
        Of each band, between 0 and 1; may be empty.
    indices
        Spectral indices, all of which must be possible; None takes every one of
        :data:`~eocausal.encoders.spectral_indices.KNOWN` for which the cube has bands and units.
    texture
        Grey-level co-occurrence; None leaves it out.

    Raises
    ------
    EncoderError
        If a quantile is not between 0 and 1, or indices or texture are not such objects.

    Notes
    -----
    Means and standard deviations can be differentiated with respect to pixels, quantiles almost
    everywhere; texture is made of counts and has no gradient. An index that has no value at any
    pixel of a chip has mean and standard deviation 0.

    Examples
    --------
    >>> spec = ImageSpec(("red", "nir"), "DN", 30.0, 64, 64)
    >>> SpectralStats(quantiles=(0.5,), texture=None).feature_names(spec)
    ('red mean', 'nir mean', 'red sd', 'nir sd', 'red q0.5', 'nir q0.5', 'ndvi mean', 'ndvi sd')
    """

    quantiles: tuple[float, ...] = (0.05, 0.25, 0.5, 0.75, 0.95)
    indices: tuple[Index, ...] | None = None
    texture: Texture | None = _TEXTURE

    def __post_init__(self) -> None:
        numbers = isinstance(self.quantiles, tuple) and all(
            isinstance(q, int | float) and 0.0 <= q <= 1.0 for q in self.quantiles
        )
        if not numbers:
            raise EncoderError(
                f"The quantiles are {self.quantiles!r}.",
                cause="They are a tuple of numbers between 0 and 1.",
                next_step="Use e.g. quantiles=(0.05, 0.25, 0.5, 0.75, 0.95).",
            )
        objects = self.indices is None or (
            isinstance(self.indices, tuple) and all(isinstance(i, Index) for i in self.indices)
        )
        if not objects or not isinstance(self.texture, Texture | None):
            raise EncoderError(
                f"SpectralStats has indices={self.indices!r}, texture={self.texture!r}.",
                cause="Indices are a tuple of Index objects, or None for all that are possible; "
                "texture is a Texture, or None for none.",
                next_step="Use e.g. indices=(normalised_difference('ndvi', 'nir', 'red'),), "
                "texture=Texture().",
            )

    @property
    def name(self) -> str:
        """Id string."""
        indices = "known"
        if self.indices is not None:
            indices = "+".join(index.name for index in self.indices) or "none"
        return (
            f"SpectralStats(quantiles={self.quantiles}, indices={indices}, texture={self.texture})"
        )

    def check(self, spec: ImageSpec) -> None:
        """Refuse chips without the bands or units that a named index needs (``EncoderError``)."""
        problems = [index.problem(spec) for index in self.indices or ()]
        if any(problems):
            raise EncoderError(
                f"The cube has the bands {', '.join(spec.bands)} in {spec.units}: "
                f"{'; '.join(p for p in problems if p)}.",
                cause="Each index that is named is computed, none is left out in silence.",
                next_step="Add these bands or units, or leave indices=None to take what is there.",
            )

    def feature_names(self, spec: ImageSpec) -> tuple[str, ...]:
        """Name the features that chips like these get, in order."""
        statistics = ["mean", "sd", *(f"q{q:g}" for q in self.quantiles)]
        names = [f"{band} {statistic}" for statistic in statistics for band in spec.bands]
        names += [
            f"{i.name} {statistic}" for i in self._indices(spec) for statistic in statistics[:2]
        ]
        if self.texture is not None:
            names += [
                f"{band} {measure} at {distance}"
                for band in spec.bands
                for distance in self.texture.distances
                for measure in MEASURES
            ]
        return tuple(names)

    def fit(self, images: Float32, spec: ImageSpec, *, seed: int) -> FittedEncoder:
        """Take grey levels from a sample of chips; the seed is not used.

        Raises
        ------
        EncoderError
            If an index cannot be computed, or the sample has no valid pixel or does not vary.
        """
        self.check(spec)
        Scaling.from_images(images, spec.bands)  # features keep the units; this only refuses
        indices = self._indices(spec)
        bounds = None
        if self.texture is not None:
            bounds = torch.from_numpy(grey_levels(images, self.texture.levels))
        distances = () if self.texture is None else self.texture.distances
        return FittedEncoder(
            name=f"{self.name}: {'+'.join(i.name for i in indices) or 'no index'}",
            spec=spec,
            scaling=Scaling.identity(len(spec.bands)),
            network=_Statistics(spec.bands, self.quantiles, indices, bounds, distances).eval(),
            n_features=len(self.feature_names(spec)),
        )

    def _indices(self, spec: ImageSpec) -> tuple[Index, ...]:
        return applicable(KNOWN, spec) if self.indices is None else self.indices


class _Statistics(torch.nn.Module):
    def __init__(
        self,
        bands: tuple[str, ...],
        quantiles: tuple[float, ...],
        indices: tuple[Index, ...],
        bounds: torch.Tensor | None,
        distances: tuple[int, ...],
    ) -> None:
        super().__init__()
        self.bands = bands
        self.indices = indices
        self.distances = distances
        self.register_buffer("quantiles", torch.tensor(quantiles, dtype=torch.float32))
        self.register_buffer("bounds", bounds)

    def forward(self, values: torch.Tensor, valid: torch.Tensor) -> torch.Tensor:
        """Encode ``(n, band, y, x), (n, y, x) -> (n, feature)``; NaN where nothing is valid."""
        pieces = list(masked_moments(values, valid[:, None]))
        pieces.append(masked_quantiles(values, valid, self.get_buffer("quantiles")))
        for index in self.indices:
            image, defined = index.evaluate(values, valid, self.bands)
            mean, sd = masked_moments(image[:, None], defined[:, None])
            pieces += [mean, sd]
        if self.distances:
            bounds = self.get_buffer("bounds")
            pieces.append(texture_features(values, valid, bounds, self.distances))
        features = torch.cat(pieces, dim=1)
        return torch.where(valid.flatten(1).any(dim=1)[:, None], features, torch.nan)


def masked_moments(values: torch.Tensor, valid: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Mean and standard deviation over valid pixels, each ``(n, band)``; 0 if there is none.

    Parameters
    ----------
    values
        ``(n, band, y, x)``, 0 where invalid.
    valid
        ``(n, 1, y, x)`` bool.
    """
    count = valid.sum(dim=(2, 3)).clamp_min(1)
    mean = values.sum(dim=(2, 3)) / count
    centred = torch.where(valid, values - mean[..., None, None], 0.0)
    variance = (centred**2).sum(dim=(2, 3)) / count
    varies = variance > 0
    return mean, torch.where(varies, torch.where(varies, variance, 1.0).sqrt(), 0.0)


def masked_quantiles(
    values: torch.Tensor, valid: torch.Tensor, quantiles: torch.Tensor
) -> torch.Tensor:
    """Quantiles over valid pixels, interpolated linearly (Hyndman & Fan 1996, type 7).

    Parameters
    ----------
    values
        ``(n, band, y, x)``.
    valid
        ``(n, y, x)`` bool.
    quantiles
        ``(q,)`` between 0 and 1.

    Returns
    -------
    torch.Tensor
        ``(n, q * band)``, by quantile; not finite where a chip has no valid pixel.
    """
    ordered = torch.where(valid[:, None], values, torch.inf).flatten(2).sort(dim=2).values
    last = (valid.sum(dim=(1, 2)) - 1).clamp_min(0)
    place = quantiles * last[:, None]
    below = place.floor().long()
    above = torch.minimum(below + 1, last[:, None])
    bands = values.shape[1]
    low, high = (ordered.gather(2, at[:, None].expand(-1, bands, -1)) for at in (below, above))
    between = low + (high - low) * (place - below)[:, None]
    return between.transpose(1, 2).flatten(1)
