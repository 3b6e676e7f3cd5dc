"""Probabilities that mean what they say: recalibration inside the training units."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from eocausal.estimators.inner_folds import inner_splits
from eocausal.folds import Splits

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from eocausal.estimators.confounders import Confounders
    from eocausal.estimators.observational import PropensityModel

__all__ = ["Calibrated", "Calibrator", "Isotonic", "Platt", "fit_logits"]

TINY = 1e-9


class ProbabilityMap(Protocol):
    """A fitted change of probabilities."""

    def __call__(self, probability: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return (n, K) probabilities for (n, K) probabilities; rows sum to 1."""
        ...


class Calibrator(Protocol):
    """A decision how probabilities are changed so that they agree with how often arms occur."""

    def fit(self, probability: NDArray[np.float64], arm: NDArray[np.int64]) -> ProbabilityMap:
        """Learn the change from (n, K) held-out probabilities and (n,) arms."""
        ...


@dataclass(frozen=True, slots=True)
class Platt:
    """Logistic calibration: log odds against untreated are stretched and shifted.

    log(q_k/q_0) = a_k + b log(p_k/p_0), one shift for each treatment and one stretch b ≥ 0, by
    maximum likelihood with Platt's (1999) targets, (N_k + 1)/(N_k + K) instead of one, which keep
    the fit finite where held-out probabilities separate the arms. For two arms this is Platt
    scaling. Where larger probabilities do not go with more treated units, b is 0 and the
    shares of the arms are returned.
    """

    def fit(self, probability: NDArray[np.float64], arm: NDArray[np.int64]) -> PlattMap:
        """Learn shifts and stretch."""
        arms = probability.shape[1]
        count = np.bincount(arm, minlength=arms)
        target = np.repeat(1 / (count + arms), arms).reshape(arms, arms)
        np.fill_diagonal(target, (count + 1) / (count + arms))
        target = target[arm]
        found = fit_logits(log_odds(probability), target)
        if not found[-1] > 0:
            share = target.mean(axis=0)
            found = np.append(np.log(share[1:] / share[0]), 0.0)
        return PlattMap(found[:-1], float(found[-1]))


