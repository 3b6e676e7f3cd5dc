"""How fast structural time series are: many series, one, seasons, pixels under clouds, maps.

python benchmarks/impact_speed.py [many] [one] [season] [gaps] [memory] [map] [--series 10000]
    [--peer-python PATH] [--tfp-python PATH] [--pairs 5] [--seed 0]

Ratios come first, all in CPU time of one core. Peers run in a process of another Python, in turns
with ours on the same series (pairs): the median of the pairs' ratios is shown with the least and
the largest. ``--peer-python``: one with the package bsts-causalimpact (Rust, 1,000 draws after 500
to warm up, its defaults); ``--tfp-python``: one with tfp-causalimpact. Series have 324 times, 256
before the event. ``many``: local level and 4 shared controls, average effects with intervals,
series per second and core. ``one``: 3 controls, 1,000 draws, warm and cold. ``season``: the same
with a season of 12. ``gaps``: a quarter of all values missing at random, in every series others.
``memory``: peak memory of a map of 10,000 and of 100,000 pixels. ``map``: pixels under clouds from
a file, by number of processes.
"""

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

TIMES, FROM = 324, 256
BEFORE = np.arange(TIMES) < FROM
DRAWS = 1000


def series(
    count: int, controls: int, seed: int, season: bool = False
) -> tuple[np.ndarray, np.ndarray]:
    """Return (count, T) series and (T, controls)."""
    rng = np.random.default_rng([seed, controls])
    x = rng.normal(size=(TIMES, controls))
    weight = np.array([1.0, 0.5, 0.0, 0.0])[:controls]
    y = 10.0 + x @ weight + rng.normal(size=(count, TIMES))
    y += np.cumsum(0.02 * rng.normal(size=(count, TIMES)), 1)
    return y + 2.0 * np.sin(2 * np.pi * np.arange(TIMES) / 12) * season, x


def model_of(name: str, season: bool = False) -> Any:
    from eocausal.estimators.structural_model import StructuralModel
    from eocausal.estimators.structural_priors import CompatiblePrior, LearnedPrior

    prior = CompatiblePrior() if name == "R's priors" else LearnedPrior()
    return StructuralModel(season=12 if season else None, prior=prior)


def averages(y: np.ndarray, x: np.ndarray | None, name: str, season: bool = False) -> float:
    """Return CPU seconds for the average effects of all series."""
    from eocausal.estimators.structural import fit_structural

    begin = time.process_time()
    fit_structural(y, BEFORE, model_of(name, season), controls=x).average(~BEFORE)
    return time.process_time() - begin


class Peer:
    """A process that fits series on request and says what it took."""

    def __init__(self, python: str, kind: str) -> None:
        environment = {**os.environ, "RAYON_NUM_THREADS": "1", "TF_CPP_MIN_LOG_LEVEL": "3"}
        self.process = subprocess.Popen(
            [python, __file__, "--as-peer", kind], text=True, env=environment,
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL,
        )  # fmt: skip

    def seconds(self, count: int, controls: int, seed: int, season: bool = False) -> float:
        """Return CPU seconds a series."""
        assert self.process.stdin
        assert self.process.stdout
        self.process.stdin.write(json.dumps([count, controls, seed, season]) + "\n")
        self.process.stdin.flush()
        return float(self.process.stdout.readline()) / count


def be_peer(kind: str) -> None:
    """Answer requests."""
    import pandas as pd

    if kind == "tfp":
        import causalimpact
    else:
        from causal_impact import CausalImpact

    def fit(y: np.ndarray, x: np.ndarray, season: bool) -> None:
        data = pd.DataFrame(np.column_stack([y, x]))
        if kind == "tfp":
            data.columns = ["y", *(f"x{k}" for k in range(x.shape[1]))]
            options = causalimpact.ModelOptions(
                seasons=[causalimpact.Seasons(num_seasons=12)] if season else []
            )
            causalimpact.fit_causalimpact(
                data, (0, FROM - 1), (FROM, TIMES - 1), model_options=options,
                inference_options=causalimpact.InferenceOptions(num_results=DRAWS),
            )  # fmt: skip
        else:
            arguments = {"nseasons": 12} if season else {}
            CausalImpact(data, [0, FROM - 1], [FROM, TIMES - 1], model_args=arguments).summary()

    for line in sys.stdin:
        count, controls, seed, season = json.loads(line)
        y, x = series(count, controls, seed, season)
        begin = time.process_time()
        for row in y:
            fit(row, x, season)
        print(time.process_time() - begin, flush=True)


def shown(ratios: list[float]) -> str:
    return f"{np.median(ratios):8.1f}x ({min(ratios):.1f} to {max(ratios):.1f})"


