"""How good held-out probabilities of treatment are: AUC, calibration, losses; on arrays."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
from scipy import stats

from eocausal.estimators.auc import placements
from eocausal.estimators.calibration import fit_logits

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

__all__ = [
    "Losses",
    "auc_over_folds",
    "bin_numbers",
    "calibration_line",
    "curve",
    "losses",
    "noise_share",
    "widening",
]


def auc_over_folds(
    score: NDArray[np.float64], treated: NDArray[np.float64], fold: NDArray[np.int64]
) -> tuple[float, NDArray[np.float64], int]:
    """Average the AUC of each fold, weighted by its pairs of a treated and an untreated unit.

    Scores of different folds come from different models and are not compared.

    Parameters
    ----------
    score
        (n,) held-out scores.
    treated
        (n,) 1 or 0.
    fold
        (n,) fold of each unit.

    Returns
    -------
    The AUC, (n,) influence values (DeLong, DeLong & Clarke-Pearson 1988: placements; they sum to
    the error given the models), and the number of folds with both arms; NaN if there is none.
    """
    total, pairs, scored = 0.0, 0.0, 0
    influence = np.zeros(len(score))
    for k in np.unique(fold):
        here = fold == k
        if np.unique(treated[here]).size < 2:
            continue
        weight, value, place = placements(score[here], treated[here])
        pairs += weight
        total += weight * value
        influence[here] = weight * place
        scored += 1
    if scored == 0:
        return float("nan"), influence, 0
    return total / pairs, influence / pairs, scored


def noise_share(
    one: NDArray[np.float64], other: NDArray[np.float64], sizes: tuple[int, int], fitted: int
) -> float:
    """Return the share of what a model says of units that is noise of the units it was fitted on.

    Two models fitted on disjoint halves agree on signal alone. With r the correlation of what
    they say, noise over signal is (1 - r)/r at their size, and falls with the size (the
    Spearman-Brown formula).

    Parameters
    ----------
    one, other
        (n,) influence values of the AUC (or of a difference of AUCs) by either half's models.
    sizes
        Units that either was fitted on.
    fitted
        Units that the model in question is fitted on.
    """
    norm = np.sqrt((one @ one) * (other @ other))
    r = float(one @ other / norm) if norm > 0 else 0.0
    if r <= 0:
        return 1.0
    half = 2 / (1 / sizes[0] + 1 / sizes[1])
    ratio = (1 - min(r, 1.0)) / r * half / fitted
    return float(ratio / (1 + ratio))


def widening(noise: float, folds: int) -> float:
    """Return the factor on the standard error of a score averaged over folds.

    Models of different folds are fitted on mostly the same units and err together. Where they
    are noise alone the variance is 1 + K/(K-1) times what the placements say (Nadeau & Bengio
    2003; :func:`~eocausal.estimators.auc.fold_dependence`); where they are signal alone, once.
    For a linear score with share ν of noise it is 1 + ν to first order in 1/K.
    """
    return float(np.sqrt(1 + noise * folds / max(folds - 1, 1)))


def calibration_line(
    probability: NDArray[np.float64], treated: NDArray[np.float64]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Regress treatment on the log odds by logistic regression (Cox 1958).

    A slope below 1 says that probabilities are too extreme; an intercept above 0 that they are
    too low at odds of one.

    Parameters
    ----------
    probability
        (n,) held-out probabilities, within (0, 1).
    treated
        (n,) 1 or 0.

    Returns
    -------
    (2,) intercept and slope, and (n, 2) influence values given the models; NaN if the
    probabilities separate the arms or do not vary.
    """
    odds = np.log(probability) - np.log1p(-probability)
    none = np.full(2, np.nan), np.zeros((len(odds), 2))
    if odds.std() < 1e-9:
        return none
    at = fit_logits(odds[:, None], np.stack([1 - treated, treated], axis=1))
    fitted = 1 / (1 + np.exp(-np.clip(at[0] + at[1] * odds, -700, 700)))
    z = np.stack([np.ones_like(odds), odds], axis=1)
    information = (z * (fitted * (1 - fitted))[:, None]).T @ z
    if not np.isfinite(at).all() or np.linalg.cond(information) > 1e14:
        return none
    if (fitted * (1 - fitted)).sum() < 1e-6:
        return none
    return at, (z * (treated - fitted)[:, None]) @ np.linalg.inv(information)


