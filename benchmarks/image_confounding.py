"""Bias and coverage where what confounds is in the pixels, from pixels to interval.

    python benchmarks/image_confounding.py                      # all, half an hour of one core
    python benchmarks/image_confounding.py --only kernel        # or tutorial, or embedded
    python benchmarks/image_confounding.py --quick              # few replications, two minutes

Three designs (eocausal.simulate): the dual-confounder tutorial; a kernel's strongest response in
real chips (``uganda_yop`` under $EOCAUSAL_DATA, else ../shared/data), over widths of the kernel and
coarser pixels; blobs, where what confounds is linear in the embedding, merely visible, or latent.
Each line is a mean over replications; SE/SD is the root mean squared standard error over the
standard deviation of the errors. What is to be reached is printed first.
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from functools import cache, partial
from itertools import product
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from sklearn.linear_model import RidgeCV

from eocausal.checks.base import Verdict
from eocausal.checks.placebo import Placebo
from eocausal.checks.sensitivity.image_confounders import ImageConfounders
from eocausal.checks.sensitivity.omitted_variable import OmittedVariable
from eocausal.encoders.core import Encoder, ImageSpec
from eocausal.encoders.patches import SampledPatches
from eocausal.encoders.random_conv import RandomConv
from eocausal.encoders.spectral import SpectralStats
from eocausal.errors import OverlapError
from eocausal.estimators.scores import Hajek
from eocausal.estimators.weighting import Weighted, Weighting, weight
from eocausal.folds import SpatialBlocks
from eocausal.simulate import image_confounding, tutorial
from eocausal.simulate.image_confounding import (
    Embedded,
    Hidden,
    ImageConfoundingConfig,
    Visible,
    simulate_image_confounding,
)
from eocausal.simulate.kernel_confounder import (
    KernelConfounderConfig,
    coarsen,
    simulate_kernel_confounder,
)
from eocausal.simulate.tutorial import TutorialConfig, simulate_tutorial

Rows = list[dict[str, object]]

TUTORIAL_ENCODERS: dict[str, Encoder] = {
    "RandomConv": RandomConv(features=64, stride=2),
    "SpectralStats": SpectralStats(texture=None),
}
KERNEL_ENCODERS: dict[str, Encoder] = {
    "RandomConv, mean and max": RandomConv(patch=8, pool=("mean", "max")),
    "the same, scales 1, 2, 4": RandomConv(patch=8, pool=("mean", "max"), scales=(1, 2, 4)),
    "the same, smoother patches": RandomConv(
        patch=8, pool=("mean", "max"), patches=SampledPatches(regularisation=1.0)
    ),
    "RandomConv, mean": RandomConv(patch=8),
    "SpectralStats": SpectralStats(),
}
BLOBS = RandomConv(features=128)
BLOCKS = SpatialBlocks(km=5)
WIDTHS = (2, 4, 8, 16, 32)
FACTORS = (1, 2, 4)


def encode(images: np.ndarray, encoder: Encoder, bands: Sequence[str]) -> np.ndarray:
    """Fit an encoder on chips and encode them."""
    spec = ImageSpec(tuple(bands), "reflectance", 30.0, *images.shape[2:])
    return encoder.fit(images, spec, seed=0).transform(images)


def adjusted(
    units: pd.DataFrame,
    covariates: Sequence[str],
    features: np.ndarray | None = None,
    *,
    seed: int,
    decisions: Weighting | None = None,
) -> Weighted | None:
    """Weigh with covariates and features; None where the estimate is refused."""
    images = {}
    if features is not None:
        images["image"] = pd.DataFrame(features, index=units["neighborhood"])
    try:
        return weight(
            units, treatment="treated", outcome="outcome", covariates=covariates, images=images,
            decisions=decisions, seed=seed,
        )  # fmt: skip
    except OverlapError:
        return None


def row(name: str, fitted: Weighted | None, truth: float) -> dict[str, object]:
    """Return the error of AIPW and its interval, and that of Hájek with the same probabilities."""
    if fitted is None:
        return {"name": name, "refused": 1.0}
    effect, data = fitted.estimate, fitted.data
    means = Hajek().means(data, fitted.nuisances).value
    return {
        "name": name, "refused": 0.0, "error": effect.estimate - truth, "se": effect.std_error,
        "covered": float(effect.ci_low <= truth <= effect.ci_high),
        "hajek": float(means[1] - means[0]) - truth,
    }  # fmt: skip


def difference(units: pd.DataFrame, weights: np.ndarray, truth: float) -> float:
    """Return the error of the difference of weighted means."""
    arms = [units["treated"].to_numpy() == a for a in (0, 1)]
    y = units["outcome"].to_numpy()
    zero, one = (float(np.average(y[a], weights=weights[a])) for a in arms)
    return one - zero - truth


def by_hand(units: pd.DataFrame, truth: float) -> Rows:
    """Return the naive difference, and Hájek weighting by the true probabilities."""
    p = units["propensity"].to_numpy()
    weights = np.where(units["treated"] == 1, 1 / p, 1 / (1 - p))
    return [
        {"name": "naive difference", "error": difference(units, np.ones(len(p)), truth)},
        {"name": "true probabilities", "hajek": difference(units, weights, truth)},
    ]


def tutorial_once(number: int, *, seed: int, others: int) -> Rows:
    """Draw the tutorial's world once; use all encoders in the first ``others`` replications."""
    config = TutorialConfig()
    world = simulate_tutorial(config, np.random.default_rng([seed, number]))
    units, known = world.units, ["x1", "x2"]
    rows = by_hand(units, config.effect)
    fits = {
        "table": adjusted(units, known, seed=number),
        "table and what is hidden": adjusted(units, [*known, "confounder"], seed=number),
    }
    for name, encoder in list(TUTORIAL_ENCODERS.items())[: None if number < others else 1]:
        features = encode(world.images, encoder, tutorial.BANDS)
        fits[name] = adjusted(units, known, features, seed=number)
    return rows + [row(name, fitted, config.effect) for name, fitted in fits.items()]


