"""Predictions pushed back to where they came from, place by place, by Tweedie's formula.

Pettersson, Jerzak & Daoud (arXiv 2508.01341), after Efron (2011, JASA 106:1602): if the outcome is
the prediction plus an error that the map could not see, the prediction lies where the outcome is,
moved towards where outcomes are common. METHODS section 2 and D12.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from eocausal.errors import EstimationError
from eocausal.estimators.corrections import Effects
from eocausal.estimators.density_score import density_of
from eocausal.estimators.predicted_study import means_of
from eocausal.estimators.prediction_error import refuse_few

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from eocausal.estimators.labelled import Labelled

__all__ = ["SmoothScore", "Tweedie", "smooth_score"]

FEWEST = 30
OUTSIDE = 0.05
NUDGE = 1e-3


@dataclass(frozen=True, slots=True, eq=False)
class SmoothScore:
    """The derivative of the log density of predictions at some points.

    Attributes
    ----------
    value
        (n,) at the points.
    influence
        (N, K) influence values of K weighted sums of it by the N predictions that the density was
        estimated from, bandwidth and centre included.
    """

    value: NDArray[np.float64]
    influence: NDArray[np.float64]


def smooth_score(
    sample: NDArray[np.float64],
    x: NDArray[np.float64],
    weights: NDArray[np.float64],
    *,
    bandwidth: float,
    keep_variance: bool,
) -> SmoothScore:
    """Estimate the derivative of the log density of a sample at points.

    Parameters
    ----------
    sample
        (N,) predictions.
    x
        (n,) points within the sample's range.
    weights
        (n, K) weights of the sums whose influence values are wanted.
    bandwidth
        In standard deviations of the sample.
    keep_variance
        A kernel of standard deviation h makes the variance v of a density v + h², and its score too
        flat by h²/v. Shrinking the estimate towards its mean by c = (1 + h²/v)^-½ keeps the
        variance (Jones 1991, Statistics & Probability Letters 12:153): the score at x is that of
        the kernel estimate at mean + (x - mean)/c, divided by c; exact for a normal density.
    """
    n, sd, mean = len(sample), float(sample.std()), float(sample.mean())
    c = (1 + bandwidth**2) ** -0.5 if keep_variance else 1.0

    def at(h: float, centre: float) -> NDArray[np.float64]:
        points = centre + (x - centre) / c
        return density_of(sample, h, float(points.min()), float(points.max())).score(points) / c

    h = bandwidth * sd
    points = mean + (x - mean) / c
    density = density_of(sample, h, float(points.min()), float(points.max()))
    value = density.score(points) / c
    influence = density.pull(points, weights) / c
    wider = weights.T @ (at(h * (1 + NUDGE), mean) - at(h * (1 - NUDGE), mean)) / (2 * h * NUDGE)
    spread = bandwidth * ((sample - mean) ** 2 - sd**2) / (2 * sd * n)
    influence += np.outer(spread, wider)
    if keep_variance:
        nudge = NUDGE * sd
        moved = weights.T @ (at(h, mean + nudge) - at(h, mean - nudge)) / (2 * nudge)
        influence += np.outer((sample - mean) / n, moved)
    return SmoothScore(value, influence)


@dataclass(frozen=True, slots=True)
class Tweedie:
    """Replace predictions f by f - σ² (log p)'(f).

    σ² is the variance of prediction - measured, p the density of predictions: that of the
    calibration table where labels come from one, otherwise of all units of the study. Units whose
    predictions are outside the range of that density are moved as its nearest unit is. The error of
    σ² and of p is carried into the influence values.

    Parameters
    ----------
    bandwidth
        Of the kernel, in standard deviations of predictions; default N^(-1/5) (Scott 1992).
    keep_variance
        Whether the density keeps the variance of the predictions; see :func:`smooth_score`. False
        is the published correction.
    """

    bandwidth: float | None = None
    keep_variance: bool = True

    def __post_init__(self) -> None:
        if self.bandwidth is not None and not self.bandwidth > 0:
            raise EstimationError(
                f"A bandwidth of {self.bandwidth}.",
                cause="It is in standard deviations of the predictions.",
                next_step="Give a positive number, or leave it out.",
            )

    @property
    def name(self) -> str:
        """Name of the correction."""
        return "Tweedie correction"

    @property
    def trusts_map(self) -> bool:
        """True: labels teach only how far predictions are off."""
        return True

    @property
    def needs_labels(self) -> bool:
        """True."""
        return True

    def effects(self, known: Labelled, *, seed: int) -> Effects:
        """Estimate effects on the corrected predictions.

        Raises
        ------
        EstimationError
            If there are too few pairs, or many predictions are outside those of the calibration
            table.
        """
        refuse_few(known.pairs, FEWEST)
        study, pairs = known.study, known.pairs
        off = pairs.prediction - pairs.measured
        variance = float(off.var())
        from_table = known.outside
        sample = pairs.prediction if from_table else known.prediction
        rows = pairs.at if from_table else np.arange(study.data.n)
        x = np.clip(known.prediction, sample.min(), sample.max())
        n_outside = int((x != known.prediction).sum())
        _refuse_outside(n_outside, len(x))
        width = len(sample) ** -0.2 if self.bandwidth is None else self.bandwidth
        weights = _within_arms(study.data.arm, study.means.weights, len(study.data.arms))
        score = smooth_score(sample, x, weights, bandwidth=width, keep_variance=self.keep_variance)
        means = means_of(study, known.prediction - variance * score.value, seed=seed)
        influence = known.spread(means.influence)
        np.add.at(influence, rows, -variance * score.influence)
        of_variance = ((off - off.mean()) ** 2 - variance) / pairs.n
        np.add.at(influence, pairs.at, -np.outer(of_variance, weights.T @ score.value))
        note = f"Predictions pushed back by Tweedie's formula, σ = {np.sqrt(variance):.3g}."
        if n_outside:
            note += f" {n_outside:,} units are outside the range of the calibration table."
        numbers = {"sigma": float(np.sqrt(variance)), "n_outside": float(n_outside)}
        value = means.value - means.value[0]
        warned = n_outside > 0
        return Effects(value, influence - influence[:, :1], numbers, note, warned=warned)


def _within_arms(
    arm: NDArray[np.int64], weights: NDArray[np.float64], arms: int
) -> NDArray[np.float64]:
    """Return (n, K) weights of the units of each arm that sum to one."""
    own = (arm[:, None] == np.arange(arms)) * weights[:, None]
    return np.asarray(own / own.sum(axis=0))


def _refuse_outside(outside: int, n: int) -> None:
    if outside > OUTSIDE * n:
        raise EstimationError(
            f"{outside:,} of {n:,} units have predictions outside the range of the calibration "
            "table.",
            cause="There the density of predictions, and so the correction, is unknown.",
            next_step="Calibrate on places like those of the study, or use LinearCalibration().",
        )
