"""Check a study of an event against its files before anything is computed."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from eocausal.studies.impact_decisions import event_of, model_of, varied
from eocausal.studies.impact_inputs import impact_files
from eocausal.studies.impact_land import open_land_cover
from eocausal.studies.impact_series import Series, Sources, read_series

if TYPE_CHECKING:
    from eocausal.land_cover.legend import Legend
    from eocausal.studies.load import ImpactFile
    from eocausal.studies.schema_impact import ImpactStudy
    from eocausal.studies.schema_impact_water import LandCoverSection
    from eocausal.studies.validate import Validation

__all__ = ["look_at_impact"]


def look_at_impact(found: Validation, file: ImpactFile) -> Series | None:
    """Look at the series of a study of an event; problems and facts are noted.

    Returns
    -------
    The series, if nothing is wrong with them.
    """
    study, before = file.study, len(found.problems)
    found.attempt(("data",), partial(impact_files, file))
    sources = Sources(study, file.root)
    found.attempt(("outcome", "series"), partial(sources.series, study.outcome.series))
    for i, control in enumerate(study.controls):
        found.attempt(("controls", i), partial(sources.series, control.series))
    if len(found.problems) > before:
        return None
    series = found.attempt(("outcome",), partial(read_series, study, sources))
    found.attempt(("model",), partial(model_of, study.model))
    for name, variant in study.variants.items():
        found.attempt(("variants", name), partial(model_of, varied(study.model, variant)))
    if series is not None:
        _look_at_event(found, study, series)
    if study.land_cover is not None:
        land = found.attempt(("land_cover",), partial(open_land_cover, file.root, study.land_cover))
        if land is not None:
            _look_at_classes(found, study.land_cover, land[1])
    _look_at_breaks(found, study)
    return series if len(found.problems) == before else None


def _look_at_event(found: Validation, study: ImpactStudy, series: Series) -> None:
    times = pd.DatetimeIndex(series.frame.index)
    post = found.attempt(("event", "when"), partial(event_of(study).post, times))
    if post is None:
        return
    known = series.outcome.notna().to_numpy()
    before = np.asarray(times < pd.Timestamp(study.event.when))
    found.facts.append(
        f"{len(times):,} times from {times[0]:%Y-%m-%d} to {times[-1]:%Y-%m-%d}, "
        f"{int(known.sum()):,} with a value; {int((known & before).sum()):,} before the event and "
        f"{int((known & post).sum()):,} after"
    )
    found.facts.append(f"{len(series.controls)} controls: {', '.join(series.controls) or 'none'}")


def _look_at_classes(found: Validation, section: LandCoverSection, legend: Legend) -> None:
    for key in ("follow", "exclude"):
        for i, name in enumerate(getattr(section, key)):
            if name not in legend.classes:
                found.add(
                    ("land_cover", key, i),
                    f"there is no class {name!r}; there are: {', '.join(legend.classes)}",
                )


def _look_at_breaks(found: Validation, study: ImpactStudy) -> None:
    from importlib.util import find_spec

    if study.breaks is not None and study.breaks.compare and find_spec("ruptures") is None:
        found.add(
            ("breaks", "compare"),
            "the package ruptures is not installed; install it (pip install ruptures), or write "
            "compare: false",
        )