@cache
def crops(factor: int) -> np.ndarray:
    """Read the first band of the real chips, pixels averaged over ``factor`` by ``factor``."""
    import rasterio

    folder = Path(os.environ.get("EOCAUSAL_DATA", "../shared/data")) / "uganda_yop" / "tif"
    bands = []
    for path in sorted(folder.glob("key_*.tif")):
        with rasterio.open(path) as file:
            bands.append(file.read(1).astype(np.float32))
    return np.asarray(coarsen(np.stack(bands), factor))


@cache
def kernel_features(name: str, factor: int) -> np.ndarray:
    """Encode the chips, once for all replications."""
    return encode(crops(factor)[:, None], KERNEL_ENCODERS[name], ["band 1"])


def kernel_once(number: int, *, width: int, factor: int, names: Sequence[str], seed: int) -> Rows:
    """Draw treatment and outcome once; the analyst has pixels ``factor`` times as wide."""
    config = KernelConfounderConfig(width)
    rng = np.random.default_rng([seed, width, number])
    units = simulate_kernel_confounder(crops(1), config, rng)
    rows = by_hand(units, config.effect)
    rows.append(row("what is hidden", adjusted(units, ["confounder"], seed=number), config.effect))
    for name in names:
        fitted = adjusted(units, [], kernel_features(name, factor), seed=number)
        rows.append(row(name, fitted, config.effect))
    return rows


def blob_features(images: np.ndarray) -> np.ndarray:
    """Encode chips of blobs."""
    return encode(images, BLOBS, image_confounding.BANDS)


CARRIERS: dict[str, Embedded | Visible | Hidden] = {
    "span": Embedded(blob_features),
    "visible": Visible(),
    "latent": Hidden(),
}


