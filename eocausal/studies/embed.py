"""The stages that turn a cube into an embedding, and show what the embedding can tell."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from eocausal.checks.base import CheckResult, Verdict
from eocausal.errors import StudyError
from eocausal.folds import FoldRule, GroupFolds, SpatialBlocks
from eocausal.provenance import atomic_path, write_json
from eocausal.studies.encoders import (
    encoder_of,
    network_of,
    objective_of,
    schedule_of,
    training_folds,
)
from eocausal.studies.engine import Stage, scope
from eocausal.studies.progress import Advance
from eocausal.studies.workspace import IngestSpace, Workspace

if TYPE_CHECKING:
    import xarray as xr

    from eocausal.checks.representation import EmbeddingData
    from eocausal.encoders.trained import TrainedEncoder
    from eocausal.reports.contact_sheet import CaptionedFigure
    from eocausal.reports.content import Picture
    from eocausal.studies.schema import Ingestion

__all__ = [
    "EMBEDDED",
    "check_record",
    "check_result",
    "embedding_stages",
    "read_description",
    "read_pictures",
    "trained_encoder",
]

EMBEDDED = ("embedding.zarr", "embedding", "encoder")
SHARE_OF_MAP = 0.1


def embed(space: IngestSpace, progress: Advance) -> list[str]:
    """Turn chips into features; train the encoder first where the study says so."""
    from eocausal.encoders.base import encode

    choice = space.study.data.encoder
    assert choice is not None
    out = space.folder / "embedding.zarr"
    if choice.trained is not None:
        trained = _train(space, progress)
        trained.encode(space.cube, out=out)
        return ["embedding.zarr", "encoder"]
    encoder = encoder_of(choice, space.file.root)
    encode(space.cube, encoder, seed=space.study.seed, progress=progress, out=out)
    return ["embedding.zarr"]


def _train(space: IngestSpace, progress: Advance) -> TrainedEncoder:
    from eocausal.encoders.training import train_encoder

    section = space.study.data.encoder.trained if space.study.data.encoder else None
    assert section is not None
    treatment, outcome, units, folds = "", "", None, None
    if section.objective.labels:
        if not isinstance(space, Workspace):
            raise StudyError(
                f"The encoder is trained for the {section.objective.name}, but the study has none.",
                cause="A study without design and estimate names no treatment and no outcome.",
                next_step="Train for simclr, which needs no labels, or complete the study.",
            )
        treatment, outcome = space.study.design.trial.arm, space.study.estimate.outcome
        units, folds = space.tables.units, training_folds(section, space.tables.group)
    return train_encoder(
        space.cube,
        network_of(section.network, space.file.root),
        objective_of(section, treatment, outcome),
        units,
        folds=folds,
        out=space.folder / "encoder",
        schedule=schedule_of(section),
        seed=space.study.seed,
        progress=progress,
    )


def trained_encoder(space: IngestSpace) -> TrainedEncoder | None:
    """Return the encoder that the study trained, if it did."""
    choice = space.study.data.encoder
    if choice is None or choice.trained is None:
        return None
    from eocausal.encoders.trained_files import load_trained

    return load_trained(space.folder / "encoder")


def embed_before_treatment(space: Workspace, progress: Advance) -> list[str]:
    """Turn chips into features, and refuse them if they show the treatment."""
    from eocausal.checks.leakage import refuse_embedding_leak

    outputs = embed(space, progress)
    refuse_embedding_leak(space.embedding, space.trial)
    return outputs


def describe(space: IngestSpace, progress: Advance) -> list[str]:
    """Leave ``embedding/``: pictures with captions, and the check of the embedding."""
    from eocausal.checks.representation import Representation
    from eocausal.reports.plots import to_png

    data = _subject(space)
    check = Representation(seed=space.study.seed)
    found = check.diagnose(data)
    result = check.judge(data, found)
    progress(1, 3)
    drawn = list(_figures(space, data, found.predictability))
    near = found.autocorrelation
    if near is not None:
        drawn.append(_correlogram(near, data.folds))
    progress(2, 3)
    with atomic_path(space.folder / "embedding") as temporary:
        temporary.mkdir()
        for item in drawn:
            (temporary / f"{item.name}.png").write_bytes(to_png(item.figure))
        captions = [{"name": item.name, "caption": item.caption} for item in drawn]
        write_json(temporary / "summary.json", {"check": check_record(result), "figures": captions})
    return ["embedding"]


def _subject(space: IngestSpace) -> EmbeddingData:
    from eocausal.checks.representation import EmbeddingData

    covariates = _covariates(space)
    folds: FoldRule = GroupFolds("neighborhood")
    if covariates is not None:
        edge = space.study.embedding.blocks_km or _tenth_of_map(space.embedding)
        folds = SpatialBlocks(edge)
    return EmbeddingData(space.embedding, covariates, folds)


def _tenth_of_map(embedding: xr.DataArray) -> float:
    lat = embedding["lat"].to_numpy()
    east = np.ptp(embedding["lon"].to_numpy()) * np.cos(np.deg2rad(np.median(lat)))
    return float(np.ceil(SHARE_OF_MAP * 111.2 * max(east, np.ptp(lat)) * 10) / 10) or 1.0


def _covariates(space: IngestSpace) -> pd.DataFrame | None:
    """Return the covariates named for the embedding, by neighborhood."""
    from eocausal.checks.representation import neighborhood_means

    names = space.study.embedding.covariates
    if not names:
        return None
    places = pd.DataFrame(space.places.drop(columns=space.places.geometry.name))
    of_places = [n for n in names if n in places]
    rest = [n for n in names if n not in places]
    found = [places[of_places]]
    if rest and isinstance(space, Workspace):
        found.append(neighborhood_means(space.tables.raw, rest))
    elif rest:
        raise StudyError(
            f"The places have no column {', '.join(rest)}.",
            cause="embedding.covariates names columns of the places, or of units where there are "
            f"some; the places have {', '.join(map(str, places.columns)) or 'none'}.",
            next_step="Correct the names.",
        )
    return pd.concat(found, axis=1).reindex(places.index)


def _figures(
    space: IngestSpace, data: EmbeddingData, table: pd.DataFrame
) -> Sequence[CaptionedFigure]:
    from eocausal.checks.embedding_space import nearest_neighbors, typical_places
    from eocausal.reports.contact_sheet import contact_sheet
    from eocausal.reports.embedding import learning_curves, pca_view, predictability_figure

    section, seed = space.study.embedding, space.study.seed
    queries = typical_places(data.embedding, section.places, seed=seed)
    near = nearest_neighbors(
        data.embedding, queries=queries, k=section.neighbors, exclude_within_km=section.apart_km
    )
    drawn = [contact_sheet(space.cube, near, seed=seed), pca_view(data.embedding, _color(data))]
    if len(table):
        drawn.append(predictability_figure(table))
    trained = trained_encoder(space)
    if trained is not None:
        drawn.append(learning_curves(trained.history))
    return drawn


def _color(data: EmbeddingData) -> pd.Series | None:
    """Return the first covariate that is a number, to color places by."""
    if data.covariates is None:
        return None
    numbers = data.covariates.select_dtypes("number")
    if not len(numbers.columns):
        return None
    return numbers.iloc[:, 0].reindex(data.embedding.indexes["neighborhood"])


def _correlogram(near: Any, folds: FoldRule | None) -> CaptionedFigure:
    from eocausal.reports.embedding import correlogram_figure

    return correlogram_figure(
        near.correlogram,
        range_km=near.range_km,
        threshold=near.threshold,
        p_value=near.p_value,
        block_km=folds.km if isinstance(folds, SpatialBlocks) else None,
    )


def check_record(result: CheckResult) -> dict[str, Any]:
    """Return a check's result with its table, as JSON values."""
    table = result.table
    numbered = isinstance(table.index, pd.RangeIndex)
    plain = table if numbered else table.rename_axis(str(table.index.name or "item")).reset_index()
    rows = [{str(k): v for k, v in row.items()} for row in plain.to_dict("records")]
    return {**result.record(), "table": rows}