@dataclass(frozen=True, slots=True, eq=False)
class Losses:
    """A loss of held-out probabilities beside that of the shares of the arms.

    Attributes
    ----------
    loss, base
        Mean loss of the probabilities, and of the shares.
    influence
        (n,) influence values of ``skill`` given the models.
    """

    loss: float
    base: float
    influence: NDArray[np.float64]

    @property
    def skill(self) -> float:
        """One minus loss over base; 0 is no better than the share of treated units."""
        return 1 - self.loss / self.base


def losses(
    probability: NDArray[np.float64], treated: NDArray[np.float64], share: NDArray[np.float64]
) -> tuple[Losses, Losses]:
    """Return the Brier score and the log loss.

    Parameters
    ----------
    probability, share
        (n,) probabilities of treatment by the model, and the share treated among the units that
        it was fitted on.
    treated
        (n,) 1 or 0.
    """

    def brier(p: NDArray[np.float64]) -> NDArray[np.float64]:
        return (treated - p) ** 2

    def log(p: NDArray[np.float64]) -> NDArray[np.float64]:
        return -np.log(np.maximum(np.where(treated == 1, p, 1 - p), 1e-15))

    out = []
    for loss in (brier, log):
        mine, base = loss(probability), loss(share)
        ratio = mine.sum() / base.sum()
        out.append(
            Losses(float(mine.mean()), float(base.mean()), (ratio * base - mine) / base.sum())
        )
    return out[0], out[1]


def bin_numbers(probability: NDArray[np.float64], bins: int) -> NDArray[np.int64]:
    """Return (n,) numbers of bins of about equally many units; ties stay together."""
    edges = np.unique(np.quantile(probability, np.arange(1, bins) / bins))
    found = np.searchsorted(edges, probability, side="left")
    return np.unique(found, return_inverse=True)[1].reshape(-1)


def curve(
    probability: NDArray[np.float64],
    treated: NDArray[np.float64],
    bins: int,
    variance: Callable[[NDArray[np.float64]], float],
    *,
    level: float,
) -> tuple[pd.DataFrame, float, float]:
    """Compare the share treated with the probability, in bins.

    Parameters
    ----------
    probability, treated
        (n,) held-out probabilities, and 1 or 0.
    bins
        Bins of about equally many units.
    variance
        Variance of the sum of (n,) influence values. Intervals are Wilson's (1927), with units
        divided by the ratio of that variance, over all bins, to the variance of independent units.
    level
        Of the intervals.

    Returns
    -------
    One row per bin: ``n, predicted, share_treated, ci_low, ci_high``; the expected calibration
    error Σ n_b/n |predicted - share| (Naeini, Cooper & Hauskrecht 2015); and what this would be
    on average if the probabilities were true.
    """
    number = bin_numbers(probability, bins)
    n = np.bincount(number).astype(float)
    predicted = np.bincount(number, probability) / n
    share = np.bincount(number, treated) / n
    independent = dependent = 0.0
    for b in range(len(n)):
        influence = np.where(number == b, treated - share[b], 0.0) / n[b]
        independent += float(influence @ influence)
        dependent += variance(influence)
    inflated = max(1.0, dependent / independent) if independent > 0 else 1.0
    low, high = _wilson(share, n / inflated, level)
    table = pd.DataFrame({
        "n": n.astype(int), "predicted": predicted, "share_treated": share,
        "ci_low": low, "ci_high": high,
    })  # fmt: skip
    weight = n / n.sum()
    error = float(weight @ np.abs(predicted - share))
    spread = np.sqrt(predicted * (1 - predicted) * inflated / n)
    return table, error, float(weight @ spread * np.sqrt(2 / np.pi))


def _wilson(
    share: NDArray[np.float64], n: NDArray[np.float64], level: float
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    z2 = float(stats.norm.ppf(0.5 + level / 2)) ** 2
    middle = (share + z2 / (2 * n)) / (1 + z2 / n)
    half = np.sqrt(z2 * (share * (1 - share) + z2 / (4 * n)) / n) / (1 + z2 / n)
    return np.maximum(middle - half, 0.0), np.minimum(middle + half, 1.0)
