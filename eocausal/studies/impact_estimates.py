"""The effect of an event and its variants as records of ``estimates.json``."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from eocausal.errors import EocausalError
from eocausal.provenance import atomic_path
from eocausal.studies.impact_decisions import control_names, varied
from eocausal.studies.progress import Advance
from eocausal.studies.records import plain_records

if TYPE_CHECKING:
    from eocausal.estimators.impact import Impact
    from eocausal.studies.impact_space import ImpactSpace
    from eocausal.studies.schema_impact import ModelSection, VariantSection

__all__ = ["AVERAGE", "OWN", "estimate_effect", "estimate_variants", "model_words"]

AVERAGE, CUMULATIVE, RELATIVE = "average effect", "cumulative effect", "relative effect"
OWN = "own"
TRENDS = {
    "level": "a level that may walk", "line": "a level that may walk and a straight line",
    "local_linear": "level and slope that walk", "semi_local": "a level, and a slope around a mean",
}  # fmt: skip


def model_words(section: ModelSection, controls: int) -> str:
    """Say what the series is made of."""
    parts = [TRENDS[section.trend]]
    if section.season:
        parts.append(f"a season of {section.season} times")
    if controls:
        walk = " whose coefficients walk" if section.dynamic else ""
        parts.append(f"{controls} control{'s' if controls > 1 else ''}{walk}")
    compatible = section.prior.compatible
    prior = (
        f"CausalImpact's priors (level sd {compatible.level_sd:g})" if compatible is not None
        else "autocorrelation learned"
    )  # fmt: skip
    scale = "" if section.transform == "none" else f", on the {section.transform} scale"
    return f"structural time series: {', '.join(parts)}; {prior}{scale}"


def records_of(impact: Impact, method: str, more: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Return the average, cumulative and relative effect as records."""
    summary, table = impact.effects, impact.effects.table
    common = {
        "p_value": summary.p_value, "n": summary.n, "level": impact.path.level,
        "vcov": "posterior draws", "status": "ok" if not summary.notes else "warned",
        "note": " ".join(summary.notes),
    }  # fmt: skip
    average, total = table.loc["average"], table.loc["cumulative"]
    found = []
    for estimand, row, name in (
        (AVERAGE, average, "effect"), (CUMULATIVE, total, "effect"), (RELATIVE, average, "relative")
    ):  # fmt: skip
        found.append({
            "estimand": estimand, "method": method, "estimate": row[name],
            "std_error": row[f"{name}_sd"], "ci_low": row[f"{name}_low"],
            "ci_high": row[f"{name}_high"], **common, **more,
        })  # fmt: skip
    found[0] |= {
        "actual": average["actual"], "predicted": average["predicted"],
        "predicted_low": average["predicted_low"], "predicted_high": average["predicted_high"],
        "relative": average["relative"], "relative_low": average["relative_low"],
        "relative_high": average["relative_high"], "cumulative": total["effect"],
        "cumulative_low": total["effect_low"], "cumulative_high": total["effect_high"],
        "engine": str(impact.engine),
        "inclusion": {str(k): float(v) for k, v in impact.inclusion.items()},
    }  # fmt: skip
    return plain_records(found)


def estimate_effect(space: ImpactSpace, progress: Advance) -> list[str]:
    """Estimate the effect under the study's own model, and write its path."""
    impact = space.impact
    frame = impact.path.to_frame().rename_axis("time")
    frame["expected"] = np.asarray(impact.expected).mean(0)
    frame["after"] = impact.path.post.astype(int)
    with atomic_path(space.folder / "effect.csv") as temporary:
        frame.to_csv(temporary, date_format="%Y-%m-%d", lineterminator="\n", float_format="%.10g")
    words = model_words(space.study.model, len(control_names(space.study)))
    records = records_of(impact, words, {"variant": OWN})
    return ["effect.csv", space.keep("effect.json", {"records": records, "words": words})]


def estimate_variants(space: ImpactSpace, progress: Advance) -> list[str]:
    """Ask the same question otherwise; one that cannot be answered says why."""
    records: list[dict[str, Any]] = []
    variants = space.study.variants
    for k, (name, variant) in enumerate(variants.items()):
        try:
            records += _variant(space, name, variant)
        except EocausalError as error:
            records.append(_refused(space, name, variant, f"{error.fact} {error.cause}"))
        progress(k + 1, len(variants))
    return [space.keep("variants.json", {"records": records})]


def _variant(space: ImpactSpace, name: str, variant: VariantSection) -> list[dict[str, Any]]:
    if variant.method == "maximum_likelihood":
        return _likelihood(space, name, variant)
    section = varied(space.study.model, variant)
    names = control_names(space.study) if variant.controls is None else list(variant.controls)
    impact = space.estimate(section, names)
    return records_of(impact, model_words(section, len(names)), {"variant": name})[:1]


def _likelihood(space: ImpactSpace, name: str, variant: VariantSection) -> list[dict[str, Any]]:
    raise NotImplementedError


def _refused(space: ImpactSpace, name: str, variant: VariantSection, why: str) -> dict[str, Any]:
    section = varied(space.study.model, variant)
    count = len(control_names(space.study)) if variant.controls is None else len(variant.controls)
    return {
        "estimand": AVERAGE, "method": model_words(section, count), "estimate": None,
        "std_error": None, "ci_low": None, "ci_high": None, "p_value": None, "n": None,
        "status": "refused", "note": why, "variant": name,
    }  # fmt: skip
