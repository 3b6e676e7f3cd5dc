"""Whether an embedding says anything about places, and how far its likeness reaches."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from eocausal.checks.autocorrelation import Autocorrelation, spatial_autocorrelation
from eocausal.checks.balance import expand
from eocausal.checks.base import CheckResult, Verdict
from eocausal.checks.embedding_space import Degeneracy, degeneracy
from eocausal.checks.predictability import predictability
from eocausal.contracts import NEIGHBORHOOD, check_columns
from eocausal.folds import FoldRule, RandomFolds, SpatialBlocks

if TYPE_CHECKING:
    from collections.abc import Sequence

    import xarray as xr

__all__ = ["Diagnostics", "EmbeddingData", "Representation", "neighborhood_means"]

NAME = "What the image embedding can tell"
FEWEST_PLACES = 30


@dataclass(frozen=True, slots=True, eq=False)
class EmbeddingData:
    """An embedding with what is known about its places: the subject of :class:`Representation`.

    Attributes
    ----------
    embedding
        ``(neighborhood[, period], feature)``, with coordinates ``lon`` and ``lat`` if known.
    covariates
        Indexed by neighborhood (:func:`neighborhood_means`); None if nothing is known.
    folds
        How places are held out; None for random folds.
    """

    embedding: xr.DataArray
    covariates: pd.DataFrame | None = None
    folds: FoldRule | None = None


def neighborhood_means(units: pd.DataFrame, columns: Sequence[str]) -> pd.DataFrame:
    """Average columns of a units table over the units of each neighborhood.

    Texts become one indicator for each of the 20 most frequent values, dates days since the
    first; missing values are left out of the mean.

    Returns
    -------
    DataFrame
        Indexed by ``neighborhood``.

    Raises
    ------
    MissingColumnError
    """
    check_columns(units, [NEIGHBORHOOD], what="units table")
    table = pd.DataFrame(expand(units, columns), index=units.index)
    return table.groupby(units[NEIGHBORHOOD]).mean()


@dataclass(frozen=True, slots=True, eq=False)
class Diagnostics:
    """The numbers behind :class:`Representation`, for tables and figures.

    Attributes
    ----------
    degeneracy
        :func:`~eocausal.checks.embedding_space.degeneracy`.
    predictability
        :func:`~eocausal.checks.predictability.predictability`; empty without covariates.
    autocorrelation
        :func:`~eocausal.checks.autocorrelation.spatial_autocorrelation`; None if the embedding
        has no coordinates, fewer than 30 places or nothing that varies.
    """

    degeneracy: Degeneracy
    predictability: pd.DataFrame
    autocorrelation: Autocorrelation | None


@dataclass(frozen=True, slots=True)
class Representation:
    """Check that an embedding is not degenerate, knows what is known, and was held out honestly.

    Parameters
    ----------
    least_rank
        Warn if the effective rank is below this.
    most_lost
        Warn if a larger share of places has no features, of places has a twin, or of features
        is constant.
    least_r2, least_auc
        A covariate is told by the embedding if its held-out score reaches this; warn if none is.
    alpha
        Autocorrelation counts if its p-value is at most this.
    permutations, seed
        Of the test of autocorrelation; the seed also deals the folds.
    """

    least_rank: float = 1.5
    most_lost: float = 0.1
    least_r2: float = 0.1
    least_auc: float = 0.65
    alpha: float = 0.05
    permutations: int = 999
    seed: int = 0

    def run(self, subject: EmbeddingData) -> CheckResult:
        """Compute the numbers and judge them."""
        return self.judge(subject, self.diagnose(subject))

    def diagnose(self, subject: EmbeddingData) -> Diagnostics:
        """Compute the numbers.

        Raises
        ------
        EmbeddingError, AlignmentError, FoldError, OneClusterError
        """
        collapse = degeneracy(subject.embedding)
        seen = collapse.n - collapse.unseen
        table = pd.DataFrame()
        if subject.covariates is not None and subject.covariates.shape[1]:
            folds = subject.folds or RandomFolds()
            table = predictability(subject.embedding, subject.covariates, folds, seed=self.seed)
        near = None
        placed = {"lon", "lat"} <= set(subject.embedding.coords)
        if placed and seen >= FEWEST_PLACES and collapse.effective_rank > 0:
            near = spatial_autocorrelation(
                subject.embedding, permutations=self.permutations, seed=self.seed
            )
        return Diagnostics(collapse, table, near)

    def judge(self, subject: EmbeddingData, found: Diagnostics) -> CheckResult:
        """Say in words what the numbers mean; warn where one of them is poor."""
        told = self._told(found.predictability)
        reach = found.autocorrelation.range_km if found.autocorrelation else math.nan
        warnings = [
            *_period_words(subject.embedding),
            *self._collapse_words(found.degeneracy),
            *self._told_words(told),
            *self._reach_words(subject.folds, found),
        ]
        d = found.degeneracy
        claims = [
            f"{d.features:,} features span about {d.effective_rank:.1f} directions over "
            f"{d.n - d.unseen:,} places"
        ]
        if len(told):
            claims.append(f"they tell {int(told.sum())} of {len(told)} known covariates")
        if found.autocorrelation is not None:
            claims.append(_reach_claim(found.autocorrelation, self.alpha))
        values = {
            "effective_rank": d.effective_rank, "constant_features": d.constant,
            "places_unseen": d.unseen, "places_with_twin": d.twins,
            "covariates_told": int(told.sum()), "covariates": len(told),
            "range_km": reach if math.isfinite(reach) else None,
            "moran_p": found.autocorrelation.p_value if found.autocorrelation else None,
        }  # fmt: skip
        verdict = Verdict.WARN if warnings else Verdict.PASS
        return CheckResult(
            NAME, verdict, "; ".join(claims) + ".", " ".join(warnings), found.predictability, values
        )

    def _told(self, table: pd.DataFrame) -> pd.Series:
        """Whether each covariate that could be scored is told by the embedding."""
        if table.empty:
            return pd.Series(dtype=bool)
        rows = table[table["honest"] & table["score"].notna()].set_index("covariate")
        least = np.where(rows["measure"] == "AUC", self.least_auc, self.least_r2)
        return pd.Series(rows["score"].to_numpy(float) >= least, index=rows.index)

    def _collapse_words(self, d: Degeneracy) -> list[str]:
        seen, words = d.n - d.unseen, []
        if d.effective_rank < self.least_rank:
            words.append(
                f"The embedding is close to one number per place: its effective rank is "
                f"{d.effective_rank:.2f}, and {d.leading_share:.0%} of its variance is on one "
                "direction. That is what training on a single label may leave; of any other "
                "encoder it means that images differ in little but brightness, or that bands or "
                "scaling are wrong."
            )
        if d.constant > self.most_lost * d.features:
            words.append(
                f"{d.constant:,} of {d.features:,} features are the same everywhere: look whether "
                "bands, units and scaling are those the encoder was made for."
            )
        if d.twins > self.most_lost * seen:
            words.append(
                f"{d.twins:,} of {seen:,} places have the same features as another place: look "
                "whether they share an image, or show nothing."
            )
        if d.unseen > self.most_lost * d.n:
            words.append(
                f"{d.unseen:,} of {d.n:,} places have no features, because no pixel of theirs was "
                "valid: ask whether those are places of another kind."
            )
        return words

    def _told_words(self, told: pd.Series) -> list[str]:
        if told.empty or told.any():
            return []
        return [
            f"None of the known covariates is told by the embedding in places held out (R² at "
            f"least {self.least_r2:g}, AUC at least {self.least_auc:g}): it cannot stand in for "
            "confounders like these. Adjust for them by their own columns, and do not claim that "
            "the image carries what was not measured."
        ]

    def _reach_words(self, folds: FoldRule | None, found: Diagnostics) -> list[str]:
        near = found.autocorrelation
        if near is None or near.p_value > self.alpha or near.range_km == 0:
            return []
        reach = _km(near.range_km)
        if folds is None or isinstance(folds, RandomFolds):
            return [
                f"Places resemble each other {reach}; with random folds, held-out scores are too "
                f"good. {_advice(near.range_km)}"
            ]
        if isinstance(folds, SpatialBlocks) and near.range_km > folds.km:
            return [
                f"Places resemble each other {reach}, farther than the edge of the blocks held out "
                f"({folds.km:g} km), so that held-out scores are too good. "
                f"{_advice(near.range_km)}"
            ]
        return []


def _period_words(embedding: xr.DataArray) -> list[str]:
    unseen = json.loads(embedding.attrs.get("periods_unseen", "[]"))
    if not unseen:
        return []
    named = ", ".join(unseen[:5]) + (f" and {len(unseen) - 5} more" if len(unseen) > 5 else "")
    return [
        f"No place has an image of {named}: features say nothing of that time. Look at the "
        "failure ledger, or leave it out of the periods."
    ]


def _km(reach: float) -> str:
    if math.isinf(reach):
        return "over all distances looked at"
    return f"up to about {reach:.2g} km" if reach < 10 else f"up to about {reach:.0f} km"


def _advice(reach: float) -> str:
    if math.isinf(reach):
        return "Hold out whole regions, e.g. GroupFolds(by='region')."
    edge = float(np.ceil(reach)) if reach >= 10 else math.ceil(reach * 10) / 10
    return f"Use SpatialBlocks(km={edge:g}) or longer."


def _reach_claim(near: Autocorrelation, alpha: float) -> str:
    p = f"p = {near.p_value:.3g}"
    if near.range_km == 0 and near.p_value <= alpha:
        return f"near places are hardly more alike than distant ones ({p})"
    if near.range_km == 0:
        return f"near places are no more alike than distant ones ({p})"
    return f"places resemble each other {_km(near.range_km)} ({p})"
