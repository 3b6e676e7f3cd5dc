"""Parts of a structural model as linear maps from shocks to values, for the engine ``collapsed``.

A part turns shocks z (one or several at each time, none at time 0) into values x = H z. What the
engine needs of it: the polynomial in the lag operator that turns x back into a few recent shocks,
H after that polynomial, paths H z, and H H' v (the covariance of x, of shocks of variance one,
times v). Maps on many rows at once, time last. Notation of Harvey (1989, chapter 2).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray
from scipy.signal import lfilter

from eocausal.estimators.season_effects import season_responses, season_starts

__all__ = ["Dummies", "Harmonics", "Level", "Part", "Returning", "Slope", "autoregression"]

Float64 = NDArray[np.float64]


class Part(Protocol):
    """Values that depend linearly on shocks and on a start."""

    @property
    def shocks(self) -> int:
        """Number of shocks at each time."""
        ...

    def polynomial(self) -> Float64:
        """Return coefficients of lags 0, 1, ... that leave a few recent shocks of the part."""
        ...

    def responses(self, times: int) -> list[Float64]:
        """Return H by kind of shock, each ``(T, shocks)``."""
        ...

    def starts(self, times: int) -> Float64:
        """Return (T, m) what unit starting values become."""
        ...

    def path(self, z: Float64) -> Float64:
        """Return (rows, T) H z, of z ``(rows, shocks, T)``."""
        ...

    def spread(self, v: Float64) -> Float64:
        """Return (rows, T) H H' v."""
        ...


@dataclass(frozen=True, slots=True)
class Level:
    """A level that walks."""

    shocks: int = 1

    def polynomial(self) -> Float64:
        """Return 1 - L."""
        return np.array([1.0, -1.0])

    def responses(self, times: int) -> list[Float64]:
        """Return a step up at each shock."""
        return [np.tri(times)[:, 1:]]

    def starts(self, times: int) -> Float64:
        """Return a constant."""
        return np.ones((times, 1))

    def path(self, z: Float64) -> Float64:
        """Sum the shocks."""
        return _summed(z[:, 0])

    def spread(self, v: Float64) -> Float64:
        """Sum backward, then forward."""
        return _summed(_reversed_sum(v))


@dataclass(frozen=True, slots=True)
class Slope:
    """What a slope that walks adds to the level: a shock at s shows from s + 1 on."""

    shocks: int = 1

    def polynomial(self) -> Float64:
        """Return (1 - L)^2."""
        return np.array([1.0, -2.0, 1.0])

    def responses(self, times: int) -> list[Float64]:
        """Return a ramp from each shock."""
        at = np.arange(times)
        return [np.maximum(np.subtract.outer(at, at[1:]), 0).astype(float)]

    def starts(self, times: int) -> Float64:
        """Return a straight line."""
        return np.arange(times, dtype=float)[:, None]

    def path(self, z: Float64) -> Float64:
        """Sum twice, the second time a step later."""
        return _delayed_sum(_summed(z[:, 0]))

    def spread(self, v: Float64) -> Float64:
        """Sum twice backward, then twice forward."""
        return _delayed_sum(_summed(_reversed_sum(_delayed_sum(v[:, ::-1])[:, ::-1])))


@dataclass(frozen=True, slots=True)
class Dummies:
    """Effects of the seasons that sum to a shock over any period (Harvey 1989, 2.3.44)."""

    period: int
    duration: int = 1
    shocks: int = 1

    def polynomial(self) -> Float64:
        """Return 1 + L + ... over the other seasons of a period."""
        return _stretched(np.ones(self.period), self.duration)

    def responses(self, times: int) -> list[Float64]:
        """Return what comes back after a period, taken away from the season after."""
        blocks = self._blocks(times)
        return [season_responses(self.period, blocks[-1] + 1)[blocks][:, 1:]]

    def starts(self, times: int) -> Float64:
        """Return the seasons that effects at times 0, -1, -2, ... become."""
        blocks = self._blocks(times)
        return season_starts(self.period, int(blocks[-1]) + 1)[blocks]

    def path(self, z: Float64) -> Float64:
        """Draw shocks back to every period; the shock of a season is that of its first time."""
        if self.duration == 1:
            return self._forward(z[:, 0])
        blocks = self._blocks(z.shape[-1])
        return self._forward(z[:, 0, : blocks[-1] + 1])[:, blocks]

    def spread(self, v: Float64) -> Float64:
        """Go backward by periods, then forward."""
        if self.duration == 1:
            return self._forward(self._backward(v))
        blocks = self._blocks(v.shape[-1])
        first = np.flatnonzero(np.diff(blocks, prepend=-1))
        return self._forward(self._backward(np.add.reduceat(v, first, axis=1)))[:, blocks]

    def _backward(self, v: Float64) -> Float64:
        out = self._strided(v[:, ::-1])[:, ::-1]
        np.subtract(out[:, :-1], out[:, 1:], out=out[:, :-1])
        return out

    def _forward(self, z: Float64) -> Float64:
        shock = np.empty_like(z)
        shock[:, 0] = 0.0
        shock[:, 1:2] = z[:, 1:2]
        np.subtract(z[:, 2:], z[:, 1:-1], out=shock[:, 2:])
        return self._strided(shock)

    def _strided(self, z: Float64) -> Float64:
        """Sum every period-th number."""
        rows, blocks = z.shape
        out = np.empty((rows, blocks))
        out[:, : self.period] = z[:, : self.period]
        for first in range(self.period, blocks, self.period):
            part = slice(first, min(first + self.period, blocks))
            before = slice(first - self.period, part.stop - self.period)
            np.add(z[:, part], out[:, before], out=out[:, part])
        return out

    def _blocks(self, times: int) -> NDArray[np.int64]:
        return np.arange(times) // self.duration


