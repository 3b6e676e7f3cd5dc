"""The effect of an event and its variants as records of ``estimates.json``."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from eocausal.errors import EocausalError
from eocausal.provenance import atomic_path
from eocausal.studies.impact_decisions import control_names, event_of, varied
from eocausal.studies.progress import Advance
from eocausal.studies.records import plain_records

if TYPE_CHECKING:
    from eocausal.estimators.impact import Impact
    from eocausal.estimators.maximum_likelihood_result import LikelihoodImpact
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


SHORT = {
    "level": "level", "line": "level and line", "local_linear": "level and slope",
    "semi_local": "level and returning slope",
}  # fmt: skip


def short_words(section: ModelSection, controls: int) -> str:
    """Say what the series is made of, for a table."""
    parts = [SHORT[section.trend]]
    parts += [f"season {section.season}"] if section.season else []
    parts += [f"{controls} control{'s' if controls > 1 else ''}"] if controls else []
    parts += [f"{section.transform} scale"] if section.transform != "none" else []
    compatible = section.prior.compatible is not None
    return f"{', '.join(parts)}; {'CausalImpact’s priors' if compatible else 'learned'}"


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
    short = short_words(space.study.model, len(control_names(space.study)))
    records = records_of(impact, words, {"variant": OWN, "model": short})
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
    more = {"variant": name, "model": short_words(section, len(names))}
    return records_of(impact, model_words(section, len(names)), more)[:1]


def _likelihood(space: ImpactSpace, name: str, variant: VariantSection) -> list[dict[str, Any]]:
    """Estimate by maximum likelihood; the interval is that of the mean from the joint forecast."""
    from scipy.stats import norm

    found, words, short = fit_likelihood(space, variant)
    section = space.study.model
    half = norm.ppf(0.5 + section.level / 2) * found.std_error_estimated
    count = len(found.effect)
    record = {
        "estimand": AVERAGE, "method": words, "estimate": found.average,
        "std_error": found.std_error_estimated, "ci_low": found.average - half,
        "ci_high": found.average + half, "p_value": found.p_value, "n": count,
        "level": section.level, "vcov": "joint forecast", "status": "ok",
        "note": "" if found.converged else "The search for the highest likelihood did not end.",
        "variant": name, "model": short, "predicted": found.predicted, "relative": found.relative,
        "cumulative": found.cumulative, "cumulative_low": count * (found.average - half),
        "cumulative_high": count * (found.average + half),
        "std_error_of_one": found.std_error_of_one, "p_value_of_one": found.p_value_of_one,
        "collapsed": list(found.collapsed), "autocorrelation": found.autocorrelation,
        "log_likelihood": found.log_likelihood, "given": variant.parameters is not None,
    }  # fmt: skip
    return plain_records([record])


def fit_likelihood(
    space: ImpactSpace, variant: VariantSection
) -> tuple[LikelihoodImpact, str, str]:
    """Fit an unobserved components model, and say what it is at length and in short."""
    from eocausal.estimators.maximum_likelihood import maximum_likelihood
    from eocausal.estimators.maximum_likelihood_result import Parameters
    from eocausal.estimators.structural_model import Trend
    from eocausal.estimators.unobserved_components import UnobservedComponents

    study = space.study
    names = control_names(study) if variant.controls is None else list(variant.controls)
    season = study.model.season if variant.season is None else variant.season
    trend = Trend(variant.trend or "local_linear")
    model = UnobservedComponents(trend, season or None)
    at, given = None, variant.parameters
    if given is not None:
        states = {k: getattr(given, k) for k in model.variances}
        at = Parameters(given.noise, states, dict(given.coefficients))
    found = maximum_likelihood(
        space.outcome, event_of(study), space.controls[names] if names else None,
        model=model, at=at, level=study.model.level,
    )  # fmt: skip
    how = "at given parameters" if given is not None else "at the highest likelihood"
    parts = [TRENDS[trend.value], *([f"a season of {season} times"] if season else [])]
    parts += [f"{len(names)} controls"] if names else []
    short = model.trend.value, f"season {season}" if season else "", parts[-1] if names else ""
    return (
        found, f"unobserved components: {', '.join(parts)}; {how}",
        f"{', '.join([SHORT[short[0]], *filter(None, short[1:])])}; "
        + ("maximum likelihood" if given is None else "given parameters"),
    )  # fmt: skip


def _refused(space: ImpactSpace, name: str, variant: VariantSection, why: str) -> dict[str, Any]:
    section = varied(space.study.model, variant)
    count = len(control_names(space.study)) if variant.controls is None else len(variant.controls)
    return {
        "estimand": AVERAGE, "method": model_words(section, count), "estimate": None,
        "std_error": None, "ci_low": None, "ci_high": None, "p_value": None, "n": None,
        "status": "refused", "note": why, "variant": name, "model": short_words(section, count),
    }  # fmt: skip
