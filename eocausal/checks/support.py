"""How many units speak for each arm, which ones speak loudest, and what to ask instead."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from eocausal.checks.base import CheckResult, Verdict
from eocausal.checks.support_tables import (
    EXTREME,
    heaviest_units,
    support_table,
    trimming_table,
)
from eocausal.errors import EocausalError
from eocausal.estimators.arm_means import Estimand
from eocausal.estimators.empty_region import empty_region
from eocausal.estimators.overlap import Overlap
from eocausal.estimators.refusal import dependent_groups
from eocausal.estimators.region import Region, describe_region
from eocausal.estimators.scores import AIPW, CBPS, Hajek
from eocausal.estimators.trimming import Crump

if TYPE_CHECKING:
    from eocausal.estimators.observational import Observed
    from eocausal.estimators.scores import Score
    from eocausal.estimators.weighting import Weighted, Weighting

__all__ = [
    "Support",
    "alternatives",
    "empty_regions",
    "refusal",
]

NAME = "Overlap of the arms"


def empty_regions(subject: Weighted) -> dict[str, Region]:
    """Find by arm the units in whose region the arm does not occur.

    For the ATT only the untreated must occur wherever the treated do.
    """
    data = subject.data
    cluster = dependent_groups(subject.decisions.vcov, data.units)
    asked = {0} if subject.decisions.score.estimand is Estimand.ATT else set(range(len(data.arms)))
    return {
        data.arms[k]: empty_region(data.confounders, data.units, data.arm == k, cluster=cluster)
        for k in sorted(asked)
    }


@dataclass(frozen=True, slots=True)
class Support:
    """Check that enough units speak for each arm, and that each arm occurs everywhere.

    Beside weights and probabilities, regions are looked for in which an arm does not occur at all
    (:func:`~eocausal.estimators.empty_region.empty_region`): a model of treatment that does not
    know of them shows nothing unusual.

    Parameters
    ----------
    overlap
        Fail where it refuses, warn where it warns; see
        :class:`~eocausal.estimators.overlap.Overlap`. It is asked even if the analysis was done
        with a more lenient one.
    one_unit
        Warn if one unit makes a larger share of the variance of an effect than this. Intervals
        still hold where shares are 0.1 to 0.5 (they are wide), but the estimate is that unit's.
    empty
        Fail if units in a region without some arm are at least this share of all, warn if fewer.
    """

    overlap: Overlap = field(default_factory=Overlap)
    one_unit: float = 0.5
    empty: float = 0.1

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
        for arm, region in empty_regions(subject).items():
            if not region.boxes:
                continue
            values.setdefault("empty", {})[arm] = region.words()
            share = float(region.inside.mean())
            verdict = max(
                verdict,
                Verdict.FAIL if share >= self.empty else Verdict.WARN,
                key=list(Verdict).index,
            )
            detail += f" No unit of arm {arm!r} occurs among {region.words()}."
        return CheckResult(NAME, verdict, claim, detail.strip(), table, values)

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
