"""Many effects at once: intervals that all hold together, and the share of false discoveries."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from scipy import stats

from eocausal.effects import EffectEstimate, Status
from eocausal.errors import EstimationError
from eocausal.estimators.joint_covariance import joint_covariance_of

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = [
    "Simultaneous",
    "benjamini_hochberg",
    "simultaneous",
]


@dataclass(frozen=True, slots=True, eq=False)
class Simultaneous:
    """Estimates with intervals that hold together.

    Attributes
    ----------
    estimates
        All estimates given, in their order.
    critical
        Standard errors on either side of an estimate; the most, where degrees of freedom differ.
    joint
        (K,) True for the estimates that share the level; refused ones do not.
    p_joint
        (K,) probability that the largest of the t-statistics of no effect at all is as large as
        this one; NaN where ``joint`` is False.
    level
        Joint level.
    halves
        (K,) half widths of the intervals; NaN where ``joint`` is False.
    """

    estimates: tuple[EffectEstimate, ...]
    critical: float
    joint: NDArray[np.bool_]
    p_joint: NDArray[np.float64]
    level: float
    halves: NDArray[np.float64]

    def records(self) -> list[dict[str, Any]]:
        """Return the record of each estimate with its joint interval and p- and q-values.

        Beside the columns of :meth:`EffectEstimate.record`: ``joint_low``, ``joint_high``,
        ``p_joint``, and ``q_value`` of :func:`benjamini_hochberg`.
        """
        kept = np.array([e.p_value for e in self.estimates], dtype=float)
        q = benjamini_hochberg(np.where(self.joint, kept, np.nan))
        rows = []
        for k, item in enumerate(self.estimates):
            half = float(self.halves[k])
            rows.append(
                {
                    **item.record(),
                    "joint_low": item.estimate - half,
                    "joint_high": item.estimate + half,
                    "p_joint": float(self.p_joint[k]),
                    "q_value": float(q[k]),
                }
            )
        return rows

    def to_frame(self) -> pd.DataFrame:
        """Return a row per estimate."""
        return pd.DataFrame(self.records())

    def summary(self) -> str:
        """Say how many effects are told from none."""
        found = int((self.p_joint[self.joint] < 1 - self.level).sum())
        out = len(self.estimates) - int(self.joint.sum())
        own = [
            half / item.std_error
            for half, item, use in zip(self.halves, self.estimates, self.joint, strict=True)
            if use
        ]
        least = f"{min(own):.2f} to " if self.critical - min(own) >= 0.005 else ""
        text = (
            f"{found} of {int(self.joint.sum())} effects differ from none with intervals that all "
            f"hold together at {self.level:.0%} (±{least}{self.critical:.2f} standard errors)."
        )
        return text + (f" {out} refused and left out." if out else "")


def simultaneous(
    estimates: Sequence[EffectEstimate],
    *,
    level: float = 0.95,
    seed: int = 0,
    draws: int = 20_000,
) -> Simultaneous:
    """Widen intervals until all of them hold at once with probability ``level``.

    The largest |t| is simulated from the normal distribution with the covariance of the estimates
    (max-t; Montiel Olea & Plagborg-Møller 2019, Journal of Applied Econometrics 34:1; for
    influence values Belloni et al. 2018), divided by χ with each estimate's own degrees of freedom
    and in step with each other. Where these differ, the smallest p-value takes the place of the
    largest |t|, so that an estimate with few widens its own interval and hardly those of others.
    The covariance comes from the joint influence values under the variance rule of the
    estimates, so that effects that share controls or neighbours cost less than independent ones.

    Parameters
    ----------
    estimates
        Effects on units matched by label, as in :func:`~eocausal.effects.difference`, under one
        variance rule. Refused ones and such without a standard error are carried along and count
        for nothing.
    level
        Joint level.
    seed
        Of the draws.
    draws
        Number of draws.

    Raises
    ------
    EstimationError
        If no estimate can be used, or variance rules differ.
    AlignmentError
        If units are numbered 0, 1, 2, ... but are not the same.
    """
    if not 0 < level < 1:
        raise EstimationError(
            f"{level} is no level.",
            cause="It is the probability that all intervals hold.",
            next_step="Give a number between 0 and 1, e.g. 0.95.",
        )
    joint = np.array([e.status is not Status.REFUSED and e.std_error > 0 for e in estimates])
    used = [e for e, use in zip(estimates, joint, strict=True) if use]
    if not used:
        raise EstimationError(
            f"None of {len(estimates)} estimates can be used.",
            cause="Each is refused or has no standard error above zero.",
            next_step="Look at their notes.",
        )
    rule = used[0].vcov
    other = next((e.vcov for e in used if e.vcov != rule), None)
    if other is not None:
        raise EstimationError(
            f"The estimates have the variances {rule!r} and {other!r}.",
            cause="Their covariance is only known under a common one.",
            next_step="Give them one with with_vcov().",
        )
    covariance = joint_covariance_of(used)
    df = np.array([e.df for e in used])
    error = np.array([e.std_error for e in used])
    draw = _t_draws(covariance, df, draws, np.random.default_rng(seed))
    least = np.sort(_tails(np.abs(draw), df).min(axis=1))
    own = _tails(np.array([[abs(e.estimate) for e in used]]) / error, df)[0]
    p = np.full(len(joint), np.nan)
    p[joint] = (1 + np.searchsorted(least, own, side="right")) / (1 + len(least))
    tail = min(float(np.quantile(least, 1 - level)), 1 - level)
    critical = stats.t.isf(tail / 2, df)
    halves = np.full(len(joint), np.nan)
    halves[joint] = critical * error
    return Simultaneous(tuple(estimates), float(critical.max()), joint, p, level, halves)


def _t_draws(
    covariance: NDArray[np.float64],
    df: NDArray[np.float64],
    draws: int,
    rng: np.random.Generator,
) -> NDArray[np.float64]:
    """Draw (draws, K) t-statistics of no effects."""
    scale = np.sqrt(np.diag(covariance))
    value, vector = np.linalg.eigh(covariance / np.outer(scale, scale))
    root = vector * np.sqrt(np.maximum(value, 0.0))
    root /= np.sqrt((root**2).sum(axis=1))[:, None]
    t = rng.standard_normal((draws, len(scale))) @ root.T
    finite = np.unique(df[np.isfinite(df)])
    common = rng.random(draws) if len(finite) else np.empty(0)
    for freedom in finite:
        t[:, df == freedom] /= np.sqrt(stats.chi2.ppf(common, freedom) / freedom)[:, None]
    return np.asarray(t)


def _tails(t: NDArray[np.float64], df: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the two-sided p-values of (..., K) statistics."""
    return np.asarray(2 * stats.t.sf(t, df))


