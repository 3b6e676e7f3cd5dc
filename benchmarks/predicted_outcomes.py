"""Effects on outcomes that a map predicts: attenuated, and corrected.

Images are a frozen network of the outcome plus noise, a map is trained on other places, and effects
on its predictions are estimated by weighting with the true probabilities (METHODS section 2, after
Pettersson, Jerzak & Daoud, arXiv 2508.01341). The first line has the slopes of estimates on true
effects; then coverage of 95 % intervals, naive and corrected, how both depend on the draw of the
network, and a world in which predictions err linearly. With --overlooked images were taken after
treatment and show half of the effect: errors depend on treatment, and only labels of the study help
(METHODS section 9). With --power, how often the test for such errors finds them.

    python benchmarks/predicted_outcomes.py                # about 3 minutes
    python benchmarks/predicted_outcomes.py --overlooked   # 1 minute
    python benchmarks/predicted_outcomes.py --power        # 1 minute
"""

import argparse
from collections.abc import Iterable

import numpy as np
import pandas as pd
from threadpoolctl import threadpool_limits

from eocausal.checks.measurement_error import PredictionError
from eocausal.estimators.corrections import Correction
from eocausal.estimators.given import GivenPropensity
from eocausal.estimators.linear_calibration import LinearCalibration
from eocausal.estimators.measurement import correct
from eocausal.estimators.observational import observe
from eocausal.estimators.predicted_study import draw_labels
from eocausal.estimators.prediction_powered import PredictionPowered
from eocausal.estimators.scores import Hajek
from eocausal.estimators.tweedie import Tweedie
from eocausal.estimators.weighting import Weighted, Weighting
from eocausal.simulate.predicted_outcome import (
    PredictedOutcomeConfig,
    PredictedOutcomeWorld,
    simulate_predicted_outcome,
)

REFERENCE = {"naive": 0.535, "LCC": 1.007, "Tweedie": 0.995, "PPI": 0.983}
KNOWN = Weighting(
    score=Hajek(), propensity=GivenPropensity("propensity", calibrator=None), folds=None
)
ELSEWHERE: dict[str, Correction] = {
    "LCC": LinearCalibration(),
    "Tweedie": Tweedie(),
    "Tweedie, plain": Tweedie(keep_variance=False),
}
LINEAR = {"layers": 1, "noise": 8.0}


def fit(world: PredictedOutcomeWorld) -> Weighted:
    data = observe(
        world.units, treatment="treated", outcome="prediction", covariates=["propensity"]
    )
    return KNOWN.fit(data, seed=0)


def estimates(world: PredictedOutcomeWorld, labels: int, *, seed: int) -> list[dict[str, object]]:
    """Return naive and corrected effects of one study; labels are for PPI only."""
    naive = fit(world)
    n, effect = len(world.units), world.config.effect
    found = {"naive": naive.estimate}
    for name, correction in ELSEWHERE.items():
        found[name] = correct(
            naive, measured="outcome", labelled=np.zeros(n, dtype=bool),
            calibration=world.calibration, correction=correction,
        ).estimate  # fmt: skip
    mask = draw_labels(n, labels / n, seed=seed)
    for name, power in (("PPI", None), ("PPI, λ = 1", 1.0), ("labels only", 0.0)):
        found[name] = correct(
            naive, measured="outcome", labelled=mask, correction=PredictionPowered(power=power)
        ).estimate
    return [
        {
            "method": name,
            "effect": effect,
            "estimate": e.estimate,
            "std_error": e.std_error,
            "covered": e.ci_low <= effect <= e.ci_high,
        }
        for name, e in found.items()
    ]


def simulate(
    effects: Iterable[float], runs: int, labels: int, *, seed: int, **options: object
) -> pd.DataFrame:
    rows = []
    for run in range(runs):
        for k, effect in enumerate(effects):
            rng = np.random.default_rng([seed, run, k])
            config = PredictedOutcomeConfig(effect=float(effect), **options)
            world = simulate_predicted_outcome(config, rng)
            rows += estimates(world, labels, seed=int(rng.integers(1 << 30)))
    return pd.DataFrame(rows)


