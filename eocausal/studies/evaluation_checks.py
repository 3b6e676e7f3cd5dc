"""The checks of the headline of an evaluation, each kept even where another cannot be done."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pandas as pd

from eocausal.checks.base import CheckResult, Verdict
from eocausal.checks.sensitivity.benchmarks import table_columns
from eocausal.errors import EocausalError
from eocausal.estimators.bootstrap import SpatialBootstrap
from eocausal.estimators.confounders import TABLE
from eocausal.estimators.conley import Conley, conley_by_cutoff
from eocausal.studies.evaluation_decisions import benchmarks_of

if TYPE_CHECKING:
    from eocausal.estimators.weighting import Weighted
    from eocausal.studies.evaluation_space import EvaluationSpace

__all__ = ["headline_checks", "image_dates", "second_opinion"]

SPREAD = 1.5
Run = Callable[[], CheckResult]


def headline_checks(
    space: EvaluationSpace, fitted: Weighted, progress: Callable[[int, int], None]
) -> list[CheckResult]:
    """Run every check of a fitted analysis.

    A check that needs what the analysis does not have (the bounds of the marginal model an ATE or
    ATT) is reported as a warning with the reason.
    """
    listed = list(_checks(space, fitted))
    results = []
    for i, (name, run) in enumerate(listed):
        try:
            results.append(run())
        except EocausalError as error:
            claim = f"Not done: {error.fact}"
            results.append(
                CheckResult(name, Verdict.WARN, claim, f"{error.cause} {error.next_step}".strip())
            )
        progress(i + 1, len(listed))
    return results


def _checks(space: EvaluationSpace, fitted: Weighted) -> Iterator[tuple[str, Run]]:
    """Yield each check with the title that it has if it cannot be done."""
    from eocausal.checks.derived_columns import DerivedColumns
    from eocausal.checks.leave_out import LeaveOneOut
    from eocausal.checks.placebo import Placebo
    from eocausal.checks.spillover import Spillover
    from eocausal.checks.support import Support
    from eocausal.checks.weighted_balance import WeightedBalance

    asked, seed = space.study.checks, space.study.seed
    if space.sees:
        yield "Images older than the projects", lambda: image_dates(space)
    yield "Confounders made from the treatment", lambda: DerivedColumns().run(fitted)
    yield "Overlap of the arms", lambda: Support().run(fitted)
    yield "Balance after weighting", lambda: WeightedBalance().run(fitted)
    yield "Another standard error", lambda: second_opinion(space, fitted)
    if asked.placebo:
        placebo = Placebo(asked.placebo, seed=seed)
        yield "Effects on placebo outcomes", lambda: placebo.run(fitted)
    if asked.spillover_km:
        rings = Spillover(asked.spillover_km, seed=seed)
        yield "Spillovers from treated neighbours", lambda: rings.run(fitted)
    if asked.leave_out is not None:
        without = LeaveOneOut(asked.leave_out, seed=seed)
        yield f"Estimates without each {asked.leave_out}", lambda: without.run(fitted)
    yield from _hidden(space, fitted)


def _hidden(space: EvaluationSpace, fitted: Weighted) -> Iterator[tuple[str, Run]]:
    """Yield the checks of what was not measured."""
    from eocausal.checks.sensitivity.evalue import EValue
    from eocausal.checks.sensitivity.image_confounders import ImageConfounders
    from eocausal.checks.sensitivity.information_bounds import InformationBounds
    from eocausal.checks.sensitivity.linear_omitted_variable import LinearOmittedVariable
    from eocausal.checks.sensitivity.marginal_sensitivity import MarginalSensitivity
    from eocausal.checks.sensitivity.omitted_variable import OmittedVariable

    seed = space.study.seed
    columns = table_columns(fitted.data.confounders)
    images = [b for b in fitted.data.confounders.blocks if b != TABLE]
    known = (*benchmarks_of(space.study, columns), *images)
    factors = tuple(sorted({1.0, *space.study.checks.sensitivity}))
    marginal = MarginalSensitivity(factors=factors, columns=known, seed=seed)
    yield "Odds of treatment that are off by a factor", lambda: marginal.run(fitted)
    yield "E-value", lambda: EValue(columns=known, seed=seed).run(fitted)
    omitted = OmittedVariable(columns=known, seed=seed)
    yield "Omitted variable", lambda: omitted.run(fitted)
    linear = LinearOmittedVariable(columns=known)
    yield "Omitted variable in a linear regression", lambda: linear.run(fitted)
    yield "Bounds if anything may be hidden", lambda: InformationBounds().run(fitted)
    if len(fitted.data.confounders.blocks) > 1:
        image = ImageConfounders(seed=seed)
        name = "What the image can carry of known confounders"
        yield name, lambda: _at_most_a_warning(image.run(fitted))


def _at_most_a_warning(result: CheckResult) -> CheckResult:
    """Soften a failure: what the image does not tell of these columns, the table adjusts for."""
    if result.verdict is not Verdict.FAIL:
        return result
    return replace(
        result, verdict=Verdict.WARN,
        detail=f"{result.detail} These columns themselves are adjusted for by the table.",
    )  # fmt: skip


def image_dates(space: EvaluationSpace) -> CheckResult:
    """Check that the last image is older than the first project that counts."""
    first = space.study.design.placement.first
    last = str(space.embedding.attrs["last_image_date"])
    name = "Images older than the projects"
    if not last:
        return CheckResult(
            name, Verdict.WARN, f"When the images were taken is unknown; projects count from "
            f"{first}.",
            "Images that show what projects did would bias every estimate. State "
            "data.imagery.time.",
        )  # fmt: skip
    return CheckResult(
        name,
        Verdict.PASS,
        f"The last image is of {last}, and projects count from {first}.",
        values={"last_image": last, "first_project": first},
    )


def second_opinion(space: EvaluationSpace, fitted: Weighted) -> CheckResult:
    """Compare Conley's standard error with a bootstrap of blocks, and with other cutoffs."""
    km = space.study.estimate.conley_km
    effect = fitted.estimate
    blocks = effect.with_vcov(SpatialBootstrap(2 * km, seed=space.study.seed))
    cutoffs = conley_by_cutoff(effect, [km / 4, km / 2, km, 2 * km, 4 * km], Conley(km))
    rows = [
        {"rule": f"Conley, {r.km:g} km", "std_error": r.std_error, "df": r.df,
         "ci_low": r.ci_low, "ci_high": r.ci_high}
        for r in cutoffs.itertuples()
    ]  # fmt: skip
    rows.append({
        "rule": f"bootstrap of blocks, {2 * km:g} km", "std_error": blocks.std_error,
        "df": blocks.df, "ci_low": blocks.ci_low, "ci_high": blocks.ci_high,
    })  # fmt: skip
    half, other = (e.ci_high - e.estimate for e in (effect, blocks))
    ratio = other / half
    agree = 1 / SPREAD <= ratio <= SPREAD
    claim = (
        f"The interval by Conley's variance ({km:g} km) is {effect.ci_low:.3g} to "
        f"{effect.ci_high:.3g}, that by a bootstrap of blocks of {2 * km:g} km {blocks.ci_low:.3g} "
        f"to {blocks.ci_high:.3g}."
    )
    detail = "" if agree else (
        "They differ by more than half: few places, near each other, decide. Take the wider."
    )  # fmt: skip
    values: dict[str, Any] = {
        "std_error": effect.std_error, "bootstrap_std_error": blocks.std_error,
        "ratio_of_intervals": ratio,
    }  # fmt: skip
    return CheckResult(
        "Another standard error", Verdict.PASS if agree else Verdict.WARN, claim, detail,
        pd.DataFrame(rows), values,
    )  # fmt: skip
