"""How much each measured confounder explains of outcome and treatment, in one linear model of all.

A quick yardstick for the strength of what was not measured: leaving out each confounder of a
flexible model in turn (:mod:`~eocausal.checks.sensitivity.benchmarks`) costs a fit each, the
partial R² of all of them one matrix.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from eocausal.checks.sensitivity.benchmarks import table_columns
from eocausal.estimators.confounders import TABLE

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from eocausal.estimators.observational import Observed

__all__ = ["linear_strengths", "partial_r2_of_each"]

TINY = 1e-10


def linear_strengths(data: Observed) -> pd.DataFrame:
    """Measure what each column of the table adds to a linear model of outcome, and of treatment.

    Parameters
    ----------
    data
        Two arms.

    Returns
    -------
    DataFrame
        Indexed by ``confounder`` (the indicators of a column together): ``c_outcome`` =
        R²_Y / (1 - R²_Y) with the partial R² given treatment and the other confounders, at most 1,
        and ``c_treatment`` = R²_D / (1 - R²_D) with that given the other confounders: the shares
        that :func:`~eocausal.checks.sensitivity.omitted_variable.confounding_strength` takes, for
        something hidden that adds as much (Chernozhukov et al. 2022, section 4).
    """
    c = data.confounders
    source = np.array(c.blocks, dtype=object)[c.block]
    stems = np.array([name.partition("=")[0] for name in c.names], dtype=object)
    names = table_columns(c)
    groups = [np.flatnonzero((stems == name) & (source == TABLE)) for name in names]
    treatment = data.arm.astype(float)
    placed = partial_r2_of_each(c.x, treatment, groups)
    outcome = partial_r2_of_each(np.column_stack([c.x, treatment]), data.y, groups)
    return pd.DataFrame(
        {
            "c_outcome": np.minimum(outcome / np.maximum(1 - outcome, TINY), 1.0),
            "c_treatment": placed / np.maximum(1 - placed, TINY),
        },
        index=pd.Index(names, name="confounder"),
    )


def partial_r2_of_each(
    x: NDArray[np.float64], y: NDArray[np.float64], groups: Sequence[NDArray[np.int64]]
) -> NDArray[np.float64]:
    """Return the share of what the other columns leave of ``y`` that each group explains.

    Parameters
    ----------
    x
        (n, p) columns; an intercept is added. Columns that others can express are no harm.
    y
        (n,).
    groups
        Numbers of the columns of each group.

    Returns
    -------
    (len(groups),), 0 for a group that adds nothing.
    """
    centred = np.column_stack([x - x.mean(axis=0), y - y.mean()])
    scale = np.sqrt((centred**2).sum(axis=0))
    use = scale > TINY * (1 + np.abs(np.column_stack([x, y])).max(axis=0)) * np.sqrt(len(y))
    if not use[-1]:
        return np.zeros(len(groups))
    unit = np.where(use, centred / np.where(use, scale, 1.0), 0.0)
    gram = unit.T @ unit
    kept = np.flatnonzero(use[:-1])
    whole = _left(gram, kept)
    found = []
    for group in groups:
        rest = _left(gram, kept[~np.isin(kept, group)])
        found.append(max(0.0, 1 - whole / rest) if rest > TINY else 0.0)
    return np.array(found)


def _left(gram: NDArray[np.float64], columns: NDArray[np.int64]) -> float:
    """Return the share of the last column's square that regression on others leaves."""
    if not len(columns):
        return 1.0
    value, vector = np.linalg.eigh(gram[np.ix_(columns, columns)])
    use = value > TINY * value[-1]
    turned = vector[:, use].T @ gram[columns, -1]
    return max(0.0, 1.0 - float((turned**2 / value[use]).sum()))
