"""Regression of noisy place-level values on features, with the variances integrated out.

The model is y_j = α + φ_j'β + u_j + e_j, β ~ N(0, s²·P), e_j ~ N(0, w_j) with w_j known,
u_j ~ N(0, v²) with correlation ρ within a group (a cluster of assignment that spans several
places; ρ by analysis of variance), α flat.
The signal's sd s, the extra noise's sd v and how the signal is spread over the columns are
integrated over a grid with flat priors, so that intervals carry the uncertainty about how much
there is to find and where. Column k's share of the signal is a mixture of var(φ_k)^power, scaled to
sum to one (power 1 is ridge: what varies most matters most), and of an even share for every
column, without which what only faint columns show would be shrunk away with false confidence.
Averaged over places such intervals have close to their nominal coverage
(Nychka 1988, JASA 83; Wahba 1983), which is what a map needs; a single place may be covered more
or less often.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["FieldPosterior", "fit_field"]

N_SIGNAL = 24
POWERS = (0.5, 1.0)
EVEN = (0.0, 0.1, 0.25)
N_NOISE = 12


@dataclass(frozen=True, slots=True, eq=False)
class FieldPosterior:
    """Posterior of (α, β), integrated over the variances.

    Attributes
    ----------
    mean
        (1 + k,) posterior mean of the intercept and the coefficients.
    covariance
        (1 + k, 1 + k).
    signal_sd
        Posterior mean of the sd of φ'β over the places fitted.
    noise_sd
        Posterior mean of the extra noise's sd v.
    """

    mean: NDArray[np.float64]
    covariance: NDArray[np.float64]
    signal_sd: float
    noise_sd: float

    def predict(self, phi: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Return (m,) means and (m,) sds of α + φ'β for (m, k) features."""
        x = _design(phi)
        variance = np.einsum("ij,jk,ik->i", x, self.covariance, x, optimize=True)
        return x @ self.mean, np.sqrt(np.maximum(variance, 0.0))

    def root_at(self, phi: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return (m, 1 + k) R with R R' the posterior covariance of α + φ'β."""
        value, vector = np.linalg.eigh(self.covariance)
        return np.asarray(_design(phi) @ (vector * np.sqrt(np.maximum(value, 0.0))))


def _design(phi: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.column_stack([np.ones(len(phi)), phi])


def fit_field(
    phi: NDArray[np.float64],
    y: NDArray[np.float64],
    known: NDArray[np.float64],
    group: NDArray[np.int64] | None = None,
) -> FieldPosterior:
    """Fit the model.

    Parameters
    ----------
    phi
        (m, k) features of the places; their rows should have mean square about one in total
        (``mean ‖φ_j‖² = 1``), so that s is the sd of the signal.
    y
        (m,) values.
    known
        (m,) known part of the noise variance of each value.
    group
        (m,) codes of groups whose noise is correlated; None if the values are independent.
    """
    noise_of = _Noise.of(y, known, group)
    spread = float(np.sqrt(np.average((y - y.mean()) ** 2)))
    noise_grid = np.linspace(0.0, 1.0, N_NOISE) * spread * 1.3
    noise_grid[0] = 0.02 * spread
    signal_grid = np.linspace(0.0, 1.0, N_SIGNAL) * spread * 1.5
    scales = _column_scales(phi)
    pieces = [
        piece
        for noise in noise_grid
        for piece in _Piece.over(scales, _Whitened.of(phi, y, noise_of, float(noise)))
    ]
    log_weight = np.stack([piece.log_likelihood(signal_grid) for piece in pieces])
    weight = np.exp(log_weight - log_weight.max())
    weight /= weight.sum()
    used = weight.sum(axis=1) > 1e-6
    weight = weight[used] / weight[used].sum()
    k = phi.shape[1]
    mean = np.zeros(1 + k)
    second = np.zeros((1 + k, 1 + k))
    for piece, share in zip(np.array(pieces, dtype=object)[used], weight, strict=True):
        b, covariance = piece.posterior(signal_grid, share)
        mean += share @ b
        second += covariance + (b * share[:, None]).T @ b
    noise_of_piece = np.repeat(noise_grid, len(scales))[used]
    return FieldPosterior(
        mean,
        second - np.outer(mean, mean),
        float(weight.sum(axis=0) @ signal_grid),
        float(weight.sum(axis=1) @ noise_of_piece),
    )


def _column_scales(phi: NDArray[np.float64]) -> list[NDArray[np.float64]]:
    """Factors of the columns for each spread of the signal; its mean square stays at one."""
    variance = (phi**2).mean(axis=0)
    variance = np.maximum(variance, 1e-12 * max(float(variance.max()), 1e-300))
    out = []
    for power in POWERS:
        share = variance**power / (variance**power).sum()
        out += [np.sqrt(((1 - even) * share + even / len(share)) / variance) for even in EVEN]
    return out


@dataclass(frozen=True, slots=True, eq=False)
class _Noise:
    """Covariance of the noise, block by block, and the product with its inverse root."""

    known: NDArray[np.float64]
    blocks: tuple[NDArray[np.int64], ...]
    rho: float

    @classmethod
    def of(
        cls,
        y: NDArray[np.float64],
        known: NDArray[np.float64],
        group: NDArray[np.int64] | None,
    ) -> _Noise:
        if group is None or np.unique(group).size == len(y):
            return cls(known, (), 0.0)
        order = np.argsort(group, kind="stable")
        ends = np.flatnonzero(np.diff(group[order])) + 1
        blocks = tuple(b for b in np.split(order, ends) if b.size > 1)
        return cls(known, blocks, _intraclass(y, group))

    def whiten(self, x: NDArray[np.float64], noise: float) -> tuple[NDArray[np.float64], float]:
        """Return V^(-1/2) x for (m, c) columns, and log det V."""
        variance = self.known + noise**2
        out = x / np.sqrt(variance)[:, None]
        log_det = float(np.log(variance).sum())
        for block in self.blocks if self.rho > 0 else ():
            v = np.diag(variance[block] - self.rho * noise**2) + self.rho * noise**2
            root = np.linalg.cholesky(v)
            out[block] = np.linalg.solve(root, x[block])
            log_det += 2 * float(np.log(np.diag(root)).sum() - 0.5 * np.log(variance[block]).sum())
        return out, log_det


def _intraclass(y: NDArray[np.float64], group: NDArray[np.int64]) -> float:
    """Intraclass correlation by one-way analysis of variance, in [0, 0.95]."""
    _, code, size = np.unique(group, return_inverse=True, return_counts=True)
    n, g = len(y), len(size)
    mean = np.bincount(code, y) / size
    between = float((size * (mean - y.mean()) ** 2).sum() / (g - 1))
    within = float(((y - mean[code]) ** 2).sum() / max(n - g, 1))
    typical = (n - (size**2).sum() / n) / (g - 1)
    extra = (between - within) / typical
    return float(np.clip(extra / (extra + within), 0.0, 0.95)) if extra + within > 0 else 0.0


@dataclass(frozen=True, slots=True, eq=False)
class _Whitened:
    """The data divided by the noise's sd, the intercept projected out, as cross-products."""

    beta_to_intercept: NDArray[np.float64]
    intercept: float
    precision: float
    gram: NDArray[np.float64]
    cross: NDArray[np.float64]
    square: float
    log_det: float

    @classmethod
    def of(
        cls, phi: NDArray[np.float64], y: NDArray[np.float64], noise_of: _Noise, noise: float
    ) -> _Whitened:
        columns = np.column_stack([np.ones(len(y)), y, phi])
        white, log_det = noise_of.whiten(columns, noise)
        length = float(np.linalg.norm(white[:, 0]))
        one = white[:, 0] / length
        along, level = one @ white[:, 2:], float(one @ white[:, 1])
        a = white[:, 2:] - np.outer(one, along)
        b = white[:, 1] - one * level
        return cls(
            along / length, level / length, length, a.T @ a, a.T @ b, float(b @ b),
            log_det + 2 * float(np.log(length)),
        )  # fmt: skip


@dataclass(frozen=True, slots=True, eq=False)
class _Piece:
    """One noise sd and one spread over columns: the signal's sd is left."""

    data: _Whitened
    scale: NDArray[np.float64]
    singular: NDArray[np.float64]
    right: NDArray[np.float64]
    score: NDArray[np.float64]

    @classmethod
    def over(cls, scales: list[NDArray[np.float64]], data: _Whitened) -> list[_Piece]:
        out = []
        for scale in scales:
            value, vector = np.linalg.eigh(scale[:, None] * data.gram * scale)
            keep = value > max(value[-1], 0.0) * 1e-12
            singular, right = np.sqrt(value[keep]), vector[:, keep].T
            score = (right @ (scale * data.cross)) / singular
            out.append(cls(data, scale, singular, right, score))
        return out

    def log_likelihood(self, signal: NDArray[np.float64]) -> NDArray[np.float64]:
        """Restricted log-likelihood at each signal sd, the intercept integrated out."""
        total = 1 + np.outer(signal**2, self.singular**2)
        rest = self.data.square - float(self.score @ self.score)
        quadratic = (self.score**2 / total).sum(axis=1) + rest
        return np.asarray(-0.5 * (self.data.log_det + np.log(total).sum(axis=1) + quadratic))

    def posterior(
        self, signal: NDArray[np.float64], weight: NDArray[np.float64]
    ) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Return the (J, 1 + k) means of (α, β) at J signal sds and their weighted covariance.

        Within the row space of the data β has its shrunken variance, outside it still s².
        """
        power = signal[:, None] ** 2
        shrink = power / (1 + power * self.singular**2)
        beta = ((shrink * self.singular * self.score) @ self.right) * self.scale
        drop = weight @ (power - shrink)
        cov = -(self.right.T * drop) @ self.right
        cov[np.diag_indices_from(cov)] += float(weight @ power[:, 0])
        cov *= np.outer(self.scale, self.scale)
        to_intercept = self.data.beta_to_intercept
        cross = -cov @ to_intercept
        covariance = np.empty((1 + len(cov), 1 + len(cov)))
        level = float(weight.sum()) / self.data.precision**2
        covariance[0, 0] = level - float(to_intercept @ cross)
        covariance[0, 1:] = covariance[1:, 0] = cross
        covariance[1:, 1:] = cov
        return np.column_stack([self.data.intercept - beta @ to_intercept, beta]), covariance
