"""What the stages of an evaluation share: its tables, the features of its images, its kinds."""

from __future__ import annotations

from dataclasses import replace
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np

from eocausal.placements import Kind
from eocausal.studies.evaluation_decisions import SETS
from eocausal.studies.evaluation_tables import (
    TREATMENT,
    EvaluationTables,
    assemble_evaluation,
    units_of_kind,
)
from eocausal.studies.load import EvaluationFile
from eocausal.studies.schema_evaluation import Evaluation
from eocausal.studies.workspace import IngestSpace

if TYPE_CHECKING:
    import geopandas as gpd
    import pandas as pd
    from numpy.typing import NDArray

    from eocausal.estimators.observational import Observed

__all__ = ["EvaluationSpace", "adjusted"]

IMAGE = "image"


class EvaluationSpace(IngestSpace):
    """The things a stage of an evaluation may ask for."""

    file: EvaluationFile
    study: Evaluation

    @cached_property
    def tables(self) -> EvaluationTables:
        """Places, units, projects, and who was reached."""
        return assemble_evaluation(self.study)

    @cached_property
    def places(self) -> gpd.GeoDataFrame:
        """Every place."""
        return self.tables.places

    @property
    def sees(self) -> bool:
        """Whether some adjustment uses images."""
        return set(self.study.estimate.adjust) != {"table"}

    @cached_property
    def features(self) -> pd.DataFrame:
        """Features by place, for the places that were seen."""
        from eocausal.estimators.learners import feature_frame

        return feature_frame(self.embedding)

    @cached_property
    def seen(self) -> NDArray[np.bool_]:
        """(n,) True for units of which something was seen; all if images are not used."""
        units = self.tables.units
        if not self.sees:
            return np.ones(len(units), dtype=bool)
        return np.asarray(units.index.isin(self.features.index))

    @property
    def headline(self) -> Kind:
        """The kind that is looked at closely."""
        chosen = self.kept("sectors.json")["headline"]
        return Kind(chosen["funder"], chosen["sector"])

    def compared(self, kind: Kind) -> tuple[pd.DataFrame, list[str]]:
        """Return the units compared for a kind, those that were seen if images are used."""
        units, history = units_of_kind(
            self.tables, self.tables.exposure(kind), history=self.study.estimate.history
        )
        return units[units.index.isin(self.tables.units.index[self.seen])], history

    def observed(self, kind: Kind, outcome: str | None = None) -> Observed:
        """Return the study of one kind of project, with all confounders.

        Parameters
        ----------
        outcome
            Instead of the study's own.
        """
        units, history = self.compared(kind)
        return self.observe(units, [*self.study.estimate.covariates, *history], outcome)

    def observe(
        self, units: pd.DataFrame, covariates: list[str], outcome: str | None = None
    ) -> Observed:
        """Return the study of some units."""
        from eocausal.estimators.observational import observe

        return observe(
            units, treatment=TREATMENT, outcome=outcome or self.study.estimate.outcome,
            covariates=covariates, images={IMAGE: self.features} if self.sees else None,
        )  # fmt: skip


def adjusted(data: Observed, adjustment: str) -> Observed:
    """Keep the confounders of one adjustment: table, image or both."""
    wanted = [b for b in SETS[adjustment] if b in data.confounders.blocks]
    return replace(data, confounders=data.confounders.only(*wanted))
