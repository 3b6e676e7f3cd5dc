"""What a thousand draws of the engine gibbs cost, and what they are worth.

    python benchmarks/gibbs_speed.py

One series of 324 times, 256 of them before the event: CPU seconds for 1,000 draws, independent
draws they are worth for the mean after the event, and how many times as long as the fastest other
engine that can compute the model, in the same run.
"""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable

import numpy as np

from eocausal.errors import EstimationError
from eocausal.estimators.gibbs import fit_gibbs
from eocausal.estimators.structural import fit_structural
from eocausal.estimators.structural_model import Engine, StructuralModel, engine_of
from eocausal.estimators.structural_priors import CompatiblePrior

TIMES, LAST = 324, 256
R = CompatiblePrior()
MODELS = {
    "3 controls, R": (3, StructuralModel(prior=R)),
    "3 controls, season, R": (3, StructuralModel(season=12, prior=R)),
    "3 controls, ours": (3, StructuralModel()),
    "12 controls, ours": (12, StructuralModel()),
    "12 controls, R": (12, StructuralModel(prior=R)),
    "dynamic, ours": (3, StructuralModel(dynamic=True)),
    "Student, ours": (3, StructuralModel(heavy_tails=True)),
    "Student, R": (3, StructuralModel(heavy_tails=True, prior=R)),
}


def seconds(work: Callable[[], object]) -> float:
    """Return the CPU time of a call."""
    start = time.process_time()
    work()
    return time.process_time() - start


def main() -> None:
    rng = np.random.default_rng(0)
    x = rng.normal(size=(TIMES, 12))
    walk = np.cumsum(0.03 * rng.normal(size=TIMES))
    y = (x[:, :3] @ [0.6, 0.3, 0.2] + walk + 0.5 * rng.normal(size=TIMES))[None]
    before = np.arange(TIMES) < LAST
    for name, (count, model) in MODELS.items():
        fit = fit_gibbs(y, before, model, controls=x[:, :count])
        took = seconds(lambda fit=fit: fit.paths(0))  # type: ignore[misc]
        found = fit.convergence(0)
        line = f"{name:22s} {took:6.2f} s, {found.kept} sweeps, worth {found.effective:.0f}"
        try:
            other = engine_of(dataclasses.replace(model, engine=None), count)
        except EstimationError:
            other = Engine.GIBBS
        if other is not Engine.GIBBS:
            plain = dataclasses.replace(model, engine=other)
            controls = x[:, :count]
            quick = seconds(
                lambda plain=plain, controls=controls: fit_structural(  # type: ignore[misc]
                    y, before, plain, controls=controls
                ).paths(0)
            )
            line += f"; {took / quick:.0f} times {other}"
        print(line, flush=True)


if __name__ == "__main__":
    main()
