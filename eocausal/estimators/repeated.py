"""One answer from units dealt to folds several times: medians.

Chernozhukov et al. (2018, Econometrics Journal 21:C1, Definition 3.3).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import numpy as np

from eocausal.estimators.arm_means import ArmMeans

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from eocausal.estimators.overlap import ArmSupport

__all__ = ["median_means", "median_support", "nearest_repeat"]


def median_means(
    means: Sequence[ArmMeans], variance: Callable[[NDArray[np.float64]], float]
) -> ArmMeans:
    """Take the median over repeats of each effect against none, with their spread in its variance.

    The variance of an effect is the median of V_r + (θ_r - median θ)². Influence values are those
    of the repeat whose effect is nearest to the median, stretched so that they have this variance;
    weights those of :func:`nearest_repeat`.

    Parameters
    ----------
    means
        Of R repeats on the same units.
    variance
        Variance of the sum of (n,) influence values.

    Returns
    -------
    ArmMeans
        With effects against arm 0 as means; that of arm 0 is 0.
    """
    value, psi = _effects(means)
    centre = np.median(value, axis=0)
    out = np.zeros(psi.shape[1:])
    for k in range(1, value.shape[1]):
        own = np.array([variance(psi[r, :, k]) for r in range(len(means))])
        r = int(np.abs(value[:, k] - centre[k]).argmin())
        wide = float(np.median(own + (value[:, k] - centre[k]) ** 2))
        out[:, k] = psi[r, :, k] * (np.sqrt(wide / own[r]) if own[r] > 0 else 1.0)
    typical = means[nearest_repeat(means)]
    return ArmMeans(centre, out, typical.weights, typical.note)


def nearest_repeat(means: Sequence[ArmMeans]) -> int:
    """Return the repeat whose effect of the first treatment is nearest to the median."""
    value, _ = _effects(means)
    return int(np.abs(value[:, 1] - np.median(value[:, 1])).argmin())


def median_support(supports: Sequence[tuple[ArmSupport, ...]]) -> tuple[ArmSupport, ...]:
    """Return for each arm the support of the repeat with the median effective sample size."""
    return tuple(
        sorted(of_arm, key=lambda s: s.ess)[(len(of_arm) - 1) // 2]
        for of_arm in zip(*supports, strict=True)
    )


def _effects(means: Sequence[ArmMeans]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return (R, K) effects against arm 0 and their (R, n, K) influence values."""
    value = np.stack([m.value - m.value[0] for m in means])
    return value, np.stack([m.influence - m.influence[:, :1] for m in means])
