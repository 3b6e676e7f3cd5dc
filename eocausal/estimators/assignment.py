"""How predictable placement is: from the table, from images, from both.

Who was treated may be told from what is measured. How well, on units that no model has seen, says
what the image knows of placement that the table does not; near one it says that some units could
hardly have been in the other arm. A model that tells placement better is not a better model for
adjustment: a column that drives placement and not the outcome widens weights and removes no bias.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import combinations
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from eocausal.effects import Influence, Variance, VarianceRule
from eocausal.errors import EstimationError, FoldError
from eocausal.estimators.assignment_results import (
    Difference,
    FittedAssignment,
    Importance,
    Measure,
    Predicted,
)
from eocausal.estimators.confounders import TABLE, Confounders
from eocausal.estimators.held_out import (
    auc_over_folds,
    calibration_line,
    curve,
    losses,
    noise_share,
    widening,
)
from eocausal.estimators.importance import permuted
from eocausal.estimators.inference import HC0, Clustered
from eocausal.estimators.inner_folds import arm_shares
from eocausal.estimators.observational import Observed, PropensityModel
from eocausal.estimators.ridge_logit import RidgeLogit
from eocausal.folds import (
    Buffered,
    FoldRule,
    GroupFolds,
    RandomFolds,
    SpatialBlocks,
    Splits,
    split,
)

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["AssignmentMechanism", "ByBlocks", "sets_of"]

TINY = 1e-9


@dataclass(frozen=True, slots=True)
class ByBlocks:
    """Units of one block of a fold rule depend on each other; blocks are independent.

    Parameters
    ----------
    blocks
        The rule whose blocks they are.
    """

    blocks: SpatialBlocks

    def variance(self, influence: Influence, units: pd.DataFrame) -> Variance:
        """Return that of :class:`~eocausal.estimators.inference.Clustered` by block."""
        table = pd.DataFrame({"block": self.blocks.blocks(units)}, index=units.index)
        return Clustered("block").variance(influence, table)


@dataclass(frozen=True, slots=True)
class AssignmentMechanism:
    """The decisions of an analysis of how predictable placement is.

    Parameters
    ----------
    model
        How probabilities of treatment are learned; default ridge logistic regression.
    folds
        How units are dealt; units near each other share what is not measured, so that spatial
        blocks, with a buffer, are honest where random folds flatter. None scores models on the
        units they were fitted on, which says nothing about placement.
    vcov
        How units depend on each other; default: units that the folds keep together (groups or
        blocks) depend in any way, others not.
    bins
        Bins of the calibration curve.
    permutations
        Times that each column is permuted for its importance; 0 for none.
    level
        Of intervals.
    """

    model: PropensityModel = field(default_factory=RidgeLogit)
    folds: FoldRule | None = field(default_factory=RandomFolds)
    vcov: VarianceRule | None = None
    bins: int = 10
    permutations: int = 5
    level: float = 0.95

    def __post_init__(self) -> None:
        if self.bins < 1 or self.permutations < 0 or not 0 < self.level < 1:
            raise EstimationError(
                f"bins={self.bins}, permutations={self.permutations} and level={self.level} "
                "cannot be used.",
                cause="There is at least one bin, and the level is a probability.",
                next_step="Use e.g. bins=10, permutations=5 and level=0.95.",
            )

    def fit(
        self,
        data: Observed,
        *,
        seed: int,
        sets: Mapping[str, Sequence[str]] | None = None,
    ) -> FittedAssignment:
        """Predict the arm of held-out units from several sets of confounders.

        Each treatment is compared with untreated units. AUCs are averages over folds; their
        intervals are DeLong's (placements summed as ``vcov`` says), widened by what models of
        different folds share (:func:`~eocausal.estimators.held_out.widening`), for which the
        models are fitted on two halves of the folds besides. Intervals of calibration and losses
        take the models as given. The importance of a column, or of a whole image, in the last set
        is what the AUC loses when it is permuted among the held-out units of a fold: it says what
        the model leans on. A column that others can stand in for costs little when it is left out
        and the model fitted anew; for whole sources that is told by the differences of sets.

        Parameters
        ----------
        data
            The study; the outcome is not looked at.
        seed
            Of folds, models and permutations.
        sets
            Names of sources (``table`` and those of the images) by name of the set; default
            :func:`sets_of`.

        Raises
        ------
        EstimationError
            If there are no confounders, or a source is unknown.
        FoldError
            If no fold has both arms.
        """
        named = dict(sets) if sets is not None else sets_of(data.confounders)
        if not named:
            raise EstimationError(
                "There is nothing to tell placement from.",
                cause="The study has neither covariates nor images.",
                next_step="Name covariates or images.",
            )
        stratum = data.arm.astype(float)
        splits = split(self.folds, data.units, seed=seed, stratum=stratum)
        shares = arm_shares(data.arm, splits)
        told = {
            name: self._told(data.confounders.only(*blocks), data.arm, splits, seed)
            for name, blocks in named.items()
        }
        predicted, differences, important = [], [], []
        last = list(named)[-1]
        for k in range(1, len(data.arms)):
            pair = _Pair.of(self, data, splits, shares, k)
            aucs = {name: pair.auc(name, t) for name, t in told.items()}
            predicted += [pair.predicted(aucs[name], t.probability) for name, t in told.items()]
            differences += [
                pair.difference(aucs[b], aucs[a]) for a, b in combinations(told, 2)
            ]  # fmt: skip
        if self.permutations and self.folds is not None:
            important = self._importances(data, splits, shares, told[last], named[last], last, seed)
        return FittedAssignment(
            self, tuple(predicted), tuple(differences), tuple(important), splits
        )  # fmt: skip

    def _told(
        self, confounders: Confounders, arm: NDArray[np.int64], splits: Splits, seed: int
    ) -> _Told:
        whole = self.model.cross_fit(confounders, arm, splits, seed=seed)
        if splits.k < 2:
            return _Told(whole, None)
        first = splits.fold < (splits.k + 1) // 2
        halves = []
        for half in (first, ~first):
            alone = Splits(np.zeros(len(arm), dtype=np.int64), half[:, None])
            try:
                halves.append(self.model.cross_fit(confounders, arm, alone, seed=seed))
            except FoldError:
                return _Told(whole, None)
        sizes = int(first.sum()), int((~first).sum())
        return _Told(whole, _Halves(halves[0], halves[1], sizes))

    def _importances(
        self,
        data: Observed,
        splits: Splits,
        shares: NDArray[np.float64],
        told: _Told,
        blocks: Sequence[str],
        name: str,
        seed: int,
    ) -> list[Importance]:
        pairs = [_Pair.of(self, data, splits, shares, k) for k in range(1, len(data.arms))]
        bases = [pair.auc(name, told) for pair in pairs]
        found = [
            pair.importance(base, group.name, probabilities)
            for group, probabilities in permuted(
                self.model, data.confounders.only(*blocks), data.arm, splits,
                repeats=self.permutations, seed=seed,
            )
            for pair, base in zip(pairs, bases, strict=True)
        ]  # fmt: skip
        order = {pair.treatment: k for k, pair in enumerate(pairs)}
        return sorted(found, key=lambda i: (order[i.drop.treatment], -i.drop.estimate))


def sets_of(confounders: Confounders) -> dict[str, tuple[str, ...]]:
    """Return the sets worth comparing: table, each image, all images, all."""
    images = [name for name in confounders.blocks if name != TABLE]
    sets: dict[str, tuple[str, ...]] = {name: (name,) for name in confounders.blocks}
    if len(images) > 1:
        sets[" + ".join(images)] = tuple(images)
    if len(images) < len(confounders.blocks) and images:
        sets[" + ".join(confounders.blocks)] = confounders.blocks
    return sets


@dataclass(frozen=True, slots=True, eq=False)
class _Halves:
    """Probabilities, (n, K), by models of two disjoint sets of folds."""

    one: NDArray[np.float64]
    other: NDArray[np.float64]
    sizes: tuple[int, int]


@dataclass(frozen=True, slots=True, eq=False)
class _Told:
    """Held-out probabilities, (n, K), from one set of confounders."""

    probability: NDArray[np.float64]
    halves: _Halves | None


@dataclass(frozen=True, slots=True, eq=False)
class _AUC:
    """An AUC with what is needed to compare it with another."""

    measure: Measure
    influence: NDArray[np.float64]
    halves: tuple[NDArray[np.float64], NDArray[np.float64], tuple[int, int]] | None
    noise: float


@dataclass(frozen=True, slots=True, eq=False)
class _Pair:
    """The units of one treatment and the untreated ones.

    ``units`` holds those of other treatments too: blocks are cut from all.
    """

    decided: AssignmentMechanism
    units: pd.DataFrame
    treatment: str
    arm: int
    keep: NDArray[np.bool_]
    treated: NDArray[np.float64]
    share: NDArray[np.float64]
    fold: NDArray[np.int64]
    fitted: int
    vcov: VarianceRule

    @classmethod
    def of(
        cls,
        decided: AssignmentMechanism,
        data: Observed,
        splits: Splits,
        shares: NDArray[np.float64],
        k: int,
    ) -> _Pair:
        keep = (data.arm == 0) | (data.arm == k)
        return cls(
            decided, data.units, data.arms[k] if len(data.arms) > 2 else data.treatment, k,
            keep, (data.arm[keep] == k).astype(float), _odds_share(shares, k, keep),
            splits.fold[keep], int(splits.train.sum(axis=0).mean()),
            decided.vcov or _vcov(decided.folds),
        )  # fmt: skip

    @property
    def labels(self) -> pd.Index:
        return self.units.index[self.keep]

    def probability(self, probability: NDArray[np.float64]) -> NDArray[np.float64]:
        return np.clip(_odds_share(probability, self.arm, self.keep), TINY, 1 - TINY)

    def auc(self, name: str, told: _Told) -> _AUC:
        p = self.probability(told.probability)
        value, psi, scored = auc_over_folds(p, self.treated, self.fold)
        if scored == 0:
            raise FoldError(
                f"No fold has both untreated units and units of {self.treatment!r}.",
                cause="The AUC compares units within a fold.",
                next_step="Use fewer or smaller blocks, or random folds.",
            )
        halves = None
        if told.halves is not None:
            one, other = (
                auc_over_folds(self.probability(half), self.treated, np.zeros_like(self.fold))[1]
                for half in (told.halves.one, told.halves.other)
            )
            halves = one, other, told.halves.sizes
        noise = self._noise(halves)
        measure = self.measure("AUC", name, value, psi, null=0.5, noise=noise)
        return _AUC(measure, psi, halves, noise)

    def _noise(
        self, halves: tuple[NDArray[np.float64], NDArray[np.float64], tuple[int, int]] | None
    ) -> float:
        return 1.0 if halves is None else noise_share(*halves, self.fitted)

    def measure(
        self,
        what: str,
        name: str,
        value: float,
        psi: NDArray[np.float64],
        *,
        null: float,
        noise: float | None = None,
        extra: float = 0.0,
    ) -> Measure:
        if noise is not None and self.decided.folds is not None:
            psi = psi * widening(noise, len(np.unique(self.fold)))
        influence = Influence(self.labels, psi, psi)
        found = self.vcov.variance(influence, self.units)
        error = np.sqrt(found.value + extra) if found.value >= 0 else np.nan
        return Measure(
            self.treatment, what, name, value, float(error), found.df, null, influence,
            self.decided.level, found.note,
        )  # fmt: skip

    def predicted(self, auc: _AUC, probability: NDArray[np.float64]) -> Predicted:
        p, name = self.probability(probability), auc.measure.confounders
        line, influence = calibration_line(p, self.treated)
        brier, log = losses(p, self.treated, self.share)
        table, error, chance = curve(
            p, self.treated, self.decided.bins, self._variance, level=self.decided.level
        )
        return Predicted(
            auc.measure, auc.noise, int(self.treated.sum()),
            self.measure("calibration intercept", name, float(line[0]), influence[:, 0], null=0),
            self.measure("calibration slope", name, float(line[1]), influence[:, 1], null=1),
            brier, self.measure("Brier skill", name, brier.skill, brier.influence, null=0),
            log, self.measure("log-loss skill", name, log.skill, log.influence, null=0),
            table, error, chance,
        )  # fmt: skip

    def _variance(self, psi: NDArray[np.float64]) -> float:
        return self.vcov.variance(Influence(self.labels, psi, psi), self.units).value

    def difference(self, a: _AUC, b: _AUC) -> Difference:
        """Compare AUCs on the same units: ``a`` minus ``b``."""
        halves = None
        if a.halves is not None and b.halves is not None:
            halves = (
                a.halves[0] - b.halves[0],
                a.halves[1] - b.halves[1],
                a.halves[2],
            )
        name = f"({a.measure.confounders}) - ({b.measure.confounders})"
        value = a.measure.estimate - b.measure.estimate
        noise = self._noise(halves)
        gain = self.measure(
            "difference of AUCs", name, value, a.influence - b.influence, null=0, noise=noise
        )
        return Difference(gain, a.measure.confounders, b.measure.confounders, noise)

    def importance(
        self, base: _AUC, group: str, probabilities: Sequence[NDArray[np.float64]]
    ) -> Importance:
        scores = [
            auc_over_folds(self.probability(p), self.treated, self.fold)[:2] for p in probabilities
        ]
        values = np.array([value for value, _ in scores])
        psi = np.mean([influence for _, influence in scores], axis=0)
        drops = base.measure.estimate - values
        spread = float(drops.std(ddof=1)) if len(drops) > 1 else 0.0
        drop = self.measure(
            "AUC lost when permuted", group, float(drops.mean()), base.influence - psi, null=0,
            extra=spread**2 / len(drops),
        )  # fmt: skip
        return Importance(drop, base.measure.confounders, spread, len(drops))


def _odds_share(
    probability: NDArray[np.float64], k: int, keep: NDArray[np.bool_]
) -> NDArray[np.float64]:
    """Return the probability of arm k among the two arms compared."""
    one, zero = probability[keep, k], probability[keep, 0]
    return np.asarray(one / np.maximum(one + zero, np.finfo(float).tiny))


def _vcov(folds: FoldRule | None) -> VarianceRule:
    if isinstance(folds, Buffered):
        return _vcov(folds.folds)
    if isinstance(folds, GroupFolds):
        return Clustered(folds.by)
    if isinstance(folds, SpatialBlocks):
        return ByBlocks(folds)
    return HC0()
