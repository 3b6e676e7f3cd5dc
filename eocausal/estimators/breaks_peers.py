"""Other people's break detectors, for company: ruptures and Rbeast, where they are installed.

PELT, binary segmentation and sliding windows of ruptures (Truong, Oudre & Vayatis 2020, Signal
Processing 167:107299); Rbeast (Zhao et al. 2019, Remote Sensing of Environment 232:111181). They
know nothing of red noise: their penalties and numbers of breaks are choices. Neither package is
needed by any other module.
"""

from __future__ import annotations

import contextlib
import io
from dataclasses import dataclass
from importlib import import_module
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from eocausal.errors import EstimationError

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Float64 = NDArray[np.float64]

__all__ = ["Beast", "BinSeg", "Detector", "Pelt", "Window"]


class Detector(Protocol):
    """A way to find breaks in a series without gaps."""

    @property
    def name(self) -> str:
        """What it is called."""
        ...

    def find(self, values: Float64) -> tuple[int, ...]:
        """Return the first observation of each new regime."""
        ...


@dataclass(frozen=True, slots=True)
class Pelt:
    """Every break that lowers the cost by more than a penalty.

    Parameters
    ----------
    penalty
        Cost of a break.
    cost
        ``'rbf'`` (any change of distribution), ``'l2'`` (mean), ``'normal'`` or another of
        ruptures.
    min_size
        Shortest regime.
    """

    penalty: float = 10.0
    cost: str = "rbf"
    min_size: int = 3

    @property
    def name(self) -> str:
        """What it is called."""
        return "PELT"

    def find(self, values: Float64) -> tuple[int, ...]:
        """Return the first observation of each new regime."""
        search = _package("ruptures").Pelt(model=self.cost, min_size=self.min_size, jump=1)
        return _inner(search.fit(values).predict(pen=self.penalty), len(values))


@dataclass(frozen=True, slots=True)
class BinSeg:
    """The best break, then the best in its parts, up to a number."""

    breaks: int = 3
    cost: str = "rbf"
    min_size: int = 3

    @property
    def name(self) -> str:
        """What it is called."""
        return "BinSeg"

    def find(self, values: Float64) -> tuple[int, ...]:
        """Return the first observation of each new regime."""
        search = _package("ruptures").Binseg(model=self.cost, min_size=self.min_size, jump=1)
        return _inner(search.fit(values).predict(n_bkps=self.breaks), len(values))


@dataclass(frozen=True, slots=True)
class Window:
    """Times at which two windows, one on either side, differ most.

    Parameters
    ----------
    breaks
        How many.
    width
        Of both windows together; None: a twentieth of the series, at least 10.
    cost, min_size
        As in :class:`Pelt`.
    """

    breaks: int = 3
    width: int | None = None
    cost: str = "rbf"
    min_size: int = 3

    @property
    def name(self) -> str:
        """What it is called."""
        return "Window"

    def find(self, values: Float64) -> tuple[int, ...]:
        """Return the first observation of each new regime."""
        width = self.width or max(10, len(values) // 20)
        search = _package("ruptures").Window(
            width=width, model=self.cost, min_size=self.min_size, jump=1
        )
        return _inner(search.fit(values).predict(n_bkps=self.breaks), len(values))


@dataclass(frozen=True, slots=True)
class Beast:
    """Bayesian averaging over breaks of the trend, with a harmonic season.

    Parameters
    ----------
    period
        Steps in a season; None: no season.
    probability
        Least posterior probability of a break that is reported.
    seed
        Of the sampler.
    """

    period: float | None = None
    probability: float = 0.5
    seed: int = 42

    @property
    def name(self) -> str:
        """What it is called."""
        return "BEAST"

    def find(self, values: Float64) -> tuple[int, ...]:
        """Return the first observation of each new regime."""
        beast = _package("Rbeast").beast
        season = {"season": "none"} if self.period is None else {
            "season": "harmonic", "period": self.period,
        }  # fmt: skip
        with contextlib.redirect_stdout(io.StringIO()):
            fit = beast(
                np.asarray(values), start=0, deltat=1, quiet=True, print_options=False,
                print_progress=False, mcmc_seed=self.seed, **season,
            )  # fmt: skip
        times, probability = np.ravel(fit.trend.cp), np.ravel(fit.trend.cpPr)
        keep = np.isfinite(times) & (probability >= self.probability)
        return tuple(sorted({int(t) for t in np.round(times[keep])}))


def _inner(found: list[int], n: int) -> tuple[int, ...]:
    return tuple(int(b) for b in found if b < n)


def _package(name: str) -> Any:
    try:
        return import_module(name)
    except ImportError as error:
        raise EstimationError(
            f"{name} is not installed.",
            cause="This detector is its, and eocausal does without it otherwise.",
            next_step=f"Run pip install {name}, or leave the detector out.",
        ) from error
