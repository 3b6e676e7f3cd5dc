"""The stages that turn a cube into an embedding, and show what the embedding can tell."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from eocausal.checks.base import CheckResult, Verdict
from eocausal.errors import OneClusterError, StudyError
from eocausal.estimators.inference import EARTH_RADIUS_KM
from eocausal.folds import FoldRule, GroupFolds, SpatialBlocks
from eocausal.ingest.times import ALL
from eocausal.provenance import atomic_path, write_json
from eocausal.studies.decisions import trial_of
from eocausal.studies.encoders import (
    check_encoder,
    encoder_of,
    network_of,
    objective_of,
    schedule_of,
    training_folds,
)
from eocausal.studies.engine import Stage, scope
from eocausal.studies.evaluation_decisions import first_projects
from eocausal.studies.progress import Advance
from eocausal.studies.scenes import periods_of
from eocausal.studies.workspace import IngestSpace, Workspace

if TYPE_CHECKING:
    import geopandas as gpd
    import xarray as xr

    from eocausal.checks.representation import EmbeddingData
    from eocausal.encoders.trained import TrainedEncoder
    from eocausal.reports.contact_sheet import CaptionedFigure
    from eocausal.reports.content import Picture
    from eocausal.studies.assemble import StudyTables
    from eocausal.studies.schema import Ingestion, Study

__all__ = [
    "EMBEDDED",
    "check_description",
    "check_embedding",
    "check_record",
    "check_result",
    "check_training_folds",
    "embedding_stages",
    "read_description",
    "read_pictures",
    "refuse_missing_labels",
    "trained_encoder",
    "write_pictures",
]

EMBEDDED = (
    "embedding.zarr", "embedding.zarr.partial", "embedding", "encoder", "encoder.partial",
)  # fmt: skip
SHARE_OF_MAP = 0.1
HALVINGS = 8


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
        assert isinstance(space, Workspace)
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


def embed_before_treatment(space: IngestSpace, progress: Advance) -> list[str]:
    """Turn chips into features, and refuse them if they show the treatment."""
    from eocausal.checks.leakage import refuse_embedding_leak
    from eocausal.studies.schema import Study
    from eocausal.studies.schema_evaluation import Evaluation

    outputs = embed(space, progress)
    if isinstance(space.study, Study):
        refuse_embedding_leak(space.embedding, trial_of(space.study))
    if isinstance(space.study, Evaluation):
        refuse_embedding_leak(space.embedding, first_projects(space.study))
    return outputs


def describe(space: IngestSpace, progress: Advance) -> list[str]:
    """Leave ``embedding/``: pictures with captions, and the check of the embedding."""
    from eocausal.checks.representation import Representation

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
        figures = write_pictures(temporary, drawn)
        write_json(temporary / "summary.json", {"check": check_record(result), "figures": figures})
    return ["embedding"]


def check_embedding(space: IngestSpace, progress: Advance) -> list[str]:
    """Refuse what cannot be encoded or described, before anything costly is done."""
    data = space.study.data
    assert data.imagery is not None
    periods = periods_of(data.imagery.periods, space.scenes()) or [ALL]
    check_encoder(data, space.file.root, len(periods))
    refuse_missing_labels(space.study)
    units = None
    if isinstance(space, Workspace):
        units = space.tables.raw
        check_training_folds(space.study, space.tables)
    check_description(space.study, space.places, units)
    return []


def refuse_missing_labels(study: Ingestion) -> None:
    """Refuse to train for labels that the study does not name.

    Raises
    ------
    StudyError
    """
    from eocausal.studies.schema import Study
    from eocausal.studies.schema_evaluation import Evaluation

    section = study.data.encoder.trained if study.data.encoder is not None else None
    if section is None or not section.objective.labels or isinstance(study, Study):
        return
    if isinstance(study, Evaluation):
        raise StudyError(
            f"The encoder is trained for the {section.objective.name}, and the study has many "
            "treatments.",
            cause="One embedding serves all funders and sectors.",
            next_step="Train for simclr, which needs no labels, or use another encoder.",
        )
    raise StudyError(
        f"The encoder is trained for the {section.objective.name}, but the study has no design "
        "and no outcome.",
        cause="A study without design and estimate names no treatment and no outcome.",
        next_step="Train for simclr, which needs no labels, or complete the study.",
    )


def check_training_folds(study: Study, tables: StudyTables) -> None:
    """Refuse folds for training that there are too few places for.

    Raises
    ------
    StudyError
    """
    section = study.data.encoder.trained
    if section is None or not section.objective.labels:
        return
    try:
        training_folds(section, tables.group).assign(tables.units, seed=study.seed)
    except OneClusterError as error:
        wide = section.blocks_km is not None
        raise StudyError(
            f"The encoder cannot be trained in {section.folds} folds. {error.fact}",
            cause="Blocks, or places that share a cluster, are held out whole.",
            next_step="Use "
            + ("smaller blocks (data.encoder.trained.blocks_km) or " if wide else "")
            + "fewer folds (at least 3), or train for simclr, which needs none.",
        ) from error


def check_description(
    study: Ingestion, places: gpd.GeoDataFrame, units: pd.DataFrame | None
) -> None:
    """Refuse covariates that are in no table, and blocks so wide that nothing can be held out.

    Raises
    ------
    StudyError
    """
    section = study.embedding
    names = section.covariates or ()
    known = [str(c) for c in places.columns if c != places.geometry.name]
    known += [str(c) for c in units.columns if c not in known] if units is not None else []
    lost = [n for n in names if n not in known]
    if lost:
        raise StudyError(
            f"There is no column {', '.join(lost)}.",
            cause="embedding.covariates names columns of the places, or of units where there are "
            f"some; there are: {', '.join(known) or 'none'}.",
            next_step="Correct the names.",
        )
    if not names or section.blocks_km is None:
        return
    centre = places.geometry.to_crs("EPSG:4326").representative_point()
    rule = SpatialBlocks(section.blocks_km)
    at = rule.blocks(pd.DataFrame({"lon": centre.x, "lat": centre.y}))
    blocks = int(at.max()) + 1
    if blocks < rule.k:
        raise StudyError(
            f"The places lie in {blocks} block{'s' if blocks > 1 else ''} of "
            f"{section.blocks_km:g} km.",
            cause=f"Blocks are dealt to {rule.k} folds, of which each is held out once.",
            next_step="Make embedding.blocks_km smaller, or leave it out.",
        )


def _subject(space: IngestSpace) -> EmbeddingData:
    from eocausal.checks.representation import EmbeddingData

    covariates = _covariates(space)
    folds: FoldRule = GroupFolds("neighborhood")
    if covariates is not None:
        edge = space.study.embedding.blocks_km
        folds = SpatialBlocks(edge) if edge is not None else _tenth_of_map(space.embedding)
    return EmbeddingData(space.embedding, covariates, folds)


def _tenth_of_map(embedding: xr.DataArray) -> FoldRule:
    """Return blocks a tenth of the map wide, or narrower where places lie in too few of them."""
    values = embedding.transpose("neighborhood", ...).to_numpy()
    seen = np.isfinite(values.reshape(len(values), -1)).any(axis=1)
    places = pd.DataFrame({c: embedding[c].to_numpy()[seen] for c in ("lon", "lat")})
    lon, lat = np.deg2rad(places["lon"]), np.deg2rad(places["lat"])
    middle = np.arctan2(np.sin(lon).mean(), np.cos(lon).mean())
    east = np.ptp((lon - middle + np.pi) % (2 * np.pi)) * np.cos(np.median(lat))
    longer = float(EARTH_RADIUS_KM * max(east, np.ptp(lat)))
    for halvings in range(HALVINGS):
        km = max(np.ceil(SHARE_OF_MAP * longer * 10) / 10 / 2**halvings, 1e-3)
        rule = SpatialBlocks(float(km))
        if rule.blocks(places).max() + 1 >= rule.k:
            return rule
    return GroupFolds("neighborhood")


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
    if len(table) and table["score"].notna().any():
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


def write_pictures(folder: Path, drawn: Sequence[CaptionedFigure]) -> list[dict[str, str]]:
    """Write figures as PNG into a folder; returns what :func:`read_pictures` takes."""
    from eocausal.reports.plots import to_png

    for item in drawn:
        (folder / f"{item.name}.png").write_bytes(to_png(item.figure))
    return [{"name": item.name, "caption": item.caption} for item in drawn]


def read_pictures(folder: Path, figures: Sequence[Mapping[str, str]]) -> list[Picture]:
    """Read pictures by ``name`` and ``caption`` from a folder."""
    from eocausal.reports.content import Picture

    return [
        Picture(f["name"], f["caption"], (folder / f"{f['name']}.png").read_bytes())
        for f in figures
    ]


_LABELS = (
    "design.trial.arm", "design.trial.cluster", "data.units", "estimate.outcome",
    "estimate.missing_outcome", "estimate.missing_covariates",
)  # fmt: skip


def embedding_stages(study: Ingestion) -> list[Stage[Any]]:
    """Return the stages that encode and describe; none if the study names no encoder."""
    from eocausal.studies.schema import Study
    from eocausal.studies.schema_evaluation import Evaluation

    choice = study.data.encoder
    if choice is None:
        return []
    parts, needs = ["data.encoder", "seed"], ["cube", "encoder"]
    own = choice.trained
    if isinstance(study, Study):
        parts.append("design.trial.start")
        if own is not None and own.objective.labels:
            parts += _LABELS
            if study.estimate.missing_covariates == "drop":
                parts.append("estimate.covariates")
            needs.append("units")
    if isinstance(study, Evaluation):
        parts.append("design.placement.first")
    described, about = ["embedding", "seed"], ["cube", "embedding", "neighborhoods"]
    if isinstance(study, Study):
        described.append("data.units")
        about.append("units")
    if isinstance(study, Evaluation) and study.data.outcomes is not None:
        described.append("data.outcomes")
        about.append("outcomes")
    title = "Train encoder and encode chips" if own is not None else "Encode chips"
    return [
        Stage(
            "embedding",
            title,
            scope(*parts),
            tuple(needs),
            embed_before_treatment,
            one_thread=False,
        ),
        Stage("description", "Describe embedding", scope(*described), tuple(about), describe),
    ]
