"""Where a kind of project occurs nowhere, or everywhere: no overlap, said in words."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from eocausal.estimators.confounders import confounders_of
from eocausal.estimators.empty_region import empty_region
from eocausal.estimators.refusal import dependent_groups
from eocausal.studies.evaluation_decisions import weighting_of
from eocausal.studies.evaluation_tables import HISTORY, TREATMENT

if TYPE_CHECKING:
    import pandas as pd

    from eocausal.placements import Kind
    from eocausal.studies.schema_evaluation import Evaluation

__all__ = ["gaps_of"]

ONE_SIDED = {"untreated": "every place has one", "treated": "no place has one"}


def gaps_of(
    study: Evaluation, kind: Kind, units: pd.DataFrame, history: list[str]
) -> list[dict[str, Any]]:
    """Find the regions of the table's columns in which one arm of a kind does not occur.

    Earlier projects are counted, not on the logarithmic scale of the models.

    Returns
    -------
    Records ``funder, sector, lacking`` (the arm that does not occur), ``words, n_inside, share``.
    """
    counts = {name: counted(name) for name in history}
    table = units.assign(**{
        counts[name]: np.rint(np.expm1(units[name].to_numpy(float))) for name in history
    })  # fmt: skip
    columns = [*study.estimate.covariates, *counts.values()]
    confounders = confounders_of(table, columns)
    groups = dependent_groups(weighting_of(study).vcov, table)
    found = []
    for arm, meaning in ONE_SIDED.items():
        member = (table[TREATMENT] == arm).to_numpy()
        region = empty_region(confounders, table, member, cluster=groups)
        if region.boxes:
            found.append({
                "funder": kind.funder, "sector": kind.sector, "lacking": arm,
                "words": f"{region.words()} ({meaning})", "n_inside": int(region.inside.sum()),
                "share": float(region.inside.mean()),
            })  # fmt: skip
    return found


def counted(name: str) -> str:
    """Name the count behind a column of history."""
    assert name in HISTORY
    return name.removesuffix(" (log)")
