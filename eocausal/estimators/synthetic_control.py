"""A control mixed from many: weights fitted to the times before the event.

Abadie, Diamond & Hainmueller (2010, Journal of the American Statistical Association 105:493), with
every value before the event as a predictor. Series are centred first, so that a donor that is
always higher may still move alike (Doudchenko & Imbens 2016; Ferman & Pinto 2021, Quantitative
Economics 12:1197). The result is a series: give it to :func:`eocausal.bsts` as a control, which
then says how well it predicts and how sure that is.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from eocausal.contracts import some
from eocausal.designs import parse_date
from eocausal.errors import EstimationError, OutcomeError
from eocausal.estimators.structural_design import harmonics
from eocausal.estimators.structural_model import Season
from eocausal.estimators.synthetic_control_weights import simplex_weights

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Float64 = NDArray[np.float64]

__all__ = ["Match", "SyntheticControl", "synthetic_control"]

FEWEST = 12
LEARNED = 2.0 / 3.0
SEEN = 1e-6


class Match(StrEnum):
    """What of the series is matched.

    ``values``: as they are (Abadie et al.). ``level``: less their mean before the event.
    ``standard``: less their mean and over their standard deviation, for donors in other units.
    """

    VALUES = "values"
    LEVEL = "level"
    STANDARD = "standard"


@dataclass(frozen=True, slots=True, eq=False)
class SyntheticControl:
    """A mixture of donors.

    Attributes
    ----------
    series
        The mixture over the whole record, at the level and scale that was matched, season
        included; NaN where a donor with weight is missing.
    weights
        Weight of each donor; they are not negative and sum to one.
    rmse
        Root mean squared difference to the outcome before the event, season taken out if it was.
    rmse_ahead
        The same over the last third of these times with weights (and levels) from the first two
        thirds: what ``rmse`` would be if it were not fitted.
    rmse_equal
        As ``rmse_ahead`` with equal weights.
    donors
        Effective number of donors, 1 / sum of squared weights.
    n
        Times matched.
    match, ridge
        What was asked.
    """

    series: pd.Series
    weights: pd.Series
    rmse: float
    rmse_ahead: float
    rmse_equal: float
    donors: float
    n: int
    match: Match
    ridge: float

    def __repr__(self) -> str:
        return (
            f"SyntheticControl({int((self.weights > SEEN).sum())} of {len(self.weights)} donors, "
            f"effectively {self.donors:.1f}; RMSE before the event {self.rmse:.4g}, held out "
            f"{self.rmse_ahead:.4g}, n = {self.n})"
        )

    def to_frame(self) -> pd.DataFrame:
        """Return donors with their weights, the largest first."""
        return self.weights.sort_values(ascending=False, kind="stable").to_frame("weight")

    def summary(self) -> str:
        """Say in words what was mixed and how well it fits."""
        largest = self.to_frame()["weight"].iloc[:3]
        named = ", ".join(f"{name} {share:.0%}" for name, share in largest.items() if share > SEEN)
        text = (
            f"A mixture of {int((self.weights > SEEN).sum())} of {len(self.weights)} donors "
            f"({named}; worth {self.donors:.1f} in equal parts) misses the outcome by "
            f"{self.rmse:.4g} over the {self.n} times it was fitted to, and by "
            f"{self.rmse_ahead:.4g} over the last third of them when fitted to the others."
        )
        if self.rmse_ahead >= self.rmse_equal:
            text += (
                f" Equal weights miss by {self.rmse_equal:.4g} there: fitting them gains nothing."
            )
        return text


def synthetic_control(
    outcome: pd.Series,
    donors: pd.DataFrame,
    before: str,
    *,
    match: Match = Match.STANDARD,
    season: int | Season | None = None,
    ridge: float = 0.0,
) -> SyntheticControl:
    """Mix donors so that they move as the outcome did before an event.

    Parameters
    ----------
    outcome
        Series over dates, NaN where missing.
    donors
        Columns that the event did not reach, matched by date. Times before the event at which
        one is missing are not matched: average pixels to regions first.
    before
        Only times before this ISO date are fitted.
    match
        What of the series is matched.
    season
        Pattern to take out before matching, so that a common season does not decide.
    ridge
        Spreads the weights: added are ``ridge`` times their sum of squares, beside the mean
        squared difference in standard deviations of the outcome.

    Raises
    ------
    EstimationError
        If a donor is the outcome or does not vary, or ridge is below zero.
    OutcomeError
        If there are fewer than 12 times with all values, or the outcome does not vary.
    """
    if not ridge >= 0:
        raise EstimationError(
            f"ridge={ridge} is below zero.",
            cause="It would draw all weight to one donor.",
            next_step="Give zero or more, such as 0.1.",
        )
    table = donors.reindex(outcome.index)
    past = np.asarray(outcome.index < parse_date(before, what="before"))
    y, x = outcome.to_numpy(dtype=float), table.to_numpy(dtype=float)
    use = past & np.isfinite(y) & np.isfinite(x).all(1)
    _check(outcome, table, past, use, season)
    waves = _waves(len(y), season)
    whole = _fit(y, x, use, waves, match, ridge)
    at = np.flatnonzero(use)
    early = np.isin(np.arange(len(y)), at[: round(LEARNED * len(at))])
    first = _fit(y, x, early, waves, match, ridge)
    even = _Fitted(np.full(x.shape[1], 1.0 / x.shape[1]), first.center, first.scale, first.season)
    late = use & ~early
    return SyntheticControl(
        pd.Series(whole.series(x), outcome.index, name="synthetic control"),
        pd.Series(whole.weights, table.columns, name="weight"),
        whole.rmse(y, x, use, waves), first.rmse(y, x, late, waves), even.rmse(y, x, late, waves),
        float(1.0 / (whole.weights**2).sum()), int(use.sum()), match, ridge,
    )  # fmt: skip


@dataclass(frozen=True, slots=True, eq=False)
class _Fitted:
    """Weights with what was taken out: center, scale and season, the outcome's first."""

    weights: Float64
    center: Float64
    scale: Float64
    season: Float64

    def series(self, x: Float64) -> Float64:
        z = (x - self.center[1:]) / self.scale[1:]
        mixed = np.where(self.weights > 0, z, 0.0) @ self.weights
        return np.asarray(self.center[0] + self.scale[0] * mixed)

    def rmse(self, y: Float64, x: Float64, at: NDArray[np.bool_], waves: Float64) -> float:
        mixed = self.season[:, 0] - self.scale[0] * (
            self.season[:, 1:] / self.scale[1:] @ self.weights
        )
        gap = y - self.series(x) - waves @ mixed
        return float(np.sqrt(np.mean(gap[at] ** 2)))


