"""Tests for breaks against red noise, coverage of intervals of dates and shifts, and speed.

python benchmarks/breakpoints.py [--size] [--dates] [--shifts] [--speed] [--replications 400]
    [--draws 499] [--seed 0]

``--size``: how often a monthly series with a season and AR(1) noise is given a break at the 5 %
level where there is none, and where the level shifts by one standard deviation of the noise in the
middle: the largest F, the test of any number, and BIC beside them. ``--dates``: how often 95 %
intervals hold the date, and how long they are. ``--shifts``: the same for Cliff's delta and
Hodges-Lehmann. ``--speed``: series per second of 10,000 pixels of 324 months, two harmonics, up to
two breaks, beside ruptures on the same machine in the same run (mean only, which is less work).
"""

import argparse
import importlib.util
import math
import time

import numpy as np
import pandas as pd
from scipy import stats
from scipy.signal import lfilter

from eocausal.estimators.breaks_calendar import Calendar, calendar_of
from eocausal.estimators.breaks_dates import bai_interval, sieve_interval
from eocausal.estimators.breaks_model import BreakModel
from eocausal.estimators.breaks_number import bic, ud_max
from eocausal.estimators.breaks_partial import fit_partitions
from eocausal.estimators.breaks_scan import candidates, scan
from eocausal.estimators.breaks_sieve import ArSieve
from eocausal.estimators.breaks_sup_f import sup_f
from eocausal.estimators.shift_sizes import Blocks, shift_size

SEASON = np.array([1.0, 0.3, 0.5, 0.2])


def months(count: int) -> Calendar:
    return calendar_of(pd.date_range("1998-01-01", periods=count, freq="MS"))


def red_noise(rng: np.random.Generator, phi: float, count: int, steps: int) -> np.ndarray:
    """Draw (count, steps) AR(1) series of variance one."""
    shocks = rng.normal(0.0, math.sqrt(1 - phi**2), (count, steps + 300))
    return lfilter([1.0], [1.0, -phi], shocks)[:, 300:]


def share(hits: float, count: int) -> str:
    rate = hits / count
    return f"{rate:.3f} ± {1.96 * math.sqrt(max(rate * (1 - rate), 0.25 / count) / count):.3f}"


