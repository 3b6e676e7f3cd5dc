"""Throughput of ``encode`` against the bare forward pass of the same network in the same run.

The ratio comes first: 1.00 means that reading the cube from Zarr, standardising, masking, labelling
and writing the embedding cost nothing. The bare pass is torchvision's own network as one would run
it (``eval``, ``inference_mode``, float32, the same batch and threads), on a batch that is
standardised and on the device already, as many times as the cube has batches, in the faster of the
two memory layouts. Rounds alternate, so that a busy machine is busy for both; the ratio is the
median over rounds.

    python benchmarks/encode.py                        # 64 px, the best device
    python benchmarks/encode.py --cpu-time --threads 1 # a machine that others use
    python benchmarks/encode.py --device cuda --size 224 --only resnet50 resnet50-sequence
    python benchmarks/encode.py --arrays               # no cube: numpy and torch are enough
"""

from __future__ import annotations

import argparse
import copy
import os
import platform
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from eocausal.encoders.core import Encoder, FittedEncoder, ImageSpec
from eocausal.encoders.devices import resolve_device
from eocausal.encoders.prepared import prepared
from eocausal.encoders.random_conv import RandomConv
from eocausal.encoders.runner import embed_array

FILL = -32768
PERIODS = 12
LAYOUTS = (torch.contiguous_format, torch.channels_last)


@dataclass(frozen=True)
class Case:
    """An encoder, the network of its frames alone, and how many periods it reads."""

    encoder: Any
    architecture: str
    periods: int = 1


def make_cases() -> dict[str, Case]:
    """Say what is measured; without torchvision the random features alone."""
    cases = {"RandomConv": Case(RandomConv(features=512, patch=3), "")}
    try:
        from eocausal.encoders.cards import load_card
        from eocausal.encoders.image import TorchvisionCNN
    except ImportError as error:
        print(f"torchvision's networks are left out: {error}")
        return cases
    from eocausal.encoders.sequence import FrameSequence
    from eocausal.encoders.temporal import MeanTrend

    for name, features in (("resnet18", 512), ("resnet50", 2048)):
        card = load_card("resnet18").model_copy(
            update={"name": name, "architecture": name, "features": features, "golden": None}
        )
        frame: Encoder = TorchvisionCNN(card)
        cases[name] = Case(frame, name)
        cases[f"{name}-sequence"] = Case(FrameSequence(frame, MeanTrend()), name, PERIODS)
    return cases


