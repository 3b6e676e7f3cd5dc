"""Likelihoods of a structural model by banded Cholesky factors, many points at once.

Values y = X b + states + residual have a dense covariance V, in units of the residual's variance.
A lag polynomial D that leaves a few recent shocks of every part makes D V D' banded, of the width
of its degree: twelve for a level with twelve seasons. D has determinant one, so that

    log |V| = log |D V D'|,      U' V^-1 U = (L^-1 D U)' (L^-1 D U),     D V D' = L L'.

D V D' is a sum of fixed banded matrices times ratios of variances and powers of autocorrelations,
so that all points of a batch are one matrix product, and one call of LAPACK factors them, block
after block (METHODS.md section 5, "collapsed": the same sums as a Kalman filter on [y, X], of
which this is the Cholesky form, Durbin & Koopman 2012, section 4.13).

A missing value is a column of X with a flat prior: with E the columns of the identity at missing
times, |V_oo| = |V| |E' V^-1 E|, and U' V_oo^-1 U is what U leaves of E.
"""

from __future__ import annotations

from copy import copy
from dataclasses import dataclass, replace
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray
from scipy.linalg import lapack
from scipy.signal import lfilter

from eocausal.estimators.collapsed_parts import Level, Part, Slope

__all__ = ["Bands", "Factor", "Layout", "Ratios", "bands_of", "solve_one"]

Float64 = NDArray[np.float64]
LOSS = 1e-7  # most of a log likelihood that rounding may cost before D is left out


@dataclass(frozen=True, slots=True)
class Layout:
    """What the covariance is made of.

    Attributes
    ----------
    parts
        Parts with shocks.
    start_vars
        Variances of the starting values of each part.
    returning
        Variance of the first slope of a semi-local trend; None without one.
    autocorrelated
        Whether the residual is an AR(1).
    times
        Number of times, from the first of the record on.
    variance
        Bytes of the relative variances of the residual (times,); empty if equal.
    """

    parts: tuple[Part, ...]
    start_vars: tuple[tuple[float, ...], ...]
    returning: float | None
    autocorrelated: bool
    times: int
    variance: bytes = b""

    @property
    def scaled(self) -> bool:
        """Whether values are divided by the residual's sd, as an AR(1) of unequal variance is."""
        return self.autocorrelated and bool(self.variance)

    def variances(self) -> Float64:
        """Return (times,) relative variances of the residual."""
        return np.frombuffer(self.variance) if self.variance else np.ones(self.times)


@dataclass(frozen=True, slots=True, eq=False)
class Ratios:
    """Points at which the covariance is wanted, one a row.

    Attributes
    ----------
    parts
        (rows, parts) variances of the shocks over that of the residual.
    slope
        (rows,) the same for the slope of a semi-local trend; zeros without one.
    start
        (rows,) what the variances of the starts are multiplied by.
    phi, rho
        (rows,) autocorrelations of the residual and of the slope of a semi-local trend.
    """

    parts: Float64
    slope: Float64
    start: Float64
    phi: Float64
    rho: Float64

    def __len__(self) -> int:
        return len(self.phi)

    def take(self, rows: NDArray[np.intp]) -> Ratios:
        """Return some rows, in any order."""
        return Ratios(
            self.parts[rows], self.slope[rows], self.start[rows], self.phi[rows], self.rho[rows]
        )


@dataclass(frozen=True, slots=True, eq=False)
class Factor:
    """Cholesky factors of D V D' of all rows, in one banded matrix."""

    banded: Float64
    rows: int
    log_det: Float64

    def solve(self, u: Float64, *, transposed: bool = False) -> Float64:
        """Return L^-1 u, or L'^-1 u, of u (columns, rows, n)."""
        flat = np.array(u, order="C").reshape(len(u), -1)
        out, _ = lapack.dtbtrs(
            self.banded.T, flat.T, uplo="L", trans="T" if transposed else "N", overwrite_b=1
        )
        return np.asarray(out.T.reshape(len(u), self.rows, -1))

    def each(self) -> list[Float64]:
        """Return the factor of each row, in banded form."""
        return np.split(self.banded, self.rows)


def solve_one(banded: Float64, u: Float64, *, transposed: bool = False) -> Float64:
    """Return L^-1 u, or L'^-1 u, of u (columns, n) for one factor."""
    out, _ = lapack.dtbtrs(banded.T, u.T, uplo="L", trans="T" if transposed else "N")
    return np.asarray(out.T)


