"""The checks of an effect, as the study asks for them."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from eocausal.checks.base import CheckResult, Verdict
from eocausal.errors import EocausalError
from eocausal.provenance import write_json
from eocausal.studies.embed import check_record
from eocausal.studies.progress import Advance

if TYPE_CHECKING:
    from eocausal.studies.impact_space import ImpactSpace

__all__ = ["IN_SPACE", "IN_TIME", "check_effect"]

IN_TIME, IN_SPACE, DRIFT = "in_time", "in_space", "drift"
TITLES = {
    IN_TIME: "Placebo events before the real one",
    IN_SPACE: "Placebo series",
    DRIFT: "Drift before the event",
    "predictive": "The model against the series before the event",
    "leave_out_controls": "One control left out",
    "leave_out_years": "One year left out",
    "control_breaks": "Breaks of controls",
}


def check_effect(space: ImpactSpace, progress: Advance) -> list[str]:
    """Run the checks of the effect; one that cannot be run says why, and warns."""
    asked = space.study.checks
    wanted = [name for name in RUNS if getattr(asked, name) and _applies(space, name)]
    found: dict[str, Any] = {}
    for k, name in enumerate(wanted):
        try:
            result = RUNS[name](space)
        except EocausalError as error:
            result = CheckResult(
                TITLES[name], Verdict.WARN, f"This check could not be run. {error.fact}",
                f"{error.cause} {error.next_step}".strip(),
            )  # fmt: skip
        found[name] = check_record(result)
        progress(k + 1, len(wanted))
    write_json(space.folder / "checks.json", list(found.values()))
    return ["checks.json", space.keep("checks.json", found)]


def _predictive(space: ImpactSpace) -> CheckResult:
    """Say whether the model could have made the series before the event."""
    found = space.impact.fit_checks
    title = TITLES["predictive"]
    if not len(found.table):
        return CheckResult(title, Verdict.WARN, found.summary(), "This check says nothing.")
    worst = found.table["p_value"].idxmin()
    claim = (
        f"In {len(found.table)} respects, such as spread and autocorrelation, the {found.n} values "
        f"before the event look as the model makes them."
        if not found.doubts
        else f"In {len(found.doubts)} of {len(found.table)} respects the {found.n} values before "
        f"the event do not look as the model makes them; furthest off: {worst} "
        f"(p = {found.table['p_value'].min():.2g})."
    )
    verdict = Verdict.WARN if found.doubts else Verdict.PASS
    return CheckResult(title, verdict, claim, " ".join(found.doubts), found.to_frame())


def _in_time(space: ImpactSpace) -> CheckResult:
    from eocausal.checks.impact_time import PlaceboInTime

    section = space.study.checks.in_time
    assert section is not None
    return PlaceboInTime(section.horizon, section.step, section.least).run(space.impact)


def _in_space(space: ImpactSpace) -> CheckResult:
    from eocausal.checks.impact_space import PlaceboInSpace

    return PlaceboInSpace(space.candidates).run(space.impact)


def _drift(space: ImpactSpace) -> CheckResult:
    from eocausal.checks.impact_drift import Drift

    return Drift().run(space.impact)


def _controls_left_out(space: ImpactSpace) -> CheckResult:
    from eocausal.checks.impact_leave_out import LeaveOneControlOut

    return LeaveOneControlOut().run(space.impact)


def _years_left_out(space: ImpactSpace) -> CheckResult:
    from eocausal.checks.impact_leave_out import LeaveOneYearOut

    return LeaveOneYearOut().run(space.impact)


def _control_breaks(space: ImpactSpace) -> CheckResult:
    from eocausal.checks.impact_controls import ControlBreaks
    from eocausal.estimators.breaks_sieve import ArSieve

    section = space.study.breaks
    draws = 499 if section is None else section.draws
    return ControlBreaks(sieve=ArSieve(draws=draws), seed=space.study.seed).run(space.impact)


RUNS: dict[str, Callable[[ImpactSpace], CheckResult]] = {
    DRIFT: _drift, IN_TIME: _in_time, IN_SPACE: _in_space, "control_breaks": _control_breaks,
    "leave_out_controls": _controls_left_out, "leave_out_years": _years_left_out,
    "predictive": _predictive,
}  # fmt: skip


def _applies(space: ImpactSpace, name: str) -> bool:
    """Whether there is something that a check could look at."""
    if name == IN_SPACE:
        return bool(space.candidates.shape[1])
    if name in ("control_breaks", "leave_out_controls"):
        return bool(space.controls.shape[1])
    return True
