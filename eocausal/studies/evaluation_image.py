"""How far images could have carried the confounders that are measured, for every estimate.

What an embedding cannot express, adjusting for it cannot remove. How far it expresses confounders
that nobody measured cannot be seen; those that were measured are the best hint there is.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import pandas as pd

from eocausal.checks.sensitivity.linear_strengths import linear_strengths
from eocausal.checks.sensitivity.omitted_variable import OmittedVariableBounds
from eocausal.errors import EocausalError
from eocausal.folds import Buffered, FoldRule
from eocausal.studies.evaluation_decisions import folds_of

if TYPE_CHECKING:
    from eocausal.estimators.observational import Observed
    from eocausal.estimators.weighting import Weighted
    from eocausal.studies.evaluation_estimates import KindFit
    from eocausal.studies.evaluation_space import EvaluationSpace

__all__ = ["carried_by_image", "image_sentence"]

HARDLY = 0.01


def carried_by_image(space: EvaluationSpace, units: pd.DataFrame, columns: list[str]) -> list[Any]:
    """Predict columns of units from the embedding, in blocks held out.

    Returns
    -------
    Records ``covariate, measure`` (R2 or AUC), ``score, ci_low, ci_high``.
    """
    from eocausal.checks.predictability import predictability

    near = space.embedding
    near = near.isel(neighborhood=near.indexes["neighborhood"].isin(units.index))
    places = near.assign_coords(
        lon=("neighborhood", units["lon"].loc[near.indexes["neighborhood"]].to_numpy(float)),
        lat=("neighborhood", units["lat"].loc[near.indexes["neighborhood"]].to_numpy(float)),
    )
    rule = _blocks(folds_of(space.study))
    scores = predictability(places, units[columns], rule, seed=space.study.seed, beside=False)
    honest = scores[scores["score"].notna().to_numpy()]
    records: list[Any] = honest[["covariate", "measure", "score", "ci_low", "ci_high"]].to_dict(
        "records"
    )
    return records


def _blocks(folds: FoldRule) -> FoldRule:
    """Leave out a buffer: it leaves fewer units to learn from, and flatters here."""
    return folds.folds if isinstance(folds, Buffered) else folds


def image_sentence(
    scores: list[dict[str, Any]], data: Observed, fit: KindFit, fitted: Weighted | None,
    both: KindFit | None, benchmarks: Sequence[str],
) -> dict[str, Any]:  # fmt: skip
    """Say how far the image of an adjusted estimate carries what was measured, beside a bound.

    Parameters
    ----------
    scores
        Of :func:`carried_by_image`.
    data
        The units of the estimate, with all confounders.
    fit, fitted
        The estimate adjusted for the image alone, or for image and table.
    both
        That adjusted for both.
    benchmarks
        Columns that something hidden is compared with.

    Returns
    -------
    ``image_words``, ``image_r2_least``, ``image_r2_most``, and the bound: ``hidden_like``,
    ``hidden_low``, ``hidden_high``.
    """
    r2 = {s["covariate"]: s["score"] for s in scores if s["measure"] == "R2"}
    auc = {s["covariate"]: s["score"] for s in scores if s["measure"] == "AUC"}
    found: dict[str, Any] = {
        "image_r2_least": min(r2.values(), default=None),
        "image_r2_most": max(r2.values(), default=None),
    }
    told = [_range(name, of) for name, of in (("R²", r2), ("AUC", auc)) if of]
    words = f"In places held out the image tells measured confounders with {' and '.join(told)}."
    shown = fit.shown
    if fit.adjustment == "image" and both is not None and both.shown is not None and shown:
        words += (
            f" None of them is adjusted for otherwise here; with the table besides, the "
            f"{both.shown.estimand} is {both.shown.estimate:.2g}."
        )
    elif fitted is not None:
        words += _bound(found, data, fitted, benchmarks)
    return {**found, "image_words": words}


def _range(name: str, scores: dict[str, float]) -> str:
    least, most = min(scores, key=lambda k: scores[k]), max(scores, key=lambda k: scores[k])
    if least == most:
        return f"{name} {scores[least]:.2f} ({least})"
    return f"{name} {scores[least]:.2f} ({least}) to {scores[most]:.2f} ({most})"


def _bound(
    found: dict[str, Any], data: Observed, fitted: Weighted, benchmarks: Sequence[str]
) -> str:
    """Bound the effect by something hidden that adds as much as each measured confounder."""
    try:
        bounds = OmittedVariableBounds.of(fitted)
    except EocausalError:
        return ""
    strength = linear_strengths(data).astype(float).to_dict("index")
    reach = {
        str(name): c["c_outcome"] * c["c_treatment"] / (1 - c["c_treatment"])
        if c["c_treatment"] < 1
        else math.inf
        for name, c in strength.items()
        if name in benchmarks
    }
    if not reach:
        return ""
    worst = max(reach, key=lambda name: reach[name])
    if not math.isfinite(reach[worst]):
        return f" Something hidden that tells treatment as {worst!r} does could have any effect."
    low, high = bounds.at(strength[worst]["c_outcome"], strength[worst]["c_treatment"])
    found |= {"hidden_like": worst, "hidden_low": low.estimate, "hidden_high": high.estimate}
    if high.estimate - low.estimate < HARDLY * abs(bounds.effect.estimate):
        return " Something hidden that adds as much as any of them would hardly move the estimate."
    return (
        f" Something hidden that adds as much as {worst!r} could move the estimate "
        f"{bounds.effect.estimate:.2g} to anything from {low.estimate:.2g} to "
        f"{high.estimate:.2g}."
    )