class Bands:
    """Fixed matrices of a layout, from which factors at any points are built."""

    def __init__(self, layout: Layout) -> None:
        self.layout = layout
        n, returning = layout.times, layout.returning is not None
        shared, rest = _polynomials(layout, returning)
        width = len(shared) - 1 + int(layout.autocorrelated) + int(returning)
        self.dense = layout.scaled or width >= n // 2 or _loss(shared, n) > LOSS
        if self.dense:
            rest = np.ones(1)
            shared = Level().polynomial() if returning else rest
            width = n - 1
        self.shared, self.rest, self.width = shared, rest, width
        self.root = np.sqrt(layout.variances()) if layout.scaled else np.ones(n)
        matrices: list[Float64] = []
        self.terms: list[tuple[str, int, int]] = []
        for kind, matrix, own_phi, own_rho in self._bases():
            expanded = self._expanded(_banded(matrix, width)[None], own_phi, own_rho)
            matrices.extend(m[0] for m, _, _ in expanded)
            self.terms.extend((kind, i, j) for _, i, j in expanded)
        self.basis = np.ascontiguousarray(np.stack(matrices).reshape(len(matrices), -1))

    def _bases(self) -> list[tuple[str, Float64, bool, bool]]:
        """Return kind, matrix, and whether phi or rho have been dealt with, of each term."""
        layout, n = self.layout, self.layout.times
        returning = layout.returning is not None
        unit = np.eye(n)
        noise = np.ones(n) if layout.scaled else layout.variances()
        known = _lagged(self.shared, unit.T).T
        out: list[tuple[str, Float64, bool, bool]] = []
        if layout.autocorrelated:
            later = known[:, 1:]
            out.append(("shock", later @ later.T, True, False))
            out.append(("noise", np.outer(known[:, 0], known[:, 0]), True, False))
        else:
            out.append(("noise", (known * noise) @ known.T, False, False))
        start = np.zeros((n, n))
        for at, (part, var) in enumerate(zip(layout.parts, layout.start_vars, strict=True)):
            matrix = sum(self._outer(h) for h in part.responses(n))
            out.append((f"part {at}", np.asarray(matrix), False, False))
            start += self._outer(part.starts(n) * np.sqrt(var))
        out.append(("start", start, False, False))
        if returning:
            rest = _lagged(self.rest, unit.T).T
            out.append(("slope", rest[:, 2:] @ rest[:, 2:].T, False, True))
            first = float(layout.returning or 0.0) * np.outer(rest[:, 1], rest[:, 1])
            out.append(("start", first, False, True))
        return out

    def _outer(self, response: Float64) -> Float64:
        filtered = _lagged(self.shared, (response / self.root[:, None]).T).T
        return np.asarray(filtered @ filtered.T)

    def _expanded(
        self, band: Float64, own_phi: bool, own_rho: bool
    ) -> list[tuple[Float64, int, int]]:
        """Return matrices and powers of phi and rho of (1 - phi L)(1 - rho L) B (.)'."""
        terms = [(band, 0, 0)]
        if self.layout.autocorrelated and not own_phi:
            terms = [(m, i, 0) for i, m in enumerate(_powers(band))]
        if self.layout.returning is not None and not own_rho:
            terms = [(m, i, j) for b, i, _ in terms for j, m in enumerate(_powers(b))]
        return terms

    def factor(self, ratios: Ratios) -> Factor:
        """Factor D V D' at every row."""
        return _factored(self._coefficients(ratios) @ self.basis, len(ratios), self.width + 1)

    def cut(self, times: int) -> Bands:
        """Return the same for fewer times."""
        if times == self.layout.times:
            return self
        out = copy(self)
        out.layout = replace(self.layout, times=times, variance=self.layout.variance[: 8 * times])
        out.root = self.root[:times]
        basis = self.basis.reshape(len(self.basis), self.layout.times, -1)[:, :times].copy()
        for d in range(1, self.width + 1):
            basis[:, max(times - d, 0) :, d] = 0.0
        out.width = min(self.width, times - 1)
        basis = basis[:, :, : out.width + 1]
        out.basis = np.ascontiguousarray(basis).reshape(len(basis), -1)
        return out

    def _coefficients(self, ratios: Ratios) -> Float64:
        sizes = {
            "noise": np.ones(len(ratios)), "shock": 1.0 - ratios.phi**2,
            "start": ratios.start, "slope": ratios.slope,
        }  # fmt: skip
        for at in range(ratios.parts.shape[1]):
            sizes[f"part {at}"] = ratios.parts[:, at]
        return np.stack([sizes[k] * _weight(ratios, i, j) for k, i, j in self.terms], 1)

    def filtered(self, u: Float64) -> Float64:
        """Return D u of u (..., n), but for the autocorrelations."""
        return _lagged(self.shared, u / self.root)

    def autocorrelated(self, u: Float64, ratios: Ratios) -> Float64:
        """Return (..., rows, n) the rest of D, of ``u`` (..., rows or 1, n)."""
        for used, rate in (
            (self.layout.autocorrelated, ratios.phi),
            (self.layout.returning is not None, ratios.rho),
        ):
            if used:
                lagged = np.zeros_like(u)
                lagged[..., 1:] = u[..., :-1]
                u = u - rate[:, None] * lagged
        return np.broadcast_to(u, (*u.shape[:-2], len(ratios), u.shape[-1]))

    def long_run(self, ratios: Ratios) -> Float64:
        """Return (rows, n) D times what a long-run slope of one adds to the level."""
        steps = np.ones(self.layout.times)
        steps[:2] = 0.0
        base = (1.0 - ratios.rho)[:, None] * _lagged(self.rest, steps)
        if self.layout.autocorrelated:
            lagged = np.zeros_like(base)
            lagged[:, 1:] = base[:, :-1]
            base = base - ratios.phi[:, None] * lagged
        return np.asarray(base)

    def adjoint(self, u: Float64, ratios: Ratios) -> Float64:
        """Return D' u of u (rows, n)."""
        for used, rate in (
            (self.layout.autocorrelated, ratios.phi),
            (self.layout.returning is not None, ratios.rho),
        ):
            if used:
                ahead = np.zeros_like(u)
                ahead[:, :-1] = u[:, 1:]
                u = u - rate[:, None] * ahead
        return np.asarray(_lagged(self.shared, u[:, ::-1])[:, ::-1] / self.root)

    def scale_log_det(self, seen: NDArray[np.bool_]) -> Float64:
        """Return (rows,) what dividing values by ``root`` takes off log |V|."""
        return np.asarray(2.0 * (np.log(self.root) * seen).sum(1))


