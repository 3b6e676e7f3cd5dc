"""Throughput of ``encode`` against the bare forward pass of the same network in the same run.

The ratio comes first: 1.00 means that reading, standardising, masking and labelling cost nothing.
The bare pass runs the fitted network on a batch that is standardised and on the device already.
For the random features it is the textbook pass as well: all filters at once, one convolution,
two rectifications, two averages.

    python benchmarks/encode.py                      # a Zarr cube, the best device
    python benchmarks/encode.py --arrays             # no cube: numpy and torch are enough
    python benchmarks/encode.py --device cuda        # with the difference from the CPU, and memory
"""

from __future__ import annotations

import argparse
import copy
import os
import platform
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch

from eocausal.encoders.core import (
    Encoder,
    FittedEncoder,
    ImageSpec,
    embed_array,
    resolve_device,
)
from eocausal.encoders.random_conv import RandomConv

RESOLUTION = 30.0


def make_images(n: int, bands: int, size: int, seed: int) -> np.ndarray:
    """Smooth noise in digital numbers; one chip in ten misses a corner, as under clouds."""
    rng = np.random.default_rng(seed)
    noise = rng.normal(size=(n, bands, size + 2, size + 2)).astype(np.float32)
    smooth = sum(noise[..., i : i + size, j : j + size] for i in range(3) for j in range(3))
    images = (1000 + 50 * smooth).astype(np.float32)
    images[::10, :, : size // 4, : size // 4] = np.nan
    return images


def make_encoders() -> dict[str, Encoder]:
    encoders: dict[str, Encoder] = {"RandomConv(512, 3)": RandomConv(features=512, patch=3)}
    try:
        from eocausal.encoders.cards import load_card
        from eocausal.encoders.image import TorchvisionCNN

        encoders["resnet18"] = TorchvisionCNN(load_card("resnet18"))
    except ImportError as error:
        print(f"resnet18 is left out: {error}")
    return encoders


def best_of(run: Callable[[], object], options: argparse.Namespace) -> float:
    """Shortest of several runs, on the wall or in the processor time of this program."""
    clock = time.process_time if options.cpu_time else time.perf_counter
    device = resolve_device(options.device)
    times = []
    for _ in range(options.repeats):
        started = clock()
        run()
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        times.append(clock() - started)
    return min(times)


def standardised(
    fitted: FittedEncoder, images: np.ndarray, device: torch.device
) -> tuple[torch.Tensor, torch.Tensor]:
    values, valid = fitted.scaling.apply(images)
    return torch.from_numpy(values).to(device), torch.from_numpy(valid).to(device)


def bare_rate(fitted: FittedEncoder, images: np.ndarray, options: argparse.Namespace) -> float:
    """Images per second of the network alone, on one batch again and again."""
    batch, device = options.batch, resolve_device(options.device)
    network = copy.deepcopy(fitted.network).to(device)
    chips, valid = standardised(fitted, images[:batch], device)
    loops = max(1, len(images) // batch)

    def run() -> None:
        with torch.inference_mode():
            for _ in range(loops):
                network(chips, valid)

    run()
    return loops * len(chips) / best_of(run, options)


def textbook_rate(fitted: FittedEncoder, images: np.ndarray, options: argparse.Namespace) -> float:
    """Images per second of random features as one would write them down."""
    batch, device = options.batch, resolve_device(options.device)
    chips, _ = standardised(fitted, images[:batch], device)
    weight = fitted.network.filters[0].to(device).contiguous()
    offset = fitted.network.offsets[0].to(device)
    loops = max(1, len(images) // batch // 4)

    def run() -> None:
        with torch.inference_mode():
            for _ in range(loops):
                excess = torch.conv2d(chips, weight, offset)
                positive = torch.relu(excess).mean(dim=(2, 3))
                torch.cat([positive, torch.relu(-excess - 2).mean(dim=(2, 3))], dim=1)

    run()
    return loops * len(chips) / best_of(run, options)


def write_cube(images: np.ndarray, path: Path) -> None:
    import xarray as xr

    n, bands = images.shape[:2]
    dims = ("neighborhood", "period")
    cube = xr.Dataset(
        {
            "image": ((*dims, "band", "y", "x"), images[:, None]),
            "valid": (dims, np.isfinite(images).all(axis=1).mean(axis=(1, 2))[:, None]),
            "status": (dims, np.zeros((n, 1), np.int8)),
        },
        coords={
            "neighborhood": np.arange(n),
            "period": [0],
            "band": np.array([f"b{b}" for b in range(bands)], dtype=object),
        },
        attrs={"resolution": RESOLUTION, "units": "DN"},
    )
    chunks = (1, 1, *images.shape[1:])
    shards = (64, 1, *images.shape[1:])
    encoding = {"image": {"chunks": chunks, "shards": shards}}
    cube.to_zarr(path, consolidated=False, encoding=encoding)


def encode_seconds(
    fitted: FittedEncoder, images: np.ndarray, options: argparse.Namespace, folder: Path
) -> tuple[float, np.ndarray]:
    """Seconds for all images through ``encode`` (or ``embed_array``), and the features."""
    found: list[np.ndarray] = []
    if options.arrays:

        def run() -> None:
            found[:] = [
                embed_array(fitted, images, batch_size=options.batch, device=options.device)
            ]
    else:
        import xarray as xr

        from eocausal.encoders.base import encode

        path = folder / "cube.zarr"
        if not path.exists():
            write_cube(images, path)

        def run() -> None:
            with xr.open_zarr(path, consolidated=False, chunks=None) as cube:
                embedding = encode(cube, fitted, batch_size=options.batch, device=options.device)
            found[:] = [embedding.values]

    return best_of(run, options), found[0]


def report(name: str, encoder: Encoder, images: np.ndarray, options: argparse.Namespace) -> None:
    n, bands, height, width = images.shape
    device = resolve_device(options.device)
    spec = ImageSpec(tuple(f"b{b}" for b in range(bands)), "DN", RESOLUTION, height, width)
    fitted = encoder.fit(images[:256], spec, seed=options.seed)
    bare = bare_rate(fitted, images, options)
    textbook = 0.0
    if isinstance(encoder, RandomConv):
        textbook = textbook_rate(fitted, images, options)
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
    with tempfile.TemporaryDirectory() as folder:
        seconds, features = encode_seconds(fitted, images, options, Path(folder))
    through = "embed_array" if options.arrays else "encode from Zarr"
    line = f"{n / seconds / bare:5.2f}  {name}: {through} {n / seconds:.0f} images/s, "
    line += f"bare forward {bare:.0f}"
    if textbook:
        line += f"; textbook forward {textbook:.0f} ({n / seconds / textbook:.2f} of it)"
    if device.type == "cuda":
        peak = torch.cuda.max_memory_allocated(device) / 2**20
        some = images[: 4 * options.batch]
        on_cpu = embed_array(fitted, some, batch_size=options.batch, device="cpu")
        difference = np.nanmax(np.abs(features[: len(some)] - on_cpu)) / np.nanmax(np.abs(on_cpu))
        line += f"; largest difference from CPU {difference:.1e}, peak GPU memory {peak:.0f} MiB"
    print(line, flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--device", default="auto")
    parser.add_argument("--arrays", action="store_true", help="numpy and torch only, no cube")
    parser.add_argument("--n", type=int, default=1024)
    parser.add_argument("--bands", type=int, default=6)
    parser.add_argument("--size", type=int, default=64)
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--cpu-time", action="store_true", help="for a machine that is busy")
    parser.add_argument("--threads", type=int, default=0, help="torch threads; 0 leaves them")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    if options.threads:
        torch.set_num_threads(options.threads)
    device = resolve_device(options.device)
    images = make_images(options.n, options.bands, options.size, options.seed)
    where = torch.cuda.get_device_name(device) if device.type == "cuda" else platform.machine()
    print(
        f"ratio to the bare forward pass; {options.n} chips of {options.bands} bands, "
        f"{options.size} by {options.size} px, batch {options.batch}, {device} ({where}), "
        f"{torch.get_num_threads()} of {os.cpu_count()} cores, torch {torch.__version__}, "
        f"{'processor' if options.cpu_time else 'wall'} time"
    )
    for name, encoder in make_encoders().items():
        report(name, encoder, images, options)


if __name__ == "__main__":
    main()
