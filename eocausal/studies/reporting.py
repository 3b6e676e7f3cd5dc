"""The last stage of a run: what was left in the run folder becomes figures and a report."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from eocausal.checks.base import CheckResult
from eocausal.contracts import ChipStatus
from eocausal.errors import StudyError
from eocausal.provenance import FailureLedger, atomic_path, versions
from eocausal.studies.embed import check_result, read_description
from eocausal.studies.explain import read_salience
from eocausal.studies.workspace import RunSpace, Workspace

if TYPE_CHECKING:
    from eocausal.effect_map import EffectMap
    from eocausal.reports.content import Gallery, ReportContent

__all__ = ["read_checks", "read_truth", "report", "report_content", "write_report_files"]

SALIENCE_WORDS = (
    "Of the places with the largest and the smallest effects expected from their images, the "
    "pixels on which that expectation rests. This explains the fitted function, not the world: if "
    "there is no evidence that effects differ between places, what it rests on is chance. The "
    "files in salience/ can be laid over any map."
)


def report(space: Workspace, progress: Callable[[int, int], None]) -> list[str]:
    """Write ``figures/`` and ``report.html``."""
    return write_report_files(space, report_content(space), progress)


def write_report_files(
    space: RunSpace, content: ReportContent, progress: Callable[[int, int], None]
) -> list[str]:
    """Write figures, report and claim of any kind of study, and return their names."""
    from eocausal.reports.figures import save_figures
    from eocausal.reports.html import write_report

    with atomic_path(space.folder / "figures") as temporary:
        temporary.mkdir()
        save_figures(temporary, content)
    progress(1, 2)
    write_report(space.folder / "report.html", content)
    return ["figures", "report.html", space.keep("claim.json", content.claim)]


def read_checks(folder: Path) -> list[CheckResult]:
    """Read the checks' results from a run folder."""
    rows = json.loads((folder / "checks.json").read_text(encoding="utf-8"))
    return [check_result(r) for r in rows]


def report_content(space: Workspace) -> ReportContent:
    """Gather everything the report shows."""
    from eocausal.reports.content import ReportContent
    from eocausal.reports.text import claim_in_words

    section = space.study.report
    outcome = section.outcome or space.study.estimate.outcome
    estimates = json.loads((space.folder / "estimates.json").read_text(encoding="utf-8"))
    effect_map = _read_map(space)
    checks = read_checks(space.folder)
    ranking = space.kept("ranking.json") if space.study.estimate.heterogeneity else {}
    splits = pd.DataFrame(ranking["splits"]) if ranking else None
    claim = claim_in_words(
        estimates, effect_map, checks,
        heterogeneity=splits, outcome=outcome, unit=section.unit or "",
    )  # fmt: skip
    return ReportContent(
        title=space.study.title,
        claim=claim,
        summary=_summary(space, estimates),
        estimates=estimates,
        effect_map=effect_map,
        checks=checks,
        heterogeneity=splits,
        treatment_auc=pd.DataFrame(ranking["auc"]) if ranking else None,
        truth=_truth(space, effect_map),
        galleries=_galleries(space),
        data=_facts(space),
        failures=FailureLedger.read(space.folder / "failures.parquet").to_frame(),
        provenance={
            "study": space.study.study,
            "seed": space.study.seed,
            "versions": versions(),
            "sha256": dict(space.hashes),
        },
        outcome=outcome,
        unit=section.unit or "",
    )


def _galleries(space: Workspace) -> list[Gallery]:
    """Return the pictures of the embedding and of salience."""
    from eocausal.reports.content import Gallery

    check, pictures = read_description(space.folder)
    words = f"{check.claim} {check.detail}".strip()
    found = [Gallery("What the images show, as the encoder sees it", words, pictures)]
    if space.study.estimate.salience is not None:
        found.append(Gallery("Which pixels move the effect", SALIENCE_WORDS, read_salience(space)))
    return found