@dataclass(frozen=True, slots=True, eq=False)
class PlattMap:
    """A fitted logistic calibration.

    Attributes
    ----------
    shift
        (K-1,) shifts of the log odds against untreated.
    stretch
        Factor on them; below 1 where probabilities were too extreme.
    """

    shift: NDArray[np.float64]
    stretch: float

    def __call__(self, probability: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return calibrated probabilities, (n, K)."""
        return _softmax(self.shift + self.stretch * log_odds(probability))


@dataclass(frozen=True, slots=True)
class Isotonic:
    """Isotonic calibration: any increasing change, by pooling adjacent violators.

    One arm against the rest, then normalised (Zadrozny & Elkan 2002). A unit that belongs to the
    arm is added at the lowest score and one that does not at the highest, so that no probability
    becomes 0 or 1, by which weights would be infinite. It needs about 1,000 held-out units
    (Niculescu-Mizil & Caruana 2005); with fewer use :class:`Platt`.
    """

    def fit(self, probability: NDArray[np.float64], arm: NDArray[np.int64]) -> IsotonicMap:
        """Learn one increasing curve for each arm (for two arms, that of the treatment)."""
        from sklearn.isotonic import IsotonicRegression

        arms = probability.shape[1]
        curves = []
        for k in range(1 if arms == 2 else 0, arms):
            score = probability[:, k]
            score = np.concatenate([[score.min()], score, [score.max()]])
            inside = np.concatenate([[1.0], (arm == k).astype(float), [0.0]])
            curves.append(IsotonicRegression(out_of_bounds="clip").fit(score, inside))
        return IsotonicMap(tuple(curves))


@dataclass(frozen=True, slots=True, eq=False)
class IsotonicMap:
    """A fitted isotonic calibration: a curve for the treatment, or one for each of K > 2 arms."""

    curves: tuple[Any, ...]

    def __call__(self, probability: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return calibrated probabilities, (n, K)."""
        if len(self.curves) == 1:
            one = self.curves[0].predict(probability[:, 1])
            return np.stack([1 - one, one], axis=1)
        raw = np.stack(
            [curve.predict(probability[:, k]) for k, curve in enumerate(self.curves)], axis=1
        )
        return np.asarray(raw / raw.sum(axis=1, keepdims=True))


@dataclass(frozen=True, slots=True)
class Calibrated:
    """A model of treatment whose probabilities are recalibrated inside the training units.

    For each fold the model is fitted anew with parts of the training units left out; how often
    arms occur at the probabilities of the units left out gives the correction, which is then
    applied to the model fitted on all training units. So no unit's own arm touches its
    probability. Without cross-fitting (one fold) the model is fitted on all units, and the
    correction is learned on five random parts.

    Parameters
    ----------
    model
        Any model of treatment.
    calibrator
        How probabilities are changed; default :class:`Platt`.
    """

    model: PropensityModel
    calibrator: Calibrator = field(default_factory=Platt)

    def cross_fit(
        self, confounders: Confounders, arm: NDArray[np.int64], splits: Splits, *, seed: int
    ) -> NDArray[np.float64]:
        """Return (n, K) probabilities, each unit's from the model of its fold.

        Raises
        ------
        FoldError, EstimationError
            As the model does.
        """
        out = self.model.cross_fit(confounders, arm, splits, seed=seed)
        for k in range(splits.k):
            here = splits.fold == k
            rows, inner = inner_splits(splits, k, arm, seed=seed)
            keep = np.zeros(confounders.n, dtype=bool)
            keep[rows] = True
            held_out = self.model.cross_fit(confounders.subset(keep), arm[rows], inner, seed=seed)
            out[here] = self.calibrator.fit(held_out, arm[rows])(out[here])
        return out


def log_odds(probability: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return (n, K-1) log(p_k / p_0), with probabilities of at least 1e-9."""
    logs = np.log(np.maximum(probability, TINY))
    return np.asarray(logs[:, 1:] - logs[:, :1])


def fit_logits(
    odds: NDArray[np.float64], target: NDArray[np.float64], *, steps: int = 100
) -> NDArray[np.float64]:
    """Fit log(q_k/q_0) = a_k + b odds_k to target probabilities by maximum likelihood.

    Parameters
    ----------
    odds
        (n, K-1) log odds.
    target
        (n, K) probabilities or indicators of arms.
    steps
        Newton steps at most; the likelihood is concave, and steps are halved until it rises.

    Returns
    -------
    (K,) a_1..a_{K-1} and b; not finite if the maximum is not reached (separated arms).
    """
    n, m = odds.shape
    at = np.append(np.zeros(m), 1.0)
    value = _cross_entropy(at, odds, target)
    for _ in range(steps):
        q = _softmax(at[:-1] + at[-1] * odds)[:, 1:]
        error = q - target[:, 1:]
        slope = np.append(error.sum(axis=0), (error * odds).sum())
        inner = (q * odds).sum(axis=1, keepdims=True)
        bend = np.empty((m + 1, m + 1))
        bend[:m, :m] = np.diag(q.sum(axis=0)) - q.T @ q
        bend[:m, m] = bend[m, :m] = (q * (odds - inner)).sum(axis=0)
        bend[m, m] = (q * odds * (odds - inner)).sum()
        step = np.linalg.lstsq(bend, slope, rcond=1e-12)[0]
        if float(slope @ step) < 1e-12 * n:
            return at
        size = 1.0
        while (new := _cross_entropy(at - size * step, odds, target)) > value and size > 1e-8:
            size /= 2
        if size <= 1e-8:
            return at
        at, value = at - size * step, new
    return np.full(m + 1, np.nan)


def _cross_entropy(
    at: NDArray[np.float64], odds: NDArray[np.float64], target: NDArray[np.float64]
) -> float:
    q = np.column_stack([np.zeros(len(odds)), at[:-1] + at[-1] * odds])
    top = q.max(axis=1, keepdims=True)
    logs = q - top - np.log(np.exp(q - top).sum(axis=1, keepdims=True))
    return float(-(target * logs).sum())


def _softmax(odds: NDArray[np.float64]) -> NDArray[np.float64]:
    q = np.column_stack([np.zeros(len(odds)), odds])
    q = np.exp(q - q.max(axis=1, keepdims=True))
    return np.asarray(q / q.sum(axis=1, keepdims=True))
