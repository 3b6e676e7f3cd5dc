"""The stage that follows the effect back to pixels: GeoTIFFs and a picture of salience."""

from __future__ import annotations

from collections.abc import Hashable
from typing import TYPE_CHECKING

import pandas as pd

from eocausal.provenance import atomic_path, write_json
from eocausal.studies.embed import read_pictures, trained_encoder, write_pictures
from eocausal.studies.encoders import encoder_of, salience_method_of
from eocausal.studies.progress import Advance
from eocausal.studies.workspace import Workspace

if TYPE_CHECKING:
    import xarray as xr

    from eocausal.encoders.core import FittedEncoder
    from eocausal.encoders.salience import Target
    from eocausal.encoders.salience_methods import Method
    from eocausal.encoders.trained import TrainedEncoder
    from eocausal.estimators.learners import FittedEffects
    from eocausal.reports.content import Picture

__all__ = ["explain", "read_salience"]

NAME = "effect expected from the image"


def explain(space: Workspace, progress: Advance) -> list[str]:
    """Map which pixels move the effect, where it is largest and where it is smallest.

    With a cross-fitted encoder these are places of the trial: each has one network.
    """
    from eocausal.encoders.salience_files import write_salience
    from eocausal.reports.salience import salience_figure

    spec = space.study.estimate
    section = spec.salience
    assert section is not None
    fitted = space.learner.fit(
        space.trial, space.tables.units, space.embedding,
        outcome=spec.outcome, covariates=space.tables.covariates,
    )  # fmt: skip
    effect, trained = fitted.predict(space.embedding)[0], trained_encoder(space)
    fold = trained.fold if trained is not None and len(trained.networks) > 1 else None
    if fold is not None:
        effect = effect[effect.index.isin(fold.index[fold >= 0])]
    drawn = _extremes(effect, section.places)
    progress(1, 3)
    found = _salience(space, fitted, drawn, trained, salience_method_of(section))
    progress(2, 3)
    write_salience(found, space.cube, space.folder / "salience")
    item = salience_figure(space.cube, found, neighborhoods=drawn)
    with atomic_path(space.part("salience")) as temporary:
        temporary.mkdir(parents=True)
        write_json(temporary / "figures.json", write_pictures(temporary, [item]))
    return ["salience", ".stages/parts/salience"]


def _extremes(effect: pd.Series, count: int) -> list[Hashable]:
    """Return the places with the largest effects, then those with the smallest."""
    order = effect.sort_values(ascending=False, kind="stable").index
    count = min(count, len(order))
    half = count // 2
    return [*order[: count - half], *order[len(order) - half :]]


def _salience(
    space: Workspace,
    fitted: FittedEffects,
    places: list[Hashable],
    trained: TrainedEncoder | None,
    method: Method,
) -> xr.DataArray:
    from eocausal.encoders.salience import salience, salience_by_fold

    coefficients, intercept = fitted.linear()

    def target(encoder: FittedEncoder) -> Target:
        from eocausal.encoders.salience import Target

        unit = space.study.report.unit or "1"
        return Target.linear(encoder, coefficients, intercept, name=NAME, units=unit)

    if trained is None or len(trained.networks) == 1:
        encoder = trained.networks[0] if trained is not None else _fitted(space)
        return salience(space.cube, target(encoder), method, neighborhoods=places)
    fold = trained.fold.reindex(pd.Index(places))
    targets = {k: target(trained.networks[k]) for k in fold.unique()}
    return salience_by_fold(space.cube, targets, fold, method)


def _fitted(space: Workspace) -> FittedEncoder:
    """Fit the encoder once more: the same cube and seed give the same encoder."""
    from eocausal.encoders.base import fit_encoder

    choice = space.study.data.encoder
    assert choice is not None
    return fit_encoder(space.cube, encoder_of(choice, space.file.root), seed=space.study.seed)


def read_salience(space: Workspace) -> list[Picture]:
    """Read the picture that :func:`explain` left."""
    return read_pictures(space.part("salience"), space.kept("salience/figures.json"))