def check_result(record: dict[str, Any]) -> CheckResult:
    """Read what :func:`check_record` returned."""
    return CheckResult(
        record["name"], Verdict(record["verdict"]), record["claim"], record["detail"],
        pd.DataFrame(record["table"]), record["values"],
    )  # fmt: skip


def read_description(folder: Path) -> tuple[CheckResult, list[Picture]]:
    """Read ``embedding/`` of a run folder: the check and the pictures."""
    summary = json.loads((folder / "embedding" / "summary.json").read_text(encoding="utf-8"))
    return check_result(summary["check"]), read_pictures(folder / "embedding", summary["figures"])


def read_pictures(folder: Path, figures: Sequence[Mapping[str, str]]) -> list[Picture]:
    """Read pictures by ``name`` and ``caption`` from a folder."""
    from eocausal.reports.content import Picture

    return [
        Picture(f["name"], f["caption"], (folder / f"{f['name']}.png").read_bytes())
        for f in figures
    ]


def embedding_stages(study: Ingestion) -> list[Stage[Any]]:
    """Return the stages that encode and describe; none if the study names no encoder."""
    from eocausal.studies.schema import Study

    choice = study.data.encoder
    if choice is None:
        return []
    parts, needs = ["data.encoder", "seed"], ["cube", "encoder"]
    own = choice.trained
    if isinstance(study, Study):
        parts.append("design.trial.start")
        if own is not None and own.objective.labels:
            parts += ["design", "data.units", "estimate.outcome", "estimate.missing_outcome"]
            needs.append("units")
    described = ["embedding", "seed"]
    about = ["cube", "embedding", "neighborhoods"]
    if isinstance(study, Study):
        about.append("units")
    work = embed_before_treatment if isinstance(study, Study) else embed
    title = "Train encoder and encode chips" if own is not None else "Encode chips"
    return [
        Stage("embedding", title, scope(*parts), tuple(needs), work, one_thread=False),
        Stage("description", "Describe embedding", scope(*described), tuple(about), describe),
    ]
