"""The derivative of a log density, by kernels on a grid, and how each observation moves it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from eocausal.errors import EstimationError

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["Density", "density_of"]

STEPS = 24
"""Grid points per bandwidth."""
REACH = 36
"""Bandwidths at which a Gaussian kernel is cut off: it is 1e-281 there."""
LARGEST = 1 << 18


@dataclass(frozen=True, slots=True, eq=False)
class Density:
    """A Gaussian kernel density on an even grid.

    Attributes
    ----------
    start, step
        First point and distance of points of the grid.
    bandwidth
        Standard deviation of the kernel.
    kernel, slope
        (2r + 1,) the kernel and its derivative at multiples of the step.
    density, derivative
        (M,) values on the grid.
    sample
        (N,) what it was estimated from.
    """

    start: float
    step: float
    bandwidth: float
    kernel: NDArray[np.float64]
    slope: NDArray[np.float64]
    density: NDArray[np.float64]
    derivative: NDArray[np.float64]
    sample: NDArray[np.float64]

    def score(self, x: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return (n,) derivatives of the log density; x within the range of the grid."""
        p, d = self._both(x)
        return d / p

    def pull(self, x: NDArray[np.float64], weights: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return (N, K) influence values of Σᵢ weightsᵢₖ score(xᵢ) by the sample.

        The derivative in the direction of observation s is
        Σᵢ weightsᵢ [K'(xᵢ - s) - score(xᵢ) K(xᵢ - s)] / (N p(xᵢ)); over the sample it sums to 0.

        Parameters
        ----------
        x
            (n,) points.
        weights
            (n, K).
        """
        p, d = self._both(x)
        out = np.empty((len(self.sample), weights.shape[1]))
        for k in range(weights.shape[1]):
            by_slope = self._binned(x, weights[:, k] / p)
            by_level = self._binned(x, weights[:, k] * d / p**2)
            # Seen from the sample the kernel is mirrored, which turns the sign of its derivative.
            moved = _spread(by_slope, -self.slope) - _spread(by_level, self.kernel)
            out[:, k] = self._read(moved, self.sample) / len(self.sample)
        return out

    def _both(self, x: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        p, d = self._read(self.density, x), self._read(self.derivative, x)
        if not (p > 0).all():
            raise EstimationError(
                f"The density of predictions is 0 at {int((p <= 0).sum())} units.",
                cause="They lie in a wide gap between the predictions it was estimated from.",
                next_step="Estimate it from predictions of all units, or use LinearCalibration().",
            )
        return p, d

    def _read(self, grid: NDArray[np.float64], x: NDArray[np.float64]) -> NDArray[np.float64]:
        left, share = self._place(x)
        return np.asarray(grid[left] * (1 - share) + grid[left + 1] * share)

    def _binned(self, x: NDArray[np.float64], weights: NDArray[np.float64]) -> NDArray[np.float64]:
        left, share = self._place(x)
        m = len(self.density)
        return np.asarray(
            np.bincount(left, weights * (1 - share), m) + np.bincount(left + 1, weights * share, m)
        )

    def _place(self, x: NDArray[np.float64]) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
        at = np.clip((x - self.start) / self.step, 0, len(self.density) - 1.000001)
        left = at.astype(np.int64)
        return left, at - left


def density_of(sample: NDArray[np.float64], bandwidth: float, low: float, high: float) -> Density:
    """Estimate a density on a grid that covers the sample and the points of interest.

    Observations are shared between the two grid points beside them, and values between grid points
    are interpolated; with 24 points per bandwidth both add less than 0.1 % to the bandwidth.

    Parameters
    ----------
    sample
        (N,) observations.
    bandwidth
        Standard deviation of the kernel.
    low, high
        Range of points at which the density will be asked for.

    Raises
    ------
    EstimationError
        If the range is thousands of bandwidths: a few observations lie far from all others.
    """
    low, high = min(low, float(sample.min())), max(high, float(sample.max()))
    step = bandwidth / STEPS
    if not np.isfinite((high - low) / step) or (high - low) / step > LARGEST:
        raise EstimationError(
            f"Predictions reach from {low:.4g} to {high:.4g}, with a bandwidth of {bandwidth:.2g}.",
            cause="A few lie so far from all others that no smooth density describes them.",
            next_step="Look at these units, or use LinearCalibration().",
        )
    start, points = low - step, int(np.ceil((high - low) / step)) + 3
    z = np.arange(-REACH * STEPS, REACH * STEPS + 1) / STEPS
    kernel = np.exp(-(z**2) / 2) / np.sqrt(2 * np.pi) / bandwidth
    slope = -z / bandwidth * kernel
    grid = Density(
        start, step, bandwidth, kernel, slope, np.zeros(points), np.zeros(points), sample
    )
    mass = grid._binned(sample, np.full(len(sample), 1 / len(sample)))
    return Density(
        start, step, bandwidth, kernel, slope, _spread(mass, kernel), _spread(mass, slope), sample
    )


def _spread(mass: NDArray[np.float64], kernel: NDArray[np.float64]) -> NDArray[np.float64]:
    """Convolve values on the grid with a kernel; directly, so that far tails keep their digits."""
    reach = len(kernel) // 2
    return np.asarray(np.convolve(mass, kernel)[reach : reach + len(mass)])
