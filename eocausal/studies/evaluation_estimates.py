"""Effects of every kind of project with every adjustment, refused ones with the reason."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import pandas as pd

from eocausal.checks.support import refusal
from eocausal.effects import EffectEstimate, Status, difference
from eocausal.errors import EocausalError
from eocausal.estimators.multiplicity import benjamini_hochberg, simultaneous
from eocausal.estimators.refusal import (
    arm_supports,
    refuse_empty_regions,
    refuse_thin_arms,
)
from eocausal.placements import Kind
from eocausal.studies.evaluation_decisions import weighting_of
from eocausal.studies.evaluation_space import adjusted

if TYPE_CHECKING:
    from eocausal.estimators.observational import Observed
    from eocausal.estimators.weighting import Weighted, Weighting
    from eocausal.studies.schema_evaluation import Evaluation

__all__ = [
    "ASKED",
    "OVERLAP",
    "STANDS_IN",
    "KindFit",
    "fit_kind",
    "funder_differences",
    "gains_of_images",
    "sector_records",
]

ASKED = "asked for"
STANDS_IN = "stands in"
OVERLAP = "population with overlap"


@dataclass(frozen=True, slots=True, eq=False)
class KindFit:
    """The effect of one kind of project with one adjustment.

    Attributes
    ----------
    kind, adjustment
        What it is the effect of, adjusted for what.
    asked
        The effect asked for, None if it is refused.
    stand_in
        The effect on the population that stands in where the first is refused; None if it is
        refused too, or none was asked for.
    refused
        Records of the effects that are refused, with the reason.
    n, n_treated
        Units that are compared.
    """

    kind: Kind
    adjustment: str
    asked: EffectEstimate | None
    stand_in: EffectEstimate | None
    refused: tuple[Mapping[str, Any], ...]
    n: int
    n_treated: int

    @property
    def shown(self) -> EffectEstimate | None:
        """The effect asked for or else the one that stands in."""
        return self.asked or self.stand_in

    @property
    def key(self) -> dict[str, Any]:
        """Names in records."""
        return {
            "funder": self.kind.funder,
            "sector": self.kind.sector,
            "adjustment": self.adjustment,
        }


def fit_kind(
    study: Evaluation, data: Observed, kind: Kind, adjustment: str
) -> tuple[KindFit, Weighted | None]:
    """Estimate the effect of a kind of project.

    Parameters
    ----------
    data
        The units compared, with all confounders.
    adjustment
        Which of them are used: table, image or both.

    Returns
    -------
    The effects, and the fitted analysis of the effect asked for, or else of the one that stands in.
    """
    own = adjusted(data, adjustment)
    fitted, second, refused = _fits(study, own)
    found = KindFit(
        kind,
        adjustment,
        fitted.estimate if fitted is not None else None,
        second.estimate if second is not None else None,
        refused,
        own.n,
        int(own.arm.sum()),
    )
    return found, fitted or second


def _fits(
    study: Evaluation, data: Observed
) -> tuple[Weighted | None, Weighted | None, tuple[Mapping[str, Any], ...]]:
    """Fit the effect asked for and the one that stands in; return the records of refused ones."""
    decisions, other = weighting_of(study), study.estimate.otherwise
    refused: list[Mapping[str, Any]] = []

    def attempt(how: Weighting, fit: Callable[[], Weighted]) -> Weighted | None:
        try:
            return fit()
        except EocausalError as error:
            refused.append({**refusal(data, how, error), "reason": error.fact})
            return None

    def plain() -> Weighted:
        return decisions.fit(data, seed=study.seed)

    if other == "none":
        return attempt(decisions, plain), None, tuple(refused)
    instead = weighting_of(study, other)
    second = attempt(instead, lambda: instead.fit(data, seed=study.seed))
    shared = second if decisions.trim is None else None
    fitted = attempt(
        decisions, plain if shared is None else lambda: _with_models(shared, decisions)
    )
    return fitted, second, tuple(refused)


def _with_models(fitted: Weighted, decisions: Weighting) -> Weighted:
    """Estimate another population's effect with the same models.

    Raises
    ------
    OverlapError
        As :meth:`~eocausal.estimators.weighting.Weighting.fit` does.
    """
    data, e, score = fitted.data, fitted.nuisances.propensity, decisions.score
    refuse_empty_regions(data, score.estimand, decisions.overlap, decisions.vcov)
    means = score.means(data, fitted.nuisances)
    support = arm_supports(data, means, e, score.estimand)
    refuse_thin_arms(data, score.estimand, decisions.overlap, support, e)
    return replace(fitted, decisions=decisions, means=means, support=support)


def sector_records(
    fits: Sequence[KindFit], few: Sequence[Mapping[str, Any]], study: Evaluation
) -> list[dict[str, Any]]:
    """Return a record per kind, adjustment and population.

    Intervals hold together, and false discoveries are counted, over the sectors of one funder with
    one adjustment: once for the effects asked for, with those that stand in where these are
    refused (``population`` is ``asked for`` or ``stands in``), and once for all effects on the
    population with overlap (``population with overlap``).

    Parameters
    ----------
    fits
        Of the kinds that are estimated.
    few
        ``funder, sector, n, n_treated`` of the kinds that are only listed.
    """
    records: list[dict[str, Any]] = []
    groups = dict.fromkeys((f.kind.funder, f.adjustment) for f in fits)
    for funder, adjustment in groups:
        mine = [f for f in fits if (f.kind.funder, f.adjustment) == (funder, adjustment)]
        records += [{**r, **f.key, "n_treated": f.n_treated} for f in mine for r in f.refused]
        shown = [(f, f.shown, ASKED if f.asked else STANDS_IN) for f in mine]
        records += _together(shown, study)
        records += _together([(f, f.stand_in, OVERLAP) for f in mine], study)
    for kind in few:
        records += [
            {**_nothing(study), **kind, "adjustment": adjustment, "status": "few",
             "note": f"Fewer than {study.design.placement.fewest:,} places were treated."}
            for adjustment in study.estimate.adjust
        ]  # fmt: skip
    return records


def _together(
    items: Iterable[tuple[KindFit, EffectEstimate | None, str]], study: Evaluation
) -> list[dict[str, Any]]:
    """Return the records of effects with intervals that hold together and q-values."""
    given = [(fit, e, population) for fit, e, population in items if e is not None]
    effects = [e for _, e, _ in given]
    if not effects:
        return []
    usable = any(e.status is not Status.REFUSED and e.std_error > 0 for e in effects)
    rows: list[dict[str, Any]] = [e.record() for e in effects]
    if usable:
        rows = simultaneous(effects, level=study.estimate.level, seed=study.seed).records()
    return [
        {
            **{k: v for k, v in row.items() if k not in ("joint_low", "joint_high")},
            **fit.key,
            "population": population,
            "simultaneous_low": row.get("joint_low"),
            "simultaneous_high": row.get("joint_high"),
        }
        for row, (fit, _, population) in zip(rows, given, strict=True)
    ]


def _nothing(study: Evaluation) -> dict[str, Any]:
    numbers = ("estimate", "std_error", "ci_low", "ci_high", "p_value")
    decisions = weighting_of(study)
    return {
        "estimand": study.estimate.estimand, "method": decisions.score.name,
        **dict.fromkeys(numbers), "level": study.estimate.level, "vcov": repr(decisions.vcov),
    }  # fmt: skip


def gains_of_images(fits: Sequence[KindFit]) -> list[dict[str, Any]]:
    """Return what adjusting for the image besides the table changes, with joint influence."""
    by = {(f.kind, f.adjustment): f for f in fits}
    pairs = [
        (kind, pair)
        for kind in dict.fromkeys(f.kind for f in fits)
        if (pair := _same_population(by.get((kind, "both")), by.get((kind, "table")))) is not None
    ]
    return _differences(
        [({"funder": k.funder, "sector": k.sector, "adjustment": "both - table"}, *pair)
         for k, pair in pairs]
    )  # fmt: skip


def funder_differences(fits: Sequence[KindFit], adjustment: str) -> list[dict[str, Any]]:
    """Return the differences between funders in one sector, units matched by label.

    Each effect is that over the units compared for its funder; the two have most units in common,
    whose influence on both is in the standard error.
    """
    mine = [f for f in fits if f.adjustment == adjustment]
    found = []
    for i, a in enumerate(mine):
        for b in mine[i + 1 :]:
            if a.kind.sector != b.kind.sector:
                continue
            pair = _same_population(b, a)
            if pair is not None:
                funder = f"{b.kind.funder} minus {a.kind.funder}"
                key = {"funder": funder, "sector": a.kind.sector, "adjustment": adjustment}
                found.append((key, *pair))
    return _differences(found)


def _same_population(
    one: KindFit | None, other: KindFit | None
) -> tuple[EffectEstimate, EffectEstimate] | None:
    """Return two effects on the same kind of population: those asked for, or those standing in."""
    if one is None or other is None:
        return None
    if one.asked is not None and other.asked is not None:
        return one.asked, other.asked
    if one.stand_in is not None and other.stand_in is not None:
        return one.stand_in, other.stand_in
    return None


def _differences(
    pairs: Iterable[tuple[dict[str, Any], EffectEstimate, EffectEstimate]],
) -> list[dict[str, Any]]:
    rows = []
    for key, a, b in pairs:
        gap = difference(a, b)
        rows.append({
            **gap.record(), "method": f"difference of {a.method}", **key,
            "population": "difference", "of": a.estimate, "minus": b.estimate,
        })  # fmt: skip
    table = pd.DataFrame(rows)
    if rows:
        q = benjamini_hochberg(table["p_value"].to_numpy(float))
        rows = [{**row, "q_value": float(v)} for row, v in zip(rows, q, strict=True)]
    return rows
