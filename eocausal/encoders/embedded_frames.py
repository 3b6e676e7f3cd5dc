"""Frames that are encoded already: an embedding of periods as a cube of chips of one pixel.

Training a temporal head alone is cheap if the frames are encoded once::

    frames = encode(cube, RandomConv(features=512))          # (neighborhood, period, feature)
    small = embedding_cube(frames, cube)                     # 1 by 1 pixel, a band a feature
    train_encoder(small, FrameSequence(EmbeddedFrames(), TemporalAttention()), Propensity(), ...)
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch

from eocausal.contracts import CUBE_DIMS, ChipStatus, check_cube, check_embedding
from eocausal.encoders.core import Backbone, FittedEncoder, Float32, ImageSpec, Scaling
from eocausal.errors import EncoderError

if TYPE_CHECKING:
    import xarray as xr

__all__ = ["EmbeddedFrames", "embedding_cube"]

_PERIOD_COORDS = ("period_start", "period_end", "last_date")
_PLACE_COORDS = ("lon", "lat", "crs")
_MISSING = int(ChipStatus.NODATA_ONLY)


@dataclass(frozen=True, slots=True)
class EmbeddedFrames:
    """The pixel itself, for chips of one pixel that :func:`embedding_cube` made.

    As an encoder and as a network to be trained (without weights) it goes into
    :class:`~eocausal.encoders.sequence.FrameSequence`. Features are standardised with mean and sd
    of the fitting sample.
    """

    @property
    def name(self) -> str:
        """Id string."""
        return "EmbeddedFrames()"

    @property
    def sequence(self) -> bool:
        """False: it reads one frame."""
        return False

    def check(self, spec: ImageSpec) -> None:
        """Refuse chips of more than one pixel (``EncoderError``)."""
        if (spec.height, spec.width) != (1, 1):
            raise EncoderError(
                f"The chips are {spec.height} by {spec.width} pixels; {self.name} takes one pixel.",
                cause="Its features are the bands of that pixel.",
                next_step="Encode the cube first and give embedding_cube(embedding, cube).",
            )

    def fit(self, images: Float32, spec: ImageSpec, *, seed: int) -> FittedEncoder:
        """Take mean and sd of each feature from a sample ``(n, feature, 1, 1)``."""
        self.check(spec)
        return FittedEncoder(
            name=f"{self.name} of {spec.units}",
            spec=spec,
            scaling=Scaling.from_images(images, spec.bands),
            network=_Pixel().eval(),
            n_features=len(spec.bands),
        )

    def build(self, spec: ImageSpec, *, seed: int) -> Backbone:
        """Build the module, which has no weights."""
        self.check(spec)
        return Backbone(_Pixel(), len(spec.bands))


class _Pixel(torch.nn.Module):
    def forward(self, values: torch.Tensor, valid: torch.Tensor) -> torch.Tensor:
        """``(n, band, 1, 1) -> (n, band)``."""
        return values[:, :, 0, 0]


def embedding_cube(embedding: xr.DataArray, cube: xr.Dataset) -> xr.Dataset:
    """Turn an embedding of periods into a cube of chips of one pixel, one band a feature.

    Parameters
    ----------
    embedding
        ``(neighborhood, period, feature)``, as :func:`eocausal.encoders.base.encode` gives for a
        cube of several periods; NaN rows where a period is missing.
    cube
        The cube that was encoded; places, dates and shares of valid pixels are taken from it.

    Returns
    -------
    xarray.Dataset
        In memory, as :func:`eocausal.contracts.check_cube` says. A pixel is as large as a chip
        was; ``units`` name the encoder, so that features of another are refused.

    Raises
    ------
    EmbeddingError, CubeError
        If one of them breaks its contract.
    EncoderError
        If the embedding has no periods, or places or periods differ from the cube's.
    """
    import xarray as xr

    check_cube(cube)
    _check_pair(check_embedding(embedding), cube)
    features = embedding.to_numpy().astype(np.float32, copy=False)
    finite = np.isfinite(features).all(axis=2)
    both = ("neighborhood", "period")
    status = cube["status"].transpose(*both).to_numpy()
    pixels = float(cube.sizes["x"]), float(cube.sizes["y"])
    kept = [c for c in (*both, *_PLACE_COORDS, *_PERIOD_COORDS) if c in cube.coords]
    small = xr.Dataset(
        {
            "image": (CUBE_DIMS, features[..., None, None]),
            "valid": (both, np.where(finite, cube["valid"].transpose(*both), 0.0)),
            "status": (both, np.where(finite | (status > ChipStatus.PARTIAL), status, _MISSING)),
        },
        coords={name: cube[name] for name in kept}
        | {"band": [f"feature_{i}" for i in range(features.shape[2])]},
        attrs={
            "resolution": float(cube.attrs["resolution"]) * min(pixels),
            "units": f"features of {embedding.attrs['encoder']}",
            "sources": cube.attrs.get("sources", "[]"),
        },
    )
    if "transform" in cube.coords:
        scale = np.array([pixels[0], pixels[1], 1.0, pixels[0], pixels[1], 1.0])
        small = small.assign_coords(transform=cube["transform"] * scale)
    if "date" in cube:
        small["date"] = cube["date"].transpose(*both).where(xr.DataArray(finite, dims=both))
    return check_cube(small)


def _check_pair(embedding: xr.DataArray, cube: xr.Dataset) -> None:
    if embedding.dims != ("neighborhood", "period", "feature"):
        raise EncoderError(
            f"The embedding has dims {tuple(embedding.dims)}.",
            cause="A head over time needs the features of each period.",
            next_step="Encode a cube of several periods with an encoder of single images.",
        )
    for name in ("neighborhood", "period"):
        if not embedding.indexes[name].equals(cube.indexes[name]):
            raise EncoderError(
                f"The {name} labels of embedding and cube differ.",
                cause="Dates and places are taken from the cube, row by row.",
                next_step="Give the cube that was encoded, or select the same labels in both.",
            )
