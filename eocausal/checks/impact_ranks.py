"""Where an effect stands among placebos, and what placebos say of the stated uncertainty.

By rank, p = (1 + placebos at least as large) / (1 + placebos). That is exact if effect and placebos
may be exchanged and are independent. Overlapping windows and neighbouring places are not: many of
them may be worth three, and the effect then tops all of them more often than their number says. So
the rank is given a second time with the number that the placebos are worth,
(1 + share * worth) / (1 + worth), which cannot be small where that is. By spread, the root mean
square of the placebos' normal scores takes the place of the standard error, and Student's t with as
many degrees of freedom as they are worth that of the normal law: it needs scores that are about
normal, and can say something with few placebos. The sizes of all three are held by
``tests/calibration/test_impact_placebo_calibration.py``.
"""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from scipy import stats

from eocausal.checks.base import Verdict

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Float64 = NDArray[np.float64]

__all__ = ["PlaceboRank", "judge", "p_words", "rank_among", "spread_words"]

WIDER = 1.25


@dataclass(frozen=True, slots=True)
class PlaceboRank:
    """An effect among placebos.

    Attributes
    ----------
    placebos
        How many.
    independent
        How many independent ones they are worth.
    at_least
        Placebos with a statistic at least as large as the effect's.
    p_value, smallest
        (1 + at_least) / (1 + placebos), and the smallest it could be.
    p_independent, smallest_independent
        The same with the number that they are worth.
    rejected
        Placebos whose interval excludes zero; ``expected`` of them were to be.
    spread
        Root mean square of the placebos' normal scores: one if standard errors are right, 1.5 if
        they should be half as large again. NaN for statistics without standard errors.
    p_spread
        Probability of a spread as large or larger if they are right, by chi-squared with as many
        degrees of freedom as the placebos are worth.
    p_scaled
        Of the effect, two-sided, with the placebos' spread for its standard error: by Student's t
        with as many degrees of freedom as the placebos are worth.
    """

    placebos: int
    independent: float
    at_least: int
    p_value: float
    smallest: float
    p_independent: float
    smallest_independent: float
    rejected: int
    expected: float
    spread: float
    p_spread: float
    p_scaled: float

    def values(self) -> dict[str, Any]:
        """Return the numbers by name."""
        return asdict(self)


def rank_among(
    statistic: float,
    placebos: Float64,
    independent: float,
    *,
    score: float = math.nan,
    scores: Float64 | None = None,
    alpha: float = 0.05,
    rejected: int = 0,
) -> PlaceboRank:
    """Place an effect among placebos.

    Parameters
    ----------
    statistic, placebos
        The effect's, and (N,) the placebos', all finite; larger is further from no effect.
    independent
        What the placebos are worth, at most N.
    score, scores
        Normal score of the effect, and (N,) of the placebos; none for statistics without.
    rejected
        Placebos whose interval of level 1 - alpha excludes zero.
    """
    count = len(placebos)
    worth = min(max(independent, 1.0), float(count))
    at_least = int((placebos >= statistic).sum())
    spread = p_spread = p_scaled = math.nan
    if scores is not None:
        square = float(np.mean(scores**2))
        spread, p_spread = math.sqrt(square), float(stats.chi2.sf(worth * square, worth))
        p_scaled = float(2.0 * stats.t.sf(abs(score) / max(spread, 1e-300), worth))
    return PlaceboRank(
        count, worth, at_least, (1 + at_least) / (1 + count), 1 / (1 + count),
        (1 + at_least / count * worth) / (1 + worth), 1 / (1 + worth), rejected, alpha * count,
        spread, p_spread, p_scaled,
    )  # fmt: skip


def spread_words(rank: PlaceboRank) -> str:
    """Say how many placebos exclude zero, and how their scores spread."""
    return (
        f"{rank.rejected} of {rank.placebos} have an interval that excludes zero, where "
        f"{rank.expected:.1f} are expected; their scores spread by {rank.spread:.2f}, 1 if "
        f"standard errors are right (p = {rank.p_spread:.2g})."
    )


def judge(rank: PlaceboRank, claimed: bool, alpha: float) -> tuple[Verdict, str]:
    """Return a verdict and what it means; ``claimed`` if the effect's interval excludes zero."""
    if rank.p_spread < alpha and rank.spread > WIDER:
        wider = (
            f"Intervals are too narrow here: standard errors should be about {rank.spread:.1f} "
            "times as large. The model misses how the series moves by itself; look at drift, "
            "season and controls."
        )
        if not claimed:
            return Verdict.WARN, wider
        if rank.p_scaled <= alpha:
            return Verdict.WARN, f"{wider} The effect stands out from the placebos all the same."
        return Verdict.FAIL, f"{wider} With these the effect does not stand out."
    if not claimed:
        return Verdict.PASS, "No effect is claimed, so that none has to stand out."
    if rank.at_least and rank.p_value > alpha:
        text = (
            f"{rank.at_least} of {rank.placebos} placebos are at least as large as the effect, "
            "though nothing happened there."
        )
        return (Verdict.WARN if rank.smallest > alpha else Verdict.FAIL), text
    few = (
        f"They are worth {rank.independent:.1f} independent ones, of which no rank gives a p-value "
        f"below {rank.smallest_independent:.2f}"
    )
    if rank.p_independent <= alpha or rank.p_scaled <= alpha:
        return Verdict.PASS, "" if rank.p_independent <= alpha else f"{few}: their spread decides."
    if rank.smallest_independent > alpha:
        return Verdict.WARN, f"{few}: so few cannot set the effect apart."
    return Verdict.WARN, "Counted by what they are worth, they do not set the effect apart."


def p_words(rank: PlaceboRank) -> str:
    """Say the p-values."""
    text = f"p = {rank.p_value:.2g} by rank ({rank.smallest:.2g} at the least)"
    text += f", {rank.p_independent:.2g} as they are worth {rank.independent:.1f} independent ones"
    return text if math.isnan(rank.p_scaled) else f"{text}, {rank.p_scaled:.2g} by their spread"
