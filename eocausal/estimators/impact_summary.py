"""Average, cumulative and relative effects of an event from draws of what would have been.

With ``compatible`` the conventions are those of R's CausalImpact 1.4.1: the point prediction is
the mean of the states without noise, intervals are of draws with noise, the relative effect is the
mean over draws of sum(y) / sum(prediction) - 1, and the tail probability is one-sided, counting
the observed sum among the draws. Ours differs in the tail alone, which is two-sided.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from eocausal.effects import EffectPath
from eocausal.errors import OutcomeError

__all__ = ["ImpactSummary", "summarise"]

Float64 = NDArray[np.float64]
ROWS = pd.Index(["average", "cumulative"])
RELATIVE = ("relative", "relative_sd", "relative_low", "relative_high")
COLUMNS = pd.Index(
    ["actual", "predicted", "predicted_sd", "predicted_low", "predicted_high", "effect",
     "effect_sd", "effect_low", "effect_high", *RELATIVE]
)  # fmt: skip


@dataclass(frozen=True, slots=True, eq=False)
class ImpactSummary:
    """Effects over the counted times.

    Attributes
    ----------
    table
        Rows ``average`` and ``cumulative``; columns ``actual``, then ``predicted``, ``effect`` and
        ``relative``, each with ``_sd``, ``_low`` and ``_high``.
    p_value
        Probability under no effect of a sum as far from its prediction as the observed one.
    n
        Times counted: after the event, with a value and a prediction.
    notes
        What was left out or could not be said, and why.
    """

    table: pd.DataFrame
    p_value: float
    n: int
    notes: tuple[str, ...] = ()

    def row(self, name: str = "average") -> dict[str, float]:
        """Return a row of the table as plain numbers."""
        values = self.table.loc[name].to_numpy(dtype=float)
        return dict(zip(map(str, self.table.columns), map(float, values), strict=True))

    def to_frame(self) -> pd.DataFrame:
        """Return a copy of the table."""
        return self.table.copy()

    def __repr__(self) -> str:
        row = self.row()
        total = self.row("cumulative")["effect"]
        return (
            f"ImpactSummary(average {row['effect']:.4g} "
            f"[{row['effect_low']:.4g}, {row['effect_high']:.4g}], relative "
            f"{row['relative']:.1%}, cumulative {total:.4g}, "
            f"p = {self.p_value:.3g}, n = {self.n})"
        )


def summarise(
    path: EffectPath,
    expected: Float64 | None = None,
    *,
    compatible: bool = False,
    event: str = "",
) -> ImpactSummary:
    """Summarise an effect path.

    Parameters
    ----------
    path
        Observed values and draws of what would have been, with noise.
    expected
        (draws, T) the same draws without noise, for a point prediction with less Monte Carlo
        error; the draws themselves if not given.
    compatible
        Use CausalImpact's tail probability.
    event
        What the event is called, to name it in an error.

    Raises
    ------
    OutcomeError
        If no counted time has both a value and a prediction.
    """
    use = path.counted
    if not use.any():
        raise OutcomeError(
            f"No time after the event {event}".rstrip() + " has a value and a prediction.",
            cause="There is nothing to compare.",
            next_step="Check the outcome and the controls after the event.",
        )
    observed = float(path.observed[use].sum())
    part: slice | NDArray[np.bool_] = slice(None) if use.all() else use
    totals = path.counterfactual[:, part].sum(1)
    center = totals if expected is None else expected[:, part].sum(1)
    n = int(use.sum())
    notes: list[str] = []
    left_out = int(path.post.sum()) - n
    if left_out:
        notes.append(
            f"{left_out} of {path.post.sum()} times after the event are not counted: they have no "
            "value, or no prediction."
        )
    ends = [0.5 - path.level / 2, 0.5 + path.level / 2]
    relative, reason = _relative(observed, totals, ends)
    notes.extend([reason] if reason else [])
    low, high = np.quantile(totals, ends)
    sd = totals.std(ddof=1)
    parts = np.array([observed, center.mean(), sd, low, high])
    parts = np.concatenate([parts, [observed - parts[1], sd, observed - high, observed - low]])
    values = np.stack([np.append(parts / size, relative) for size in (n, 1)])
    below, above = int((totals <= observed).sum()), int((totals >= observed).sum())
    tail = (1 + min(below, above)) / (1 + totals.size)
    p_value = tail if compatible else min(1.0, 2.0 * tail)
    return ImpactSummary(pd.DataFrame(values, ROWS, COLUMNS), p_value, n, tuple(notes))


def _relative(observed: float, totals: Float64, ends: list[float]) -> tuple[list[float], str]:
    """Relative effect with its spread, and what must be known to read it (NaN and why)."""
    if totals.min() <= 0 <= totals.max():
        reason = "No relative effect: the prediction may be zero, and nothing relates to zero."
        return [math.nan] * len(RELATIVE), reason
    ratio = observed / totals - 1.0
    reason = ""
    if totals.max() < 0:
        reason = "The prediction is below zero: a negative relative effect is one towards zero."
    return [ratio.mean(), ratio.std(ddof=1), *np.quantile(ratio, ends)], reason
