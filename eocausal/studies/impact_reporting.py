"""The last stage of a study of an event: what was left in the run folder becomes a report."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pandas as pd
import xarray as xr

from eocausal.provenance import FailureLedger, versions
from eocausal.studies.impact_checks import DRIFT, IN_SPACE, IN_TIME
from eocausal.studies.impact_estimates import OWN
from eocausal.studies.impact_methods import methods_words, references
from eocausal.studies.impact_pixels import zones_of_grid
from eocausal.studies.impact_truth import read_true_effect, truth_words
from eocausal.studies.progress import Advance
from eocausal.studies.reporting import read_checks, write_report_files

if TYPE_CHECKING:
    from eocausal.reports.content import ReportContent
    from eocausal.reports.impact_content import (
        BrokenSeries,
        ImpactContent,
        LandCover,
        PixelMap,
    )
    from eocausal.studies.impact_space import ImpactSpace

__all__ = ["impact_report_content", "report"]

LEAST_AREA = 0.01
"""Classes with less in every year, in km2, are not printed."""


def report(space: ImpactSpace, progress: Advance) -> list[str]:
    """Write ``figures/`` and ``report.html``."""
    return write_report_files(space, impact_report_content(space), progress)


def impact_report_content(space: ImpactSpace) -> ReportContent:
    """Gather everything the report shows."""
    from eocausal.reports.content import ReportContent
    from eocausal.reports.impact_text import impact_claim

    study, section = space.study, space.study.report
    outcome, unit = outcome_of(space)
    checks = read_checks(space.folder)
    own = space.kept("effect.json")["records"][0]
    kept = space.kept("checks.json")
    values = {name: {**c["values"], "verdict": c["verdict"]} for name, c in kept.items()}
    claim = impact_claim(
        own, checks, values, outcome=outcome, unit=unit, event=study.event.name,
        when=pd.Timestamp(study.event.when), times=pd.DatetimeIndex(space.frame.index),
    )  # fmt: skip
    return ReportContent(
        title=study.title,
        claim=claim,
        summary=[*section.notes],
        estimates=json.loads((space.folder / "estimates.json").read_text(encoding="utf-8"))[:1],
        checks=checks,
        impact=_impact(space, unit),
        data=_facts(space),
        failures=FailureLedger.read(space.folder / "failures.parquet").to_frame(),
        provenance={
            "study": study.study,
            "seed": study.seed,
            "versions": versions(),
            "sha256": dict(space.hashes),
        },
        outcome=outcome,
        unit=unit,
    )


def outcome_of(space: ImpactSpace) -> tuple[str, str]:
    """Return the outcome in words and its unit."""
    section = space.study.report
    return section.outcome or space.study.outcome.series, section.unit or space.study.outcome.units


def _impact(space: ImpactSpace, unit: str) -> ImpactContent:
    from eocausal.reports.impact_content import ImpactContent
    from eocausal.reports.impact_text import break_words, variants_words

    event = space.study.event
    when = pd.Timestamp(event.when)
    path = pd.read_csv(space.folder / "effect.csv", index_col="time", parse_dates=["time"])
    variants = variants_frame(space)
    found = space.kept("breaks.json") if space.study.breaks is not None else []
    times = pd.DatetimeIndex(path.index)
    return ImpactContent(
        event=event.name,
        when=when,
        end=None if event.end is None else pd.Period(event.end).end_time.floor("D"),
        learn_until=None if event.learn_until is None
        else pd.Period(event.learn_until).end_time.floor("D"),
        path=path,
        variants=variants,
        variants_words=variants_words(variants, unit),
        breaks=[_broken(space, item) for item in found if not item["refused"]],
        breaks_words=break_words(found, when, times, unit) if found else [],
        sensors=_sensors(space),
        sensor_tests=_sensor_tests(found),
        paper=_paper(space, unit),
        in_time=_in_time(space),
        in_space=_in_space(space),
        controls_left_out=_left_out(space, "leave_out_controls"),
        years_left_out=_left_out(space, "leave_out_years"),
        depths=_depths(space),
        depth_words=_depth_words(space),
        land=_land(space),
        pixels=_pixels(space),
        truth=truth_words(space),
        methods=methods_words(space),
        references=references(space),
    )  # fmt: skip


def variants_frame(space: ImpactSpace) -> pd.DataFrame:
    """Return the average effect by model as the table that figures and words take."""
    own = space.kept("effect.json")["records"][:1]
    rows: list[dict[str, Any]] = []
    for r in [*own, *space.kept("variants.json")["records"]]:
        mine = r["variant"] == OWN
        rows.append({
            "name": "this study" if mine else r["variant"], "kind": "own" if mine else "variant",
            "method": r.get("model", r["method"]),
            **{k: r.get(k) for k in ("estimate", "ci_low", "ci_high", "relative",
                                     "cumulative", "p_value", "note")},
        })  # fmt: skip
    published = space.study.published
    if published is not None and published.average is not None:
        rows.append({
            "name": f"{published.source}, as printed", "kind": "published", "method": "as printed",
            "estimate": published.average, "relative": published.relative,
            "cumulative": published.cumulative, "p_value": published.p_value, "note": "",
        })  # fmt: skip
    truth = read_true_effect(space)
    if truth is not None:
        rows.append({
            "name": "the truth, as simulated", "kind": "published", "method": "known",
            "estimate": truth, "note": "",
        })  # fmt: skip
    numbers = ["estimate", "ci_low", "ci_high", "relative", "cumulative", "p_value"]
    return pd.DataFrame(rows).astype(dict.fromkeys(numbers, float))


def _broken(space: ImpactSpace, item: dict[str, Any]) -> BrokenSeries:
    from eocausal.reports.impact_content import BrokenSeries

    values = space.outcome if item["treated"] else space.frame[item["name"]]
    columns = ["before", "after", "first", "last", "change", "std_error", "p_value"]
    return BrokenSeries(
        name=item["name"], values=values, levels=pd.DataFrame(item["levels"]),
        breaks=pd.DataFrame(item["breaks"], columns=columns), words=item["summary"].split("\n"),
        sensors=bool(item["sensors"]),
    )  # fmt: skip


def _sensors(space: ImpactSpace) -> pd.DataFrame:
    section = space.study.breaks
    rows = [] if section is None else [(s.date, s.what) for s in section.sensors]
    return pd.DataFrame(rows, columns=["date", "what"])


def _sensor_tests(found: list[dict[str, Any]]) -> pd.DataFrame:
    """Return the tests of breaks at declared dates, a row per series and date."""
    rows = [
        {"series": item["name"], **row}
        for item in found if not item["refused"] for row in item["sensors"]
    ]  # fmt: skip
    return pd.DataFrame(rows)


def _check(space: ImpactSpace, name: str) -> dict[str, Any]:
    """Return a check as it was kept; empty if it was not asked for."""
    found: dict[str, Any] = space.kept("checks.json").get(name, {})
    return found


def _in_time(space: ImpactSpace) -> pd.DataFrame:
    """Return the effects of events that did not happen."""
    table = pd.DataFrame(_check(space, IN_TIME).get("table", []))
    return table.rename(columns={"event": "when"}) if len(table) else table


def _in_space(space: ImpactSpace) -> pd.DataFrame:
    """Return the effects of series in the treated role, with the real one."""
    table = pd.DataFrame(_check(space, IN_SPACE).get("table", []))
    if not len(table) or "estimate" not in table:
        return pd.DataFrame()
    own = space.kept("effect.json")["records"][0]
    real = {"place": outcome_of(space)[0], **own}
    rows = pd.DataFrame([real, *table[table["estimate"].notna()].to_dict("records")])
    rows = rows.rename(columns={"place": "name"})
    rows["treated"] = [True, *[False] * (len(rows) - 1)]
    numbers = ["estimate", "ci_low", "ci_high"]
    return rows[["name", *numbers, "treated"]].astype(dict.fromkeys(numbers, float))


def _left_out(space: ImpactSpace, name: str) -> pd.DataFrame:
    """Return the effect with one control, or one year, left out, beside the whole."""
    found = _check(space, name).get("table", [])
    if not found:
        return pd.DataFrame()
    own = space.kept("effect.json")["records"][0]
    rows = [{"name": "nothing left out", "kind": "own", **own}]
    years = name == "leave_out_years"
    for row in sorted(found, key=lambda r: str(r["without"])) if years else found:
        label = str(row["without"]) if years else f"without {row['without']}"
        rows.append({**row, "name": label, "kind": "variant"})
    numbers = ["estimate", "ci_low", "ci_high"]
    table = pd.DataFrame(rows)[["name", "kind", *numbers]]
    return table.astype(dict.fromkeys(numbers, float))


def _paper(space: ImpactSpace, unit: str) -> list[str]:
    from eocausal.reports.impact_paper import paper_words
    from eocausal.studies.impact_paper import paper_facts

    if space.study.published is None:
        return []
    values = _check(space, IN_TIME).get("values", {})
    in_time = {}
    if values.get("placebos"):
        in_time = {
            "count": values["placebos"], "as_far": values["at_least"],
            "p_value": values["p_value"], "excluded": values["rejected"],
            "worth": values["independent"], "p_worth": values["p_independent"],
        }  # fmt: skip
    return paper_words(paper_facts(space, unit, in_time, _check(space, DRIFT).get("claim", "")))


def _depths(space: ImpactSpace) -> pd.DataFrame:
    """Return depths by relation, those that could be computed."""
    if space.study.optics is None:
        return pd.DataFrame()
    rows = [r for r in space.kept("optics.json") if not r["refused"]]
    names = {
        "relation": "relation", "meaning": "means", "expected": "before", "observed": "after",
        "change": "change", "change_low": "ci_low", "change_high": "ci_high",
    }  # fmt: skip
    return pd.DataFrame(rows, columns=list(names)).rename(columns=names)


def _depth_words(space: ImpactSpace) -> list[str]:
    from eocausal.reports.impact_text import depth_words

    return depth_words(space.kept("optics.json")) if space.study.optics is not None else []


def _land(space: ImpactSpace) -> LandCover | None:
    from eocausal.reports.impact_content import LandCover

    if space.study.land_cover is None:
        return None
    kept = space.kept("land_cover.json")
    areas = pd.DataFrame(kept["areas"]).set_index("year")
    tables = [(t["caption"], pd.DataFrame(t["rows"])) for t in kept["tables"]]
    return LandCover(
        areas=areas.loc[:, areas.max() >= LEAST_AREA], followed=kept["followed"],
        words=kept["words"], tables=tables,
    )  # fmt: skip


def _pixels(space: ImpactSpace) -> PixelMap | None:
    """Return the map of effects by pixel, drawn."""
    from eocausal.reports.impact_content import PixelMap
    from eocausal.reports.impact_pixels import pixel_pictures, pixel_words

    section = space.study.map
    if section is None:
        return None
    kept = space.kept("map.json")
    if not kept["files"]:
        return PixelMap(words=[kept["refused"]], pictures=())
    with xr.open_dataset(space.folder / "effects.nc", engine="h5netcdf") as data:
        zones = zones_of_grid(space, section.grid)
        pictures = pixel_pictures(
            data.load(), zones, unit=outcome_of(space)[1], q=section.false_discovery
        )
    words = pixel_words(kept, outcome_of(space)[1], section.false_discovery)
    return PixelMap(words=words, pictures=pictures)


def _facts(space: ImpactSpace) -> list[tuple[str, str]]:
    """Return pairs of label and value."""
    study, frame = space.study, space.frame
    outcome, unit = outcome_of(space)
    times = pd.DatetimeIndex(frame.index)
    post = times >= pd.Timestamp(study.event.when)
    known = space.outcome.notna().to_numpy()
    distances = {c.name or c.series: c.distance_km for c in study.controls}
    controls = [
        f"{name} ({distances[name]:g} km away)" if distances.get(name) else str(name)
        for name in map(str, space.controls)
    ]
    facts = [
        ("Outcome", f"{outcome} ({study.outcome.series}), in {unit}"),
        ("Times", f"{len(times):,} from {times[0]:%Y-%m-%d} to {times[-1]:%Y-%m-%d}; "
         f"{int((known & ~post).sum()):,} with a value before the event, "
         f"{int((known & post).sum()):,} after; {int((~known).sum()):,} without"),
        ("Event", f"{study.event.name}, from {study.event.when}"
         + (f" to {study.event.end}" if study.event.end else "")),
        ("Controls", "; ".join(controls) or "none"),
        ("Model", space.kept("effect.json")["words"]),
    ]  # fmt: skip
    return facts
