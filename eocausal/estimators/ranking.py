"""Does a ranking of places find those that gain more? RATE: AUTOC and Qini.

Yadlowsky, Fleming, Shah, Brunskill & Wager (2025, JASA 120); METHODS D9. Scores and the ranking
must come from different data. One split is as noisy as the effect itself, so that
:func:`rate_over_splits` reports the distribution over repeated splits of whole clusters.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
import pandas as pd
from scipy import stats

from eocausal.contracts import codes
from eocausal.errors import EstimationError, OneClusterError
from eocausal.estimators.learners import (
    EffectLearner,
    TrialArrays,
    outcome_models,
    predict_components,
    scores_from,
    trial_arrays,
)
from eocausal.folds import halves

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    import xarray as xr
    from numpy.typing import NDArray

    from eocausal.designs import Trial

__all__ = ["AUTOC", "Qini", "RankEstimate", "RateDistribution", "rate", "rate_over_splits"]


class Target(Protocol):
    """How the targeting operator characteristic is averaged over shares treated."""

    @property
    def name(self) -> str:
        """Name in records."""
        ...

    def weight(self, share: NDArray[np.float64]) -> NDArray[np.float64]:
        """Weight of the TOC at each share treated."""
        ...


@dataclass(frozen=True, slots=True)
class AUTOC:
    """∫ TOC(q) dq: looks hard at the places ranked first."""

    name: str = "AUTOC"

    def weight(self, share: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return ones."""
        return np.ones_like(share)


