"""What each representation of the image sees, in worlds where small objects decide everything.

Chips hold ``+`` and ``x`` of the same pixels; the number of ``+`` drives treatment, outcome and
effect (``eocausal.simulate.objects``). For each way to represent the chip: the cross-fitted AUC of
treatment over spatial blocks, and the bias of the inverse-probability-weighted (Hajek) effect with
those propensities, beside the oracle's (true propensities) and the naive difference.

The ratio comes first: the share of the oracle's AUC above one half that is reached.

    python benchmarks/representations.py              # 4 worlds; one took 19 CPU minutes on a
    python benchmarks/representations.py --worlds 1   # busy machine, all but one of training
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable

import numpy as np
import pandas as pd
import xarray as xr
from sklearn.decomposition import PCA
from sklearn.linear_model import LogisticRegressionCV
from sklearn.metrics import roc_auc_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from eocausal.encoders.base import encode
from eocausal.encoders.core import Encoder
from eocausal.encoders.dragonnet import Dragonnet
from eocausal.encoders.objectives import Propensity
from eocausal.encoders.random_conv import RandomConv
from eocausal.encoders.schedule import TrainingSchedule
from eocausal.encoders.small_cnn import SmallCNN
from eocausal.encoders.spectral import SpectralStats
from eocausal.encoders.trained import TrainedEncoder
from eocausal.encoders.training import train_encoder
from eocausal.folds import SpatialBlocks
from eocausal.simulate.objects import ObjectWorld, ObjectWorldConfig, simulate_objects

CLIP = 0.01
BLOCKS = SpatialBlocks(km=8, k=5)


def hajek(units: pd.DataFrame, propensity: np.ndarray) -> float:
    """Effect by inverse-probability weighting, weights normalised in each arm."""
    e = np.clip(propensity, CLIP, 1 - CLIP)
    w, y = units["treated"].to_numpy(), units["outcome"].to_numpy()
    one, zero = w / e, (1 - w) / (1 - e)
    return float((one @ y) / one.sum() - (zero @ y) / zero.sum())


def auc_within(units: pd.DataFrame, score: np.ndarray, fold: np.ndarray) -> float:
    """Mean over folds of the AUC, since scores of different models are not comparable."""
    parts = [(fold == k) for k in np.unique(fold)]
    return float(
        np.average(
            [roc_auc_score(units["treated"][p], score[p]) for p in parts],
            weights=[p.sum() for p in parts],
        )
    )


def logistic(embedding: xr.DataArray, units: pd.DataFrame, fold: np.ndarray) -> np.ndarray:
    """Cross-fitted propensity by ridge logistic regression, its penalty chosen inside."""
    z = embedding.sel(neighborhood=units["neighborhood"].to_numpy()).to_numpy()
    w = units["treated"].to_numpy()
    found = np.empty(len(units))
    for k in np.unique(fold):
        out = fold == k
        model = make_pipeline(
            StandardScaler(),
            PCA(min(100, z.shape[1], (~out).sum() // 4), random_state=0),
            LogisticRegressionCV(
                Cs=np.logspace(-4, 1, 8), cv=4, scoring="neg_log_loss", max_iter=2000,
                l1_ratios=(0,), use_legacy_attributes=False,
            ),
        )  # fmt: skip
        found[out] = model.fit(z[~out], w[~out]).predict_proba(z[out])[:, 1]
    return found


def frozen(encoder: Encoder) -> Callable[[ObjectWorld, np.ndarray], np.ndarray]:
    def run(world: ObjectWorld, fold: np.ndarray) -> np.ndarray:
        embedding = encode(world.cube, encoder, seed=world.config.seed)
        return logistic(embedding, world.units, fold)

    return run


def trained(objective: Propensity | Dragonnet) -> Callable[[ObjectWorld, np.ndarray], np.ndarray]:
    def run(world: ObjectWorld, fold: np.ndarray) -> np.ndarray:
        fitted: TrainedEncoder = train_encoder(
            world.cube, SmallCNN(), objective, world.units, folds=BLOCKS,
            schedule=TrainingSchedule(), seed=world.config.seed,
        )  # fmt: skip
        labels = world.units["neighborhood"]
        return fitted.predict(world.cube).loc[labels, "propensity"].to_numpy()

    return run


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--worlds", type=int, default=4)
    parser.add_argument("--n", type=int, default=1500)
    parser.add_argument("--size", type=int, default=48)
    parser.add_argument("--confounding", type=float, default=1.0)
    parser.add_argument("--seed", type=int, default=100)
    options = parser.parse_args()
    ways: dict[str, Callable[[ObjectWorld, np.ndarray], np.ndarray]] = {
        "oracle": lambda world, fold: world.units["propensity"].to_numpy(),
        "no image": lambda world, fold: np.full(len(world.units), world.units["treated"].mean()),
        "SpectralStats": frozen(SpectralStats()),
        "RandomConv(512, 3)": frozen(RandomConv(features=512, patch=3)),
        "RandomConv(1024, (3, 5, 7))": frozen(RandomConv(features=1024, patch=(3, 5, 7))),
        "SmallCNN, propensity": trained(Propensity(treatment="treated")),
        "SmallCNN, Dragonnet": trained(Dragonnet(treatment="treated", outcome="outcome")),
    }
    rows = []
    for seed in range(options.seed, options.seed + options.worlds):
        config = ObjectWorldConfig(
            n=options.n, size=options.size, seed=seed, confounding=options.confounding
        )
        world = simulate_objects(config)
        fold = BLOCKS.assign(world.units, seed=seed)
        truth = world.units["effect"].mean()
        for name, way in ways.items():
            started = time.process_time()
            e = way(world, fold)
            auc = auc_within(world.units, e, fold) if name != "no image" else 0.5
            seconds = time.process_time() - started
            rows.append((name, seed, auc, hajek(world.units, e) - truth, seconds))
            print(f"  world {seed} {name}: AUC {auc:.3f}, bias {rows[-1][3]:+.3f}", flush=True)
    table = pd.DataFrame(rows, columns=["way", "world", "auc", "bias", "seconds"])
    table = table.drop(columns="world").groupby("way", sort=False)
    mean = table.mean()
    best = mean.loc["oracle", "auc"] - 0.5
    print(f"{options.worlds} worlds of {options.n} chips of {options.size} px; mean over worlds")
    print("share of the oracle's AUC above 1/2 | AUC | bias of the Hajek effect (sd) | CPU s")
    for name, row in mean.iterrows():
        spread = table["bias"].std().get(name, np.nan)
        print(
            f"{(row['auc'] - 0.5) / best:5.2f}  {name:<28} {row['auc']:.3f}  "
            f"{row['bias']:+.3f} ({spread:.3f})  {row['seconds']:7.1f}"
        )


if __name__ == "__main__":
    main()
