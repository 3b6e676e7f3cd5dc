"""How often placebos reject when nothing happened, by four p-values at 5 %.

python benchmarks/impact_placebos.py [--series 400] [--seed 0]

In time: series of independent noise, AR(0.6) and a walking level, an event without effect after 256
times. ``windows`` is the share of pseudo-events whose 95 % interval excludes zero. In space: an
outcome and twenty sites without effect; on two coasts the sites share a disturbance of their own,
on one coast with the outcome too.
"""

import argparse

import numpy as np
from scipy.signal import lfilter

from eocausal.checks.impact_question import excludes_zero, normal_scores
from eocausal.checks.impact_ranks import PlaceboRank, rank_among
from eocausal.estimators.controls_innovations import independent_number, innovations
from eocausal.estimators.structural import fit_structural

BEFORE, SITES, LAST, TIMES = 256, 20, 126, 150
NAMES = ("p_value", "p_independent", "p_scaled", "p_spread")


def red(rng: np.random.Generator, shape: tuple[int, ...], phi: float) -> np.ndarray:
    shocks = rng.normal(size=(*shape[:-1], shape[-1] + 100)) * np.sqrt(1 - phi**2)
    return np.asarray(lfilter([1.0], [1.0, -phi], shocks))[..., 100:]


def effects(y: np.ndarray, start: int, horizon: int) -> np.ndarray:
    """Statistic, normal score and whether the interval excludes zero, (3, N)."""
    before = np.arange(start + horizon) < start
    found = fit_structural(y[:, : start + horizon], before).average(~before)
    scores = normal_scores(found.estimate, found.p_value)
    sure = excludes_zero(found.ci_low, found.ci_high)
    return np.stack([np.abs(found.estimate) / found.std_error, scores, sure])


def said(name: str, ranks: list[PlaceboRank], windows: float) -> None:
    rates = [np.mean([getattr(rank, p) <= 0.05 for rank in ranks]) for p in NAMES]
    worth = np.mean([rank.independent for rank in ranks])
    line = f"{name:34s}{ranks[0].placebos:10d}{worth:8.1f}{windows:9.3f}"
    print(line + "".join(f"{rate:15.3f}" for rate in rates), flush=True)


def in_time(name: str, y: np.ndarray, horizon: int, step: int) -> None:
    starts = np.arange(BEFORE - horizon, max(36, horizon) - 1, -step)[::-1]
    placebos = np.stack([effects(y, int(s), horizon) for s in starts], axis=2)
    real = effects(y, BEFORE, horizon)
    worth = (starts[-1] - starts[0] + horizon) / horizon
    ranks = [
        rank_among(real[0, i], placebos[0, i], worth, score=real[1, i], scores=placebos[1, i])
        for i in range(len(y))
    ]
    said(f"{name}, {horizon} times, step {step}", ranks, float(placebos[2].mean()))


def in_space(name: str, y: np.ndarray) -> None:
    found = effects(y.reshape(-1, TIMES), LAST, TIMES - LAST).reshape(3, len(y), -1)
    ranks = []
    for t, z, series in zip(found[0], found[1], y, strict=True):
        worth = independent_number(innovations(series[1:, :LAST].T))
        ranks.append(rank_among(t[0], t[1:], worth, score=z[0], scores=z[1:]))
    said(name, ranks, float(found[2].mean()))


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--series", type=int, default=400)
    parser.add_argument("--seed", type=int, default=0)
    chosen = parser.parse_args()
    print(f"{'':34s}{'placebos':>10s}{'worth':>8s}{'windows':>9s}", end="")
    print("".join(f"{name:>15s}" for name in NAMES))
    rng = np.random.default_rng(chosen.seed)
    for name, phi, walk in (
        ("independent", 0.0, 0.0),
        ("AR 0.6", 0.6, 0.0),
        ("walk 0.03", 0, 0.03),
    ):
        for horizon, step in ((12, 6), (24, 6), (68, 17), (68, 4)):
            shape = (chosen.series, BEFORE + horizon)
            drift = np.cumsum(walk * rng.normal(size=shape), axis=1)
            in_time(name, red(rng, shape, phi) + drift, horizon, step)
    own = red(rng, (chosen.series, 1 + SITES, TIMES), 0.3)
    shared = 1.5 * red(rng, (chosen.series, 2, TIMES), 0.6)
    two = own + np.concatenate([shared[:, :1], shared[:, 1:].repeat(SITES, 1)], axis=1)
    in_space("sites, independent", own)
    in_space("sites on one coast", own + shared[:, :1])
    in_space("sites on two coasts", two)


if __name__ == "__main__":
    main()