def _fit(
    y: Float64, x: Float64, use: NDArray[np.bool_], waves: Float64, match: Match, ridge: float
) -> _Fitted:
    both = np.column_stack([y, x])[use]
    center = both.mean(0) if match is not Match.VALUES else np.zeros(both.shape[1])
    base = np.column_stack([np.ones(use.sum()), waves[use]])
    season = np.linalg.lstsq(base, both, rcond=None)[0][1:]
    left = both - center - waves[use] @ season
    sd = left.std(0, ddof=1)
    scale = sd if match is Match.STANDARD else np.full(len(sd), sd[0])
    z = left / scale
    weights = simplex_weights(z[:, 0], z[:, 1:], ridge)
    scale = scale if match is Match.STANDARD else np.ones(len(sd))
    return _Fitted(weights, center, scale, season)


def _waves(times: int, season: int | Season | None) -> Float64:
    if season is None:
        return np.zeros((times, 0))
    return harmonics(times, Season(season) if isinstance(season, int) else season)


def _check(
    outcome: pd.Series,
    table: pd.DataFrame,
    past: NDArray[np.bool_],
    use: NDArray[np.bool_],
    season: int | Season | None,
) -> None:
    need = FEWEST + _waves(1, season).shape[1]
    if use.sum() < need or not table.shape[1]:
        gaps = table[past].isna().mean().sort_values(ascending=False)
        raise OutcomeError(
            f"{use.sum()} times before the event have the outcome and all {table.shape[1]} "
            f"donors, {need} are needed; {some(gaps.index[:3])} miss most.",
            cause="A mixture needs all its parts at a time.",
            next_step="Average pixels to regions, or leave out donors with gaps.",
        )
    y, x = outcome.to_numpy(dtype=float)[use], table.to_numpy(dtype=float)[use]
    if not y.std() > 1e-10 * abs(y.mean()):
        raise OutcomeError(
            "The outcome does not vary before the event.",
            cause="There is nothing to match.",
            next_step="Check the series.",
        )
    flat = ~(x.std(0) > 1e-10 * np.abs(x.mean(0)))
    centred = np.where(flat, 0.0, x - x.mean(0))
    size = np.sqrt((centred**2).sum(0) * ((y - y.mean()) ** 2).sum())
    r = np.where(flat, 0.0, centred.T @ (y - y.mean()) / np.where(flat, 1.0, size))
    bad = flat | (np.abs(r) > 1.0 - 1e-12)
    if bad.any():
        raise EstimationError(
            f"Some donors do not vary or are the outcome itself: {some(table.columns[bad])}.",
            cause="The first say nothing, the second know the effect.",
            next_step="Leave them out.",
        )
