"""Whether weights make the arms alike in what they were to make alike (the love plot)."""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import combinations
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from scipy import stats

from eocausal.checks.base import CheckResult, Verdict
from eocausal.estimators.arm_means import Estimand
from eocausal.estimators.confounders import TABLE

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from eocausal.estimators.weighting import Weighted

__all__ = ["WeightedBalance", "standard_deviations", "weighted_balance", "weighted_means"]

NAME = "Balance after weighting"


def standard_deviations(
    x: NDArray[np.float64], arm: NDArray[np.int64], k: int, estimand: Estimand
) -> NDArray[np.float64]:
    """Return the standard deviations that differences of means are divided by.

    √(mean over arms of the unweighted variances within them) for the ATE and the ATO, that of the
    treated (arm 1) for the ATT; variances are p(1 - p) for columns of zeros and ones and have n - 1
    below otherwise (Austin & Stuart 2015, Statistics in Medicine 34:3661). They do not depend on
    the weights, so that a difference before and after is divided by the same number.

    Parameters
    ----------
    x
        (n, p) columns.
    arm
        (n,) arms 0..k-1.

    Returns
    -------
    (p,), 0 for columns that do not vary within arms.
    """
    arms = [1] if estimand is Estimand.ATT else range(k)
    binary = ((x == 0) | (x == 1)).all(axis=0)
    variances = []
    for a in arms:
        here = x[arm == a]
        mean = here.mean(axis=0)
        square = here.var(axis=0, ddof=1) if len(here) > 1 else np.zeros(x.shape[1])
        variances.append(np.where(binary, mean * (1 - mean), square))
    found = np.sqrt(np.mean(variances, axis=0))
    return np.where(found > 1e-10 * (1 + np.abs(x).max(axis=0)), found, 0.0)