def size(replications: int, draws: int, seed: int) -> None:
    """Print rejection rates without and with a break."""
    print("rejections at 5 %: T, phi, shift in sd | largest F | any number | BIC finds some")
    model = BreakModel(harmonics=2, period=12.0)
    for steps in (150, 324):
        calendar = months(steps)
        changing, shared = model.columns(calendar)
        shortest = model.shortest(steps)
        look = scan(changing, shared, candidates(steps, shortest))
        for phi in (0.0, 0.3, 0.6, 0.8):
            for shift in (0.0, 1.0):
                count = replications if shift == 0 else max(replications // 4, 20)
                rng = np.random.default_rng([seed, steps, round(100 * phi)])
                y = red_noise(rng, phi, count, steps) + shared @ SEASON
                y[:, steps // 2 :] += shift
                hits = np.zeros(3)
                for k, series in enumerate(y):
                    sieve, position = ArSieve(draws=draws), calendar.position
                    hits[0] += sup_f(series, look, position, sieve, k).p_value <= 0.05
                    found = ud_max(series, changing, shared, shortest, 2, position, sieve, k)
                    hits[1] += found.p_value <= 0.05
                rss = fit_partitions(y, changing, shared, shortest, 3).rss
                hits[2] = (bic(rss, steps, 1, shared.shape[1]).argmin(1) > 0).sum()
                print(steps, phi, shift, *(share(h, count) for h in hits), sep=" | ", flush=True)


def dates(replications: int, draws: int, seed: int) -> None:
    """Print coverage and length of intervals of dates."""
    print("coverage and mean length of 95 % intervals: T, phi, shift | red noise | Bai | Bai hac")
    for steps in (150, 324):
        ones, none = np.ones((steps, 1)), np.empty((steps, 0))
        position, shortest = np.arange(steps), int(0.15 * steps)
        for phi in (0.0, 0.6):
            for shift in (1.0, 2.0):
                rng = np.random.default_rng([seed, steps, round(100 * phi), round(shift)])
                y = red_noise(rng, phi, replications, steps)
                true = steps // 2
                y[:, true:] += shift
                found = fit_partitions(y, ones, none, shortest, 1).breaks[1]
                held, length = np.zeros(3), np.zeros(3)
                for k, (series, at) in enumerate(zip(y, found, strict=True)):
                    ours = sieve_interval(
                        series, ones, none, at, 0, position=position, shortest=shortest,
                        sieve=ArSieve(draws=draws), seed=k,
                    )  # fmt: skip
                    plain = bai_interval(series, ones, none, at, 0)
                    hac = bai_interval(series, ones, none, at, 0, position=position)
                    for j, one in enumerate((ours, plain, hac)):
                        held[j] += true in one.held
                        length[j] += len(one.held) / replications
                text = [
                    f"{share(h, replications)} ({n:.1f})" for h, n in zip(held, length, strict=True)
                ]
                print(steps, phi, shift, *text, sep=" | ", flush=True)


def shifts(replications: int, draws: int, seed: int) -> None:
    """Print coverage of intervals of Cliff's delta and of the Hodges-Lehmann shift."""
    print("coverage of 95 % intervals: n before, after, phi | delta, shift: red noise | blocks")
    for before, after in ((256, 68), (100, 50)):
        for phi in (0.0, 0.3, 0.6, 0.8):
            rng = np.random.default_rng([seed, before, round(100 * phi)])
            y = red_noise(rng, phi, replications, before + after)
            y[:, before:] += 1.0
            true = np.array([2 * stats.norm.cdf(1 / math.sqrt(2)) - 1, 1.0])
            held = np.zeros((2, 2))
            for k, series in enumerate(y):
                for j, rule in enumerate((ArSieve(draws=draws), Blocks(draws=draws))):
                    table = shift_size(series, before, resample=rule, seed=k).to_frame()
                    held[j] += (table["low"] <= true) & (true <= table["high"])
            text = [", ".join(share(h, replications) for h in row) for row in held]
            print(before, after, phi, *text, sep=" | ", flush=True)


def speed(seed: int, pixels: int = 10_000, steps: int = 324) -> None:
    """Print series per second, ours and ruptures'."""
    rng = np.random.default_rng(seed)
    y = red_noise(rng, 0.6, pixels, steps)
    lasting = BreakModel(harmonics=2)
    moving = BreakModel(harmonics=2, changes="all")
    rows = []
    for name, model in (("level changes, season lasts", lasting), ("all changes", moving)):
        changing, shared = model.columns(months(steps))
        shortest = model.shortest(steps)
        start = time.process_time()
        fit_partitions(y, changing, shared, shortest, 2)
        rows.append((name, pixels / (time.process_time() - start)))
    if importlib.util.find_spec("ruptures") is None:
        print("ruptures is not installed: no ratio")
    else:
        import ruptures

        for name, algorithm, options in (
            ("ruptures Dynp l2, 2 breaks", ruptures.Dynp, {"n_bkps": 2}),
            ("ruptures PELT l2", ruptures.Pelt, {"pen": 10.0}),
        ):
            start, few = time.process_time(), 5
            for series in y[:few]:
                algorithm(model="l2", min_size=48, jump=1).fit(series).predict(**options)
            rows.append((name, few / (time.process_time() - start)))
        print(
            f"ratio to Dynp: {rows[0][1] / rows[2][1]:.0f} (level), {rows[1][1] / rows[2][1]:.0f} "
            f"(all); to PELT: {rows[0][1] / rows[3][1]:.0f}, {rows[1][1] / rows[3][1]:.0f}"
        )
    for name, rate in rows:
        print(f"{name}: {rate:.1f} series per CPU second")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    for flag in ("size", "dates", "shifts", "speed"):
        parser.add_argument(f"--{flag}", action="store_true")
    parser.add_argument("--replications", type=int, default=400)
    parser.add_argument("--draws", type=int, default=499)
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    every = not (given.size or given.dates or given.shifts or given.speed)
    if given.speed or every:
        speed(given.seed)
    for wanted, run in ((given.size, size), (given.dates, dates), (given.shifts, shifts)):
        if wanted or every:
            run(given.replications, given.draws, given.seed)


if __name__ == "__main__":
    main()
