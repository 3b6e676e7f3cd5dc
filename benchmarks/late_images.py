"""How often images that show treatment raise an alarm, and what repairs the estimate.

Worlds of METHODS section 9: blobs in small chips confound, and treatment leaves a bright square of
mean reflectance ``--marks`` in the later image. The check gets the later image as the study's and
the earlier one beside it. First lines: share of runs with an alarm, by mark (targets: at least
0.95 with mark 0.6, at most 0.05 with mark 0), and which of its parts raised it.

Then, with the largest mark, the AIPW effect (truth: 1) adjusted for the earlier image, the later
one, the later one with the trace of treatment projected out, and the repaired one, in which the
earlier image speaks along the trace and both elsewhere. ``span``: what confounds is linear in the
features of the earlier image; ``visible``: it is the number of blobs, of which features tell nine
tenths, so that no image adjusts for all of it. A refusal for lack of overlap is not counted as
covering; for ``later`` the number that would have been given is shown.

    python benchmarks/late_images.py                  # about 15 minutes of one core
    python benchmarks/late_images.py --runs 40        # about 3 minutes
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pandas as pd
import torch

from eocausal.checks.base import Verdict
from eocausal.checks.late_images import LateImages, repair
from eocausal.encoders.core import FittedEncoder, ImageSpec
from eocausal.encoders.random_conv import GaussianPatches, RandomConv
from eocausal.errors import OverlapError
from eocausal.estimators.observational import Observed, observe
from eocausal.estimators.overlap import ArmSupport, Overlap
from eocausal.estimators.weighting import Weighting
from eocausal.simulate.image_confounding import (
    BANDS,
    Embedded,
    ImageConfoundingConfig,
    Visible,
    simulate_image_confounding,
)

ENCODER = RandomConv(features=128, patch=5, patches=GaussianPatches())


class NothingRefused(Overlap):
    """To see the number that a refusal holds back."""

    def refused(self, arms: Sequence[ArmSupport]) -> list[ArmSupport]:
        """Refuse no arm."""
        return []


def fitted_encoder() -> FittedEncoder:
    """One encoder for all worlds, its scaling from a world of its own."""
    world = simulate_image_confounding(ImageConfoundingConfig(), np.random.default_rng(10**6))
    spec = ImageSpec(BANDS, "reflectance", 30.0, 20, 20)
    return ENCODER.fit(world.before, spec, seed=0)


def draw(
    encoder: FittedEncoder, carrier: str, mark: float, seed: int, n: int
) -> tuple[Observed, pd.DataFrame]:
    """Return a study adjusted for the later image, and the earlier embedding."""
    kind = Embedded(encoder.transform) if carrier == "span" else Visible()
    config = ImageConfoundingConfig(n=n, carrier=kind, mark=mark)
    world = simulate_image_confounding(config, np.random.default_rng([7, seed]))
    before, after = (pd.DataFrame(encoder.transform(i)) for i in (world.before, world.after))
    data = observe(
        world.units, treatment="treated", outcome="outcome", covariates=["x"],
        images={"image": after},
    )  # fmt: skip
    return data, before


def alarms(encoder: FittedEncoder, mark: float, runs: int, n: int) -> pd.Series:
    rows = []
    for seed in range(runs):
        data, before = draw(encoder, "visible", mark, seed, n)
        result = LateImages({"before": before}, estimates=False).run(data)
        v = result.values
        rows.append({
            "alarm": result.verdict is not Verdict.PASS,
            "by AUC": v["auc_jump"] > 0.1,
            "by extreme probabilities": v["rise_extreme"] > 0.01 and v["rise_extreme_p"] < 0.01,
            "by changes": v["change_p"] < 0.01,
            "AUC later": v["auc"],
            "AUC earlier": v["auc_earlier"],
        })  # fmt: skip
    return pd.DataFrame(rows).mean()


def effects(encoder: FittedEncoder, carrier: str, mark: float, runs: int, n: int) -> pd.DataFrame:
    decided = Weighting()
    shown = replace(decided, overlap=NothingRefused(empty=None))
    rows = []
    for seed in range(runs):
        data, before = draw(encoder, carrier, mark, seed, n)
        ways = {
            "earlier": repair_with(data, before),
            "later": data,
            "projected": repair(data, before, keep_earlier=False),
            "repaired": repair(data, before),
        }
        for name, study in ways.items():
            try:
                decided.fit(study, seed=seed)
                refused = False
            except OverlapError:
                refused = True
            e = shown.fit(study, seed=seed).estimate
            rows.append((name, e.estimate - 1, e.std_error, e.ci_low <= 1 <= e.ci_high, refused))
    columns = ["image", "bias", "std_error", "coverage", "refused"]
    table = pd.DataFrame(rows, columns=columns).groupby("image", sort=False)
    found = table.mean()
    found.insert(1, "sd", table["bias"].std())
    return found


def repair_with(data: Observed, before: pd.DataFrame) -> Observed:
    """Put the earlier image in the place of the later one."""
    c = data.confounders
    x = c.x.copy()
    x[:, c.block == c.blocks.index("image")] = before.to_numpy()
    return replace(data, confounders=replace(c, x=x))


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--runs", type=int, default=200)
    parser.add_argument("--n", type=int, default=1500)
    parser.add_argument("--marks", type=float, nargs="+", default=[0.0, 0.15, 0.6])
    parser.add_argument("--carriers", nargs="*", default=["span", "visible"])
    options = parser.parse_args()
    torch.set_num_threads(1)
    encoder = fitted_encoder()
    for mark in options.marks:
        found = alarms(encoder, mark, options.runs, options.n)
        parts = ", ".join(f"{k} {v:.3f}" for k, v in found.iloc[1:].items())
        print(f"mark {mark:g}: alarm in {found.iloc[0]:.3f} of {options.runs} runs ({parts})",
              flush=True)  # fmt: skip
    for carrier in options.carriers:
        table = effects(encoder, carrier, max(options.marks), options.runs, options.n)
        print(f"\n{carrier}, mark {max(options.marks):g}, {options.runs} runs")
        print(table.round(3).to_string(), flush=True)


if __name__ == "__main__":
    main()