@dataclass(frozen=True, slots=True)
class Qini:
    """∫ q TOC(q) dq: looks at all places alike."""

    name: str = "Qini"

    def weight(self, share: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return the share treated."""
        return share


def _rate(
    score: NDArray[np.float64],
    priority: NDArray[np.float64],
    weight: NDArray[np.float64],
    target: Target,
) -> float:
    """RATE of scores sorted by priority, tied priorities sharing their mean score.

    With C = cumsum(w): TOC_k = cumsum(wΓ)/C - ATE, RATE = Σ w·t(C/Σw)·TOC / Σw.
    """
    order = np.argsort(-priority, kind="stable")
    p, w, g = priority[order], weight[order], (score * weight)[order]
    start = np.concatenate([[True], p[1:] != p[:-1]])
    tie = np.cumsum(start) - 1
    mean = np.bincount(tie, g) / np.bincount(tie, w)
    reach = np.cumsum(w)
    toc = np.cumsum(w * mean[tie]) / reach - g.sum() / reach[-1]
    share = reach / reach[-1]
    return float((w * target.weight(share) * toc).sum() / reach[-1])


@dataclass(frozen=True, slots=True)
class RankEstimate:
    """A RATE with its half-sample standard error."""

    target: str
    estimate: float
    std_error: float
    n: int
    n_clusters: int
    level: float = 0.95

    @property
    def ratio(self) -> float:
        """Estimate over standard error."""
        return self.estimate / self.std_error if self.std_error > 0 else float("nan")

    @property
    def p_value(self) -> float:
        """Two-sided p-value of a ranking that is no better than chance."""
        return float(2 * stats.norm.sf(abs(self.ratio)))

    def record(self) -> dict[str, Any]:
        """Return the record that every table command prints."""
        z = float(stats.norm.ppf(0.5 + self.level / 2))
        return {
            "estimand": self.target,
            "method": "RATE",
            "estimate": self.estimate,
            "std_error": self.std_error,
            "ci_low": self.estimate - z * self.std_error,
            "ci_high": self.estimate + z * self.std_error,
            "p_value": self.p_value,
            "n": self.n,
            "n_clusters": self.n_clusters,
        }


def rate(
    scores: NDArray[np.float64] | pd.Series,
    priority: NDArray[np.float64] | pd.Series,
    *,
    target: Target | None = None,
    cluster: NDArray[Any] | pd.Series | None = None,
    weight: NDArray[np.float64] | None = None,
    repetitions: int = 500,
    seed: int = 0,
) -> RankEstimate:
    """Estimate the rank-weighted average treatment effect of a given ranking.

    Parameters
    ----------
    scores
        (n,) doubly robust scores.
    priority
        (n,) priorities, larger first, made without looking at these scores.
    target
        :class:`AUTOC` (default) or :class:`Qini`.
    cluster
        (n,) cluster ids; half-samples are of whole clusters.
    weight
        (n,) sampling weights.
    repetitions
        Half-samples for the standard error: its sd over ⌊G/2⌋ of G clusters drawn without
        replacement, which needs no rescaling.

    Raises
    ------
    EstimationError
        If scores or priorities are not finite or differ in length.
    OneClusterError
        If there are fewer than four clusters.
    """
    target = target or AUTOC()
    g, p = np.asarray(scores, dtype=float), np.asarray(priority, dtype=float)
    w = np.ones_like(g) if weight is None else np.asarray(weight, dtype=float)
    if g.shape != p.shape or g.ndim != 1 or not (np.isfinite(g).all() and np.isfinite(p).all()):
        raise EstimationError(
            f"Scores {g.shape} and priorities {p.shape} must be finite vectors of one length.",
            cause="Units are ranked by one and valued by the other.",
            next_step="Drop units without both.",
        )
    code = (
        np.arange(len(g)) if cluster is None else codes(pd.Series(np.asarray(cluster)), "cluster")
    )
    n_clusters = int(code.max()) + 1
    if n_clusters < 4:
        raise OneClusterError(
            f"There are {n_clusters} clusters.",
            cause="Half-samples of them cannot give a standard error.",
            next_step="Use a finer cluster, or more places.",
        )
    rng = np.random.default_rng(seed)
    draws = np.empty(repetitions)
    for i in range(repetitions):
        chosen = np.zeros(n_clusters, dtype=bool)
        chosen[rng.permutation(n_clusters)[: n_clusters // 2]] = True
        keep = chosen[code]
        draws[i] = _rate(g[keep], p[keep], w[keep], target)
    return RankEstimate(
        target.name, _rate(g, p, w, target), float(draws.std(ddof=1)), len(g), n_clusters
    )


@dataclass(frozen=True, slots=True, eq=False)
class RateDistribution:
    """RATE over repeated splits.

    Attributes
    ----------
    splits
        One row per target and split: ``target, split, estimate, std_error, ratio, p_value``.
    """

    splits: pd.DataFrame
    n: int
    n_clusters: int
    level: float = 0.95

    def to_frame(self) -> pd.DataFrame:
        """Return a copy of the table of splits."""
        return self.splits.copy()

    def records(self) -> list[dict[str, Any]]:
        """Return a record per target: median over splits, spread in the error, 2 × median p.

        The variance is the median over splits of SE² + (estimate - median)² (Chernozhukov et al.
        2018); twice the median p-value is valid whatever the dependence of splits (Rüschendorf
        1982; van de Wiel et al. 2009). A split whose ranking did worse than chance counts as no
        evidence (p = 1).
        """
        out = []
        z = float(stats.norm.ppf(0.5 + self.level / 2))
        for name, rows in self.splits.groupby("target", sort=False):
            middle = float(rows["estimate"].median())
            p_value = rows["p_value"].where(rows["ratio"] > 0, 1.0)
            error = float(
                np.sqrt((rows["std_error"] ** 2 + (rows["estimate"] - middle) ** 2).median())
            )
            out.append({
                "estimand": str(name),
                "method": f"RATE, median of {len(rows)} splits",
                "estimate": middle,
                "std_error": error,
                "ci_low": middle - z * error,
                "ci_high": middle + z * error,
                "p_value": min(1.0, 2 * float(p_value.median())),
                "n": self.n,
                "n_clusters": self.n_clusters,
                "sd_over_splits": float(rows["estimate"].std(ddof=1)),
                "median_ratio": float(rows["ratio"].median()),
                "ratio_low": float(rows["ratio"].quantile(0.1)),
                "ratio_high": float(rows["ratio"].quantile(0.9)),
            })  # fmt: skip
        return out

    def summary(self) -> str:
        """Say the distribution in words."""
        lines = []
        for r in self.records():
            found = "evidence" if r["p_value"] < 0.05 else "no evidence"
            lines.append(
                f"{r['estimand']}: median {r['estimate']:.3g} (sd over splits "
                f"{r['sd_over_splits']:.2g}), ratio to its standard error median "
                f"{r['median_ratio']:.2f}, from {r['ratio_low']:.2f} to {r['ratio_high']:.2f} in "
                f"the middle 80 % of splits; {found} that images tell who gains more."
            )
        return " ".join(lines)

    def __repr__(self) -> str:
        parts = [f"{r['estimand']} {r['estimate']:.3g} (ratio {r['median_ratio']:.2f})"
                 for r in self.records()]  # fmt: skip
        n_splits = self.splits["split"].nunique()
        return f"RateDistribution({n_splits} splits: " + ", ".join(parts) + ")"


def rate_over_splits(
    trial: Trial,
    units: pd.DataFrame,
    features: pd.DataFrame | xr.DataArray,
    *,
    outcome: str,
    covariates: Sequence[str] = (),
    learner: EffectLearner | None = None,
    splits: int = 20,
    seed: int = 0,
    targets: Sequence[Target] = (AUTOC(), Qini()),
    repetitions: int = 200,
    progress: Callable[[int, int], None] | None = None,
) -> RateDistribution:
    """Learn the ranking on half of the clusters, value it on the other half, many times over.

    Outcome models for the second half's scores are learned on the first half, so that each
    split's estimate and standard error are those of a ranking given in advance.

    Parameters
    ----------
    splits
        Number of random halvings of the clusters, each with both arms in proportion.
    seed
        Seeds the splits, the forests and the half-samples.
    """
    if splits < 2:
        raise EstimationError(
            f"splits={splits} gives no distribution.",
            cause="A single split is as noisy as the effect.",
            next_step="Use at least 20.",
        )
    learner = learner or EffectLearner()
    data = trial_arrays(trial, units, features, outcome=outcome, covariates=covariates)
    rows = []
    seeds = np.random.SeedSequence(seed).generate_state(splits)
    for split, state in enumerate(seeds):
        rows += _one_split(data, learner, split, int(state), targets, repetitions)
        if progress is not None:
            progress(split + 1, splits)
    frame = pd.DataFrame(rows).sort_values(["target", "split"], ignore_index=True)
    n_clusters = int(data.cluster.max()) + 1
    return RateDistribution(frame, len(data.y), n_clusters, learner.level)


def _one_split(
    data: TrialArrays,
    learner: EffectLearner,
    split: int,
    seed: int,
    targets: Sequence[Target],
    repetitions: int,
) -> list[dict[str, Any]]:
    first = halves(data.cluster, seed=seed, stratum=data.treated)
    components = replace(learner, seed=seed).fit_arrays(data.subset(first))
    second = data.subset(~first)
    scores = scores_from(second, outcome_models(data, first, ~first))
    priority = predict_components(components, data.z[second.place])[0]
    rows = []
    for target in targets:
        found = rate(
            scores, priority, target=target, cluster=second.cluster,
            repetitions=repetitions, seed=seed,
        )  # fmt: skip
        rows.append({
            "target": target.name, "split": split, "estimate": found.estimate,
            "std_error": found.std_error, "ratio": found.ratio, "p_value": found.p_value,
        })  # fmt: skip
    return rows
