"""An impact as a record: what the command line prints as JSON."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from eocausal.estimators.impact_calendar import time_label
from eocausal.estimators.structural_model import Season, StructuralModel
from eocausal.estimators.structural_priors import CompatiblePrior

if TYPE_CHECKING:
    import pandas as pd
    from numpy.typing import NDArray

    from eocausal.estimators.impact import Impact
    from eocausal.estimators.impact_summary import ImpactSummary

__all__ = ["impact_record", "model_record"]


def impact_record(impact: Impact) -> dict[str, Any]:
    """Return effects, model and notes as plain values; NaN where a number does not exist."""
    path, request = impact.path, impact.request
    learned = impact.before & np.isfinite(path.observed)
    events = [
        {"event": name, **_effects(found)}
        for name, found in impact.by_event.items()
        if len(impact.by_event) > 1
    ]
    return {
        "outcome": impact.name,
        "unit": impact.unit,
        "event": list(impact.by_event) if events else next(iter(impact.by_event)),
        "learned_from": _span(path.time, learned),
        "counted": _span(path.time, path.counted),
        "step": impact.step,
        "level": path.level,
        **_effects(impact.effects),
        "tail": "one-sided" if _compatible(impact.model) else "two-sided",
        **({"by_event": events} if events else {}),
        "inclusion": {str(name): float(share) for name, share in impact.inclusion.items()},
        "model": model_record(impact.model),
        "transform": None if request.transform is None else type(request.transform).__name__,
        "engine": str(impact.engine),
        "draws": request.draws,
        "seed": request.seed,
        "fit_checks": [
            {"aspect": str(name), **{str(k): float(v) for k, v in row.items()}}
            for name, row in impact.fit_checks.table.iterrows()
        ],
        "notes": list(impact.notes),
    }


def _effects(found: ImpactSummary) -> dict[str, Any]:
    out: dict[str, Any] = {
        name: {k: v for k, v in found.row(name).items() if not k.startswith("relative")}
        for name in ("average", "cumulative")
    }
    first = found.row()
    relative = {"effect": first["relative"]}
    for part in ("sd", "low", "high"):
        relative[f"effect_{part}"] = first[f"relative_{part}"]
    return {**out, "relative": relative, "p_value": found.p_value, "n": found.n}


def _span(times: pd.Index, where: NDArray[np.bool_]) -> dict[str, Any]:
    at = np.flatnonzero(where)
    return {"first": time_label(times[at[0]]), "last": time_label(times[at[-1]]), "n": len(at)}


def _compatible(model: StructuralModel) -> bool:
    return isinstance(model.prior, CompatiblePrior)


def model_record(model: StructuralModel) -> dict[str, Any]:
    """Return a model as plain values."""
    compatible = _compatible(model)
    prior = {} if not isinstance(model.prior, CompatiblePrior) else {
        "prior_level_sd": model.prior.level_sd
    }  # fmt: skip
    return {
        "trend": str(model.trend),
        "season": [_season(season) for season in model.seasons],
        "dynamic": model.dynamic,
        "heavy_tails": model.heavy_tails,
        "priors": "R CausalImpact" if compatible else "eocausal",
        **prior,
    }


def _season(season: Season) -> dict[str, Any]:
    return {
        "period": season.period,
        "duration": season.duration,
        "harmonics": season.harmonics,
        "changes": bool(season.changes),
    }