def told(features: np.ndarray, values: np.ndarray) -> float:
    """Return the R² of values from features in a third of the units held out."""
    z = (features - features.mean(axis=0)) / features.std(axis=0)
    fit = np.arange(len(z)) % 3 > 0
    model = RidgeCV(alphas=np.logspace(-3, 5, 17)).fit(z[fit], values[fit])
    return float(model.score(z[~fit], values[~fit]))


def embedded_once(number: int, *, carrier: str, seed: int, blocks: int, warnings: int) -> Rows:
    """Draw the blobs' world once; use blocks, and ask the checks, in the first replications."""
    config = ImageConfoundingConfig(carrier=CARRIERS[carrier])
    world = simulate_image_confounding(config, np.random.default_rng([seed, number]))
    units, features = world.units, blob_features(world.before)
    image = adjusted(units, ["x"], features, seed=number)
    fits = {
        "table and what is hidden": adjusted(units, ["x", "confounder"], seed=number),
        "table": adjusted(units, ["x"], seed=number),
        "table and image": image,
    }
    if number < blocks:
        decisions = Weighting(folds=BLOCKS)
        fits["the same, blocks of 5 km"] = adjusted(
            units, ["x"], features, seed=number, decisions=decisions
        )
    rows = [row(name, fitted, config.effect) for name, fitted in fits.items()]
    r2 = told(features, units["confounder"].to_numpy())
    rows.append({"name": "R2", "r2": r2})
    if number < warnings and image is not None:
        rows.append({"name": "warnings", **warned(image)})
    return rows


def warned(image: Weighted) -> dict[str, float]:
    """Say which checks of the analysis are not content."""
    placebo = Placebo(("earlier",)).run(image)
    omitted = OmittedVariable().run(image)
    known = ImageConfounders().run(image)
    return {
        "placebo, p < 0.05": float(placebo.values["p_joint"] < 0.05),
        "placebo not passed": float(placebo.verdict is not Verdict.PASS),
        "omitted variable not passed": float(omitted.verdict is not Verdict.PASS),
        "image and known confounders not passed": float(known.verdict is not Verdict.PASS),
    }


def run(job: Callable[[int], Rows], replications: int, workers: int) -> pd.DataFrame:
    """Return the rows of all replications."""
    if workers == 1:
        found = list(map(job, range(replications)))
    else:
        with ProcessPoolExecutor(workers, initializer=torch.set_num_threads, initargs=(1,)) as pool:
            found = list(pool.map(job, range(replications), chunksize=5))
    return pd.DataFrame([r for rows in found for r in rows])


def rms(values: pd.Series) -> float:
    """Return the root mean square."""
    return float(np.sqrt((values.astype(float) ** 2).mean()))


def summary(rows: pd.DataFrame) -> pd.DataFrame:
    """Return one line per estimator."""
    lines = {}
    for name, group in rows[rows[["error", "hajek"]].notna().any(axis=1)].groupby(
        "name", sort=False
    ):
        error, sd = group["error"], float(group["error"].std())
        lines[name] = {
            "bias": error.mean(), "SD": sd, "RMSE": rms(error), "SE/SD": rms(group["se"]) / sd,
            "coverage": group["covered"].mean(), "Hajek bias": group["hajek"].mean(),
            "Hajek RMSE": rms(group["hajek"]),
        }  # fmt: skip
    table = pd.DataFrame(lines).T
    refused = rows.groupby("name", sort=False)["refused"].mean()
    return table.assign(refused=refused.reindex(table.index))


def show(table: pd.DataFrame) -> None:
    """Print numbers with three decimals, and nothing where there is none."""
    print(table.map(lambda v: "" if pd.isna(v) else f"{v:.3f}").to_string(), flush=True)


