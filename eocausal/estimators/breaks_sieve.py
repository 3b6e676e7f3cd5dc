"""Red noise: an autoregression fitted to residuals, its bias taken out, and series drawn from it.

Autocovariances of pairs that were both observed, by the recursion of Levinson and Durbin; order by
the corrected criterion of Akaike (Hurvich & Tsai 1989, Biometrika 76:297). Residuals of a fitted
model look less persistent than the noise was, the more so beside a searched break; the coefficients
are moved until series drawn from them show on average those that were found (Kilian 1998, Review of
Economics and Statistics 80:218; Gourieroux, Renault & Touzi 2000). The sieve: Bühlmann (1997,
Bernoulli 3:123).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from scipy.signal import lfilter

from eocausal.errors import EstimationError

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Float64 = NDArray[np.float64]

__all__ = [
    "ArSieve",
    "Autoregression",
    "fit_autoregression",
    "levinson",
    "long_run_variance",
    "serial_variance",
]

LARGEST_ROOT = 0.98
FEWEST_SHOCKS = 30
WARM_UP = 250
TURNS = 4

Refit = Callable[["Float64"], "Float64"]


@dataclass(frozen=True, slots=True)
class ArSieve:
    """Noise is an autoregression whose order the data choose.

    Parameters
    ----------
    max_order
        Highest order tried. None: 10 log10(n), at most a fifth of the observations.
    draws
        Series drawn for a bootstrap.
    bias_draws
        Series drawn to measure the bias of the coefficients; 0 leaves it in.
    """

    max_order: int | None = None
    draws: int = 999
    bias_draws: int = 200

    def __post_init__(self) -> None:
        if self.draws < 19 or self.bias_draws < 0 or (self.max_order or 0) < 0:
            raise EstimationError(
                f"ArSieve(max_order={self.max_order}, draws={self.draws}, "
                f"bias_draws={self.bias_draws}) is no bootstrap.",
                cause="With fewer than 19 draws no p-value reaches 0.05; counts are not negative.",
                next_step="Use the defaults, or e.g. ArSieve(draws=399).",
            )

    def highest(self, n: int) -> int:
        """Return the highest order tried for n observations."""
        most = max(n // 5, 0)
        return min(most, int(10 * np.log10(n)) if self.max_order is None else self.max_order)


@dataclass(frozen=True, slots=True, eq=False)
class Autoregression:
    """A fitted autoregression u_t = Σ φ_j u_{t-j} + e_t.

    Attributes
    ----------
    coefficients
        (p,) φ, bias taken out; empty for white noise.
    plausible
        (k, p) coefficients that could have shown the ones found: how uncertain they are.
    shocks
        Centred e_t of the times whose p predecessors were observed; empty if there were too few,
        and draws are normal.
    scale
        Standard deviation of e_t.
    """

    coefficients: Float64
    plausible: Float64
    shocks: Float64
    scale: float

    def __repr__(self) -> str:
        phi = ", ".join(f"{value:.2f}" for value in self.coefficients)
        return f"Autoregression({self.order}: [{phi}], sd of shocks {self.scale:.3g})"

    @property
    def order(self) -> int:
        """Number of coefficients."""
        return len(self.coefficients)

    @property
    def inflation(self) -> float:
        """How much longer it makes standard errors of means, σ_longrun/σ of the noise itself."""
        weight = np.zeros(512)
        weight[0] = 1.0
        reply = lfilter([1.0], np.r_[1.0, -self.coefficients], weight)
        return float(1.0 / abs(1.0 - self.coefficients.sum()) / np.sqrt((reply**2).sum()))

    def draw(self, count: int, steps: int, rng: np.random.Generator) -> Float64:
        """Draw (count, steps) series, each with plausible coefficients of its own."""
        shape = count, steps + WARM_UP
        if len(self.shocks):
            shocks = self.shocks[rng.integers(0, len(self.shocks), shape)]
        else:
            shocks = rng.normal(0.0, self.scale, shape)
        if not self.order or not len(self.plausible):
            return _filtered(self.coefficients, shocks)
        which = np.arange(count) % len(self.plausible)
        out = np.empty((count, steps))
        for number, phi in enumerate(self.plausible[:count]):
            out[which == number] = _filtered(phi, shocks[which == number])
        return out


def fit_autoregression(
    residuals: Float64, position: NDArray[np.int64], refit: Refit, sieve: ArSieve, seed: int
) -> Autoregression:
    """Fit an autoregression to the residuals of one series.

    Parameters
    ----------
    residuals
        (n,) at the observed times.
    position
        (n,) numbers of the observed steps, rising; steps left out are gaps.
    refit
        Turns (N, n) drawn noise into residuals the way ``residuals`` came about.
    """
    spread = _on_grid(residuals[None], position)
    order = _order(spread, sieve.highest(len(residuals)))
    found = levinson(spread, order)[0][0]
    phi, plausible = found, found[None, :][:0]
    if order and sieve.bias_draws:
        phi, plausible = _unbiased(found, position, refit, sieve.bias_draws, seed)
    shocks = _shocks(spread[0], phi)
    if len(shocks) < FEWEST_SHOCKS:
        left = levinson(spread, order)[1][0, order]
        return Autoregression(phi, plausible, np.empty(0), float(np.sqrt(left)))
    return Autoregression(phi, plausible, shocks, float(np.sqrt(np.mean(shocks**2))))


def _unbiased(
    found: Float64, position: NDArray[np.int64], refit: Refit, draws: int, seed: int
) -> tuple[Float64, Float64]:
    """Return coefficients that show those found on average, and as many as could have."""
    at = position - position[0]
    shocks = np.random.default_rng([seed, 1]).normal(size=(draws, int(at[-1]) + 1 + WARM_UP))
    phi = found
    for _ in range(TURNS):
        drawn = refit(_filtered(phi, shocks)[:, at])
        seen = levinson(_on_grid(drawn, position), len(found))[0]
        phi = _stable(phi, phi + found - seen.mean(0))
    plausible = [_stable(phi, phi + row - seen.mean(0)) for row in seen]
    return phi, np.stack(plausible)


def long_run_variance(residuals: Float64, position: NDArray[np.int64], order: int) -> Float64:
    """Return (N,) variances at frequency zero, σ²/(1 - Σφ)², of (N, n) residuals."""
    phi, variance = levinson(_on_grid(residuals, position), order)
    return np.asarray(variance[:, order] / np.maximum(1.0 - phi.sum(-1), 1.0 - LARGEST_ROOT) ** 2)


def serial_variance(residuals: Float64, position: NDArray[np.int64]) -> float:
    """Return the variance at frequency zero of (n,) residuals, the order chosen by the data."""
    order = _order(_on_grid(residuals[None], position), ArSieve().highest(len(residuals)))
    return float(long_run_variance(residuals[None], position, order)[0])


def levinson(spread: Float64, order: int) -> tuple[Float64, Float64]:
    """Fit autoregressions to series that are NaN in their common gaps.

    Parameters
    ----------
    spread
        (N, steps) series of mean zero.

    Returns
    -------
    (N, order) coefficients and (N, order + 1) variances left by orders 0, 1, ...
    """
    there = np.isfinite(spread[0])
    values = np.where(there, spread, 0.0)
    steps = len(there)
    r = np.empty((len(spread), order + 1))
    for lag in range(order + 1):
        pairs = (there[lag:] & there[: steps - lag]).sum() * steps / (steps - lag)
        r[:, lag] = (values[:, lag:] * values[:, : steps - lag]).sum(1) / max(pairs, 1.0)
    phi = np.zeros((len(spread), order))
    variance = np.empty_like(r)
    variance[:, 0] = np.maximum(r[:, 0], np.finfo(float).tiny)
    for k in range(order):
        lagged = (phi[:, :k] * r[:, k:0:-1]).sum(1)
        partial = np.clip((r[:, k + 1] - lagged) / variance[:, k], -LARGEST_ROOT, LARGEST_ROOT)
        phi[:, :k] -= partial[:, None] * phi[:, :k][:, ::-1]
        phi[:, k] = partial
        variance[:, k + 1] = variance[:, k] * (1.0 - partial**2)
    return phi, variance


def _order(spread: Float64, highest: int) -> int:
    n = int(np.isfinite(spread[0]).sum())
    variance = levinson(spread, highest)[1][0]
    k = np.arange(highest + 1)
    return int(np.argmin(n * np.log(variance) + 2.0 * (k + 1) * n / np.maximum(n - k - 2, 1)))


def _on_grid(residuals: Float64, position: NDArray[np.int64]) -> Float64:
    at = position - position[0]
    out = np.full((len(residuals), int(at[-1]) + 1), np.nan)
    out[:, at] = residuals
    return out


def _filtered(phi: Float64, shocks: Float64) -> Float64:
    return np.asarray(lfilter([1.0], np.r_[1.0, -phi], shocks)[:, WARM_UP:])


def _shocks(series: Float64, phi: Float64) -> Float64:
    e = series.copy()
    for lag, value in enumerate(phi, start=1):
        e[lag:] -= value * series[: len(series) - lag]
    e = e[len(phi) :]
    e = e[np.isfinite(e)]
    return np.asarray(e - e.mean()) if len(e) else e


def _stable(old: Float64, new: Float64) -> Float64:
    """Go from ``old`` towards ``new`` as far as the autoregression stays stationary."""
    for share in (1.0, 0.75, 0.5, 0.25):
        phi = old + share * (new - old)
        if np.abs(np.roots(np.r_[1.0, -phi])).max() <= LARGEST_ROOT:
            return phi
    return old