@dataclass(frozen=True, slots=True)
class Harmonics:
    """Cycles of lengths period, period/2, ..., each turning with noise (Harvey 1989, 2.3.55)."""

    period: int
    count: int
    duration: int = 1

    @property
    def shocks(self) -> int:
        """Number of shocks at each time: two a cycle."""
        return 2 * self.count

    def polynomial(self) -> Float64:
        """Return the product of 1 - 2 cos(w) L + L^2 over the cycles, 1 + L for one of two."""
        out = np.ones(1)
        for angle in self._angles():
            own = np.array([1.0, -2.0 * np.cos(angle), 1.0])
            out = np.convolve(out, np.ones(2) if angle == np.pi else own)
        return _stretched(out, self.duration)

    def responses(self, times: int) -> list[Float64]:
        """Return a cosine and a sine from each shock."""
        blocks = np.arange(times) // self.duration
        lag = np.subtract.outer(blocks, np.arange(1, blocks[-1] + 1))
        out = []
        for angle in self._angles():
            out.append(np.where(lag >= 0, np.cos(angle * lag), 0.0))
            if angle != np.pi:
                out.append(np.where(lag >= 0, np.sin(angle * lag), 0.0))
        return out

    def starts(self, times: int) -> Float64:
        """Return the cosines and sines."""
        turn = np.outer(np.arange(times) // self.duration, self._angles())
        waves = np.concatenate([np.cos(turn), np.sin(turn)], 1)
        return waves[:, : self.period - 1] if 2 * self.count == self.period else waves

    def path(self, z: Float64) -> Float64:
        """Turn the shocks, each cycle at its own speed."""
        blocks = np.arange(z.shape[-1]) // self.duration
        shock = z[:, :, : blocks[-1] + 1].copy()
        shock[:, :, 0] = 0.0
        pairs = shock[:, : self.count] + 1j * shock[:, self.count :]
        out = np.zeros(pairs[:, 0].shape)
        for at, angle in enumerate(self._angles()):
            out += _turned(pairs[:, at], angle).real
        return out[:, blocks]

    def spread(self, v: Float64) -> Float64:
        """Turn backward, then forward."""
        blocks = np.arange(v.shape[-1]) // self.duration
        first = np.flatnonzero(np.diff(blocks, prepend=-1))
        gathered = np.add.reduceat(v, first, axis=1).astype(complex)
        out = np.zeros(gathered.shape)
        for angle in self._angles():
            back = _turned(gathered[:, ::-1], -angle)[:, ::-1].copy()
            back[:, 0] = 0.0
            out += _turned(back, angle).real
        return out[:, blocks]

    def _angles(self) -> Float64:
        return 2.0 * np.pi * np.arange(1, self.count + 1) / self.period


@dataclass(frozen=True, slots=True, eq=False)
class Returning:
    """What a slope that returns to a long-run slope adds to the level (Scott's semi-local trend).

    d_t+1 = D + rho (d_t - D) + z_t+1: each row has its own rho.
    """

    rho: Float64

    def path(self, z: Float64, start: Float64, long_run: Float64) -> Float64:
        """Return the level of shocks (rows, T), first slopes and long-run slopes (rows,)."""
        shock = z + ((1.0 - self.rho) * long_run)[:, None]
        shock[:, 0] = start
        return _delayed_sum(autoregression(shock, self.rho))

    def spread(self, v: Float64) -> Float64:
        """Return H H' v for the shocks alone."""
        back = autoregression(_delayed_sum(v[:, ::-1]), self.rho)[:, ::-1].copy()
        back[:, 0] = 0.0
        return _delayed_sum(autoregression(back, self.rho))


def autoregression(z: Float64, phi: Float64) -> Float64:
    """Return x_t = phi x_t-1 + z_t of z (rows, T), each row with its own phi (rows,)."""
    out = np.empty(z.shape[::-1])
    last = np.zeros(len(z))
    for time, shock in enumerate(z.T):
        last = phi * last + shock
        out[time] = last
    return out.T


def _summed(z: Float64) -> Float64:
    """Sum over time; what comes at time 0 is no shock."""
    out = z.copy()
    out[:, 0] = 0.0
    return np.cumsum(out, 1, out=out)


def _reversed_sum(v: Float64) -> Float64:
    return np.cumsum(v[:, ::-1], 1)[:, ::-1]


def _delayed_sum(z: Float64) -> Float64:
    out = np.zeros_like(z)
    np.cumsum(z[:, :-1], 1, out=out[:, 1:])
    return out


def _turned(z: NDArray[np.complex128], angle: float) -> NDArray[np.complex128]:
    return np.asarray(lfilter([1.0], [1.0, -np.exp(1j * angle)], z, axis=-1))


def _stretched(polynomial: Float64, duration: int) -> Float64:
    out = np.zeros((len(polynomial) - 1) * duration + 1)
    out[::duration] = polynomial
    return out
