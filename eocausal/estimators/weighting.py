"""Effects of treatments that were placed, not drawn: weighting by the probability of treatment.

:func:`weight` joins the decisions (score, models, folds, trimming, variance) and returns effects
with influence values per unit, so that contrasts, tables and other variances need no refit.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

import numpy as np

from eocausal.effects import EffectEstimate, Influence, Status, VarianceRule
from eocausal.errors import EstimationError
from eocausal.estimators.arm_means import ArmMeans
from eocausal.estimators.inference import HC0
from eocausal.estimators.logit import Logit
from eocausal.estimators.observational import Observed, OutcomeModel, PropensityModel, observe
from eocausal.estimators.overlap import ArmSupport, Overlap
from eocausal.estimators.refusal import (
    arm_supports,
    refuse_empty_regions,
    refuse_lost_arm,
    refuse_thin_arms,
)
from eocausal.estimators.repeated import median_means, median_support, nearest_repeat
from eocausal.estimators.ridge import Ridge
from eocausal.estimators.ridge_logit import RidgeLogit
from eocausal.estimators.scores import AIPW, Nuisances, Score
from eocausal.folds import FoldRule, RandomFolds, Splits, split

if TYPE_CHECKING:
    import pandas as pd
    import xarray as xr
    from numpy.typing import NDArray

    from eocausal.estimators.trimming import Trimming

__all__ = ["Weighted", "Weighting", "weight"]


@dataclass(frozen=True, slots=True)
class Weighting:
    """The decisions of an analysis by weighting.

    Parameters
    ----------
    score
        Estimator and population; default :class:`~eocausal.estimators.scores.AIPW`.
    propensity
        How probabilities of treatment are learned; default ridge logistic regression.
    outcome_model
        How outcomes are learned, where the score uses them; default ridge regression by arm.
    folds
        How units are dealt for cross-fitting. None: models predict the units they were fitted on,
        which suits only unpenalised parametric models.
    repeats
        Times that units are dealt anew; the median is reported (Chernozhukov et al. 2018).
    trim
        What is done about extreme probabilities; default nothing.
    overlap
        When an estimate is refused.
    vcov
        How units depend on each other; default independent (HC0).
    level
        Level of intervals.
    """

    score: Score = field(default_factory=AIPW)
    propensity: PropensityModel = field(default_factory=RidgeLogit)
    outcome_model: OutcomeModel = field(default_factory=Ridge)
    folds: FoldRule | None = field(default_factory=RandomFolds)
    repeats: int = 1
    trim: Trimming | None = None
    overlap: Overlap = field(default_factory=Overlap)
    vcov: VarianceRule = field(default_factory=HC0)
    level: float = 0.95

    def __post_init__(self) -> None:
        if self.repeats < 1 or (self.folds is None and self.repeats > 1):
            raise EstimationError(
                f"{self.repeats} repeats"
                + (" without folds." if self.folds is None else " give nothing."),
                cause="A repeat deals the units to folds anew.",
                next_step="Give folds, and at least one repeat.",
            )
        if self.trim is not None and not self.score.needs_propensity:
            raise EstimationError(
                f"{self.trim!r} has nothing to trim by with {self.score.name}.",
                cause="Units are trimmed by their probabilities, which this score does not use.",
                next_step="Use Hajek() or AIPW(), or leave units out yourself.",
            )

    def fit(self, data: Observed, *, seed: int) -> Weighted:
        """Estimate the mean outcome under each arm.

        Parameters
        ----------
        data
            The study; see :func:`~eocausal.estimators.observational.observe`.
        seed
            Of folds and models.

        Raises
        ------
        OverlapError
            If too few units speak for an arm, or it does not occur in a region; both are named.
        FoldError, EstimationError
        """
        if self.trim is None:
            refuse_empty_regions(data, self.score.estimand, self.overlap, self.vcov)
        fits = [self._once(data, seed + 1_000_003 * r) for r in range(self.repeats)]
        fit = fits[0] if self.repeats == 1 else self._median(fits)
        if self.trim is not None:
            refuse_empty_regions(fit.data, self.score.estimand, self.overlap, self.vcov)
        refuse_thin_arms(
            fit.data, self.score.estimand, self.overlap, fit.support, fit.nuisances.propensity
        )
        return fit

    def _median(self, fits: Sequence[Weighted]) -> Weighted:
        labels = fits[0].data.units.index
        if not all(labels.equals(fit.data.units.index) for fit in fits):
            raise EstimationError(
                "Trimming kept different units in different repeats.",
                cause="Their influence values cannot be joined.",
                next_step="Use one repeat with trimming.",
            )

        def variance(psi: NDArray[np.float64]) -> float:
            own = self.vcov.variance(Influence(labels, psi, psi), fits[0].data.units).value
            return own if own > 0 else float(psi @ psi)

        means = [fit.means for fit in fits]
        typical = fits[nearest_repeat(means)]
        return replace(
            typical,
            means=median_means(means, variance),
            support=median_support([fit.support for fit in fits]),
        )

    def _once(self, data: Observed, seed: int) -> Weighted:
        whole = data.n
        splits = self._split(data, seed)
        probability = self._propensity(data, splits, seed)
        clipped = 0
        if self.trim is not None and probability is not None:
            keep = self.trim.keep(probability)
            if not keep.all():
                data = data.subset(keep)
                refuse_lost_arm(data)
                splits = self._split(data, seed)
                probability = self._propensity(data, splits, seed)
                assert probability is not None
            used = self.trim.apply(probability)
            clipped = int((used != probability).any(axis=1).sum())
            probability = used
        outcome = None
        if self.score.needs_outcome:
            outcome = self.outcome_model.cross_fit(
                data.confounders, data.y, data.arm, splits, seed=seed
            )
        design = None if clipped else self._design(data, splits)
        nuisances = Nuisances(probability, outcome, design)
        means = self.score.means(data, nuisances)
        support = arm_supports(data, means, probability, self.score.estimand)
        return Weighted(self, data, means, nuisances, splits, support, whole - data.n, clipped)

    def _split(self, data: Observed, seed: int) -> Splits:
        folds = self.folds if self.score.needs_propensity or self.score.needs_outcome else None
        return split(folds, data.units, seed=seed, stratum=data.arm.astype(float))

    def _propensity(self, data: Observed, splits: Splits, seed: int) -> NDArray[np.float64] | None:
        if not self.score.needs_propensity:
            return None
        found = self.propensity.cross_fit(data.confounders, data.arm, splits, seed=seed)
        tiny = np.finfo(float).eps
        return np.clip(found, tiny, 1 - tiny)

    def _design(self, data: Observed, splits: Splits) -> NDArray[np.float64] | None:
        if splits.crossed or not isinstance(self.propensity, Logit):
            return None
        return self.propensity.design(data.confounders)


@dataclass(frozen=True, slots=True, eq=False)
class Weighted:
    """A fitted analysis by weighting.

    Attributes
    ----------
    decisions
        What was decided.
    data
        The units that were used (fewer than given where units were trimmed).
    means
        Mean outcome under each arm with influence values.
    nuisances
        Probabilities and predicted outcomes.
    splits
        Folds.
    support
        How many units speak for each arm.
    n_trimmed, n_clipped
        Units left out by trimming, and units whose probabilities it changed.

    With repeats, means are medians, supports those of a median effective sample size, and weights,
    nuisances and splits those of the repeat whose effect is nearest to the median.
    """

    decisions: Weighting
    data: Observed
    means: ArmMeans
    nuisances: Nuisances
    splits: Splits
    support: tuple[ArmSupport, ...]
    n_trimmed: int
    n_clipped: int = 0

    @property
    def estimate(self) -> EffectEstimate:
        """The effect of the first treatment against none."""
        return self.effect(self.data.arms[1])

    def effects(self) -> list[EffectEstimate]:
        """Return the effect of every treatment against none."""
        return [self.effect(arm) for arm in self.data.arms[1:]]

    def effect(self, arm: str) -> EffectEstimate:
        """Return the effect of one treatment against none."""
        return self.contrast(arm, self.data.arms[0])

    def contrast(self, a: str, b: str) -> EffectEstimate:
        """Return the mean under ``a`` minus that under ``b``, with their covariance.

        Raises
        ------
        EstimationError
            If there is no such arm.
        """
        one, zero = (_at(self.data.arms, name) for name in (a, b))
        value = float(self.means.value[one] - self.means.value[zero])
        psi = self.means.influence[:, one] - self.means.influence[:, zero]
        d, decided = self.data, self.decisions
        warned = decided.overlap.warned([self.support[one], self.support[zero]])
        notes = [self.means.note] if self.means.note else []
        notes += [
            f"{s.n:,} units in arm {s.arm!r} weigh as much as {s.ess:,.0f} even ones."
            for s in warned
        ]
        if self.n_trimmed:
            notes.append(
                f"{self.n_trimmed:,} of {self.n_trimmed + d.n:,} units were left out "
                f"({decided.trim!r}): the effect is that of the rest."
            )
        if self.n_clipped:
            notes.append(
                f"Probabilities of {self.n_clipped:,} units were moved to the bound "
                f"({decided.trim!r}): their weights are not those of the {decided.score.estimand}."
            )
        return EffectEstimate.of(
            value,
            Influence(d.units.index, psi, psi),
            estimand=str(decided.score.estimand) + (" of the kept" if self.n_trimmed else ""),
            method=decided.score.name,
            units=d.units,
            vcov=decided.vcov,
            level=decided.level,
            status=Status.WARNED if warned else Status.OK,
            note=" ".join(notes),
            extra={
                "treatment": _treatment(d, one, zero),
                "outcome": d.outcome,
                "n_treated": int((d.arm == one).sum()),
                "ess_treated": self.support[one].ess,
                "ess_control": self.support[zero].ess,
                "n_trimmed": self.n_trimmed,
                "n_clipped": self.n_clipped,
            },
        )

    def scores(self, arm: str | None = None) -> NDArray[np.float64]:
        """Return (n,) scores whose mean is the effect of a treatment against none."""
        one = _at(self.data.arms, arm or self.data.arms[1])
        effect = self.means.value[one] - self.means.value[0]
        psi = self.means.influence[:, one] - self.means.influence[:, 0]
        return np.asarray(effect + self.data.n * psi)

    def __repr__(self) -> str:
        arms = ", ".join(f"{s.arm}: {s.n} (ESS {s.ess:.0f})" for s in self.support)
        return f"Weighted({self.decisions.score.name}, {self.data.n} units; {arms})"


def _treatment(data: Observed, one: int, zero: int) -> str:
    """Name the treatment of a contrast in records."""
    if len(data.arms) == 2:
        return data.treatment
    return data.arms[one] if zero == 0 else f"{data.arms[one]} - {data.arms[zero]}"


def _at(arms: Sequence[str], name: str) -> int:
    if name not in arms:
        raise EstimationError(
            f"There is no arm {name!r}.",
            cause=f"The arms are {', '.join(arms)}.",
            next_step="Name one of these.",
        )
    return list(arms).index(name)


def weight(
    units: pd.DataFrame,
    *,
    treatment: str,
    outcome: str,
    covariates: Sequence[str] = (),
    images: Mapping[str, pd.DataFrame | xr.DataArray] | None = None,
    decisions: Weighting | None = None,
    untreated: str | None = None,
    start: str | None = None,
    seed: int = 0,
) -> Weighted:
    """Estimate effects of a treatment that was placed according to what is measured.

    It is assumed that, given covariates and images, who was treated is chance; that every unit
    could have been in either arm; and that one unit's treatment does not touch another's outcome.

    Parameters
    ----------
    units
        One row per unit, unique index; with images a column ``neighborhood``, or the index, names
        the place.
    treatment, outcome, covariates
        Columns.
    images
        Embeddings by name.
    decisions
        Score, models, folds, variance.
    untreated
        Value of ``treatment`` that means none.
    start
        ISO date, or a column of dates, when treatment began; images must be older.
    seed
        Of folds and models.

    Raises
    ------
    OverlapError
        If too few units speak for an arm.
    LeakageError, AssignmentError, OneArmError, OutcomeError, EstimationError, FoldError

    Examples
    --------
    >>> import numpy as np, pandas as pd
    >>> rng = np.random.default_rng(0)
    >>> x = rng.normal(size=500)
    >>> w = (rng.random(500) < 1 / (1 + np.exp(-x))).astype(int)
    >>> table = pd.DataFrame({"x": x, "w": w, "y": 2.0 * w + x + rng.normal(size=500)})
    >>> fitted = weight(table, treatment="w", outcome="y", covariates=["x"], seed=1)
    >>> abs(fitted.estimate.estimate - 2) < 4 * fitted.estimate.std_error
    True
    """
    data = observe(
        units, treatment=treatment, outcome=outcome, covariates=covariates, images=images,
        untreated=untreated, start=start,
    )  # fmt: skip
    return (decisions or Weighting()).fit(data, seed=seed)
