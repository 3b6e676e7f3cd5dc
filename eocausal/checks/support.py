"""How many units speak for each arm, which ones speak loudest, and what to ask instead."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from eocausal.checks.base import CheckResult, Verdict
from eocausal.errors import EocausalError
from eocausal.estimators.arm_means import Estimand
from eocausal.estimators.overlap import Overlap
from eocausal.estimators.region import describe_region
from eocausal.estimators.scores import AIPW, CBPS, Hajek
from eocausal.estimators.trimming import Crump, Drop, Trimming

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from eocausal.estimators.observational import Observed
    from eocausal.estimators.scores import Score
    from eocausal.estimators.weighting import Weighted, Weighting

__all__ = [
    "Support",
    "alternatives",
    "heaviest_units",
    "propensity_histogram",
    "refusal",
    "support_table",
    "trimming_table",
]

NAME = "Overlap of the arms"
EXTREME = 0.05
QUANTILES = (0.0, 0.01, 0.05, 0.25, 0.5, 0.75, 0.95, 0.99, 1.0)


def support_table(subject: Weighted) -> pd.DataFrame:
    """Describe the weights and probabilities arm by arm.

    Returns
    -------
    DataFrame
        Indexed by ``arm``: ``n``, ``ess`` (effective sample size (Σw)²/Σw²), ``ess_share`` of n,
        ``largest_share`` of the arm's weight on one unit, and, where probabilities were used, of
        all units' probability of that arm its quantiles among units of the arm (``own_0`` to
        ``own_100``, in percent) and among units of other arms (``other_0`` to ``other_100``), and
        ``share_extreme``, the share of units for which it is below 0.05.
    """
    rows = {}
    e, arm = subject.nuisances.propensity, subject.data.arm
    for k, s in enumerate(subject.support):
        row = {"n": s.n, "ess": s.ess, "ess_share": s.ess / s.n, "largest_share": s.largest}
        if e is not None:
            own, other = (np.quantile(e[at, k], QUANTILES) for at in (arm == k, arm != k))
            percent = [f"{100 * q:g}" for q in QUANTILES]
            row |= {f"own_{p}": v for p, v in zip(percent, own, strict=True)}
            row |= {f"other_{p}": v for p, v in zip(percent, other, strict=True)}
            row["share_extreme"] = float((e[:, k] < EXTREME).mean())
        rows[s.arm] = row
    table = pd.DataFrame.from_dict(rows, orient="index")
    table.index.name = "arm"
    return table.astype({"n": int})


def propensity_histogram(subject: Weighted, bins: int = 20) -> pd.DataFrame:
    """Count units by their arm and their probability of each treatment, for a figure.

    Returns
    -------
    DataFrame
        Columns ``treatment`` (whose probability), ``low``, ``high`` (ends of the bin), and ``arm``
        and ``units`` (how many of that arm). Empty where no probabilities were used.
    """
    names = ["treatment", "low", "high", "arm", "units"]
    e, data = subject.nuisances.propensity, subject.data
    if e is None:
        return pd.DataFrame(columns=names)
    ends = np.linspace(0, 1, bins + 1)
    parts = []
    for k, treatment in enumerate(data.arms[1:], start=1):
        for a, arm in enumerate(data.arms):
            count = np.histogram(e[data.arm == a, k], ends)[0]
            parts.append(
                pd.DataFrame(
                    {
                        "treatment": treatment,
                        "low": ends[:-1],
                        "high": ends[1:],
                        "arm": arm,
                        "units": count,
                    }
                )
            )
    return pd.concat(parts, ignore_index=True)


def heaviest_units(subject: Weighted, count: int = 5) -> pd.DataFrame:
    """Name the units with the largest share of their arm's weight.

    Returns
    -------
    DataFrame
        ``arm``, ``unit`` (label), ``share`` of the arm's weight, ``propensity`` of the own arm
        (NaN without), ``variance_share`` of the unit in Σψ² of the first effect; ``count`` rows
        per arm, the heaviest first.
    """
    data, weights = subject.data, subject.means.weights
    e = subject.nuisances.propensity
    own = np.full(data.n, np.nan) if e is None else e[np.arange(data.n), data.arm]
    square = (subject.means.influence[:, 1] - subject.means.influence[:, 0]) ** 2
    parts = []
    for k, arm in enumerate(data.arms):
        rows = np.flatnonzero(data.arm == k)
        rows = rows[np.argsort(-weights[rows], kind="stable")[:count]]
        parts.append(
            pd.DataFrame(
                {
                    "arm": arm,
                    "unit": data.units.index[rows],
                    "share": weights[rows] / weights[data.arm == k].sum(),
                    "propensity": own[rows],
                    "variance_share": square[rows] / max(float(square.sum()), 1e-300),
                }
            )
        )
    return pd.concat(parts, ignore_index=True)


def trimming_table(
    propensity: NDArray[np.float64],
    arm: NDArray[np.int64],
    arms: Sequence[str],
    rules: Sequence[Trimming] = (Drop(0.01), Drop(0.05), Drop(0.1), Crump()),
) -> pd.DataFrame:
    """Count what rules of trimming would keep.

    Parameters
    ----------
    propensity
        (n, K) probabilities of the arms.
    arm
        (n,) arms.

    Returns
    -------
    DataFrame
        Indexed by ``rule``: ``kept`` and its ``share``, ``lowest`` probability among the kept, and
        ``kept ARM`` per arm.
    """
    rows = {}
    for rule in rules:
        keep = rule.keep(propensity)
        lowest = float(propensity[keep].min()) if keep.any() else np.nan
        row: dict[str, Any] = {"kept": int(keep.sum()), "share": float(keep.mean())}
        row["lowest"] = lowest
        row |= {f"kept {name}": int((keep & (arm == k)).sum()) for k, name in enumerate(arms)}
        rows[repr(rule)] = row
    table = pd.DataFrame.from_dict(rows, orient="index")
    table.index.name = "rule"
    return table


@dataclass(frozen=True, slots=True)
class Support:
    """Check that enough units speak for each arm.

    Parameters
    ----------
    overlap
        Fail where it refuses, warn where it warns; see
        :class:`~eocausal.estimators.overlap.Overlap`. It is asked even if the analysis was done
        with a more lenient one.
    one_unit
        Warn if one unit makes a larger share of the variance of an effect than this. Intervals
        still hold where shares are 0.1 to 0.5 (they are wide), but the estimate is that unit's.
    """

    overlap: Overlap = field(default_factory=Overlap)
    one_unit: float = 0.5

    def run(self, subject: Weighted) -> CheckResult:
        """Look at weights and probabilities."""
        table = support_table(subject)
        heavy = heaviest_units(subject)
        least = min(subject.support, key=lambda s: s.ess)
        values: dict[str, Any] = {
            "ess": {s.arm: s.ess for s in subject.support},
            "n_trimmed": subject.n_trimmed,
            "heaviest": heavy.to_dict("records"),
        }
        claim = (
            f"The {least.n:,} units of arm {least.arm!r} weigh as much as {least.ess:,.0f} even "
            f"ones; the heaviest has {least.largest:.1%} of its weight."
        )
        e = subject.nuisances.propensity
        if e is not None:
            extreme = float((e.min(axis=1) < EXTREME).mean())
            trims = trimming_table(e, subject.data.arm, subject.data.arms)
            values |= {"share_extreme": extreme, "trimming": trims.to_dict("index")}
            claim += (
                f" {extreme:.1%} of units have a probability below {EXTREME:g} of some arm; "
                f"Crump trimming would keep {trims['share'].iloc[-1]:.1%}."
            )
        loudest = self._loudest(subject)
        values["largest_variance_share"] = loudest[1]
        verdict, detail = self._judge(subject, loudest)
        if e is not None and verdict is not Verdict.PASS:
            bad = e.min(axis=1) < EXTREME
            values["region"] = describe_region(subject.data.confounders, subject.data.units, bad)
            detail += f" Below {EXTREME:g} are {values['region']}."
        return CheckResult(NAME, verdict, claim, detail, table, values)

    def _loudest(self, subject: Weighted) -> tuple[str, float]:
        """Return the unit with the largest share of the variance of any effect, and the share."""
        psi = subject.means.influence
        square = (psi[:, 1:] - psi[:, :1]) ** 2
        share = square / np.maximum(square.sum(axis=0), 1e-300)
        at = int(share.max(axis=1).argmax())
        return repr(subject.data.units.index[at]), float(share[at].max())

    def _judge(self, subject: Weighted, loudest: tuple[str, float]) -> tuple[Verdict, str]:
        refused = self.overlap.refused(subject.support)
        if refused:
            worst = min(refused, key=lambda s: s.ess)
            return Verdict.FAIL, (
                f"In words: {worst.words()}. Some units have no counterpart; ask for the effect "
                "where both arms occur (ATO), on the treated (ATT), or of the units that trimming "
                "keeps."
            )
        unit, share = loudest
        if share > self.one_unit:
            return Verdict.WARN, (
                f"Unit {unit} alone makes {share:.0%} of the variance of an effect: look at it, "
                "and at the estimate without it."
            )
        if self.overlap.warned(subject.support):
            return Verdict.WARN, (
                "Weights are very uneven: the interval is wide for the number of units, and a few "
                "of them decide. Compare with the effect where both arms occur (ATO)."
            )
        return Verdict.PASS, ""


def refusal(data: Observed, decisions: Weighting, error: EocausalError) -> dict[str, Any]:
    """Return the record of an effect that is refused, with the reason in its note."""
    return {
        "estimand": str(decisions.score.estimand),
        "method": decisions.score.name,
        "estimate": None,
        "std_error": None,
        "ci_low": None,
        "ci_high": None,
        "p_value": None,
        "n": data.n,
        "level": decisions.level,
        "vcov": repr(decisions.vcov),
        "status": "refused",
        "note": f"{error.fact} {error.cause} {error.next_step}".strip(),
        "treatment": data.treatment,
        "outcome": data.outcome,
    }


def alternatives(data: Observed, decisions: Weighting, seed: int) -> list[dict[str, Any]]:
    """Estimate what can be asked where an effect is refused for lack of overlap.

    These are the effect where both arms occur (ATO), that on the treated (ATT), and the effect
    asked for among the units that trimming keeps (Crump et al. 2009); not the one asked for, and
    no ATT where the ATO is refused. Each is of another population, which its ``estimand`` says.

    Parameters
    ----------
    data
        The study.
    decisions
        Those that were refused; models, folds and variance are kept.
    seed
        Of folds and models.

    Returns
    -------
    Records as of :meth:`~eocausal.effects.EffectEstimate.record`, one per treatment, or one with
    status ``refused`` and the reason.
    """
    asked = decisions.score
    tried = [(Estimand.ATO, None), (Estimand.ATT, None), (asked.estimand, Crump())]
    if asked.estimand is Estimand.ATO:
        tried = tried[2:]
    records: list[dict[str, Any]] = []
    for estimand, trim in tried:
        if trim is None and estimand is asked.estimand:
            continue
        score = _score_for(asked, estimand, len(data.arms))
        if trim is not None and not score.needs_propensity:
            score = Hajek(estimand)
        chosen = replace(
            decisions, score=score, trim=trim, repeats=1 if trim else decisions.repeats
        )
        try:
            records += [effect.record() for effect in chosen.fit(data, seed=seed).effects()]
        except EocausalError as error:
            records.append(refusal(data, chosen, error))
    return records


def _score_for(asked: Score, estimand: Estimand, arms: int) -> Score:
    """Give the score asked for another population, or the nearest one that knows it."""
    if isinstance(asked, AIPW) and not (estimand is Estimand.ATO and arms > 2):
        return replace(asked, estimand=estimand)
    if isinstance(asked, CBPS) and arms == 2:
        return replace(asked, estimand=estimand)
    return Hajek(estimand)