def weighted_means(
    x: NDArray[np.float64], arm: NDArray[np.int64], k: int, weights: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Return (k, p) means of columns by arm, each unit with its weight."""
    share = np.zeros((k, len(x)))
    share[arm, np.arange(len(x))] = weights
    return np.asarray(share @ x / share.sum(axis=1, keepdims=True))


def weighted_balance(subject: Weighted) -> pd.DataFrame:
    """Compare the arms column by column, before and after weighting.

    Of several arms the pair that is furthest apart after weighting is shown. The weights are those
    of the estimate within arms; an outcome model, where there is one, takes care of differences
    that it can express and is not seen here.

    Returns
    -------
    DataFrame
        Indexed by ``covariate``: ``source`` (``table`` or the name of an embedding), ``pair`` of
        arms, ``sd`` (see :func:`standard_deviations`), ``difference_before``,
        ``difference_after`` (in units of the column), ``smd_before``, ``smd_after`` (divided by
        ``sd``; infinite where a column differs between arms and does not vary within). Before and
        after are of the same pair.
    """
    data = subject.data
    x, k = data.confounders.x, len(data.arms)
    sd = standard_deviations(x, data.arm, k, subject.decisions.score.estimand)
    before = weighted_means(x, data.arm, k, np.ones(data.n))
    after = weighted_means(x, data.arm, k, subject.means.weights)
    pairs = list(combinations(range(k), 2))
    gaps = [np.stack([m[b] - m[a] for a, b in pairs]) for m in (before, after)]
    scale = 1 + np.abs(x).max(axis=0, initial=0.0)
    gaps = [np.where(np.abs(gap) > 1e-12 * scale, gap, 0.0) for gap in gaps]
    at = np.abs(gaps[1]).argmax(axis=0)
    old, new = (gap[at, np.arange(x.shape[1])] for gap in gaps)
    names = np.array([f"{data.arms[b]} - {data.arms[a]}" for a, b in pairs], dtype=object)
    return pd.DataFrame(
        {
            "source": np.array(data.confounders.blocks, dtype=object)[data.confounders.block],
            "pair": names[at],
            "sd": sd,
            "difference_before": old,
            "difference_after": new,
            "smd_before": _divided(old, sd),
            "smd_after": _divided(new, sd),
        },
        index=pd.Index(data.confounders.names, name="covariate"),
    )


def _divided(gap: NDArray[np.float64], sd: NDArray[np.float64]) -> NDArray[np.float64]:
    nothing = np.where(gap == 0, 0.0, np.copysign(math.inf, gap))
    return np.where(sd > 0, gap / np.where(sd > 0, sd, 1.0), nothing)


@dataclass(frozen=True, slots=True)
class WeightedBalance:
    """Check standardised mean differences after weighting.

    Columns of the table are judged one by one. Features of images are judged together: so many of
    them differ by chance that only a share beyond what effective sample sizes explain tells.

    Parameters
    ----------
    small
        Difference in standard deviations that is of no concern (Stuart, Lee & Leacy 2013).
    large
        Fail if a column differs by more and no outcome model adjusts for it; warn if one does.
    """

    small: float = 0.1
    large: float = 0.25

    def run(self, subject: Weighted) -> CheckResult:
        """Compare the arms under the weights of the estimate."""
        table = weighted_balance(subject)
        ess = {s.arm: s.ess for s in subject.support}
        by_chance = self._by_chance(np.array(list(ess.values())))
        columns = table[table["source"] == TABLE]
        images = table[table["source"] != TABLE]
        values: dict[str, Any] = {
            "ess": ess,
            "share_by_chance": by_chance,
            "sd": "treated" if subject.decisions.score.estimand is Estimand.ATT else "pooled",
        }
        verdict, claims, rows = Verdict.PASS, [], [columns]
        if len(columns):
            found, claim = self._columns(columns, subject)
            verdict = found
            claims.append(claim)
            values |= _summary(columns, self.small, "table")
        for source, block in images.groupby("source", sort=False):
            values |= _summary(block, self.small, str(source))
            share = values[f"{source}_share_after"]
            rows.append(_worst_row(block, str(source)))
            claims.append(
                f"{share:.0%} of {len(block)} features of {source!r} differ by more than "
                f"{self.small:g} ({values[f'{source}_share_before']:.0%} before, {by_chance:.0%} "
                "expected by chance)."
            )
            if share > by_chance + 0.1 and verdict is Verdict.PASS:
                verdict = Verdict.WARN
        if not claims:
            claims.append("There is no confounder to balance.")
        detail = "" if verdict is Verdict.PASS else self._detail(subject)
        return CheckResult(NAME, verdict, " ".join(claims), detail, pd.concat(rows), values)

    def _by_chance(self, ess: NDArray[np.float64]) -> float:
        """Share of columns that differ by more than ``small`` in arms drawn at random."""
        two = np.sort(ess)[:2]
        return float(2 * stats.norm.sf(self.small / math.sqrt((1 / np.maximum(two, 1.0)).sum())))

    def _columns(self, columns: pd.DataFrame, subject: Weighted) -> tuple[Verdict, str]:
        after = columns["smd_after"].abs().to_numpy()
        at = int(after.argmax())
        over = int((after > self.small).sum())
        claim = (
            f"{over} of {len(columns)} columns differ by more than {self.small:g} standard "
            f"deviations after weighting ({int((columns['smd_before'].abs() > self.small).sum())} "
            f"before); the largest difference is {columns['smd_after'].iloc[at]:.2f} "
            f"({columns.index[at]})."
        )
        if over == 0:
            return Verdict.PASS, claim
        adjusted = subject.decisions.score.needs_outcome
        fail = after[at] > self.large and not adjusted
        return (Verdict.FAIL if fail else Verdict.WARN), claim

    def _detail(self, subject: Weighted) -> str:
        if subject.decisions.score.needs_outcome:
            return (
                "The weights leave differences between arms, and the estimate rests on the outcome "
                "model for them. Try a richer or less penalised propensity model, or weights that "
                "balance exactly (entropy balancing, CBPS)."
            )
        return (
            "The weights leave differences between arms, and nothing else adjusts for them. Use an "
            "outcome model too (AIPW), or weights that balance exactly (entropy balancing, CBPS)."
        )


def _summary(block: pd.DataFrame, small: float, source: str) -> dict[str, Any]:
    out: dict[str, Any] = {}
    for when in ("before", "after"):
        size = block[f"smd_{when}"].abs()
        out[f"{source}_share_{when}"] = float((size > small).mean())
        out[f"{source}_worst_{when}"] = float(size.max())
    return out


def _worst_row(block: pd.DataFrame, source: str) -> pd.DataFrame:
    """Return the row of the feature that is furthest apart after weighting."""
    at = int(block["smd_after"].abs().to_numpy().argmax())
    row = block.iloc[[at]].copy()
    row.index = pd.Index([f"{source} (worst of {len(block)})"], name=block.index.name)
    return row