def table(rows: pd.DataFrame) -> pd.DataFrame:
    """Return slopes, coverage, and errors by method."""
    out = {}
    for name, group in rows.groupby("method", sort=False):
        effect, error = group["effect"], group["estimate"] - group["effect"]
        out[name] = {
            "slope": np.polyfit(effect, group["estimate"], 1)[0]
            if effect.nunique() > 1
            else np.nan,
            "coverage": group["covered"].mean(),
            "coverage |τ|<1": group["covered"][effect.abs() < 1].mean(),
            "bias": error.mean(),
            "RMSE": np.sqrt((error**2).mean()),
            "SE": group["std_error"].mean(),
        }
    return pd.DataFrame(out).T


def show(title: str, frame: pd.DataFrame) -> None:
    print(f"\n{title}\n{frame.round(3).to_string()}", flush=True)


def slopes(runs: int, *, seed: int) -> None:
    effects = np.linspace(-2, 2, 50)
    found = table(simulate(effects, runs, 100, seed=seed))
    line = ", ".join(f"{k} {found['slope'][k]:.3f} ({v})" for k, v in REFERENCE.items())
    print(f"slope of estimate on effect (reference, target ± 0.03): {line}")
    covers = ", ".join(f"{k} {found['coverage'][k]:.3f}" for k in REFERENCE)
    print(f"coverage (target 0.93-0.97): {covers}")
    show(f"{50 * runs} studies of 10,000 units, 2,000 pairs elsewhere, 100 labels for PPI", found)
    few = effects[::7]
    nets = {
        k: table(simulate(few, 2, 100, seed=seed, network=k))[["slope", "coverage"]].stack()
        for k in range(20)
    }
    spread = pd.DataFrame(nets).T.describe().loc[["min", "25%", "50%", "75%", "max"]]
    show("over 20 draws of the network, 16 studies each", spread.T.unstack())
    linear = table(simulate(effects, max(runs // 2, 1), 100, seed=seed, **LINEAR))
    show("a network of one layer: predictions err linearly", linear)


def overlooked(runs: int, *, seed: int) -> None:
    for name, options in (("network", {}), ("linear", LINEAR)):
        for share in (0.0, 0.5):
            rows = simulate(
                [1.0], runs, 200, seed=seed, overlooked=share, n=2_000, calibrated=500,
                trained=5_000, **options,
            )  # fmt: skip
            found = table(rows).drop(columns=["slope", "coverage |τ|<1"])
            show(
                f"images overlook {share:.0%} of the effect ({name}): {runs} studies of 2,000 "
                "units, 200 labels, effect 1",
                found,
            )


def power(runs: int, *, seed: int) -> None:
    rows = []
    for share in (0.0, 0.25, 0.5):
        found: dict[int, list[dict[str, float]]] = {100: [], 200: [], 500: [], 2_000: []}
        for run in range(runs):
            rng = np.random.default_rng([seed, run])
            config = PredictedOutcomeConfig(n=2_000, overlooked=share, trained=5_000, calibrated=1)
            world = simulate_predicted_outcome(config, rng)
            for labels, values in found.items():
                world.units["label"] = draw_labels(2_000, labels / 2_000, seed=run)
                values.append(PredictionError("outcome", "label").run(fit(world)).values)
        for labels, values in found.items():
            p = np.array([v["p_value"] for v in values])
            said = np.mean([v["power"] for v in values])
            rows.append((labels, share, (p < 0.05).mean(), said))
    names = ["labels", "overlooked", "found", "power said for 50 % of the effect"]
    frame = pd.DataFrame(rows, columns=names)
    at = frame[(frame["labels"] == 200) & (frame["overlooked"] == 0.5)]["found"].iloc[0]
    print(f"{at:.0%} power with 200 labels where images overlook half of the effect (0.22)")
    show(f"{runs} studies of 2,000 units, effect 1", frame)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--runs", type=int)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--overlooked", action="store_true")
    parser.add_argument("--power", action="store_true")
    given = parser.parse_args()
    with threadpool_limits(1):
        if given.overlooked:
            overlooked(given.runs or 300, seed=given.seed)
        elif given.power:
            power(given.runs or 300, seed=given.seed)
        else:
            slopes(given.runs or 10, seed=given.seed)


if __name__ == "__main__":
    main()
