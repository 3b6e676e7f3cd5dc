"""Features on one scale before the first step of training.

Features of a network with random weights differ in scale by factors of a hundred: means of maps
and their change per year, say. A rate that suits the large ones is too small to ever use the small
ones, so that a head would learn from level alone. Mean and sd are taken once, from chips without
labels and from the common first weights, and stay as they are: of all networks the same.
"""

from __future__ import annotations

import torch

__all__ = ["Standardised"]

_LEAST_SHARE = 1e-3


class Standardised(torch.nn.Module):
    """A network's features, moved to mean 0 and brought to one scale.

    Their mean variance stays as it was, so that a network whose features are alike learns as fast
    as without.

    Parameters
    ----------
    network
        ``(values, valid[, years]) -> (n, f)``.
    n_features
        ``f``; nothing is moved or scaled until :meth:`take` is called or a state is loaded.
    """

    centre: torch.Tensor
    spread: torch.Tensor

    def __init__(self, network: torch.nn.Module, n_features: int) -> None:
        super().__init__()
        self.network = network
        self.register_buffer("centre", torch.zeros(n_features))
        self.register_buffer("spread", torch.ones(n_features))

    def take(self, features: torch.Tensor) -> None:
        """Take mean and sd of the rows of ``features`` ``(n, f)`` that are finite.

        A feature whose sd is below a thousandth of the largest is treated as one of the largest:
        it hardly varies, e.g. since a ReLU is never positive, and must not explode if it awakes.
        """
        features = features[features.isfinite().all(dim=1)].double()
        if len(features) < 2:
            return
        sd = features.std(dim=0, correction=0)
        most = sd.max()
        if most > 0:
            self.centre.copy_(features.mean(dim=0))
            common = sd.square().mean().sqrt()
            self.spread.copy_(torch.where(sd < _LEAST_SHARE * most, most, sd) / common)

    def forward(self, *inputs: torch.Tensor) -> torch.Tensor:
        """Return the features on their common scale."""
        features: torch.Tensor = self.network(*inputs)
        return (features - self.centre) / self.spread
