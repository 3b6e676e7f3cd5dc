"""What training on outcomes does to what is estimated with the embedding, where there is no effect.

Trials in which treatment does nothing, while the image tells part of the outcome. The encoder is
trained for the outcome (or for treatment and outcome), cross-fitted; then the effect learner and
RATE use its embedding as any other. Printed first: how often a test at 5 % finds something, which
should be 5 in 100 (give or take twice the Monte Carlo error).

    python benchmarks/trained_null.py                # 100 trials, about 20 minutes on one core
    python benchmarks/trained_null.py --trials 20
"""

from __future__ import annotations

import argparse

import numpy as np

from eocausal.designs import Trial
from eocausal.encoders.base import encode
from eocausal.encoders.dragonnet import Dragonnet
from eocausal.encoders.objectives import Outcome
from eocausal.encoders.random_conv import RandomConv
from eocausal.encoders.schedule import TrainingSchedule
from eocausal.encoders.small_cnn import SmallCNN
from eocausal.encoders.training import train_encoder
from eocausal.estimators.bases import RidgeBasis
from eocausal.estimators.learners import EffectLearner
from eocausal.estimators.ranking import AUTOC, rate_over_splits
from eocausal.folds import RandomFolds
from eocausal.simulate.objects import ObjectWorldConfig, simulate_objects

TRIAL = Trial("treated", prob=0.5)
SCHEDULE = TrainingSchedule(epochs=8, batch_size=32, learning_rate=4e-3)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--trials", type=int, default=100)
    parser.add_argument("--n", type=int, default=300)
    parser.add_argument("--splits", type=int, default=5)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    ways = ("RandomConv", "trained for outcome", "trained for both", "trained for both, scores")
    found: dict[str, list[tuple[bool, bool]]] = {way: [] for way in ways}
    for seed in range(options.seed, options.seed + options.trials):
        config = ObjectWorldConfig(
            n=options.n, size=18, shapes=3, seed=seed, confounding=0, effect=0, heterogeneity=0,
            noise=1.0,
        )  # fmt: skip
        world = simulate_objects(config)
        common = {"folds": RandomFolds(4), "schedule": SCHEDULE, "seed": seed}
        network = SmallCNN(widths=(8, 16))
        outcome = train_encoder(world.cube, network, Outcome("outcome"), world.units, **common)
        both = train_encoder(
            world.cube, network, Dragonnet("treated", "outcome"), world.units, **common
        )
        embeddings = (
            encode(world.cube, RandomConv(features=128), seed=seed),
            outcome.encode(world.cube),
            both.encode(world.cube),
            both.only_scores().encode(world.cube),
        )
        for way, embedding in zip(ways, embeddings, strict=True):
            learner = EffectLearner(RidgeBasis(), seed=seed)
            fitted = learner.fit(TRIAL, world.units, embedding, outcome="outcome")
            average = fitted.average()
            (rate,) = rate_over_splits(
                TRIAL, world.units, embedding, outcome="outcome", learner=learner,
                splits=options.splits, repetitions=100, seed=seed, targets=[AUTOC()],
            ).records()  # fmt: skip
            found[way].append((not average.ci_low <= 0 <= average.ci_high, rate["p_value"] < 0.05))
        done = seed - options.seed + 1
        if done % 10 == 0:
            rates = {way: np.mean(rows, axis=0).round(3).tolist() for way, rows in found.items()}
            print(f"  {done} trials: {rates}", flush=True)
    error = np.sqrt(0.05 * 0.95 / options.trials)
    print(f"rejections at 5 % in {options.trials} trials without effect (error {error:.3f})")
    print("AIPW average | RATE")
    for way, rows in found.items():
        average, rate = np.mean(rows, axis=0)
        print(f"{average:12.3f} | {rate:.3f}  {way}")


if __name__ == "__main__":
    main()
