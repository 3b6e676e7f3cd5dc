"""A tiny network and a cube in which brightness tells treatment and outcome."""

from dataclasses import dataclass

import numpy as np
import pandas as pd
import torch
import xarray as xr

from eocausal.encoders.core import Backbone, ImageSpec
from eocausal.encoders.initial_weights import draw_weights, untouched_seeds

BANDS = ("red", "nir")


class _Means(torch.nn.Module):
    def __init__(
        self, bands: int, features: int, dropout: float, limit: float, breaks_at: float
    ) -> None:
        super().__init__()
        self.first = torch.nn.Conv2d(bands, features, 3, padding=1)
        self.drop = torch.nn.Dropout(dropout)
        self.limit = limit
        self.breaks_at = breaks_at

    def forward(
        self, values: torch.Tensor, valid: torch.Tensor, years: torch.Tensor | None = None
    ) -> torch.Tensor:
        if self.limit and self.training and len(values) > self.limit:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate too much.")
        if years is not None:
            frames = self(values.flatten(0, 1), valid.flatten(0, 1)).view(*years.shape, -1)
            present = valid.flatten(2).any(dim=2) & years.isfinite()
            weight = (present * years.nan_to_num()).unsqueeze(-1)
            return (frames * (weight - weight.mean(dim=1, keepdim=True))).sum(dim=1) / 10
        maps = torch.nn.functional.elu(self.first(values)) * valid[:, None]
        seen = valid.flatten(1).sum(dim=1).clamp_min(1)
        if self.first.weight.abs().max() > self.breaks_at:
            maps = maps * torch.nan
        return self.drop(maps.sum(dim=(2, 3)) / seen[:, None])


@dataclass(frozen=True)
class Tiny:
    """One convolution and a mean.

    ``limit`` is the largest batch that "fits the memory"; with a weight beyond ``breaks_at``
    features are not finite.
    """

    features: int = 6
    sequence: bool = False
    dropout: float = 0.0
    limit: float = 0
    breaks_at: float = np.inf

    @property
    def name(self) -> str:
        return f"Tiny({self.features}, {self.sequence}, {self.dropout})"

    def check(self, spec: ImageSpec) -> None:
        pass

    def build(self, spec: ImageSpec, *, seed: int) -> Backbone:
        module = untouched_seeds(
            lambda: _Means(len(spec.bands), self.features, self.dropout, self.limit, self.breaks_at)
        )
        draw_weights(module, seed)
        return Backbone(module, self.features, 3)


def bright_world(
    n: int = 90, *, periods: int = 1, size: int = 6, seed: int = 0
) -> tuple[xr.Dataset, pd.DataFrame]:
    """Return a cube and its units; ``group`` has nine values, and place n04 was never seen."""
    rng = np.random.default_rng(seed)
    bright = rng.normal(size=n)
    image = rng.normal(size=(n, periods, len(BANDS), size, size)).astype(np.float32)
    trend = np.linspace(-1, 1, periods) if periods > 1 else np.ones(1)
    image[:, :, 0] += (bright[:, None] * trend)[:, :, None, None]
    image = 1000 + 200 * image
    image[4] = np.nan
    image[5, :, :, :2] = np.nan
    names = np.array([f"n{i:02d}" for i in range(n)], dtype=object)
    both = ("neighborhood", "period")
    cube = xr.Dataset(
        {
            "image": ((*both, "band", "y", "x"), image),
            "valid": (both, np.isfinite(image).all(axis=2).mean(axis=(2, 3))),
            "status": (both, np.zeros((n, periods), np.int8)),
        },
        coords={
            "neighborhood": names,
            "period": [str(2000 + p) for p in range(periods)],
            "band": list(BANDS),
            "lon": ("neighborhood", np.linspace(30, 31, n)),
            "lat": ("neighborhood", np.linspace(0, 1, n)),
            "period_start": ("period", [f"{2000 + p}-01-01" for p in range(periods)]),
            "period_end": ("period", [f"{2000 + p}-12-31" for p in range(periods)]),
        },
        attrs={"resolution": 30.0, "units": "DN"},
    )
    treated = (rng.random(n) < 1 / (1 + np.exp(-2 * bright))).astype(int)
    outcome = 50 + 10 * (bright + 2 * treated + 0.3 * rng.normal(size=n))
    units = pd.DataFrame(
        {
            "neighborhood": names,
            "treated": treated,
            "outcome": outcome,
            "bright": bright,
            "group": np.arange(n) % 9,
        }
    )
    return cube, units