def show_tutorial(replications: int, others: int, *, seed: int, workers: int) -> None:
    rows = run(partial(tutorial_once, seed=seed, others=others), replications, workers)
    table = summary(rows)
    for name, encoder in TUTORIAL_ENCODERS.items():
        line, count = table.loc[name], int((rows["name"] == name).sum())
        print(
            f"tutorial, {name}: bias {line['bias']:+.3f} (target < 0.05 either way), RMSE "
            f"{line['RMSE']:.3f} (target < 0.24), coverage {line['coverage']:.3f} (target 0.92 to "
            f"0.98); {count} replications; {encoder.name}"
        )
    show(table)


def show_kernel(replications: int, curve: int, *, seed: int, workers: int) -> None:
    names = list(KERNEL_ENCODERS)
    job = partial(kernel_once, width=8, factor=1, names=names, seed=seed)
    table = summary(run(job, replications, workers))
    best, oracle = table.loc[names[0], "RMSE"], table.loc["true probabilities", "Hajek RMSE"]
    print(
        f"kernel of 8 pixels, {names[0]}: RMSE {best:.3f}, {best / oracle:.2f} of that of the true "
        f"probabilities, {oracle:.3f} (target 1.5); {len(crops(1))} chips, {replications} "
        "replications"
    )
    show(table)
    print(f"\n{names[0]}, patches of 8 pixels as the analyst has them; {curve} replications each")
    lines = {}
    for width, factor in product(WIDTHS, FACTORS):
        some = names[: 2 if factor == 1 else 1]
        job = partial(kernel_once, width=width, factor=factor, names=some, seed=seed)
        found = summary(run(job, curve, workers))
        lines[width, factor] = {
            "naive bias": found.loc["naive difference", "bias"],
            **found.loc[names[0], ["bias", "RMSE", "coverage", "refused"]],
            f"RMSE, {names[1].removeprefix('the same, ')}": (
                found.loc[names[1], "RMSE"] if factor == 1 else np.nan
            ),
            "RMSE, true probabilities": found.loc["true probabilities", "Hajek RMSE"],
        }
    curves = pd.DataFrame(lines).T.rename_axis(["kernel", "pixels averaged"])
    show(curves)


def show_embedded(span: int, others: int, few: int, *, seed: int, workers: int) -> None:
    for carrier in CARRIERS:
        replications = span if carrier == "span" else others
        job = partial(embedded_once, carrier=carrier, seed=seed, blocks=others, warnings=few)
        rows = run(job, replications, workers)
        table = summary(rows)
        line, without = table.loc["table and image"], table.loc["table"]
        aim = (" (target 0.02 either way)", " (0.93 to 0.97)", " (0.95)")
        goals = aim if carrier == "span" else ("", "", "")
        print(
            f"\n{carrier}: bias {line['bias']:+.3f}{goals[0]}, coverage {line['coverage']:.3f}"
            f"{goals[1]}, SE/SD {line['SE/SD']:.3f}{goals[2]}; table only {without['bias']:+.3f}, "
            f"coverage {without['coverage']:.3f}; R2 of the confounder from the image "
            f"{rows['r2'].mean():.2f}; {replications} replications"
        )
        show(table)
        asked = rows[rows["name"] == "warnings"].dropna(axis=1, how="all").drop(columns="name")
        shares = ", ".join(f"{name} {share:.2f}" for name, share in asked.mean().items())
        print(f"checks of the analysis with the image, {len(asked)} replications: {shares}")


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--only", choices=("tutorial", "kernel", "embedded"))
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--replications", type=int, help="instead of 200 to 300")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--workers", type=int, default=2)
    given = parser.parse_args()
    torch.set_num_threads(1)

    def count(usual: int, quick: int) -> int:
        return given.replications or (quick if given.quick else usual)

    options = {"seed": given.seed, "workers": given.workers}
    if given.only in (None, "tutorial"):
        show_tutorial(count(200, 8), count(50, 8), **options)
    if given.only in (None, "kernel"):
        show_kernel(count(200, 10), count(50, 2), **options)
    if given.only in (None, "embedded"):
        show_embedded(count(300, 8), count(100, 8), min(40, count(40, 8)), **options)


if __name__ == "__main__":
    main()
