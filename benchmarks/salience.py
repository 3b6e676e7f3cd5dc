"""Whether salience finds the planted objects that drive treatment, and random weights do, too.

Prints, for the logit of treatment of a trained network (cross-fitted) and of a logistic
regression on RandomConv features, and for each method: the share of the mass of salience on the
planted ``+`` over their share of the area (wanted: at least 5), for absolute values and for the
part that speaks for treatment; and the mass per pixel of ``+`` over that of ``x``, which looks
the same in every band and does not drive treatment. Each number stands beside that of the same
network with its weights shuffled: a ratio over the area that random weights reach as well is no
evidence, the contrast of ``+`` and ``x`` is 1 for them.

    python benchmarks/salience.py                   # about 3 minutes on one core
    python benchmarks/salience.py --n 600 --chips 20
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Hashable, Sequence
from pathlib import Path

import numpy as np
import pandas as pd
import torch
import xarray as xr
from numpy.typing import NDArray
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score
from sklearn.preprocessing import StandardScaler

from eocausal.encoders.base import encode, fit_encoder
from eocausal.encoders.objectives import Propensity
from eocausal.encoders.random_conv import RandomConv
from eocausal.encoders.salience import Target, feature_coefficients, salience_by_fold
from eocausal.encoders.salience_checks import mass_on, randomise, rank_correlation
from eocausal.encoders.salience_methods import (
    Gradient,
    IntegratedGradients,
    Method,
    Occlusion,
)
from eocausal.encoders.schedule import TrainingSchedule
from eocausal.encoders.small_cnn import SmallCNN
from eocausal.encoders.training import train_encoder
from eocausal.folds import RandomFolds
from eocausal.reports.plots import to_png
from eocausal.reports.salience import salience_figure
from eocausal.simulate.objects import ObjectWorld, ObjectWorldConfig, simulate_objects

METHODS: tuple[Method, ...] = (
    Gradient(pool=3),
    IntegratedGradients(steps=16),
    Occlusion(size=5, stride=3),
    Occlusion(size=5, stride=3, fill=0.0),
)

Targets = dict[Hashable, Target]


def trained_targets(world: ObjectWorld, epochs: int) -> tuple[Targets, pd.Series]:
    """Train propensity networks on three folds; each chip gets the one that did not see it."""
    trained = train_encoder(
        world.cube, SmallCNN(widths=(16, 32, 64)), Propensity(), world.units,
        folds=RandomFolds(3), schedule=TrainingSchedule(epochs=epochs), device="cpu",
    )  # fmt: skip
    report_auc("SmallCNN, trained", world.units, trained.predict(world.cube)["propensity"])
    targets: Targets = {
        k: Target("logit of treatment", network, trained.logit(k), "logit")
        for k, network in enumerate(trained.networks)
    }
    return targets, trained.neighborhoods["fold"]


def random_conv_targets(world: ObjectWorld) -> tuple[Targets, pd.Series]:
    """Fit a ridge logit on RandomConv features, by fold."""
    fitted = fit_encoder(world.cube, RandomConv(features=512, patch=(3, 7)), seed=0)
    features = encode(world.cube, fitted, device="cpu").to_numpy().astype(np.float64)
    treated = world.units["treated"].to_numpy()
    fold = RandomFolds(3).assign(world.units, seed=0)
    logit = np.empty(len(treated))
    targets: Targets = {}
    for k in np.unique(fold):
        scaler = StandardScaler().fit(features[fold != k])
        model = LogisticRegression(C=0.003, max_iter=2000)
        model.fit(scaler.transform(features[fold != k]), treated[fold != k])
        weights, intercept = feature_coefficients(
            model.coef_[0], float(model.intercept_[0]), mean=scaler.mean_, scale=scaler.scale_
        )
        logit[fold == k] = features[fold == k] @ weights + intercept
        targets[int(k)] = Target.linear(
            fitted, weights, intercept, name="logit of treatment", units="logit"
        )
    report_auc("RandomConv, ridge logit", world.units, logit)
    return targets, pd.Series(fold, index=world.cube.indexes["neighborhood"])


def report_auc(name: str, units: pd.DataFrame, score: Sequence[float]) -> None:
    own = roc_auc_score(units["treated"], score)
    oracle = roc_auc_score(units["treated"], units["propensity"])
    print(f"\n{name}: AUC of treatment, cross-fitted {own:.3f} (true propensity {oracle:.3f})")


def other_shapes(world: ObjectWorld, rows: NDArray[np.int64]) -> NDArray[np.bool_]:
    """Pixels of all shapes, ``+`` and ``x``: they have the roofs' values in every band."""
    image = world.cube["image"].to_numpy()[rows, 0]
    return np.asarray((image[:, 0] > 0.25) & (image[:, 1] > 0.3))


def compare(
    world: ObjectWorld, targets: Targets, fold: pd.Series, chips: int, method: Method
) -> xr.DataArray:
    """Print a method's line; returns the maps."""
    labels = fold.index[:chips]
    rows = world.cube.indexes["neighborhood"].get_indexer(labels)
    planted, shapes = world.planted[rows], other_shapes(world, rows)
    foils: Targets = {k: randomise(t, seed=5) for k, t in targets.items()}
    started = time.process_time()
    own = salience_by_fold(world.cube, targets, fold[labels], method, device="cpu")
    seconds = time.process_time() - started
    foil = salience_by_fold(world.cube, foils, fold[labels], method, device="cpu")

    def both(measure: Callable[[xr.DataArray], float]) -> str:
        return f"{measure(own):5.2f} ({measure(foil):5.2f})"

    print(
        f"  {method!r:46s} {both(lambda s: mass_on(s, planted).ratio)}"
        f"  {both(lambda s: mass_on(s.clip(min=0), planted).ratio)}"
        f"  {both(lambda s: mass_on(s.clip(min=0), planted, among=shapes).contrast)}"
        f"  {rank_correlation(own, foil).mean():6.2f}  {len(labels) / seconds:7.1f}",
        flush=True,
    )
    return own


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n", maxsplit=1)[0])
    parser.add_argument("--n", type=int, default=1200, help="chips of the world")
    parser.add_argument("--chips", type=int, default=40, help="chips whose salience is computed")
    parser.add_argument("--epochs", type=int, default=20)
    parser.add_argument("--shapes", type=int, default=4)
    parser.add_argument("--figures", type=Path, help="folder for figures")
    options = parser.parse_args()
    torch.set_num_threads(1)
    world = simulate_objects(
        ObjectWorldConfig(n=options.n, size=36, shapes=options.shapes, confounding=1.5)
    )
    print(
        f"{options.n} chips, planted + on {world.planted.mean():.1%} of the area; in brackets the "
        f"same with shuffled weights\n  {'method':46s} {'ratio':13s}  {'ratio, for':13s}  "
        f"{'+ over x':13s}  {'rank r':6s}  chips/s"
    )
    for name, targets_of in (
        ("trained", lambda: trained_targets(world, options.epochs)),
        ("random_conv", lambda: random_conv_targets(world)),
    ):
        targets, fold = targets_of()
        for method in METHODS:
            maps = compare(world, targets, fold, options.chips, method)
            if options.figures is not None:
                options.figures.mkdir(parents=True, exist_ok=True)
                drawn = salience_figure(world.cube, maps)
                path = options.figures / f"{name}_{type(method).__name__.lower()}.png"
                path.write_bytes(to_png(drawn.figure))


if __name__ == "__main__":
    main()
