"""How the residual's variance goes with the number of valid looks in a composite."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd

from eocausal.errors import EstimationError

__all__ = ["Looks"]


@dataclass(frozen=True, slots=True, eq=False)
class Looks:
    """A mean of n looks is noisier than one of many: the residual's variance is a + b / n.

    Attributes
    ----------
    count
        Number of valid looks (or pixels) at each time.
    share
        Share of the variance, at a usual number of looks, that comes from having few of them. At
        one the residual is sampling noise alone; below it a part stays however many there are, as
        where water itself varies from month to month.
    """

    count: pd.Series
    share: float = 1.0

    def __post_init__(self) -> None:
        count = pd.to_numeric(self.count).to_numpy(dtype=float, na_value=np.nan)
        if not 0.0 < self.share <= 1.0 or (count < 0).any() or not (count > 0).any():
            raise EstimationError(
                f"Looks from {np.nanmin(count):g} to {np.nanmax(count):g} with a share of "
                f"{self.share}.",
                cause="Numbers of looks are zero or more, shares above zero and at most one.",
                next_step="Correct them.",
            )

    def variance(self) -> pd.Series:
        """Return relative variances, of mean one; missing where there is no look."""
        count = pd.to_numeric(self.count).astype(float)
        seen = count.where(count > 0)
        each = 1.0 / seen
        return (1.0 - self.share) + self.share * each / each.mean()

    def __repr__(self) -> str:
        return f"Looks({len(self.count)} times, share={self.share:g})"
