"""Whether an effect is more than a trend that was there before and goes on."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from scipy import stats

from eocausal.checks.base import CheckResult, Verdict
from eocausal.checks.impact_question import Question, column, excludes_zero, question_of, row
from eocausal.errors import EstimationError
from eocausal.estimators.structural_design import harmonics
from eocausal.estimators.structural_model import StructuralModel, Trend
from eocausal.estimators.structural_priors import CompatiblePrior, LearnedPrior

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from eocausal.estimators.impact import Impact

    Float64 = NDArray[np.float64]

__all__ = ["Drift", "Slope", "slope_before"]

NAME = "A trend that goes on"
LIMITS = (
    "A line fitted before the event need not go on after it, and an effect that grows steadily "
    "cannot be told from a line that bends: what the line takes may be trend or effect."
)


@dataclass(frozen=True, slots=True)
class Slope:
    """A straight line through the times before an event.

    Attributes
    ----------
    per_step
        Change from one time to the next.
    std_error
        Of it, autocorrelation of what is left allowed for (first order).
    p_value
        Of no slope, two-sided.
    """

    per_step: float
    std_error: float
    p_value: float


def slope_before(
    y: Float64, before: NDArray[np.bool_], others: Float64, steps: NDArray[np.int64] | None = None
) -> Slope:
    """Fit a line, with other columns, to the times before an event by least squares.

    The standard error is that of independent residuals times sqrt((1 + r)/(1 - r)), r their first
    autocorrelation with its bias of about (1 + 4 r)/n added (Kendall 1954), as for the slope of a
    long series with first-order noise.

    Parameters
    ----------
    y
        (T,) values, NaN where missing.
    others
        (T, k) further columns, NaN where missing.
    """
    use = before & np.isfinite(y) & np.isfinite(others).all(1)
    at = np.flatnonzero(use) if steps is None else steps[use]
    line = at - at.mean()
    columns = np.column_stack([line, np.ones(len(at)), others[use]])
    n, k = columns.shape
    if n - k < 3:
        return Slope(math.nan, math.nan, math.nan)
    beta, _, rank, _ = np.linalg.lstsq(columns, y[use], rcond=None)
    if rank < k:
        return Slope(math.nan, math.nan, math.nan)
    left = y[use] - columns @ beta
    pairs = np.diff(np.flatnonzero(use)) == 1
    r = float((left[1:] * left[:-1])[pairs].sum() / (left**2).sum()) if pairs.any() else 0.0
    r = float(np.clip(r + (1.0 + 4.0 * max(r, 0.0)) / n, -0.95, 0.95))
    spread = math.sqrt(max((1.0 + r) / (1.0 - r), 1.0))
    variance = float((left**2).sum()) / (n - k) * np.linalg.inv(columns.T @ columns)[0, 0]
    error = math.sqrt(variance) * spread
    worth = max((n - k) / spread**2, 2.0)
    p = 2.0 * stats.t.sf(abs(float(beta[0])) / error, worth) if error > 0 else math.nan
    return Slope(float(beta[0]), error, float(p))


@dataclass(frozen=True, slots=True)
class Drift:
    """Check that the effect is not merely a trend from before the event that goes on.

    The effect is estimated once with a level and once with a straight line beside it, fitted
    before the event and continued after it. What the line takes from the effect is called
    explained by the trend.

    Parameters
    ----------
    most
        Warn if the line explains more than this share of the effect.
    """

    most: float = 0.5

    def __post_init__(self) -> None:
        if not 0 < self.most < 1:
            raise EstimationError(
                f"most={self.most} is no share.",
                cause="It is the part of the effect that a trend may explain.",
                next_step="Use e.g. Drift(most=0.5).",
            )

    def run(self, subject: Impact) -> CheckResult:
        """Compare the effect with a line and without."""
        question = question_of(subject)
        own = question.model.trend
        level = replace(question.model, trend=Trend.LEVEL)
        rows = [
            {"model": "level", **row(question.averages(model=level), 0)},
            {"model": "level and line", **row(question.averages(model=_lined(level)), 0)},
        ]
        if own not in (Trend.LEVEL, Trend.LINE):
            rows.append({"model": f"{own} (the impact's)", **row(question.averages(), 0)})
        table = pd.DataFrame(rows)
        raw, given = _slopes(question)
        year = question.regular.period
        unit, times = ("year", year) if year is not None else ("time", 1.0)
        first, second = column(table, "estimate")[:2]
        explained = 1.0 - second / first if first else math.nan
        sure = excludes_zero(*_ends(table))
        values: dict[str, Any] = {
            "slope": raw.per_step * times, "slope_se": raw.std_error * times,
            "slope_p": raw.p_value, "slope_with_controls": given.per_step * times,
            "slope_with_controls_se": given.std_error * times,
            "slope_with_controls_p": given.p_value, "slope_per": unit, "estimate_level": first,
            "estimate_line": second, "explained": explained,
        }  # fmt: skip
        verdict, detail = self._judge(table, sure, explained, own)
        claim = _claim(question, table, values)
        return CheckResult(NAME, verdict, claim, f"{detail} {LIMITS}".strip(), table, values)

    def _judge(
        self, table: pd.DataFrame, sure: NDArray[np.bool_], explained: float, own: Trend
    ) -> tuple[Verdict, str]:
        level, line = bool(sure[0]), bool(sure[1])
        opposite = np.prod(column(table, "estimate")[:2]) < 0
        if level and (not line or opposite):
            text = (
                "The event may merely continue what was under way before it: with the line of the "
                "years before, the interval includes zero or the sign turns."
            )
            stated = "The impact has the line in its model, and says so." if own == "line" else ""
            return (Verdict.WARN if stated else Verdict.FAIL), f"{text} {stated}".strip()
        if line and not level:
            return Verdict.WARN, (
                "Only with a line does the effect exclude zero: it rests on the trend before the "
                "event going on."
            )
        if not level and not line:
            return Verdict.PASS, "No effect is claimed with either."
        if explained > self.most:
            return Verdict.WARN, (
                "More of the effect is explained by the trend before the event than is left."
            )
        return Verdict.PASS, ""


def _lined(model: StructuralModel) -> StructuralModel:
    """Return the model with a line beside the level; only our prior has one."""
    if isinstance(model.prior, CompatiblePrior):
        return replace(model, trend=Trend.LINE, prior=LearnedPrior(), engine=None)
    return replace(model, trend=Trend.LINE)


def _slopes(question: Question) -> tuple[Slope, Slope]:
    """Return the slope before the event with the season alone, and with controls."""
    waves = [harmonics(len(question.y), season) for season in question.model.seasons]
    season = np.concatenate([np.zeros((len(question.y), 0)), *waves], 1)
    x = question.controls.to_numpy(dtype=float)
    both = np.concatenate([season, x], 1)
    return (
        slope_before(question.y, question.before, season),
        slope_before(question.y, question.before, both),
    )


def _claim(question: Question, table: pd.DataFrame, values: dict[str, Any]) -> str:
    unit = values["slope_per"]
    p = values["slope_p"]
    moved = "rose" if values["slope"] > 0 else "fell"
    drift = (
        f"Before the event {question.name} {moved} by {abs(values['slope']):.3g} a {unit} "
        f"(standard error {values['slope_se']:.2g}, p = {p:.2g}"
    )
    if question.controls.shape[1]:
        drift += (
            f"; given the controls {values['slope_with_controls']:+.3g}, "
            f"p = {values['slope_with_controls_p']:.2g}"
        )
    one, two = (dict(zip(table.columns, r, strict=True)) for r in table.to_numpy()[:2])
    said = _explained(values["explained"]) if excludes_zero(*_ends(table)).any() else ""
    return (
        f"{drift}). The average effect is {one['estimate']:.4g} ({one['ci_low']:.4g} to "
        f"{one['ci_high']:.4g}) with a level, {two['estimate']:.4g} ({two['ci_low']:.4g} to "
        f"{two['ci_high']:.4g}) with a line as well{said}."
    )


def _ends(table: pd.DataFrame) -> tuple[Float64, Float64]:
    return column(table, "ci_low"), column(table, "ci_high")


def _explained(share: float) -> str:
    what = f"{share:.0%}" if 0 <= share <= 1 else "all and more" if share > 1 else "nothing"
    return f": a trend that goes on explains {what} of the effect"
