"""How images changed from an earlier to a later date, and whether more where treatment came.

Without treatment, images of treated and untreated places are taken to change alike on average,
given the table's columns. What they change apart is the trace of treatment: a direction in the
space of features for each treatment, the difference-in-differences (METHODS D16).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from eocausal.contracts import check_same_neighborhoods
from eocausal.errors import EmbeddingError, EstimationError
from eocausal.estimators.learners import feature_frame
from eocausal.estimators.observational import arms_of

if TYPE_CHECKING:
    import xarray as xr
    from numpy.typing import NDArray

__all__ = [
    "ChangeTest",
    "check_same_encoder",
    "project_out",
    "repaired_embedding",
    "scale_of",
    "trace_test",
    "traces",
]

COMPONENTS = 64
UNITS_PER_COMPONENT = 10
AT_ONCE = 256


@dataclass(frozen=True, slots=True)
class ChangeTest:
    """A test that images of every arm changed alike.

    Attributes
    ----------
    statistic
        s'V⁻s, with s the difference-in-differences of the components and V its covariance.
    components
        Principal components of the change that were used.
    groups
        Independent groups of units.
    p_value
        (1 + #≥) / (1 + draws).
    draws
        Number of sign flips.
    """

    statistic: float
    components: int
    groups: int
    p_value: float
    draws: int


def traces(
    change: NDArray[np.float64],
    arm: NDArray[np.int64],
    table: NDArray[np.float64] | None = None,
) -> NDArray[np.float64]:
    """Return how much more the features of each treatment's units changed than untreated ones'.

    The coefficients of the treatments in the least-squares regression of the change on treatments
    and table columns; without a table the difference of the mean changes.

    Parameters
    ----------
    change
        (n, p) later minus earlier features.
    arm
        (n,) arm 0..K-1.
    table
        (n, q) columns on which the change may depend.

    Returns
    -------
    (K - 1, p).
    """
    share = _residual_treatment(arm, table)
    return np.asarray(np.linalg.lstsq(share, change - change.mean(axis=0), rcond=None)[0])


def _residual_treatment(
    arm: NDArray[np.int64], table: NDArray[np.float64] | None
) -> NDArray[np.float64]:
    """Return (n, K - 1) indicators of the treatments, without what table columns tell of them.

    Raises
    ------
    EstimationError
        If the columns tell a treatment without error.
    """
    given = (arm[:, None] == np.arange(1, int(arm.max()) + 1)).astype(float)
    left = _without(given, table)
    if (np.linalg.svd(left, compute_uv=False) < 1e-8 * np.sqrt(len(arm))).any():
        raise EstimationError(
            "The table's columns tell the arm without error.",
            cause="Changes of treated and untreated units with the same columns are compared, and "
            "there are none.",
            next_step="Leave out columns that contain the treatment, or compare other units.",
        )
    return np.asarray(left)


def _without(values: NDArray[np.float64], table: NDArray[np.float64] | None) -> NDArray[np.float64]:
    """Return residuals of the regression on an intercept and table columns."""
    centred = values - values.mean(axis=0)
    if table is None or table.shape[1] == 0:
        return np.asarray(centred)
    z = table - table.mean(axis=0)
    spread = z.std(axis=0)
    z = z[:, spread > 0] / spread[spread > 0]
    left, size, _ = np.linalg.svd(z, full_matrices=False)
    left = left[:, size > 1e-10 * size.max(initial=0.0)]
    return np.asarray(centred - left @ (left.T @ centred))


def trace_test(
    change: NDArray[np.float64],
    arm: NDArray[np.int64],
    table: NDArray[np.float64] | None = None,
    *,
    groups: NDArray[np.int64] | None = None,
    draws: int = 999,
    seed: int = 0,
) -> ChangeTest:
    """Test by flipping signs that no treatment has a trace.

    The influence values of the differences-in-differences of the leading principal components of
    the change are summed by group of dependent units; under the hypothesis their signs are
    arbitrary (a permutation of the two arms' labels within each group, that also holds where arms
    differ in how much their images vary). The statistic is Wald's, and its V is the same for all
    signs.

    Parameters
    ----------
    change, arm, table
        As in :func:`traces`.
    groups
        (n,) groups of units that depend on each other; None: each unit by itself.
    draws
        Number of flips.
    seed
        Of the flips.
    """
    left = _residual_treatment(arm, table)
    moved = _without(change, table)
    number = np.arange(len(arm)) if groups is None else groups
    _, code = np.unique(number, return_inverse=True)
    code, count = code.reshape(-1), int(code.max()) + 1
    least = max(1, min(COMPONENTS, count // UNITS_PER_COMPONENT // left.shape[1]))
    _, size, axes = np.linalg.svd(moved, full_matrices=False)
    axes = axes[: min(least, int((size > 1e-10 * size.max(initial=0.0)).sum()))]
    points = moved @ axes.T
    psi = (left[:, :, None] * points[:, None, :]).reshape(len(arm), -1)
    sums = np.zeros((count, psi.shape[1]))
    np.add.at(sums, code, psi)
    value, vector = np.linalg.eigh(sums.T @ sums)
    use = value > 1e-10 * value.max(initial=0.0)
    white = sums @ (vector[:, use] / np.sqrt(value[use]))
    observed = float((white.sum(axis=0) ** 2).sum())
    more = _as_large(white, observed, draws, np.random.default_rng(seed))
    return ChangeTest(observed, len(axes), count, (1 + more) / (1 + draws), draws)


def _as_large(
    white: NDArray[np.float64], observed: float, draws: int, rng: np.random.Generator
) -> int:
    more = 0
    for begin in range(0, draws, AT_ONCE):
        size = min(AT_ONCE, draws - begin)
        sign = rng.integers(0, 2, (size, len(white))) * 2.0 - 1.0
        more += int((((sign @ white) ** 2).sum(axis=1) >= observed * (1 - 1e-9)).sum())
    return more


def project_out(
    features: NDArray[np.float64], directions: NDArray[np.float64], scale: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Take directions out of features: the orthogonal projection onto their complement.

    Linear functions of the features that do not change along the directions keep their values;
    all others are lost, so that each direction costs one dimension.

    Parameters
    ----------
    features
        (n, p).
    directions
        (d, p), in the units of the features.
    scale
        (p,) units in which the projection is orthogonal, e.g. standard deviations.
    """
    basis, size, _ = np.linalg.svd((directions / scale).T, full_matrices=False)
    basis = basis[:, size > 1e-10 * size.max(initial=0.0)]
    return np.asarray(features - (features / scale) @ basis @ basis.T * scale)


def repaired_embedding(
    later: xr.DataArray | pd.DataFrame,
    earlier: xr.DataArray | pd.DataFrame,
    treatment: pd.Series,
    *,
    covariates: pd.DataFrame | None = None,
    untreated: str | None = None,
) -> pd.DataFrame:
    """Take the trace of treatment out of an embedding of images that may show it.

    Only an earlier image of the same places, by the same encoder, tells that trace from what drove
    placement: without one the difference between the arms is that of the confounders too, and to
    take it out would take out what the image is to adjust for. Where every place has the earlier
    image it is the better confounder; the repair serves where some places have none, or where it
    is much older.

    What is taken out is the average trace, in the features' linear span. A trace that varies from
    place to place in kind, not only in strength, is taken out in part.

    Parameters
    ----------
    later
        Embedding that may show treatment.
    earlier
        Embedding of images before treatment, of all or some of the places; at least ten of each
        arm.
    treatment
        Arm by neighborhood.
    covariates
        Numeric columns by neighborhood on which the change of images may depend.
    untreated
        Value of ``treatment`` that means none.

    Returns
    -------
    DataFrame
        Features by neighborhood, of every place of ``later``.

    Raises
    ------
    EmbeddingError
        If features are not of one encoder, or too few places have both images.
    AlignmentError, AssignmentError, OneArmError
    """
    new, old = feature_frame(later), feature_frame(earlier)
    check_same_encoder(later, earlier)
    arm, arms = arms_of(treatment, untreated)
    both = treatment.index.intersection(old.index)
    check_same_neighborhoods(treatment.index, new.index, what="later embedding", of="treatment")
    at = treatment.index.get_indexer(both)
    few = np.bincount(arm[at], minlength=len(arms)).min()
    if few < UNITS_PER_COMPONENT:
        raise EmbeddingError(
            f"In one of the arms {few} places have both images.",
            cause="The average change of an arm cannot be told from so few.",
            next_step="Use the earlier image alone, or one that covers more places.",
        )
    change = new.loc[both].to_numpy() - old.loc[both].to_numpy()
    table = None if covariates is None else covariates.loc[both].to_numpy(float)
    moved = project_out(new.to_numpy(), traces(change, arm[at], table), scale_of(old.to_numpy()))
    return pd.DataFrame(moved, index=new.index, columns=new.columns)


def scale_of(features: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return (p,) standard deviations, 1 for features that do not vary."""
    spread = features.std(axis=0)
    return np.where(spread > 1e-10 * (1 + np.abs(features).max(axis=0)), spread, 1.0)


def check_same_encoder(
    later: xr.DataArray | pd.DataFrame, earlier: xr.DataArray | pd.DataFrame
) -> None:
    """Refuse features that cannot be subtracted.

    Raises
    ------
    EmbeddingError
    """
    names = [
        "" if isinstance(f, pd.DataFrame) else str(f.attrs.get("encoder", ""))
        for f in (later, earlier)
    ]
    sizes = [f.shape[-1] for f in (later, earlier)]
    if sizes[0] != sizes[1] or ("" not in names and names[0] != names[1]):
        raise EmbeddingError(
            f"The later image has {sizes[0]} features of {names[0] or 'some encoder'!r}, the "
            f"earlier {sizes[1]} of {names[1] or 'some encoder'!r}.",
            cause="A change is the difference of the same features at two dates.",
            next_step="Encode both with one encoder, fitted once.",
        )
