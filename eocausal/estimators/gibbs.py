"""The engine ``gibbs``: Markov chains over everything, for what no other engine can do.

It serves coefficients that walk, more than eight controls, Student errors, and as the yardstick of
the other engines. Nothing is computed before it is asked for: each series has its own chains
(:mod:`.gibbs_chain`), run when its draws are first wanted and kept until others are.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from eocausal.estimators.gibbs_convergence import Convergence
from eocausal.estimators.gibbs_run import CHAINS, Chains, run_chains
from eocausal.estimators.level_draws import Paths
from eocausal.estimators.structural_model import Engine, StructuralModel, Trend
from eocausal.estimators.structural_priors import CompatiblePrior
from eocausal.estimators.structural_result import AverageEffects, ReadyDraws, not_fitted
from eocausal.estimators.structural_scales import scaled_controls, series_scales

__all__ = ["DRAWS", "GibbsFit", "fit_gibbs"]

Float64 = NDArray[np.float64]
Bool = NDArray[np.bool_]
DRAWS = 1000
KEPT = 8  # runs whose draws are held, some megabytes each


@dataclass(frozen=True, slots=True, eq=False)
class GibbsFit:
    """Posterior of N series, computed when asked for.

    The chains of a series keep 1,000 sweeps together, or as many as draws were asked for, or more
    if they need them to agree. Average effects and inclusion are of all of them, with the seed of
    the fit and key 0.

    Attributes
    ----------
    outcomes
        (N, T) the series.
    center, scale
        (N,) mean and standard deviation before the event; NaN for series that were refused.
    refused
        Row and reason of every series that could not be fitted.
    controls
        (T, K) scaled controls, zero at times that are not ``usable``.
    learned
        (N, T) True where there is a value to learn from.
    before
        Number of times before the event.
    relative
        (T,) relative sds of the residual.
    seed
        Of average effects and inclusion.
    engine
        How the posterior was computed.
    """

    model: StructuralModel
    outcomes: Float64
    center: Float64
    scale: Float64
    refused: dict[int, str]
    controls: Float64
    usable: Bool
    learned: Bool
    before: int
    relative: Float64
    seed: int = 0
    engine: Engine = Engine.GIBBS
    _known: dict[tuple[int, int, int, int], Chains] = field(default_factory=dict, repr=False)
    _shares: dict[int, Float64] = field(default_factory=dict, repr=False)

    def average(self, after: Bool, level: float = 0.95) -> AverageEffects:
        """Return the mean effect over the times ``after`` (T,) at which a series has a value.

        Times with a missing control are not counted. Series without any, and those refused, are
        NaN. The estimate is that of draws without the residual, which has mean zero.
        """
        out = np.full((5, len(self.outcomes)), np.nan)
        counted = after & np.isfinite(self.outcomes) & self.usable
        for row in np.flatnonzero(counted.any(1) & np.isfinite(self.scale)):
            chains = self._chains(int(row), DRAWS, self.seed, 0)
            use, paths = counted[row], chains.paths(len(chains.sweeps))
            observed = self.outcomes[row, use].mean()
            effect = observed - self._raw(int(row), paths.replicate[:, use]).mean(1)
            plain = observed - self._raw(int(row), paths.expected[:, use]).mean(1)
            low, high = np.quantile(effect, [0.5 - level / 2, 0.5 + level / 2])
            below = ((effect > 0).sum() + 0.5) / (len(effect) + 1)
            tail = min(1.0, 2.0 * min(below, 1.0 - below))
            out[:, row] = plain.mean(), effect.std(ddof=1), low, high, tail
        return AverageEffects(out[0], out[1], out[2], out[3], out[4], counted.sum(1))

    def inclusion(self) -> Float64:
        """Return (N, K) the probability that each control is in the model."""
        out = np.full((len(self.outcomes), self.controls.shape[1]), np.nan)
        for row in np.flatnonzero(np.isfinite(self.scale)).tolist():
            if row not in self._shares:
                self._chains(row, DRAWS, self.seed, 0)
            out[row] = self._shares[row]
        return out

    def paths(self, series: int, *, draws: int = DRAWS, seed: int = 0, key: int = 0) -> Paths:
        """Draw what one series would have been, in its own units, ``(draws, T)``.

        Times with a missing control are NaN.

        Parameters
        ----------
        seed, key
            Fix the random numbers; the same pair and number of draws give the same draws in any
            batch.

        Raises
        ------
        OutcomeError
            If the series was refused.
        """
        self._check(series)
        paths = self._chains(series, draws, seed, key).paths(draws)
        usable = np.where(self.usable, 1.0, np.nan)
        return Paths(
            self._raw(series, paths.expected) * usable, self._raw(series, paths.replicate) * usable
        )

    def path_draws(
        self, series: int, *, draws: int = DRAWS, seed: int = 0, key: int = 0
    ) -> ReadyDraws:
        """Return the draws of :meth:`paths`: all times, as chains draw them together."""
        return ReadyDraws(self.paths(series, draws=draws, seed=seed, key=key))

    def convergence(
        self, series: int, *, draws: int = DRAWS, seed: int = 0, key: int = 0
    ) -> Convergence:
        """Say how far the chains of one series agree.

        Raises
        ------
        OutcomeError
            If the series was refused.
        """
        self._check(series)
        return self._chains(series, draws, seed, key).convergence

    def parameters(
        self, series: int, *, draws: int = DRAWS, seed: int = 0, key: int = 0
    ) -> dict[str, Float64]:
        """Return draws of standard deviations and autocorrelations, in units of ``scale``.

        Raises
        ------
        OutcomeError
            If the series was refused.
        """
        self._check(series)
        return self._chains(series, draws, seed, key).parameters(draws)

    def _raw(self, row: int, values: Float64) -> Float64:
        return np.asarray(self.center[row] + self.scale[row] * values)

    def _check(self, series: int) -> None:
        if series in self.refused or not 0 <= series < len(self.outcomes):
            raise not_fitted(series, self.refused)

    def _chains(self, row: int, draws: int, seed: int, key: int) -> Chains:
        """Run the chains of a series, or return them if these have run."""
        least = -(-max(draws, DRAWS) // CHAINS)
        asked = row, least, seed, key
        if asked in self._known:
            return self._known[asked]
        y = (self.outcomes[row] - self.center[row]) / self.scale[row]
        chains = run_chains(
            y, self.learned[row], self.controls, self.usable, self.before, self.relative,
            self.model, least=least, seed=seed, key=key, name=row,
        )  # fmt: skip
        self._known[asked] = chains
        if len(self._known) > KEPT:
            self._known.pop(next(iter(self._known)))
        if asked[1:] == (-(-DRAWS // CHAINS), self.seed, 0):
            self._shares[row] = chains.inclusion
        return chains


def fit_gibbs(
    outcomes: Float64,
    before: Bool,
    model: StructuralModel,
    *,
    controls: Float64 | None = None,
    variance: Float64 | None = None,
    seed: int = 0,
) -> GibbsFit:
    """Prepare the engine ``gibbs``; see :func:`~eocausal.estimators.structural.fit_structural`.

    Raises
    ------
    EstimationError
        If a control does not vary before the event.
    """
    times = outcomes.shape[1]
    usable: Bool = np.ones(times, bool)
    if controls is not None:
        usable = np.asarray(np.isfinite(controls).all(1))
    known = before & usable
    x = np.zeros((times, 0)) if controls is None else scaled_controls(controls, known)
    x = np.where(usable[:, None], x, 0.0)
    seen = np.isfinite(outcomes) & known
    center, scale, refused = series_scales(outcomes, seen, _needed(model))
    relative = np.ones(times) if variance is None else np.sqrt(variance)
    return GibbsFit(
        model, outcomes, center, scale, refused, x, usable, seen, int(before.sum()), relative, seed
    )


def _needed(model: StructuralModel) -> int:
    """Return how many values say something of all effects whose prior is flat, and three more."""
    if isinstance(model.prior, CompatiblePrior):
        return 4
    count = 1 + (model.trend is not Trend.LEVEL)
    for season in model.seasons:
        most = season.period // 2 if season.harmonics is None else season.harmonics
        count += min(2 * most, season.period - 1)
    return count + 3