def many(options: argparse.Namespace, peers: dict[str, Peer]) -> None:
    """Many series with shared controls."""
    for name in ("R's priors", "our prior"):
        y, x = series(options.series, 4, options.seed)
        averages(y[:50], x, name)
        per = options.series // options.pairs
        own, ratios = [], {kind: [] for kind in peers}
        for k in range(options.pairs):
            own.append(averages(y[k * per : (k + 1) * per], x, name) / per)
            for kind, peer in peers.items():
                ratios[kind].append(peer.seconds(5, 4, options.seed) / own[-1])
        for kind, found in ratios.items():
            print(f"{shown(found)} {kind}, a series of {options.series:,} ({name}, 4 controls)")
        rate = 1.0 / np.array(own)
        print(
            f"          {np.median(rate):,.0f} series/s/core ({rate.min():,.0f} to "
            f"{rate.max():,.0f}), {1e3 * np.median(own):.2f} ms a series"
        )


def one(options: argparse.Namespace, peers: dict[str, Peer], season: bool = False) -> None:
    """One series with 1,000 draws."""
    import pandas as pd

    from eocausal.designs import Event
    from eocausal.estimators.impact import bsts
    from eocausal.estimators.structural import fit_structural

    y, x = series(options.pairs, 3, options.seed, season)
    model = model_of("R's priors", season)
    dates = pd.date_range("1998-01-01", periods=TIMES, freq="MS")
    event = Event(f"{dates[FROM]:%Y-%m-%d}")
    table = pd.DataFrame(x, dates, ["a", "b", "c"])

    def ends(effect: np.ndarray) -> None:
        """Take the ends of intervals of the average, the sum and single times."""
        np.sort(effect.mean(1)), np.sort(effect.sum(1))
        np.sort(effect.T, axis=1)[:, [25, 975]]

    def ahead(row: np.ndarray) -> None:
        fit = fit_structural(row[None], BEFORE, model, controls=x)
        if not hasattr(fit, "path_draws"):
            return every(row)
        part, paths = fit.path_draws(0, draws=DRAWS, seed=1).ahead()
        ends(row[part] - paths.replicate)
        fit.inclusion()
        return None

    def every(row: np.ndarray) -> None:
        fit = fit_structural(row[None], BEFORE, model, controls=x)
        paths = fit.paths(0, draws=DRAWS, seed=1)
        effect = row - paths.replicate
        ends(effect[:, ~BEFORE])
        ends(effect[:, BEFORE])
        fit.inclusion()

    def whole(row: np.ndarray) -> None:
        bsts(pd.Series(row, dates, name="y"), event, table, model=model, draws=DRAWS)

    def checked(row: np.ndarray) -> None:
        found = bsts(pd.Series(row, dates, name="y"), event, table, model=model, draws=DRAWS)
        found.to_frame(), found.notes

    tasks = {
        "fit and draws after the event": ahead,
        "fit and draws of all times": every,
        "bsts(...): effects": whole,
        "bsts(...), path and checks of fit": checked,
    }
    engine = fit_structural(y[:1], BEFORE, model, controls=x).engine
    what = "with season 12" if season else "3 controls"
    for what_is_done, task in tasks.items():
        begin = time.process_time()
        task(y[0])
        cold = time.process_time() - begin
        own, ratios = [], {kind: [] for kind in peers}
        for row in y:
            begin = time.process_time()
            for _ in range(3):
                task(row)
            own.append((time.process_time() - begin) / 3)
            for kind, peer in peers.items():
                ratios[kind].append(peer.seconds(2, 3, options.seed, season) / own[-1])
        for kind, found in ratios.items():
            print(f"{shown(found)} {kind}, one series {what} (R's priors): {what_is_done}")
        print(
            f"          {1e3 * np.median(own):.1f} ms warm, {1e3 * cold:.1f} ms the first time "
            f"(engine {engine}): {what_is_done}",
            flush=True,
        )


def gaps(options: argparse.Namespace, peers: dict[str, Peer]) -> None:
    """Series that each have gaps of their own, beside the same without gaps."""
    del peers
    for name, controls, season in (
        ("our prior", 0, False), ("our prior", 4, False), ("our prior", 1, True),
        ("R's priors", 4, False),
    ):  # fmt: skip
        y, x = series(200, controls, options.seed, season)
        holed = y.copy()
        holed[np.random.default_rng(options.seed).random(y.shape) < 0.25] = np.nan
        table = x if controls else None
        averages(holed[:8], table, name, season)
        own = averages(holed, table, name, season) / len(y)
        from eocausal.estimators import grid_groups, level_spectrum

        kept = grid_groups.FEW_SERIES
        grid_groups.FEW_SERIES = 0
        level_spectrum._spectra.cache_clear()
        alone = averages(holed[:10], table, name, season) / 10
        grid_groups.FEW_SERIES = kept
        print(
            f"{alone / own:8.1f}x one decomposition for each pattern of gaps "
            f"({name}, {controls} controls{', season 12' if season else ''}): "
            f"{1e3 * own:.2f} ms a series, {1e3 * alone:.0f} ms with it",
            flush=True,
        )


