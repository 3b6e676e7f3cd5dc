"""What is Gaussian given variances: evidence with states and coefficients integrated out, draws.

With states x of precision Q, columns G with coefficients b of precision P, and a residual of
precision A, the states given b have precision Q + H'AH, banded; b given the data has the Schur
complement S (Rue & Held 2005, algorithms 2.1 to 2.5). Evidence and draws cost one banded and one
small Cholesky decomposition.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import sparse
from scipy.linalg import lapack

from eocausal.estimators.gibbs_priors import Values
from eocausal.estimators.gibbs_states import States

__all__ = ["Conditional", "Gaussian"]

Float64 = NDArray[np.float64]
Int64 = NDArray[np.int64]
Bool = NDArray[np.bool_]


@dataclass(frozen=True, slots=True, eq=False)
class Conditional:
    """States and coefficients given variances and the data.

    Attributes
    ----------
    band
        Lower Cholesky factor of the precision of the states given the coefficients.
    turned
        (n, 1 + m) data and columns, seen through the states, over that factor.
    schur
        (m, m) precision of the coefficients without the prior of static ones.
    signal
        (m,) what the data say of the coefficients.
    rest
        Sum of squares left by the states alone.
    log_det
        Log density's parts that do not depend on the static columns.
    """

    band: Float64
    turned: Float64
    schur: Float64
    signal: Float64
    rest: float
    log_det: float


class Gaussian:
    """The Gaussian part of a model for one series.

    Parameters
    ----------
    states
        The model.
    y
        (T,) values, anything finite where not seen.
    seen
        (T,) True where there is a value to learn from.
    correlated
        Whether the residual is an AR(1); if so every time between the first and last value that
        was not seen is a gap of ``states``.
    """

    def __init__(self, states: States, y: Float64, seen: Bool, *, correlated: bool) -> None:
        self.states, self.seen, self.correlated = states, seen, correlated
        self.y = np.where(seen, y, 0.0)
        times = np.flatnonzero(seen)
        self.span = np.arange(times[0], times[-1] + 1) if correlated else times
        self._loads, self._where = self._residual_rows()
        places = self._find_places()
        self.width = 1 + max(
            int((row - column).max(initial=0))
            for row, column in [*places, *(term.matrix.nonzero() for term in states.terms)]
        )
        self._places = [column * self.width + row - column for row, column in places]
        kinds = 3 if correlated else 1
        prior = [self._banded(term.matrix) for term in states.terms]
        self._stack = np.zeros((len(prior) + kinds, self.width * states.size))
        for row, band in enumerate(prior):
            self._stack[row] = band
        self._kinds = kinds
        wide = [term.matrix.toarray().ravel() for term in states.column_terms]
        self._column_stack = np.array(wide)
        self._ranks = [term.rank for term in (*states.terms, *states.column_terms)]
        self._fixed = self.columns - len(states.static)
        self._known: dict[bytes, float] = {}
        self.observe(np.ones(len(y)))

    @property
    def columns(self) -> int:
        """Number of columns."""
        return int(self.states.columns.shape[1])

    def _residual_rows(self) -> tuple[Float64, Int64]:
        """Return how residuals follow from states, (span, slots), and where these are."""
        loads = np.where(self.seen[:, None], self.states.loads, 0.0)
        where = self.states.where
        if self.states.gaps.size:
            gap = np.zeros(len(loads))
            gap[self.states.gaps] = -1.0
            every = (np.arange(len(loads)) + self.states.pad + 1) * self.states.slots - 1
            loads, where = np.column_stack([loads, gap]), np.column_stack([where, every])
        return loads[self.span], where[self.span]

    def _find_places(self) -> list[tuple[Int64, Int64]]:
        """Return rows and columns of products of loads of one time, and of a time and the next."""
        where = self._where
        self._lower = np.tril_indices(where.shape[1])
        rows = np.maximum(where[:, self._lower[0]], where[:, self._lower[1]])
        columns = np.minimum(where[:, self._lower[0]], where[:, self._lower[1]])
        if not self.correlated:
            return [(rows, columns)]
        later, before = where[1:, :, None], where[:-1, None, :]
        shape = (len(where) - 1, -1)
        after = (later + 0 * before).reshape(shape)
        return [(rows, columns), (after, (before + 0 * later).reshape(shape))]

    def _banded(self, matrix: sparse.csr_array) -> Float64:
        """Return the lower diagonals of each column in turn."""
        entries = matrix.tocoo()
        row, column = entries.row.astype(np.int64), entries.col.astype(np.int64)
        keep = row >= column
        band = np.zeros(self.width * self.states.size)
        np.add.at(band, (column * self.width + row - column)[keep], entries.data[keep])
        return band

    def observe(self, scale: Float64) -> None:
        """Set the numbers (T,) that the residuals are multiplied with before they are N(0, A)."""
        factor = np.where(self.seen, scale, 1.0)[self.span]
        loads = self._loads * factor[:, None]
        data = np.column_stack([self.y, np.where(self.seen[:, None], self.states.columns, 0.0)])
        data = data[self.span] * factor[:, None]
        self.log_scale = float(np.log(factor).sum())
        own = loads[:, self._lower[0]] * loads[:, self._lower[1]]
        size, first = self.states.size, len(self._stack) - self._kinds
        self._stack[first:] = 0.0
        self._stack[first][self._places[0]] = own
        seen = np.zeros((self._kinds, size, data.shape[1]))
        seen[0][self._where] = loads[:, :, None] * data[:, None, :]
        grams = [data.T @ data]
        if self.correlated:
            inner = slice(1, -1)
            self._stack[first + 1][self._places[0][inner]] = own[inner]
            cross = (loads[1:, :, None] * loads[:-1, None, :]).reshape(len(loads) - 1, -1)
            self._stack[first + 2][self._places[1]] = cross
            beside = np.zeros_like(data)
            beside[1:] += data[:-1]
            beside[:-1] += data[1:]
            seen[1][self._where[inner]] = loads[inner, :, None] * data[inner, None, :]
            seen[2][self._where] = loads[:, :, None] * beside[:, None, :]
            grams.extend([data[inner].T @ data[inner], data.T @ beside])
        self._seen = np.ascontiguousarray(seen.transpose(0, 2, 1)).reshape(self._kinds, -1)
        self._grams = np.stack(grams).reshape(self._kinds, -1)

    def condition(self, values: Values) -> Conditional | None:
        """Return the law of states and coefficients; None if it breaks down numerically."""
        states = self.states
        data, log_det = self._residual_weights(values)
        numbers = [term.weight(values) for term in states.terms]
        wide = [term.weight(values) for term in states.column_terms]
        for rank, number in zip(self._ranks, numbers + wide, strict=True):
            if rank:
                log_det += rank * math.log(number)
        weights = np.array(numbers + data)
        band = (weights @ self._stack).reshape(states.size, self.width)
        factor, failed = lapack.dpbtrf(band.T, lower=1, overwrite_ab=1)
        if failed:
            return None
        log_det -= 2.0 * float(np.log(factor[0]).sum())
        only = weights[len(numbers) :]
        seen = (only @ self._seen).reshape(-1, states.size).T
        if states.cross is not None:
            seen[:, 1:] += states.cross
        turned, failed = lapack.dtbtrs(factor, seen, uplo="L", overwrite_b=1)
        if failed:
            return None
        gram = (only @ self._grams).reshape(self.columns + 1, -1) - turned.T @ turned
        schur = gram[1:, 1:]
        if wide:
            schur = schur + (np.array(wide) @ self._column_stack).reshape(schur.shape)
        return Conditional(
            factor, turned, schur, gram[1:, 0], float(gram[0, 0]), 0.5 * log_det + self.log_scale
        )

    def _residual_weights(self, values: Values) -> tuple[list[float], float]:
        """Return the numbers of the parts of A, and its log determinant."""
        count = len(self.span)
        log_det = -count * math.log(values.residual)
        if not self.correlated:
            return [1.0 / values.residual], log_det
        phi = values.phi
        left = 1.0 - phi**2
        whole = 1.0 / (values.residual * left)
        return [whole, whole * phi**2, -whole * phi], log_det - (count - 1) * math.log(left)

    @property
    def freedom(self) -> int:
        """Number n of -n/2 log s^2 in the evidence, if all variances are ratios to s^2."""
        states = self.states
        return len(self.span) + sum(self._ranks) - (states.size - states.idle) - self._fixed

    def squares(
        self, law: Conditional | None, included: Bool, values: Values
    ) -> tuple[float, float]:
        """Return the parts of the log evidence: log density - squares / 2."""
        if law is None:
            return -math.inf, 1.0
        if not self._fixed and not included.any():
            return law.log_det, law.rest
        schur, signal = self._precision(law, included, values)
        root, failed = lapack.dpotrf(schur, lower=1)
        if failed:
            return -math.inf, 1.0
        half = lapack.dtrtrs(root, signal, lower=1)[0]
        log_det = law.log_det - float(np.log(np.diagonal(root)).sum())
        log_det += self._prior_log_det(included)
        log_det -= 0.5 * int(included.sum()) * math.log(values.residual)
        return log_det, law.rest - float(half @ half)

    def draw(
        self,
        law: Conditional,
        included: Bool,
        values: Values,
        sd: float,
        rng: np.random.Generator,
    ) -> tuple[Float64, Float64]:
        """Draw the states (n,) and the coefficients (m,), zero for columns left out.

        ``sd`` multiplies the spread, one unless ``values`` are ratios.
        """
        coefficients = np.zeros(self.columns)
        use = self._used(included)
        if use.any():
            schur, signal = self._precision(law, included, values)
            root = lapack.dpotrf(schur, lower=1)[0]
            half = lapack.dtrtrs(root, signal, lower=1)[0]
            noisy = half + sd * rng.standard_normal(len(half))
            coefficients[use] = lapack.dtrtrs(root, noisy, lower=1, trans=1)[0]
        center = law.turned[:, 0] - law.turned[:, 1:] @ coefficients
        noisy = center + sd * rng.standard_normal(len(center))
        drawn = lapack.dtbtrs(law.band, noisy[:, None], uplo="L", trans="T")[0]
        return drawn[:, 0], coefficients

    def expected(self, drawn: Float64, coefficients: Float64) -> Float64:
        """Return (T,) what states and columns amount to at all times."""
        state = (self.states.loads * drawn[self.states.where]).sum(1)
        return np.asarray(state + self.states.columns @ coefficients)

    def _used(self, included: Bool) -> Bool:
        return np.concatenate([np.ones(self._fixed, bool), included])

    def _precision(
        self, law: Conditional, included: Bool, values: Values
    ) -> tuple[Float64, Float64]:
        """Return precision and signal of the coefficients in the model."""
        schur, signal = law.schur, law.signal
        if included.size:
            schur = schur.copy()
            schur[self._fixed :, self._fixed :] += self.states.information / values.residual
        if included.all():
            return schur, signal
        use = self._used(included)
        return schur[use][:, use], signal[use]

    def _prior_log_det(self, included: Bool) -> float:
        """Return half the log determinant of W over the columns in the model."""
        key = included.tobytes()
        if key not in self._known:
            own = self.states.information[included][:, included]
            self._known[key] = 0.5 * float(np.linalg.slogdet(own)[1]) if own.size else 0.0
        return self._known[key]
