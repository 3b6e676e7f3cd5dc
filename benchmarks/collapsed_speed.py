"""CPU time of structural time series with stochastic seasons and slopes, and of the Rust peer.

python benchmarks/collapsed_speed.py [--repeat 7] [--series 50] [--peer PYTHON]

One series of 324 times, 256 before the event, 3 controls: fit, law of the average effect, 1,000
draws of paths. The peer is ``bsts-causalimpact`` with 1,000 iterations on the same series, run by
the interpreter of an environment that has it, before and after ours; ratios are of the least CPU
times in one run. Then many series with the same and with their own gaps, a series each.
"""

import argparse
import json
import subprocess
import time
from collections.abc import Callable

import numpy as np

from eocausal.estimators.collapsed import fit_collapsed
from eocausal.estimators.structural_model import Season, StructuralModel, Trend
from eocausal.estimators.structural_priors import CompatiblePrior, LearnedPrior

TIMES, BEFORE = 324, np.arange(324) < 256
OURS, THEIRS = LearnedPrior(), CompatiblePrior()
MODELS = {
    "level (CausalImpact)": StructuralModel(prior=THEIRS),
    "season 12 (CausalImpact)": StructuralModel(season=12, prior=THEIRS),
    "3 harmonics (CausalImpact)": StructuralModel(season=Season(12, harmonics=3), prior=THEIRS),
    "local linear (CausalImpact)": StructuralModel(trend=Trend.LOCAL_LINEAR, prior=THEIRS),
    "semi-local (CausalImpact)": StructuralModel(trend=Trend.SEMI_LOCAL, prior=THEIRS),
    "local linear": StructuralModel(trend=Trend.LOCAL_LINEAR, prior=OURS),
    "season 12 that changes": StructuralModel(season=Season(12, changes=True), prior=OURS),
    "semi-local": StructuralModel(trend=Trend.SEMI_LOCAL, prior=OURS),
}
PEER = """
import json, sys, time
import numpy as np, pandas as pd
from causal_impact import CausalImpact
given = json.load(sys.stdin)
data = pd.DataFrame(np.array(given["data"]))
data.columns = [f"c{i}" for i in range(data.shape[1])]
best = {}
for name, extra in (("level", {}), ("season 12", {"nseasons": 12})):
    times = []
    for _ in range(given["repeat"]):
        start = time.process_time()
        CausalImpact(data, [0, 255], [256, 323], model_args={"niter": 1000, **extra})
        times.append(time.process_time() - start)
    best[name] = min(times)
print(json.dumps(best))
"""


def series(count: int, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    x = rng.normal(size=(TIMES, 3)).cumsum(0) * 0.1 + rng.normal(size=(TIMES, 3))
    season = np.sin(2 * np.pi * np.arange(TIMES) / 12) + 0.3 * np.cos(np.pi * np.arange(TIMES) / 3)
    y = x @ [0.8, 0.0, 0.3] + season + rng.normal(size=(count, TIMES))
    return y + 0.03 * rng.normal(size=(count, TIMES)).cumsum(1), x


def least(run: Callable[[], object], repeat: int) -> float:
    """Return the least CPU time in milliseconds."""
    times = []
    for _ in range(repeat):
        start = time.process_time()
        run()
        times.append(time.process_time() - start)
    return 1e3 * min(times)


def peer(python: str, y: np.ndarray, x: np.ndarray, repeat: int) -> dict[str, float]:
    given = json.dumps({"data": np.column_stack([y[0], x]).tolist(), "repeat": repeat})
    done = subprocess.run(
        [python, "-c", PEER], input=given, capture_output=True, text=True, check=True
    )
    return json.loads(done.stdout.strip().splitlines()[-1])


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--repeat", type=int, default=7)
    parser.add_argument("--series", type=int, default=50)
    parser.add_argument("--peer")
    chosen = parser.parse_args()
    y, x = series(chosen.series, np.random.default_rng(0))
    rivals = [peer(chosen.peer, y, x, chosen.repeat)] if chosen.peer else []
    print(f"{'CPU ms, one series':30s}{'fit':>8s}{'average':>9s}{'draws':>8s}{'all':>8s}")
    total = {}
    for name, model in MODELS.items():
        fit = fit_collapsed(y[:1], BEFORE, model, controls=x)
        parts = [
            least(lambda m=model: fit_collapsed(y[:1], BEFORE, m, controls=x), chosen.repeat),
            least(lambda f=fit: f.average(~BEFORE), chosen.repeat),
            least(lambda f=fit: f.paths(0, draws=1000), chosen.repeat),
        ]
        total[name] = parts[0] + parts[2]
        print(f"{name:30s}{parts[0]:8.1f}{parts[1]:9.1f}{parts[2]:8.1f}{sum(parts):8.1f}")
    if chosen.peer:
        rivals.append(peer(chosen.peer, y, x, chosen.repeat))
        for name in ("level", "season 12"):
            theirs, ours = 1e3 * min(r[name] for r in rivals), total[f"{name} (CausalImpact)"]
            print(f"bsts-causalimpact, {name}: {theirs:.0f} ms; fit and draws {theirs / ours:.1f}x")
    holes = np.random.default_rng(1).random(y.shape) < 0.05
    for gaps, values in (("no gaps", y), ("own gaps, 5 %", np.where(holes, np.nan, y))):
        for name in ("level (CausalImpact)", "season 12 (CausalImpact)", "local linear"):
            start = time.process_time()
            fit = fit_collapsed(values, BEFORE, MODELS[name], controls=x)
            spent = time.process_time() - start
            start = time.process_time()
            fit.average(~BEFORE)
            more = time.process_time() - start
            each = 1e3 / len(y)
            print(
                f"{len(y)} series, {gaps}, {name}: fit {each * spent:.1f} ms a series, "
                f"average {each * more:.1f}"
            )


if __name__ == "__main__":
    main()
