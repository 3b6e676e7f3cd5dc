"""Records of ``estimates.json``: their model, their files, their published schema."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter

from eocausal.provenance import atomic_path, write_json

__all__ = ["EstimateRecord", "estimates_schema", "plain_records", "study_schema", "write_estimates"]

Number = float | None


class EstimateRecord(BaseModel):
    """One estimate, as every command prints it; null where a number does not exist."""

    model_config = ConfigDict(extra="allow", title="Estimate")

    estimand: str = Field(description="What is estimated, e.g. ATE.")
    method: str = Field(description="How.")
    estimate: Number = Field(description="In units of the estimand.")
    std_error: Number
    ci_low: Number
    ci_high: Number
    p_value: Number = Field(description="Two-sided, of no effect.")
    n: int | None = Field(description="Number of units, places or splits it rests on.")
    level: float = Field(default=0.95, description="Level of the interval.")
    vcov: str = Field(default="", description="How units were taken to depend on each other.")
    status: str = Field(default="ok", description="ok, warned, extrapolated, no_image or refused.")
    note: str = ""
    primary: bool = Field(default=False, description="Whether it is the study's headline.")


def plain_records(records: Iterable[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Check records against the model and return JSON values; NaN and infinity become null.

    Fields that do not apply to a record (no variance, no status) stay absent.
    """
    return [
        EstimateRecord.model_validate({k: _plain(v) for k, v in r.items()}).model_dump(
            mode="json", exclude_unset=True
        )
        for r in records
    ]


def _plain(value: Any) -> Any:
    if hasattr(value, "item"):
        value = value.item()
    if isinstance(value, float) and not math.isfinite(value):
        return None
    if isinstance(value, Mapping):
        return {str(k): _plain(v) for k, v in value.items()}
    return [_plain(v) for v in value] if isinstance(value, list | tuple) else value


def write_estimates(folder: Path, records: Sequence[Mapping[str, Any]]) -> None:
    """Write ``estimates.json`` and ``estimates.csv``, each whole or not at all."""
    import pandas as pd

    plain = plain_records(records)
    write_json(folder / "estimates.json", plain)
    table = pd.DataFrame(plain)
    for column in table:
        nested = table[column].map(lambda v: isinstance(v, list | dict))
        if nested.any():
            table[column] = table[column].map(
                lambda v: json.dumps(v) if isinstance(v, list | dict) else v
            )
    with atomic_path(folder / "estimates.csv") as temporary:
        table.to_csv(temporary, index=False, lineterminator="\n")


def estimates_schema() -> dict[str, Any]:
    """Return the JSON Schema of ``estimates.json``."""
    schema = TypeAdapter(list[EstimateRecord]).json_schema()
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **schema}


def study_schema() -> dict[str, Any]:
    """Return the JSON Schema of a study file: trial, evaluation, event, or only to be ingested."""
    from eocausal.studies.schema import Ingestion, Study
    from eocausal.studies.schema_evaluation import Evaluation
    from eocausal.studies.schema_impact import ImpactStudy

    kinds = Study | Evaluation | ImpactStudy | Ingestion
    whole = TypeAdapter[Study | Evaluation | ImpactStudy | Ingestion](kinds)
    schema = whole.json_schema()
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **schema}
