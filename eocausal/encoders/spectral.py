"""Band means: the baseline that any other encoder has to beat."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from eocausal.encoders.core import FittedEncoder, Float32, ImageSpec, Scaling

__all__ = ["SpectralMeans"]


@dataclass(frozen=True, slots=True)
class SpectralMeans:
    """The mean of each band over the valid pixels of a chip, in the units of the cube."""

    @property
    def name(self) -> str:
        """Id string."""
        return "SpectralMeans()"

    def check(self, spec: ImageSpec) -> None:
        """Any chip suits."""

    def fit(self, images: Float32, spec: ImageSpec, *, seed: int) -> FittedEncoder:
        """Nothing is learnt; the sample and the seed are not used."""
        return FittedEncoder(
            name=self.name,
            spec=spec,
            scaling=Scaling.identity(len(spec.bands)),
            network=_Means().eval(),
            n_features=len(spec.bands),
        )


class _Means(torch.nn.Module):
    def forward(self, values: torch.Tensor, valid: torch.Tensor) -> torch.Tensor:
        """Masked means; invalid pixels of ``values`` are 0 already."""
        return values.sum(dim=(2, 3)) / valid.sum(dim=(1, 2))[:, None]
