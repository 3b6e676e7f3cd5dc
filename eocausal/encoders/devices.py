"""Which processor runs a network, and how one CPU is shared among networks."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

import torch

from eocausal.errors import DeviceError

__all__ = ["float32_arithmetic", "halved", "lanes_of", "resolve_device", "single_threaded_pool"]

_GPU_LANES = 2


def resolve_device(device: str) -> torch.device:
    """Turn ``'auto'``, ``'cpu'``, ``'cuda'``, ``'cuda:1'`` or ``'mps'`` into a device.

    Raises
    ------
    DeviceError
        If the device is not there, or the name is none of these.
    """
    if device == "auto":
        if torch.cuda.is_available():
            return torch.device("cuda", torch.cuda.current_device())
        return torch.device("mps" if torch.backends.mps.is_available() else "cpu")
    kind, _, number = device.partition(":")
    if kind not in ("cpu", "cuda", "mps") or (number and not (kind == "cuda" and number.isdigit())):
        raise DeviceError(
            f"{device!r} is not a device.",
            cause="Devices are 'auto', 'cpu', 'cuda', 'cuda:0', 'cuda:1', ... and 'mps'.",
            next_step="Use device='auto' to take the best that is there.",
        )
    if kind == "cuda" and int(number or 0) >= torch.cuda.device_count():
        raise DeviceError(
            f"Device {device!r} was asked for; this machine shows "
            f"{torch.cuda.device_count()} CUDA devices.",
            cause="There is no such GPU, no driver, or torch was installed for the CPU only.",
            next_step="Use device='auto' or 'cpu', or install torch for CUDA.",
        )
    if kind == "mps" and not torch.backends.mps.is_available():
        raise DeviceError(
            "Device 'mps' was asked for; this machine has no Metal GPU that torch can use.",
            cause="It needs an Apple GPU and a torch built for it.",
            next_step="Use device='auto' or 'cpu'.",
        )
    return torch.device(device)


def lanes_of(device: torch.device) -> int:
    """How many batches go at once: one a thread on a CPU, two on a CUDA GPU.

    On a GPU one batch is copied while the other is computed.
    """
    if device.type == "cpu":
        return torch.get_num_threads()
    return _GPU_LANES if device.type == "cuda" else 1


@contextmanager
def float32_arithmetic() -> Iterator[None]:
    """Hold CUDA convolutions and matrix products to float32, so that a GPU gives what a CPU gives.

    Switches that the user set, in torch's old or its new way, are put back.
    """
    switches = _precision_switches()
    before = [getattr(owner, name) for owner, name, _ in switches]
    for owner, name, value in switches:
        setattr(owner, name, value)
    try:
        yield
    finally:
        for (owner, name, _), value in zip(switches, before, strict=True):
            setattr(owner, name, value)


def _precision_switches() -> list[tuple[Any, str, Any]]:
    """Name the switches of cuDNN and cuBLAS, and what they are set to."""
    cudnn, matmul = torch.backends.cudnn, torch.backends.cuda.matmul
    fixed: list[tuple[Any, str, Any]] = [
        (cudnn, "benchmark", False),
        (cudnn, "deterministic", True),
    ]
    if hasattr(matmul, "fp32_precision"):
        owners = (matmul, cudnn.conv, cudnn.rnn)  # type: ignore[attr-defined]
        return [*fixed, *((owner, "fp32_precision", "ieee") for owner in owners)]
    return [*fixed, (matmul, "allow_tf32", False), (cudnn, "allow_tf32", False)]


def halved(
    size: int,
    what: str,
    device: torch.device,
    error: torch.OutOfMemoryError,
    *,
    remedy: str = "or smaller chips",
) -> int:
    """Return half of a batch for which a device had no room, and free what torch keeps there.

    Raises
    ------
    DeviceError
        If the batch was a single item, named by ``what``; ``remedy`` ends the advice.
    """
    if size == 1:
        raise DeviceError(
            f"{device} ran out of memory on a single {what}.",
            cause=str(error).split(". ")[0] + ".",
            next_step=f"Free memory on the device, use device='cpu', {remedy}.",
        ) from error
    if device.type == "cuda":
        torch.cuda.empty_cache()
    return size // 2


def single_threaded_pool(workers: int) -> ThreadPoolExecutor:
    """Start threads each of which runs torch alone; the caller's number of threads stays."""
    before = torch.get_num_threads()
    ready = threading.Barrier(workers)

    def alone() -> None:
        torch.get_num_threads()  # a thread takes over the process's number at its first call
        torch.set_num_threads(1)

    pool = ThreadPoolExecutor(workers, thread_name_prefix="encode", initializer=alone)
    for started in [pool.submit(ready.wait) for _ in range(workers)]:
        started.result()
    torch.set_num_threads(before)
    return pool