def benjamini_hochberg(
    p_values: Sequence[float] | NDArray[np.float64],
) -> NDArray[np.float64]:
    """Turn p-values into q-values: the false discovery rate at which each would be reported.

    q₍ᵢ₎ = min_{j ≥ i} m p₍ⱼ₎ / j over the m finite p-values (Benjamini & Hochberg 1995, JRSS B
    57:289; valid for independent and positively dependent tests).

    Parameters
    ----------
    p_values
        (K,) in [0, 1]; NaN for what was not tested, which stays NaN and is not counted.

    Returns
    -------
    (K,) q-values, in the order given and never smaller than the p-values.

    Raises
    ------
    EstimationError
        If a value is not in [0, 1].
    """
    p = np.asarray(p_values, dtype=float)
    tested = ~np.isnan(p)
    if not ((p[tested] >= 0) & (p[tested] <= 1)).all():
        raise EstimationError(
            "Some p-values are not in [0, 1].",
            cause="They are not probabilities.",
            next_step="Give p-values, and NaN for what was not tested.",
        )
    order = np.flatnonzero(tested)[np.argsort(p[tested], kind="stable")]
    m = len(order)
    q = np.full(p.shape, np.nan)
    raised = p[order] * m / np.arange(1, m + 1)
    q[order] = np.minimum(np.minimum.accumulate(raised[::-1])[::-1], 1.0)
    return q
