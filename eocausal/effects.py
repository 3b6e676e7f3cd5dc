"""Results that describe themselves: effect estimates with influence values, effect paths.

An :class:`EffectEstimate` keeps one influence value per unit, scaled so that they sum to the
estimation error and their squares to its variance. Differences, pooling and another clustering
are then exact to first order without refitting (van der Vaart 1998, ch. 20; METHODS D4).
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from enum import StrEnum
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
import pandas as pd
from scipy import stats

from eocausal.contracts import some
from eocausal.errors import AlignmentError, DuplicateIdError, EstimationError

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = [
    "EffectEstimate",
    "EffectPath",
    "Influence",
    "Status",
    "Variance",
    "VarianceRule",
    "difference",
    "pool",
]


class Status(StrEnum):
    """How an estimate came out; part of the answer."""

    OK = "ok"
    WARNED = "warned"
    EXTRAPOLATED = "extrapolated"
    NO_IMAGE = "no_image"
    REFUSED = "refused"


@dataclass(frozen=True, slots=True, eq=False)
class Influence:
    """Influence values of one estimate, one per unit.

    Attributes
    ----------
    labels
        (n,) unit labels.
    raw
        (n,) influence values; they sum to the estimation error to first order.
    hc2
        (n,) the same divided by sqrt(1 - leverage), whose squares sum to the HC2 variance
        (MacKinnon & White 1985). Equal to ``raw`` where there is no leverage to correct.
    df
        Residual degrees of freedom, infinite if the normal distribution is to be used.
    """

    labels: pd.Index
    raw: NDArray[np.float64]
    hc2: NDArray[np.float64]
    df: float = math.inf

    def combine(self, other: Influence, sign: float) -> Influence:
        """Return the influence of ``self + sign * other``, matched by unit label."""
        if self.labels.equals(other.labels):
            labels = self.labels
            pairs = [(self.raw, other.raw), (self.hc2, other.hc2)]
        else:
            labels = self.labels.union(other.labels, sort=False)
            if not labels.is_unique:
                raise AlignmentError(
                    "The units of the two estimates have repeated labels.",
                    cause="Their influence values cannot be matched.",
                    next_step="Give the units tables a unique index.",
                )
            pairs = [
                (_spread(a, self.labels, labels), _spread(b, other.labels, labels))
                for a, b in ((self.raw, other.raw), (self.hc2, other.hc2))
            ]
        raw, hc2 = (a + sign * b for a, b in pairs)
        return Influence(labels, raw, hc2, min(self.df, other.df))

    def scale(self, factor: float) -> Influence:
        """Return the influence of ``factor`` times the estimate."""
        return Influence(self.labels, factor * self.raw, factor * self.hc2, self.df)


def _spread(values: NDArray[np.float64], at: pd.Index, over: pd.Index) -> NDArray[np.float64]:
    out = np.zeros(len(over))
    out[over.get_indexer(at)] = values
    return out


@dataclass(frozen=True, slots=True)
class Variance:
    """A variance, the degrees of freedom to use with it, and what was noticed."""

    value: float
    df: float = math.inf
    note: str = ""


class VarianceRule(Protocol):
    """A decision how units depend on each other (see ``eocausal.estimators.inference``)."""

    def variance(self, influence: Influence, units: pd.DataFrame) -> Variance:
        """Compute the variance of the sum of influence values."""
        ...


@dataclass(frozen=True, slots=True, eq=False)
class EffectEstimate:
    """An effect for a study, with its uncertainty and what is needed to recompute it.

    Make one with :meth:`of`. ``a - b`` and :func:`pool` combine estimates through their
    influence values; :meth:`with_vcov` recomputes the variance for another dependence of units.
    """

    estimand: str
    method: str
    estimate: float
    std_error: float
    df: float
    influence: Influence
    units: pd.DataFrame
    vcov: VarianceRule
    level: float = 0.95
    status: Status = Status.OK
    note: str = ""
    extra: Mapping[str, Any] = field(default_factory=dict)

    @classmethod
    def of(
        cls,
        estimate: float,
        influence: Influence,
        *,
        estimand: str,
        method: str,
        units: pd.DataFrame,
        vcov: VarianceRule,
        level: float = 0.95,
        status: Status = Status.OK,
        note: str = "",
        extra: Mapping[str, Any] | None = None,
    ) -> EffectEstimate:
        """Build an estimate and compute its standard error.

        Parameters
        ----------
        estimate
            Point estimate, in units of the outcome.
        influence
            Influence values of the n units of ``units``.
        units
            Units table; clusters and coordinates for :meth:`with_vcov` are read from it.
        vcov
            How units depend on each other.

        Raises
        ------
        EstimationError
            If the estimate is not finite.
        DuplicateIdError
            If unit labels are not unique.
        """
        if not math.isfinite(estimate):
            raise EstimationError(
                f"The {method} of the {estimand} is {estimate}.",
                cause="Some outcome, weight or prediction is not finite.",
                next_step="Look at the outcome and the covariates of the units named above.",
            )
        if not units.index.is_unique:
            repeated = units.index[units.index.duplicated()].unique()
            raise DuplicateIdError(
                f"{len(repeated)} unit labels occur more than once: {some(repeated)}.",
                cause="Influence values are kept by unit, and these cannot be told apart.",
                next_step="Give the units table a unique index, e.g. with reset_index().",
            )
        variance = vcov.variance(influence, units)
        notes = " ".join(part for part in (note, variance.note) if part)
        if variance.note and status is Status.OK:
            status = Status.WARNED
        std_error = math.sqrt(variance.value) if variance.value >= 0 else math.nan
        return cls(
            estimand, method, float(estimate), std_error, variance.df, influence, units, vcov,
            level, status, notes, dict(extra or {}),
        )  # fmt: skip

    @property
    def n(self) -> int:
        """Number of units."""
        return len(self.influence.labels)

    @property
    def _critical(self) -> float:
        return float(stats.t.ppf(0.5 + self.level / 2, self.df))

    @property
    def ci_low(self) -> float:
        """Lower end of the interval."""
        return self.estimate - self._critical * self.std_error

    @property
    def ci_high(self) -> float:
        """Upper end of the interval."""
        return self.estimate + self._critical * self.std_error

    @property
    def p_value(self) -> float:
        """Two-sided p-value of no effect."""
        if not self.std_error > 0:
            return math.nan
        return float(2 * stats.t.sf(abs(self.estimate / self.std_error), self.df))

    def with_vcov(self, vcov: VarianceRule) -> EffectEstimate:
        """Recompute the variance under another rule, without refitting."""
        return EffectEstimate.of(
            self.estimate, self.influence, estimand=self.estimand, method=self.method,
            units=self.units, vcov=vcov, level=self.level, extra=self.extra,
            status=self.status if self.status is not Status.WARNED else Status.OK,
            note=self.note.removesuffix(self._variance_note()).strip(),
        )  # fmt: skip

    def _variance_note(self) -> str:
        return self.vcov.variance(self.influence, self.units).note

    def __sub__(self, other: EffectEstimate) -> EffectEstimate:
        return difference(self, other)

    def __mul__(self, factor: float) -> EffectEstimate:
        return replace(
            self,
            estimate=factor * self.estimate,
            std_error=abs(factor) * self.std_error,
            influence=self.influence.scale(factor),
        )

    __rmul__ = __mul__

    def record(self) -> dict[str, Any]:
        """Return the record that ``estimates.json`` and every table command print."""
        return {
            "estimand": self.estimand,
            "method": self.method,
            "estimate": self.estimate,
            "std_error": self.std_error,
            "ci_low": self.ci_low,
            "ci_high": self.ci_high,
            "p_value": self.p_value,
            "n": self.n,
            "level": self.level,
            "vcov": repr(self.vcov),
            "status": str(self.status),
            "note": self.note,
            **self.extra,
        }

    def to_frame(self) -> pd.DataFrame:
        """Return the record as a one-row table."""
        return pd.DataFrame([self.record()])

    def summary(self) -> str:
        """Say the estimate in a sentence."""
        return (
            f"{self.estimand} by {self.method}: {self.estimate:.4g} "
            f"({self.level:.0%} interval {self.ci_low:.4g} to {self.ci_high:.4g}, "
            f"SE {self.std_error:.4g}, {self.vcov!r}), n = {self.n:,}."
            + (f" {self.note}" if self.note else "")
        )

    def __repr__(self) -> str:
        return (
            f"EffectEstimate({self.estimand}, {self.method}: {self.estimate:.4f} "
            f"± {self.std_error:.4f} [{self.ci_low:.4f}, {self.ci_high:.4f}], n={self.n}, "
            f"{self.status})"
        )


def difference(a: EffectEstimate, b: EffectEstimate) -> EffectEstimate:
    """Return ``a - b`` with the covariance of the two in its standard error.

    Units are matched by label: labels in common are the same units, labels in only one table
    are independent units. The variance rule is that of ``a``.

    Raises
    ------
    AlignmentError
        If both number their units 0..n-1 but are different tables, so that labels match by
        accident.
    """
    units = _joined_units(a, b)
    return EffectEstimate.of(
        a.estimate - b.estimate,
        a.influence.combine(b.influence, -1.0),
        estimand=a.estimand if a.estimand == b.estimand else f"{a.estimand} - {b.estimand}",
        method=f"({a.method}) - ({b.method})",
        units=units,
        vcov=a.vcov,
        level=a.level,
        status=max(a.status, b.status, key=list(Status).index),
        note=" ".join(dict.fromkeys(e.note for e in (a, b) if e.note)),
    )


def pool(
    estimates: Sequence[EffectEstimate], weights: Sequence[float] | None = None
) -> EffectEstimate:
    """Average estimates with fixed weights (default: inverse variance).

    Parameters
    ----------
    estimates
        At least one; units are matched by label as in :func:`difference`.
    weights
        Non-negative weights, normalised to sum to one.
    """
    if not estimates:
        raise EstimationError(
            "There is nothing to pool.",
            cause="The list of estimates is empty.",
            next_step="Give at least one estimate.",
        )
    if weights is None and not all(e.std_error > 0 for e in estimates):
        raise EstimationError(
            "An estimate to be pooled has no standard error above zero.",
            cause="Its inverse variance is not a weight.",
            next_step="Leave it out, or give weights.",
        )
    raw = [1 / e.std_error**2 for e in estimates] if weights is None else list(weights)
    if len(raw) != len(estimates) or min(raw) < 0 or not sum(raw) > 0:
        raise EstimationError(
            f"{len(raw)} weights {raw} for {len(estimates)} estimates.",
            cause="Weights must be non-negative, one each, and not all zero.",
            next_step="Correct the weights, or leave them out for inverse variances.",
        )
    share = np.asarray(raw, dtype=float) / sum(raw)
    value = share[0] * estimates[0].estimate
    influence = estimates[0].influence.scale(share[0])
    merged = estimates[0]
    for weight, item in zip(share[1:], estimates[1:], strict=True):
        value += weight * item.estimate
        influence = influence.combine(item.influence, weight)
        merged = replace(merged, units=_joined_units(merged, item), influence=influence)
    first = estimates[0]
    return EffectEstimate.of(
        float(value), influence, estimand=first.estimand,
        method="pooled " + ", ".join(dict.fromkeys(e.method for e in estimates)),
        units=merged.units, vcov=first.vcov, level=first.level,
    )  # fmt: skip


def _joined_units(a: EffectEstimate, b: EffectEstimate) -> pd.DataFrame:
    one, two = a.units, b.units
    if one is two:
        return one
    numbered = isinstance(one.index, pd.RangeIndex) and isinstance(two.index, pd.RangeIndex)
    if numbered and not _same_people(one, two):
        raise AlignmentError(
            f"The two estimates number their {a.n} and {b.n} units 0, 1, 2, ...",
            cause="Labels would match by accident, and the covariance would be wrong.",
            next_step="Set a real unit id as index of both tables before estimating.",
        )
    extra = two.loc[~two.index.isin(one.index)]
    return pd.concat([one, extra]) if len(extra) else one


def _same_people(one: pd.DataFrame, two: pd.DataFrame) -> bool:
    """Whether two tables numbered 0, 1, 2, ... are versions of one table: most columns agree."""
    if not one.index.equals(two.index):
        return False
    shared = [c for c in one.columns if c in two.columns]
    return sum(one[c].equals(two[c]) for c in shared) * 2 > len(shared)


@dataclass(frozen=True, slots=True, eq=False)
class EffectPath:
    """An effect over time: what was observed against draws of what would have been.

    Attributes
    ----------
    time
        (T,) times.
    observed
        (T,) the outcome.
    counterfactual
        (draws, T) draws of the outcome without the event; NaN where nothing can be predicted.
    post
        (T,) True where the event is counted.
    level
        Probability of the intervals.
    """

    time: pd.Index
    observed: NDArray[np.float64]
    counterfactual: NDArray[np.float64]
    post: NDArray[np.bool_]
    level: float = 0.95

    @property
    def counted(self) -> NDArray[np.bool_]:
        """(T,) True where the event is counted and there are a value and a prediction."""
        predicted = np.isfinite(self.counterfactual).all(axis=0)
        return np.asarray(self.post & np.isfinite(self.observed) & predicted)

    @property
    def pointwise(self) -> NDArray[np.float64]:
        """(draws, T) draws of the effect at each time."""
        return self.observed - self.counterfactual

    @property
    def cumulative(self) -> NDArray[np.float64]:
        """(draws, T) draws of the running sum of the effect over the post-period."""
        return np.cumsum(np.where(self.counted, np.nan_to_num(self.pointwise), 0.0), axis=1)

    def average(self) -> dict[str, float]:
        """Mean effect over the counted times, with interval and two-sided tail probability."""
        use = self.counted
        return self._told(self.pointwise[:, use].mean(axis=1), int(use.sum()))

    def relative(self) -> dict[str, float]:
        """Effect over the counted times as a share of what would have been, with interval.

        All NaN where what would have been may be zero: nothing relates to zero.
        """
        use = self.counted
        total = self.counterfactual[:, use].sum(axis=1)
        if not use.any() or total.min() <= 0 <= total.max():
            total = np.full_like(total, np.nan)
        return self._told(self.observed[use].sum() / total - 1.0, int(use.sum()))

    def _told(self, draws: NDArray[np.float64], n: int) -> dict[str, float]:
        low, high = np.quantile(draws, self._ends)
        return {
            "estimate": float(draws.mean()),
            "std_error": float(draws.std(ddof=1)),
            "ci_low": float(low),
            "ci_high": float(high),
            "p_value": float(_two_sided(draws)),
            "n": n,
        }

    @property
    def _ends(self) -> list[float]:
        return [0.5 - self.level / 2, 0.5 + self.level / 2]

    def to_frame(self) -> pd.DataFrame:
        """Return a row per time: observed, counterfactual and effects with intervals.

        ``p_value`` is the two-sided tail probability of the effect at that time alone: of many
        times some are small by chance.
        """
        frame = pd.DataFrame({"observed": self.observed}, index=self.time)
        for name, draws in (
            ("counterfactual", self.counterfactual),
            ("effect", self.pointwise),
            ("cumulative", self.cumulative),
        ):
            low, high = np.quantile(draws, self._ends, axis=0)
            frame[name] = draws.mean(axis=0)
            frame[f"{name}_low"], frame[f"{name}_high"] = low, high
        frame["p_value"] = _two_sided(self.pointwise)
        frame["post"] = self.post
        return frame

    def __repr__(self) -> str:
        a = self.average()
        return (
            f"EffectPath({len(self.time)} times, average {a['estimate']:.4g} "
            f"[{a['ci_low']:.4g}, {a['ci_high']:.4g}], p = {a['p_value']:.3g})"
        )


def _two_sided(draws: NDArray[np.float64]) -> NDArray[np.float64]:
    """Twice the smaller tail beyond zero, the observed counted in; NaN where a draw is."""
    tail = np.minimum((draws <= 0).sum(axis=0), (draws >= 0).sum(axis=0))
    share = np.minimum(1.0, 2.0 * (1 + tail) / (1 + len(draws)))
    return np.asarray(np.where(np.isnan(draws).any(axis=0), np.nan, share))
