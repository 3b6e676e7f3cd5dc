"""What the stages of a study of an event share: its series and its effect."""

from __future__ import annotations

from functools import cached_property
from typing import TYPE_CHECKING

import pandas as pd

from eocausal.studies.impact_decisions import event_of, model_of, transform_of
from eocausal.studies.impact_series import (
    OUTCOME,
    SEEN,
    Series,
    Sources,
    candidate_series,
    read_series,
)
from eocausal.studies.load import ImpactFile
from eocausal.studies.schema_impact import ImpactStudy, ModelSection
from eocausal.studies.workspace import RunSpace

if TYPE_CHECKING:
    from eocausal.estimators.impact import Impact

__all__ = ["ImpactSpace"]


class ImpactSpace(RunSpace):
    """The things a stage of a study of an event may ask for."""

    file: ImpactFile
    study: ImpactStudy

    @cached_property
    def sources(self) -> Sources:
        """Tables and grids."""
        return Sources(self.study, self.file.root)

    @cached_property
    def found(self) -> Series:
        """Outcome and controls, as they are read from the files."""
        return read_series(self.study, self.sources)

    @cached_property
    def frame(self) -> pd.DataFrame:
        """Outcome and controls, as the first stage left them."""
        table = pd.read_csv(self.folder / "series.csv", index_col="time", dtype=str)
        return table.set_axis(pd.to_datetime(table.index), axis=0).astype(float)

    @property
    def outcome(self) -> pd.Series[float]:
        """The outcome in its units."""
        name = self.study.report.outcome or self.study.outcome.series
        found = self.frame[OUTCOME].rename(name)
        found.attrs["units"] = self.study.report.unit or self.study.outcome.units
        return found

    @property
    def controls(self) -> pd.DataFrame:
        """Controls, a column each."""
        return self.frame.drop(columns=[OUTCOME, SEEN])

    @cached_property
    def candidates(self) -> pd.DataFrame:
        """Series that take the treated role: those named, or controls of the same record."""
        return candidate_series(self.study, self.sources, self.frame)

    def estimate(
        self, model: ModelSection | None = None, controls: list[str] | None = None
    ) -> Impact:
        """Estimate the effect; the same data and seed give the same numbers.

        Parameters
        ----------
        model
            Instead of the study's own.
        controls
            Names of those to use; default all.
        """
        from eocausal.estimators.impact import bsts
        from eocausal.estimators.impact_looks import Looks

        study = self.study
        section = model or study.model
        names = list(self.controls.columns) if controls is None else controls
        variance = None
        if study.outcome.looks_share:
            variance = Looks(self.frame[SEEN], study.outcome.looks_share).variance()
        return bsts(
            self.outcome, event_of(study), self.controls[names] if names else None,
            model=model_of(section), learn_until=study.event.learn_until, variance=variance,
            draws=section.draws, seed=study.seed, level=section.level,
            transform=transform_of(section),
        )  # fmt: skip

    @cached_property
    def impact(self) -> Impact:
        """The effect under the study's own model."""
        return self.estimate()