def make_chips(n: int, periods: int, bands: int, size: int, seed: int) -> np.ndarray:
    """Smooth noise in digital numbers; one place in ten misses a corner, as under clouds."""
    rng = np.random.default_rng(seed)
    stored = np.empty((n, periods, bands, size, size), np.int16)
    for place in stored:
        noise = rng.standard_normal((periods, bands, size + 2, size + 2), np.float32)
        smooth = sum(noise[..., i : i + size, j : j + size] for i in range(3) for j in range(3))
        place[...] = np.rint(1000 + 50 * smooth)
    stored[::10, ..., : size // 4, : size // 4] = FILL
    return stored


def write_cube(stored: np.ndarray, path: Path) -> None:
    """Write a store as ingestion does: int16 as in the scenes, a chunk a place, in shards."""
    import zarr

    from eocausal.ingest.packing import Packing
    from eocausal.ingest.store import Parts, shard_length

    n, periods, bands = stored.shape[:3]
    parts = Parts(path, "benchmark")
    parts.prepare(stored.shape, periods, shard_length(n, stored[0].nbytes), Packing("int16", FILL))
    zarr.open_group(parts.store, mode="r+")["image"][...] = stored
    place, both = ("neighborhood",), ("neighborhood", "period")
    valid = (stored != FILL).all(axis=2).mean(axis=(2, 3)).astype(np.float32)
    arrays = {
        "valid": (both, valid),
        "status": (both, np.zeros((n, periods), np.int8)),
        "date": (both, np.tile(17000.0 + 30 * np.arange(periods), (n, 1))),
        "neighborhood": (place, np.arange(n)),
        "period": (("period",), np.array([f"p{p}" for p in range(periods)])),
        "band": (("band",), np.array([f"b{b}" for b in range(bands)])),
        "crs": (place, np.array(["EPSG:32636"] * n)),
        "transform": ((*place, "affine"), np.zeros((n, 6))),
        "lon": (place, np.zeros(n)),
        "lat": (place, np.zeros(n)),
    }
    parts.finish(arrays, {"resolution": 30.0, "units": "DN"}, [])


def as_float(stored: np.ndarray) -> np.ndarray:
    return np.where(stored == FILL, np.float32(np.nan), stored.astype(np.float32))


def fit(case: Case, images: np.ndarray, seed: int) -> FittedEncoder:
    bands, height, width = images.shape[2:]
    spec = ImageSpec(tuple(f"b{b}" for b in range(bands)), "DN", 30.0, height, width)
    if case.periods == 1:
        return case.encoder.fit(images[:, 0], spec, seed=seed)
    return case.encoder.fit_sequence(images, years(images), spec, seed=seed)


def years(images: np.ndarray) -> np.ndarray:
    return np.tile(np.arange(images.shape[1], dtype=np.float32) / 12, (len(images), 1))


def bare_passes(
    case: Case, fitted: FittedEncoder, images: np.ndarray, options: argparse.Namespace
) -> dict[str, Callable[[], object]]:
    """Return the network alone on one batch of frames, for each memory layout."""
    device = resolve_device(options.device)
    frames = images.reshape(-1, *images.shape[2:])[: options.batch]
    values, valid = (torch.from_numpy(a).to(device) for a in fitted.scaling.apply(frames))
    if not case.architecture:
        network = copy.deepcopy(fitted.network).to(device)
        return {"our own": lambda: network(values, valid)}
    passes: dict[str, Callable[[], object]] = {}
    for layout in LAYOUTS:
        plain = torchvision_network(case.architecture, values.shape[1]).to(device)
        plain, batch = plain.to(memory_format=layout), values.contiguous(memory_format=layout)
        passes[str(layout).split(".")[-1]] = lambda plain=plain, batch=batch: plain(batch)
    return passes


def torchvision_network(name: str, bands: int) -> torch.nn.Module:
    from eocausal.encoders.torchvision_import import import_torchvision

    network = import_torchvision().models.get_model(name, weights=None)
    network.conv1 = torch.nn.Conv2d(bands, 64, 7, 2, 3, bias=False)
    network.fc = torch.nn.Identity()
    return network.eval()


class Clock:
    """Seconds of a function, on the wall or in the processor time of this program."""

    def __init__(self, options: argparse.Namespace) -> None:
        self._now = time.process_time if options.cpu_time else time.perf_counter
        self._device = resolve_device(options.device)

    def seconds(self, run: Callable[[], object]) -> float:
        """Run once."""
        started = self._now()
        run()
        if self._device.type == "cuda":
            torch.cuda.synchronize(self._device)
        return self._now() - started


def measure(name: str, case: Case, options: argparse.Namespace) -> str:
    """Alternate bare passes and encodes of the whole cube; one line of results."""
    n = max(1, options.n // case.periods)
    stored = make_chips(n, case.periods, options.bands, options.size, options.seed)
    images = as_float(stored[: max(1, 256 // case.periods)])
    fitted = fit(case, images, options.seed)
    clock, device = Clock(options), resolve_device(options.device)
    frames = min(options.batch, images.shape[0] * case.periods)
    loops = max(1, n * case.periods // frames)
    peak = peak_memory(device)
    with tempfile.TemporaryDirectory() as folder:
        encode_all = encoding(fitted, stored, options, Path(folder))
        passes = bare_passes(case, fitted, images, options)
        bare: dict[str, list[float]] = {key: [] for key in passes}
        ours = []
        with torch.inference_mode(), torch.backends.cudnn.flags(allow_tf32=False):
            for run in (*passes.values(), encode_all):
                run()
            for _ in range(options.repeats):
                for key, run in passes.items():
                    seconds = clock.seconds(lambda run=run: [run() for _ in range(loops)])
                    bare[key].append(seconds / loops / frames)
                peak()
                ours.append(clock.seconds(encode_all) / n / case.periods)
                used = peak()
    fastest = min(bare.values(), key=sum)
    ratio = float(np.median(np.divide(fastest, ours)))
    line = f"{ratio:5.2f}  {name}: {1 / min(ours):.0f} images/s"
    if case.periods > 1:
        line += f" ({1 / min(ours) / case.periods:.1f} sequences of {case.periods})"
    line += f"; bare forward {', '.join(f'{k} {1 / min(s):.0f}' for k, s in bare.items())}"
    return line + (f"; peak GPU memory {used / 2**20:.0f} MiB" if used else "")


def peak_memory(device: torch.device) -> Callable[[], int]:
    """Return a function that gives the GPU memory taken, at most, since it was last called."""
    before = 0

    def used() -> int:
        nonlocal before
        if device.type != "cuda":
            return 0
        most = torch.cuda.max_memory_allocated(device) - before
        torch.cuda.reset_peak_memory_stats(device)
        before = torch.cuda.memory_allocated(device)
        return most

    return used


def encoding(
    fitted: FittedEncoder, stored: np.ndarray, options: argparse.Namespace, folder: Path
) -> Callable[[], object]:
    """Return what is timed: from the store to the embedding on disk, or from array to array."""
    if options.arrays:
        images, quick = as_float(stored), prepared(fitted, resolve_device(options.device))
        dates = years(images) if fitted.sequence else None
        images = images if fitted.sequence else images[:, 0]
        return lambda: embed_array(
            quick, images, years=dates, batch_size=options.batch, device=options.device
        )
    from eocausal.encoders.base import encode
    from eocausal.ingest.store import open_cube

    write_cube(stored, folder / "cube.zarr")
    return lambda: encode(
        open_cube(folder / "cube.zarr"),
        fitted,
        out=folder / "embedding.zarr",
        batch_size=options.batch,
        device=options.device,
    )


def main() -> None:
    """Print what is measured, then a line for each encoder."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--device", default="auto")
    parser.add_argument("--arrays", action="store_true", help="numpy and torch only, no cube")
    parser.add_argument("--n", type=int, default=1024, help="images in all")
    parser.add_argument("--bands", type=int, default=6)
    parser.add_argument("--size", type=int, default=64)
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--repeats", type=int, default=3, help="rounds")
    parser.add_argument("--cpu-time", action="store_true", help="for a machine that is busy")
    parser.add_argument("--threads", type=int, default=0, help="torch threads; 0 leaves them")
    parser.add_argument("--only", nargs="+", default=[], help="names of encoders")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    if options.threads:
        torch.set_num_threads(options.threads)
    device = resolve_device(options.device)
    where = torch.cuda.get_device_name(device) if device.type == "cuda" else platform.machine()
    print(
        f"ratio to the bare forward pass; {options.bands} bands, {options.size} by {options.size} "
        f"px, batch {options.batch}, {device} ({where}), {torch.get_num_threads()} of "
        f"{os.cpu_count()} cores, torch {torch.__version__}, "
        f"{'processor' if options.cpu_time else 'wall'} time"
    )
    for name, case in make_cases().items():
        if not options.only or name in options.only:
            print(measure(name, case, options), flush=True)


if __name__ == "__main__":
    main()
