"""What each head over time sees in worlds where only the change between images matters.

Houses are built at a pace of each place's own, and that pace drives treatment
(``eocausal.simulate.changes``); how many stand in one image says little. Dates are uneven, images
are missing. For each way to bring the images together, cross-fitted over spatial blocks: the AUC of
treatment, and the R2 of growth by ridge on the embedding. Single images should miss what sequence
heads find.

The ratio comes first: the share of the oracle's AUC above one half that is reached. The heads with
weights are trained for the propensity on the frames' random features (``embedding_cube``);
``--end-to-end`` trains the network of the frames along with them.

    python benchmarks/sequences.py                   # one world, about 2 minutes of CPU
    python benchmarks/sequences.py --worlds 4
    python benchmarks/sequences.py --end-to-end --n 800
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable

import numpy as np
import pandas as pd
import torch
import xarray as xr
from sklearn.linear_model import LogisticRegressionCV, RidgeCV
from sklearn.metrics import r2_score, roc_auc_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer, StandardScaler

from eocausal.encoders.base import encode
from eocausal.encoders.embedded_frames import EmbeddedFrames, embedding_cube
from eocausal.encoders.objectives import Propensity
from eocausal.encoders.random_conv import RandomConv
from eocausal.encoders.sequence import FrameSequence
from eocausal.encoders.small_cnn import SmallCNN
from eocausal.encoders.temporal import (
    Deviations,
    Head,
    MeanDifference,
    MeanPool,
    MeanTrend,
    MeanVariance,
)
from eocausal.encoders.temporal_networks import GRU, TemporalAttention, Transformer
from eocausal.encoders.training import TrainingSchedule, train_encoder
from eocausal.folds import SpatialBlocks
from eocausal.simulate.changes import ChangeWorld, ChangeWorldConfig, simulate_changes

BLOCKS = SpatialBlocks(km=5, k=5)
FORMULAS = (MeanDifference(), MeanTrend(), MeanVariance())
NETWORKS = (
    GRU(hidden=32),
    TemporalAttention(heads=8, keys=8, width=64, features=32),
    Transformer(layers=1, heads=4, width=32),
)
Result = tuple[float, float]


def auc_within(treated: np.ndarray, score: np.ndarray, fold: np.ndarray) -> float:
    """Mean over folds of the AUC, since scores of different models are not comparable."""
    parts = [fold == k for k in np.unique(fold)]
    each = [roc_auc_score(treated[part], score[part]) for part in parts]
    return float(np.average(each, weights=[part.sum() for part in parts]))


def by_ridge(features: np.ndarray, units: pd.DataFrame, fold: np.ndarray) -> Result:
    """Cross-fitted AUC of treatment and R2 of growth, by penalised linear models.

    Standardised features are cut at 10 sd: one that hardly varies in training may do so elsewhere.
    """
    treated, growth = units["treated"].to_numpy(), units["objects"].to_numpy(dtype=float)
    score, fit = np.empty(len(units)), np.empty(len(units))
    logistic = LogisticRegressionCV(
        Cs=np.logspace(-5, -1, 5), cv=3, scoring="neg_log_loss", l1_ratios=(0,),
        use_legacy_attributes=False, max_iter=500,
    )  # fmt: skip
    cut = FunctionTransformer(np.clip, kw_args={"a_min": -10.0, "a_max": 10.0})
    for k in np.unique(fold):
        train, test = fold != k, fold == k
        model = make_pipeline(StandardScaler(), cut, logistic).fit(features[train], treated[train])
        score[test] = model.decision_function(features[test])
        ridge = make_pipeline(StandardScaler(), cut, RidgeCV(np.logspace(0, 6, 13)))
        fit[test] = ridge.fit(features[train], growth[train]).predict(features[test])
    return auc_within(treated, score, fold), r2_score(growth, fit)


def one_image(frames: xr.DataArray, last: bool) -> np.ndarray:
    """Features of each place's first or last image that is there."""
    values = frames.to_numpy()
    seen = np.isfinite(values).all(axis=2)
    place = seen.shape[1] - 1 - seen[:, ::-1].argmax(axis=1) if last else seen.argmax(axis=1)
    return values[np.arange(len(values)), place]


def trained(
    cube: xr.Dataset, network: FrameSequence, units: pd.DataFrame, fold: np.ndarray, epochs: int
) -> Result:
    """AUC of the network's own propensity; R2 of growth from its features, fold by fold."""
    schedule = TrainingSchedule(epochs=epochs, learning_rate=3e-3, weight_decay=5e-2, patience=6)
    fitted = train_encoder(cube, network, Propensity(), units, folds=BLOCKS, schedule=schedule)
    propensity = fitted.predict(cube)["propensity"].to_numpy()
    treated = units["treated"].to_numpy()
    own = fitted.fold.reindex(cube.indexes["neighborhood"]).to_numpy()
    features = fitted.encode(cube).to_numpy()
    return auc_within(treated, propensity, own), by_ridge(features, units, fold)[1]


def ways(world: ChangeWorld, options: argparse.Namespace) -> dict[str, Callable[[], Result]]:
    """Every way to represent the places of a world, as something that can be run."""
    cube, units = world.cube, world.units
    fold = BLOCKS.assign(units, seed=0)
    frames = encode(cube, RandomConv(features=options.features))
    small = embedding_cube(frames, cube)

    def formula(head: Head) -> Callable[[], Result]:
        network = FrameSequence(EmbeddedFrames(), head)
        return lambda: by_ridge(encode(small, network).to_numpy(), units, fold)

    def head(head: Head) -> Callable[[], Result]:
        network = FrameSequence(EmbeddedFrames(), head)
        return lambda: trained(small, network, units, fold, options.epochs)

    def end_to_end(head: Head) -> Callable[[], Result]:
        network = FrameSequence(SmallCNN(widths=(16, 32, 64)), head)
        return lambda: trained(cube, network, units, fold, options.epochs)

    rows = {
        "first image": lambda: by_ridge(one_image(frames, last=False), units, fold),
        "last image": lambda: by_ridge(one_image(frames, last=True), units, fold),
        "mean of images": formula(MeanPool()),
    }
    rows |= {h.name: formula(h) for h in FORMULAS}
    rows |= {h.name: head(h) for h in (*NETWORKS, *map(Deviations, NETWORKS))}
    if options.end_to_end:
        rows |= {
            f"SmallCNN + {h.name}": end_to_end(h) for h in (MeanTrend(), Deviations(NETWORKS[0]))
        }
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--worlds", type=int, default=1)
    parser.add_argument("--n", type=int, default=1500)
    parser.add_argument("--features", type=int, default=256)
    parser.add_argument("--epochs", type=int, default=20)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--end-to-end", action="store_true")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    for seed in range(options.worlds):
        world = simulate_changes(ChangeWorldConfig(n=options.n, seed=seed))
        units = world.units
        fold = BLOCKS.assign(units, seed=0)
        treated = units["treated"].to_numpy()
        oracle = auc_within(treated, units["propensity"].to_numpy(), fold)
        print(f"world {seed}: n = {options.n}, oracle AUC {oracle:.3f}", flush=True)
        print(f"  {'ratio':>5} {'AUC':>6} {'R2':>6} {'CPU s':>6}")
        for name, run in ways(world, options).items():
            started = time.process_time()
            auc, r2 = run()
            spent = time.process_time() - started
            ratio = (auc - 0.5) / (oracle - 0.5)
            print(f"  {ratio:5.2f} {auc:6.3f} {r2:6.2f} {spent:6.1f}  {name}", flush=True)


if __name__ == "__main__":
    main()