def _read_map(space: Workspace) -> EffectMap | None:
    import geopandas as gpd

    from eocausal.effect_map import EffectMap

    if space.study.estimate.map is None:
        return None
    table = gpd.read_parquet(space.folder / "effects.parquet")
    return EffectMap(table, space.study.estimate.level)


def _summary(space: Workspace, estimates: list[dict[str, Any]]) -> list[str]:
    """Return the sentences under the claim: the study's own notes, then what was done."""
    sentences = [*space.study.report.notes, *space.kept("inputs.json")["notes"]]
    for record in estimates:
        if record["estimand"] == "minimum detectable effect":
            sentences.append(
                "Judged blind to the arms, the trial could find an effect of "
                f"{record['estimate']:.3g} or more with 80 % probability."
            )
    if space.study.estimate.map is not None and not (space.folder / "effects.tif").exists():
        sentences.append(
            "The neighborhoods are points without an area, so that there is no effects.tif; "
            "data.neighborhoods.size_m would give them one."
        )
    return sentences


def _truth(space: Workspace, effect_map: EffectMap | None) -> pd.DataFrame | None:
    """Set the true effects of a simulated world beside the map."""
    if space.study.report.truth is None or effect_map is None:
        return None
    truth = read_truth(space)
    table = effect_map.table
    frame = pd.DataFrame({
        "neighborhood": table.index.astype(str),
        **{name: table[name].to_numpy() for name in ("estimate", "ci_low", "ci_high")},
        "truth": [truth.get(str(label), np.nan) for label in table.index],
    })  # fmt: skip
    return frame.dropna(ignore_index=True)


def read_truth(space: Workspace) -> dict[str, float]:
    """Return the true effect of every neighborhood of a simulated world.

    Raises
    ------
    StudyError
        If the file has no ``neighborhoods`` with an ``effect`` each.
    """
    path = space.file.root / str(space.study.report.truth)
    try:
        places = json.loads(path.read_text(encoding="utf-8"))["neighborhoods"]
        return {str(label): float(place["effect"]) for label, place in places.items()}
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise StudyError(
            f"{path} holds no true effects.",
            cause="It needs neighborhoods: {ID: {effect: NUMBER}}, as simulate.world writes it.",
            next_step="Correct report.truth, or leave it out.",
        ) from error


def _facts(space: Workspace) -> list[tuple[str, str]]:
    """Return what the report says about the data."""
    tables, trial, cube = space.tables, space.trial, space.cube
    a = trial.assignment(tables.units)
    sizes, status = cube.sizes, cube["status"].to_numpy()
    usable = np.isin(status, [ChipStatus.OK, ChipStatus.PARTIAL]).mean()
    last = str(space.embedding.attrs["last_image_date"]) or "unknown"
    by = f", assigned by {trial.cluster} ({a.n_clusters:,} clusters)" if trial.cluster else ""
    return [
        ("Units", f"{len(tables.units):,}, {int(a.treated.sum()):,} treated{by}"),
        ("Neighborhoods", f"{len(tables.places):,}, of them "
         f"{tables.units['neighborhood'].nunique():,} with units of the trial"),
        ("Outcome", space.study.report.outcome or space.study.estimate.outcome),
        ("Covariates", ", ".join(space.study.estimate.covariates) or "none"),
        ("Images", f"{space.kept('inputs.json')['scenes']:,} scenes; bands "
         f"{', '.join(map(str, cube.indexes['band']))}; periods "
         f"{', '.join(map(str, cube.indexes['period']))}"),
        ("Chips", f"{sizes['y']} × {sizes['x']} pixels of {cube.attrs['resolution']:g} m; "
         f"{usable:.1%} usable, mean share of valid pixels "
         f"{float(cube['valid'].mean()):.1%}"),
        ("Last image", last),
        ("Trial began", trial.start or "not stated"),
        ("Encoder", str(space.embedding.attrs["encoder"])),
    ]  # fmt: skip
