"""Random features: speed against the textbook pass, and held-out fit on worlds of planted objects.

The textbook pass is one full-resolution convolution for each patch size, over the whole batch, two
rectifications and two averages; ``batch 1`` is the same, chip by chip, which keeps responses in
the processor's cache. Ratios are of images per second of processor time on one thread and come
first; beside them R2 of the number of objects in chips that were held out (5 folds, ridge),
and the mean and largest loss against the textbook features over worlds.

    python benchmarks/random_conv.py
    python benchmarks/random_conv.py --worlds 2 --features 256 --patches 3,5
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable

import numpy as np
import torch
import torch.nn.functional as functional
from sklearn.linear_model import RidgeCV
from sklearn.model_selection import KFold, cross_val_predict
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from eocausal.encoders.core import Encoder, FittedEncoder, ImageSpec
from eocausal.encoders.random_conv import RandomConv
from eocausal.encoders.spectral import SpectralStats
from eocausal.simulate.objects import ObjectWorldConfig, simulate_objects

Pass = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]


def textbook(fitted: FittedEncoder, batch: int) -> Pass:
    """One convolution for each patch size; chips without gaps."""

    def run(values: torch.Tensor, valid: torch.Tensor) -> torch.Tensor:
        rows = []
        for part in values.split(batch):
            pieces = []
            for bank in fitted.network.banks:
                excess = functional.conv2d(part, bank.filters, bank.thresholds)
                pieces.append(torch.relu(excess).mean(dim=(2, 3)))
                pieces.append(torch.relu(-excess - 2 * bank.bias).mean(dim=(2, 3)))
            rows.append(torch.cat(pieces, dim=1))
        return torch.cat(rows)

    return run


def measure(
    passes: dict[str, tuple[FittedEncoder, Pass]], images: np.ndarray, repeats: int
) -> dict[str, float]:
    """Images per second of processor time, best of some rounds in which all passes take turns."""
    best = dict.fromkeys(passes, np.inf)
    for _ in range(repeats):
        for name, (fitted, run) in passes.items():
            values, valid = (torch.from_numpy(a) for a in fitted.scaling.apply(images))
            with torch.inference_mode():
                run(values[:2], valid[:2])
                started = time.process_time()
                run(values, valid)
            best[name] = min(best[name], time.process_time() - started)
    return {name: len(images) / seconds for name, seconds in best.items()}


def held_out_r2(features: np.ndarray, target: np.ndarray, seed: int) -> float:
    model = make_pipeline(StandardScaler(), RidgeCV(np.logspace(0, 5, 11)))
    folds = KFold(5, shuffle=True, random_state=seed)
    predicted = cross_val_predict(model, features, target, cv=folds)
    return float(1 - np.mean((predicted - target) ** 2) / target.var())


def fits(encoders: dict[str, Encoder], options: argparse.Namespace) -> dict[str, list[float]]:
    found: dict[str, list[float]] = {name: [] for name in encoders}
    for seed in range(options.worlds):
        config = ObjectWorldConfig(n=options.n, size=options.size, seed=seed, shapes=options.shapes)
        world = simulate_objects(config)
        images = world.cube["image"].to_numpy()[:, 0]
        spec = ImageSpec(config.bands, "reflectance", config.resolution, *images.shape[2:])
        for name, encoder in encoders.items():
            features = encoder.fit(images[:500], spec, seed=seed).transform(images)
            found[name].append(
                held_out_r2(features, world.units["objects"].to_numpy(dtype=float), seed)
            )
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--features", type=int, default=1024)
    parser.add_argument("--patches", default="3,5", help="patch sides, by commas")
    parser.add_argument("--size", type=int, default=64)
    parser.add_argument("--n", type=int, default=1000, help="chips of a world")
    parser.add_argument("--shapes", type=int, default=10)
    parser.add_argument("--worlds", type=int, default=4)
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--repeats", type=int, default=3)
    options = parser.parse_args()
    torch.set_num_threads(1)
    patch = tuple(int(p) for p in options.patches.split(","))
    count = options.features
    exact = "exact: the textbook's features"
    encoders: dict[str, Encoder] = {
        exact: RandomConv(count, patch),
        "scales (1, 2)": RandomConv(count, patch, scales=(1, 2)),
        "scales (1, 2, 4)": RandomConv(count, patch, scales=(1, 2, 4)),
        "stride 2": RandomConv(count, patch, stride=2),
        "stride 2, scales (1, 2)": RandomConv(count, patch, stride=2, scales=(1, 2)),
        "SpectralStats": SpectralStats(),
    }
    world = simulate_objects(
        ObjectWorldConfig(n=options.batch, size=options.size, shapes=options.shapes)
    )
    images = world.cube["image"].to_numpy()[:, 0]
    spec = ImageSpec(world.config.bands, "reflectance", world.config.resolution, *images.shape[2:])
    fitted = {name: encoder.fit(images, spec, seed=0) for name, encoder in encoders.items()}
    passes = {name: (each, each.network) for name, each in fitted.items()}
    whole, single = f"textbook, batch {options.batch}", "textbook, batch 1"
    passes[whole] = fitted[exact], textbook(fitted[exact], options.batch)
    passes[single] = fitted[exact], textbook(fitted[exact], 1)
    rates = measure(passes, images, options.repeats)
    scores = fits(encoders, options)
    base = np.array(scores[exact])
    print(
        f"{count} features, patches {patch}, {images.shape[1]} bands, {options.size} px; speed as "
        f"a multiple of the textbook pass at batch {options.batch} and at batch 1; R2 of "
        f"{options.worlds} worlds of {options.n} chips"
    )
    for name, rate in rates.items():
        line = (
            f"{rate / rates[whole]:6.1f} {rate / rates[single]:5.1f}  {name}: {rate:.0f} images/s"
        )
        if name in scores:
            score = np.array(scores[name])
            line += f"; R2 {score.mean():.3f} ({' '.join(f'{s:.3f}' for s in score)}), change "
            line += f"{(score - base).mean():+.3f}, worst {(score - base).min():+.3f}"
        print(line)


if __name__ == "__main__":
    main()
