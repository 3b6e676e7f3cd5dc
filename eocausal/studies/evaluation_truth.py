"""The known effects of a simulated world, to be set beside what an evaluation found."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from eocausal.errors import StudyError
from eocausal.reports.tables import format_interval, format_number

if TYPE_CHECKING:
    from eocausal.effect_map import EffectMap
    from eocausal.studies.evaluation_space import EvaluationSpace

__all__ = ["compared_with_truth", "mapped_truth", "true_effects"]


def true_effects(space: EvaluationSpace) -> dict[tuple[str, str], float]:
    """Return the true average effects by estimand and sector.

    Raises
    ------
    StudyError
        If the file has no ``aid``.
    """
    found = {}
    for name, value in _read(space)["aid"].items():
        estimand, _, sector = str(name).partition("_")
        if estimand in ("ate", "att"):
            found[estimand.upper(), sector] = float(value)
    return found


def _read(space: EvaluationSpace) -> dict[str, Any]:
    path = space.file.root / str(space.study.report.truth)
    try:
        content: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        dict(content["aid"]), dict(content["neighborhoods"])
    except (ValueError, KeyError, TypeError) as error:
        raise StudyError(
            f"{path} holds no true effects of projects.",
            cause="It needs aid: {ate_SECTOR: NUMBER} and neighborhoods, as simulate.world writes "
            "them.",
            next_step="Correct report.truth, or leave it out.",
        ) from error
    return content


def compared_with_truth(space: EvaluationSpace, sectors: pd.DataFrame) -> list[str]:
    """Say for each effect what the truth is, and whether the interval holds it."""
    known = true_effects(space)
    said = []
    for row in sectors.to_dict("records"):
        truth = known.get((str(row["estimand"]), str(row["sector"])))
        if truth is None or not np.isfinite(row["ci_low"]):
            continue
        holds = "holds" if row["ci_low"] <= truth <= row["ci_high"] else "misses"
        interval = format_interval(row["ci_low"], row["ci_high"])
        said.append(
            f"of {row['sector']} the {row['estimand']} is {format_number(truth)} and was estimated "
            f"as {format_number(row['estimate'])} ({interval}, which {holds} it)"
        )
    if not said:
        return []
    return [f"This world is simulated, so that the truth is known: {'; '.join(said)}."]


def mapped_truth(space: EvaluationSpace, surface: EffectMap | None) -> pd.DataFrame | None:
    """Set the true effects of the headline's sector beside the map, where they are known."""
    if surface is None:
        return None
    places = _read(space)["neighborhoods"]
    constant = true_effects(space).get(("ATT", space.headline.sector)) == 0.0
    if space.headline.sector != "transport" and not constant:
        return None
    effects = {k: 0.0 if constant else float(v["aid_effect"]) for k, v in places.items()}
    table = surface.table
    frame = pd.DataFrame({
        "neighborhood": table.index.astype(str),
        **{name: table[name].to_numpy() for name in ("estimate", "ci_low", "ci_high")},
        "truth": [effects.get(str(label), np.nan) for label in table.index],
    })  # fmt: skip
    return frame.dropna(ignore_index=True)
