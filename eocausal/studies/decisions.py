"""From the words of a study file to the decision objects they stand for."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from eocausal.designs import Trial
from eocausal.estimators.inference import HC2, Clustered, Conley
from eocausal.studies.schema import BasisChoice, Study, VcovChoice
from eocausal.studies.schema_base import Choice, Section
from eocausal.studies.schema_imagery import CompositeChoice, MaskChoice, StatisticChoice

if TYPE_CHECKING:
    from eocausal.effects import VarianceRule
    from eocausal.estimators.bases import ForestBasis, RidgeBasis
    from eocausal.ingest.composites import Composite
    from eocausal.ingest.masks import Mask
    from eocausal.ingest.resample import Resampling
    from eocausal.ingest.statistics import Statistic

__all__ = [
    "basis_of",
    "composite_of",
    "masks_of",
    "resampling_of",
    "statistics_of",
    "trial_of",
    "variances_of",
]


def trial_of(study: Study) -> Trial:
    """Return the trial of a study."""
    t = study.design.trial
    return Trial(t.arm, cluster=t.cluster, prob=t.prob, block=t.block, start=t.start)


def variances_of(study: Study) -> tuple[VarianceRule, ...]:
    """Return the variance that the design implies, then the others asked for."""
    from eocausal.estimators.randomized import default_vcov

    implied = default_vcov(trial_of(study))
    asked = [_variance(choice, study) for choice in study.estimate.vcov]
    return tuple(dict.fromkeys([implied, *asked]))


def _variance(choice: VcovChoice, study: Study) -> VarianceRule:
    if choice.conley is not None:
        return Conley(choice.conley.km)
    if choice.clustered is not None:
        return Clustered(choice.clustered.by or str(study.design.trial.cluster))
    return HC2()


def basis_of(choice: BasisChoice) -> RidgeBasis | ForestBasis:
    """Return what the effect may depend on."""
    from eocausal.estimators.bases import ForestBasis, RidgeBasis

    if choice.forest is not None:
        return ForestBasis(**choice.forest.model_dump())
    return RidgeBasis(**(choice.ridge.model_dump() if choice.ridge is not None else {}))


def resampling_of(name: str) -> Resampling:
    """Return the resampling of that name."""
    from eocausal.ingest.resample import Bilinear, Nearest

    return Nearest() if name == "nearest" else Bilinear()


def masks_of(choices: Sequence[MaskChoice]) -> tuple[Mask, ...]:
    """Return the masks that a study names.

    Raises
    ------
    IngestError
        If a class or condition is unknown.
    """
    from eocausal.ingest import masks

    kinds: dict[str, Callable[..., Mask]] = {
        "qa_pixel": masks.QAPixel,
        "scl": masks.SceneClassification,
        "cloud_probability": masks.CloudProbability,
        "nonzero": masks.NonZero,
        "values": masks.Values,
    }
    return tuple(kinds[c.name](**_options(c)) for c in choices)


def composite_of(choice: CompositeChoice | None) -> Composite | None:
    """Return the composite that a study names.

    Raises
    ------
    IngestError
        If it cannot work.
    """
    from eocausal.ingest import composites

    if choice is None:
        return None
    kinds: dict[str, Callable[..., Composite]] = {
        "median": composites.Median,
        "mean": composites.Mean,
        "medoid": composites.Medoid,
        "percentile": lambda q: composites.Percentile(q),
        "best_pixel": composites.BestPixel,
        "nearest_day": composites.NearestDay,
    }
    return kinds[choice.name](**_options(choice))


def statistics_of(choices: Sequence[StatisticChoice]) -> tuple[Statistic, ...]:
    """Return the statistics that a study names."""
    from eocausal.ingest import statistics

    kinds: dict[str, Callable[..., Statistic]] = {
        "mean": statistics.Mean,
        "sum": statistics.Sum,
        "std": statistics.StdDev,
        "count": statistics.Count,
        "min": statistics.Min,
        "max": statistics.Max,
        "quantile": statistics.Quantile,
        "class_share": statistics.ClassShare,
        "class_area": statistics.ClassArea,
    }
    return tuple(kinds[c.name](**_options(c)) for c in choices)


def _options(choice: Choice) -> dict[str, Any]:
    section: Section = getattr(choice, choice.name)
    return section.model_dump(exclude_none=True)