def write_cube(path: Path, side: tuple[int, int], seed: int, share: float) -> None:
    import pandas as pd
    import xarray as xr

    rng = np.random.default_rng(seed)
    shape = (TIMES, *side)
    values = rng.standard_normal(shape, dtype=np.float32) + np.float32(10.0)
    if share:
        values[rng.random(shape, dtype=np.float32) < share] = np.nan
    cube = xr.DataArray(
        values, {"time": pd.date_range("1998-01-01", periods=TIMES, freq="MS"),
                 "lat": 10 - 0.01 * np.arange(side[0]), "lon": 100 + 0.01 * np.arange(side[1])},
        ("time", "lat", "lon"), name="kd",
    )  # fmt: skip
    encoding = {"kd": {"chunksizes": (TIMES, min(10, side[0]), side[1])}}
    cube.to_netcdf(path, engine="h5netcdf", encoding=encoding)


def map_of(path: Path, workers: int, seed: int, controls: int) -> None:
    import pandas as pd
    import xarray as xr

    from eocausal.designs import Event
    from eocausal.estimators.impact_map import bsts_map

    _, x = series(1, controls, seed)
    dates = pd.date_range("1998-01-01", periods=TIMES, freq="MS")
    with xr.open_dataset(path, engine="h5netcdf") as opened:
        event = Event(f"{dates[FROM]:%Y-%m-%d}")
        table = pd.DataFrame(x, dates, list("abcd")[:controls])
        bsts_map(opened["kd"], event, table, workers=workers)


def memory(options: argparse.Namespace, peers: dict[str, Peer]) -> None:
    """Peak memory of whole processes that make maps of different sizes."""
    del peers
    found = []
    with tempfile.TemporaryDirectory() as folder:
        for side, controls in (((1, 50), 4), ((100, 100), 4), ((1000, 100), 1)):
            path = Path(folder) / "cube.nc"
            subprocess.run(
                [sys.executable, __file__, "--write", str(path), *map(str, side)], check=True
            )
            said = subprocess.run(
                [sys.executable, __file__, "--map", str(path), str(controls)], check=True,
                capture_output=True, text=True,
            ).stdout  # fmt: skip
            seconds, peak = map(float, said.split())
            found.append(peak)
            print(
                f"{peak / found[0]:8.2f}x the memory of a map of 50 pixels: "
                f"{side[0] * side[1]:,} pixels, {controls} controls, {peak:.0f} MB at most "
                f"(the cube has {side[0] * side[1] * TIMES * 4 / 1e6:.0f} MB), {seconds:.0f} s CPU",
                flush=True,
            )


def maps(options: argparse.Namespace, peers: dict[str, Peer]) -> None:
    """Pixels under clouds by number of processes, in seconds by the clock."""
    del peers
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "cube.nc"
        write_cube(path, (30, 20), options.seed, 0.25)
        first = 0.0
        for workers in (1, 2):
            begin = time.perf_counter()
            map_of(path, workers, options.seed, 4)
            took = time.perf_counter() - begin
            first = first or took
            print(
                f"{first / took:8.2f}x one process: {workers} for 600 pixels with a quarter "
                f"missing, {took:.1f} s by the clock with starting them",
                flush=True,
            )


PARTS = {
    "many": many, "one": one, "season": lambda o, p: one(o, p, season=True), "gaps": gaps,
    "memory": memory, "map": maps,
}  # fmt: skip


def main() -> None:
    if len(sys.argv) > 2 and sys.argv[1] == "--as-peer":
        be_peer(sys.argv[2])
        return
    if len(sys.argv) > 2 and sys.argv[1] == "--write":
        write_cube(Path(sys.argv[2]), (int(sys.argv[3]), int(sys.argv[4])), 0, 0.0)
        return
    if len(sys.argv) > 2 and sys.argv[1] == "--map":
        map_of(Path(sys.argv[2]), 1, 0, int(sys.argv[3]))
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
        print(time.process_time(), peak)
        return
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("parts", nargs="*", default=list(PARTS))
    parser.add_argument("--series", type=int, default=10_000)
    parser.add_argument("--pairs", type=int, default=5)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--peer-python")
    parser.add_argument("--tfp-python")
    options = parser.parse_args()
    peers = {}
    if options.peer_python:
        peers["the Rust peer"] = Peer(options.peer_python, "rust")
    if options.tfp_python:
        peers["tfp-causalimpact"] = Peer(options.tfp_python, "tfp")
    for peer in peers.values():
        peer.seconds(1, 3, options.seed)
    for part in options.parts or list(PARTS):
        print(f"-- {part}", flush=True)
        PARTS[part](options, peers)
    for peer in peers.values():
        peer.process.kill()


if __name__ == "__main__":
    main()