@lru_cache(maxsize=8)
def bands_of(layout: Layout) -> Bands:
    """Return the matrices of a layout, kept for the next series."""
    return Bands(layout)


def _polynomials(layout: Layout, returning: bool) -> tuple[Float64, Float64]:
    """Return the product of all lag polynomials, and that without the trend's."""
    trend = np.array([1.0, -1.0]) if returning else np.ones(1)
    rest = np.ones(1)
    for part in layout.parts:
        own = part.polynomial()
        if isinstance(part, Level | Slope):
            trend = own if len(own) > len(trend) else trend
        else:
            rest = np.convolve(rest, own)
    return np.convolve(trend, rest), rest


def _loss(polynomial: Float64, times: int) -> float:
    """Bound the error of a log likelihood: rounding, grown by sums that undo the polynomial."""
    impulse = np.zeros(times)
    impulse[0] = 1.0
    grown = lfilter([1.0], polynomial, impulse)
    return float(np.finfo(float).eps * (polynomial**2).sum() * times * np.abs(grown).max() ** 2)


def _lagged(polynomial: Float64, u: Float64) -> Float64:
    """Return a polynomial in the lag operator times u (..., n)."""
    out: Float64 = polynomial[0] * u
    for lag in np.flatnonzero(polynomial[1 : u.shape[-1]]) + 1:
        out[..., lag:] += polynomial[lag] * u[..., :-lag]
    return out


def _banded(matrix: Float64, width: int) -> Float64:
    """Return (n, width + 1) the lower diagonals of a symmetric matrix, zero beyond its end."""
    n = len(matrix)
    out = np.zeros((n, width + 1))
    for d in range(width + 1):
        out[: n - d, d] = np.diagonal(matrix, -d)
    return out


def _powers(band: Float64) -> list[Float64]:
    """Return B, -(L B + B L') and L B L' of banded matrices (rows, n, width + 1)."""
    shifted = np.zeros_like(band)
    shifted[:, 1:] = band[:, :-1]
    both = np.zeros_like(band)
    both[..., 1:] += band[..., :-1]  # (L B)_ij = B_i-1,j
    both[..., :-1] += shifted[..., 1:]  # (B L')_ij = B_i,j-1
    both[..., 0] += shifted[..., 1] if band.shape[-1] > 1 else 0.0
    n, width = band.shape[1:]
    for d in range(1, width):
        shifted[:, n - d :, d] = 0.0
        both[:, n - d :, d] = 0.0
    return [band, -both, shifted]


def _weight(ratios: Ratios, i: int, j: int) -> Float64:
    return np.asarray(ratios.phi**i * ratios.rho**j)


def _factored(covariance: Float64, rows: int, height: int) -> Factor:
    """Factor all blocks; one that is not positive definite gets an infinite determinant."""
    n = covariance.shape[1] // height
    bad: list[int] = []
    while True:
        stacked = covariance.reshape(rows * n, height)
        factor, info = lapack.dpbtrf(stacked.T, lower=1)
        if info <= 0:
            break
        bad.append((info - 1) // n)
        covariance[bad[-1]] = 0.0
        covariance[bad[-1], ::height] = 1.0
    diagonal = factor[0].reshape(rows, n)
    log_det = 2.0 * np.log(diagonal).sum(1)
    log_det[bad] = np.inf
    return Factor(factor.T, rows, log_det)
