"""Turn the sections of a study of an event into decision objects."""

from __future__ import annotations

from typing import TYPE_CHECKING

from eocausal.designs import Event
from eocausal.estimators.structural_model import StructuralModel, Trend
from eocausal.estimators.structural_priors import CompatiblePrior, LearnedPrior
from eocausal.studies.impact_rules import control_name
from eocausal.studies.schema_impact import ImpactStudy, ModelSection, PriorChoice, VariantSection

if TYPE_CHECKING:
    from eocausal.estimators.breaks_model import BreakModel
    from eocausal.estimators.breaks_number import Sequential
    from eocausal.estimators.breaks_sensors import SensorChanges
    from eocausal.estimators.impact_transforms import Transform

__all__ = [
    "break_choice",
    "break_model",
    "control_names",
    "event_of",
    "model_of",
    "sensors_of",
    "transform_of",
    "varied",
]


def event_of(study: ImpactStudy) -> Event:
    """Return the event."""
    return Event(study.event.when, study.event.end)


def control_names(study: ImpactStudy) -> list[str]:
    """Return the names of the controls."""
    return [control_name(c.series, c.name) for c in study.controls]


def model_of(section: ModelSection) -> StructuralModel:
    """Return what the series is made of."""
    return StructuralModel(
        season=section.season or None, trend=Trend(section.trend), dynamic=section.dynamic,
        heavy_tails=section.heavy_tails, prior=_prior(section.prior),
    )  # fmt: skip


def _prior(choice: PriorChoice) -> LearnedPrior | CompatiblePrior:
    if choice.compatible is not None:
        return CompatiblePrior(level_sd=choice.compatible.level_sd)
    return LearnedPrior()


def transform_of(section: ModelSection) -> Transform | None:
    """Return the scale on which parts add up; None for the outcome's own."""
    from eocausal.estimators.impact_transforms import Log, Logit

    return {"none": None, "log": Log(), "logit": Logit()}[section.transform]


def varied(model: ModelSection, variant: VariantSection) -> ModelSection:
    """Return the model of a variant: the study's own but for what the variant says."""
    names = ("season", "trend", "prior", "transform", "dynamic")
    given = {n: getattr(variant, n) for n in names if getattr(variant, n) is not None}
    return model.model_copy(update=given)


def break_model(study: ImpactStudy) -> BreakModel:
    """Return what may change at a break."""
    from eocausal.estimators.breaks_model import BreakModel

    section = study.breaks
    assert section is not None
    return BreakModel(
        changes=section.changes, trend=section.trend, harmonics=section.harmonics,
        min_segment=section.min_segment, max_breaks=section.most,
    )  # fmt: skip


def break_choice(study: ImpactStudy) -> Sequential | str:
    """Return how the number of breaks is chosen."""
    from eocausal.estimators.breaks_number import Sequential
    from eocausal.estimators.breaks_sieve import ArSieve

    section = study.breaks
    assert section is not None
    if section.choose != "sequential":
        return section.choose
    return Sequential(sieve=ArSieve(draws=section.draws))


def sensors_of(study: ImpactStudy) -> SensorChanges | None:
    """Return the declared sensor changes; None if there are none."""
    from eocausal.estimators.breaks_sensors import SensorChange, SensorChanges
    from eocausal.estimators.breaks_sieve import ArSieve

    section = study.breaks
    if section is None or not section.sensors:
        return None
    changes = tuple(SensorChange(s.date, s.what) for s in section.sensors)
    return SensorChanges(changes, sieve=ArSieve(draws=section.draws))
