"""How many breaks: by information criteria, or one test after the other against red noise.

BIC as Yao (1988) and LWZ as Liu, Wu & Zidek (1997, Statistica Sinica 7:497) count parameters for
errors without memory: with red noise they find breaks where there are none (Bai & Perron 2006). The
tests do not: the largest of the F statistics of 1..M breaks says whether there is any (UDmax; Bai &
Perron 1998, Econometrica 66:47), then each further break is tested given those before.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from eocausal.errors import EstimationError
from eocausal.estimators.breaks_partial import fit_partitions
from eocausal.estimators.breaks_scan import candidates, independent, regimes, scan
from eocausal.estimators.breaks_sieve import ArSieve, fit_autoregression
from eocausal.estimators.breaks_sup_f import SupF, sup_f

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from eocausal.estimators.breaks_bai_perron import Partitions

    Float64 = NDArray[np.float64]

__all__ = ["Sequential", "UDMax", "bic", "choose_sequentially", "lwz", "ud_max"]

UD_BREAKS = 2


@dataclass(frozen=True, slots=True)
class Sequential:
    """Add breaks as long as a test against red noise says so.

    Parameters
    ----------
    level
        Of each test: how often a series without breaks is given one.
    sieve
        How red noise is drawn.
    """

    level: float = 0.05
    sieve: ArSieve = field(default_factory=ArSieve)

    def __post_init__(self) -> None:
        if not 0 < self.level < 1:
            raise EstimationError(
                f"level={self.level} is no level of a test.",
                cause="It is the probability of a false alarm.",
                next_step="Use e.g. Sequential(level=0.05).",
            )


@dataclass(frozen=True, slots=True, eq=False)
class UDMax:
    """Is there any break? The largest F of 1..M breaks.

    Attributes
    ----------
    statistic
        max over m of F(m)/m.
    breaks
        The m where it is.
    p_value
        Against red noise.
    path
        (M,) F(m)/m.
    """

    statistic: float
    breaks: int
    p_value: float
    path: Float64

    def __repr__(self) -> str:
        return f"UDMax({self.statistic:.2f} with {self.breaks}, p = {self.p_value:.3f})"


def bic(rss: Float64, n: int, changing: int, shared: int) -> Float64:
    """Return (..., M + 1) criteria -2 log L + log(n) (q(m + 1) + s + m + 1); breaks count as one.

    Parameters
    ----------
    rss
        (..., M + 1) for m = 0..M.
    changing, shared
        q and s, numbers of columns.
    """
    m = np.arange(rss.shape[-1])
    count = changing * (m + 1) + shared + m + 1
    return np.asarray(n * (_log(rss / n) + 1.0 + np.log(2 * np.pi)) + np.log(n) * count)


def lwz(rss: Float64, n: int, changing: int, shared: int) -> Float64:
    """Return (..., M + 1) criteria log(rss/(n - p)) + 0.299 p log(n)^2.1/n with p = q(m+1)+s+m."""
    m = np.arange(rss.shape[-1])
    count = changing * (m + 1) + shared + m
    return np.asarray(_log(rss / (n - count)) + 0.299 * count * np.log(n) ** 2.1 / n)


def _log(values: Float64) -> Float64:
    return np.asarray(np.log(np.maximum(values, np.finfo(float).tiny)))


def ud_max(
    y: Float64,
    changing: Float64,
    shared: Float64,
    shortest: int,
    breaks: int,
    position: NDArray[np.int64],
    sieve: ArSieve | None = None,
    seed: int = 0,
) -> UDMax:
    """Test no break against any number up to ``breaks``.

    Parameters
    ----------
    y
        (n,) observed values.
    changing, shared
        (n, q) and (n, s) columns whose coefficients change and last.
    shortest
        Fewest observations of a regime.
    position
        (n,) numbers of the observed steps.
    """
    sieve = sieve or ArSieve()

    def fitted(series: Float64) -> Partitions:
        return fit_partitions(series, changing, shared, shortest, breaks)

    def refit(series: Float64) -> Float64:
        where = fitted(series).breaks[breaks]
        pairs = zip(series, where, strict=True)
        return np.stack([_residuals(one, changing, shared, b) for one, b in pairs])

    size = len(y), changing.shape[1], shared.shape[1]
    path = _ratios(fitted(y[None]).rss, *size)[0]
    noise = fit_autoregression(refit(y[None])[0], position, refit, sieve, seed)
    at = position - position[0]
    drawn = noise.draw(sieve.draws, int(at[-1]) + 1, np.random.default_rng([seed, 3]))[:, at]
    null = _ratios(fitted(drawn).rss, *size).max(1)
    p_value = (1 + (null >= path.max()).sum()) / (1 + sieve.draws)
    return UDMax(float(path.max()), int(path.argmax()) + 1, float(p_value), path)


def _ratios(rss: Float64, n: int, q: int, s: int) -> Float64:
    m = np.arange(1, rss.shape[1])
    free = n - q * (m + 1) - s
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.asarray((rss[:, :1] - rss[:, 1:]) / rss[:, 1:] * free / m)


def _residuals(
    y: Float64, changing: Float64, shared: Float64, breaks: NDArray[np.int64]
) -> Float64:
    base = independent(np.concatenate([regimes(changing, breaks.tolist()), shared], axis=1))
    return np.asarray(y - base @ (base.T @ y))


def choose_sequentially(
    y: Float64,
    changing: Float64,
    shared: Float64,
    shortest: int,
    parts: Partitions,
    position: NDArray[np.int64],
    decision: Sequential,
    seed: int = 0,
) -> tuple[int, UDMax, tuple[SupF, ...]]:
    """Return the number of breaks of one series, and the tests that led there.

    Parameters
    ----------
    parts
        Best partitions of ``y``.

    Returns
    -------
    The number; the test of any break; tests of the first break, of a second given the first, ...,
    the last of which says no unless there is no room for more.
    """
    most = len(parts.breaks) - 1
    anything = ud_max(
        y, changing, shared, shortest, min(most, UD_BREAKS), position, decision.sieve, seed
    )
    tests: list[SupF] = []
    chosen = 0
    for m in range(most):
        given = parts.breaks[m][0].tolist()
        room = candidates(len(y), shortest, given)
        if not len(room):
            break
        tests.append(
            sup_f(y, scan(changing, shared, room, given), position, decision.sieve, seed + m)
        )
        found = anything.p_value if m == 0 else tests[-1].p_value
        if found > decision.level:
            break
        chosen = m + 1
    return chosen, anything, tuple(tests)
