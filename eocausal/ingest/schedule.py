"""Where the work is done: threads here, processes here, or a dask.distributed cluster.

A piece of work is a frozen object whose call returns a number of chips; it reads and writes files
that all workers see. Which scheduler does it, and with how many workers, changes no byte.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any, Final, Protocol

from eocausal.errors import IngestError

__all__ = ["Distributed", "Processes", "Scheduler", "Threads", "active_scheduler", "read_scheduler"]

_POLL: Final = 0.5
_PATIENCE: Final = 60.0
"""Seconds in which a cluster must have its first worker."""
Work = Callable[[], int]


class Scheduler(Protocol):
    """Something that runs pieces of work."""

    @property
    def pieces(self) -> int:
        """Into how many pieces work should be cut, at least; 1 where memory is shared."""

    @property
    def threads(self) -> int:
        """Threads that one piece may use."""

    def run(self, work: Sequence[Work], watch: Callable[[], None]) -> None:
        """Run all of it; ``watch`` is called now and then, and at the end."""


@dataclass(frozen=True, slots=True)
class Threads:
    """Threads of this process, which share decoded blocks (the default)."""

    count: int = 0

    def __post_init__(self) -> None:
        _check_count(self.count)

    @property
    def pieces(self) -> int:
        """One: the threads share its blocks."""
        return 1

    @property
    def threads(self) -> int:
        """``count``, or the cores this process may use."""
        return self.count or available_cores()

    def run(self, work: Sequence[Work], watch: Callable[[], None]) -> None:
        """Run the pieces one after another; each uses the threads itself."""
        for piece in work:
            piece()
            watch()


@dataclass(frozen=True, slots=True)
class Processes:
    """Worker processes on this machine, one thread each; one that is killed is replaced."""

    count: int = 0

    def __post_init__(self) -> None:
        _check_count(self.count)

    @property
    def pieces(self) -> int:
        """Two a worker, so that none waits long for the last."""
        return 2 * (self.count or available_cores())

    @property
    def threads(self) -> int:
        """One."""
        return 1

    def run(self, work: Sequence[Work], watch: Callable[[], None]) -> None:
        """Start workers, run the pieces, stop the workers."""
        from distributed import Client, LocalCluster

        workers = min(self.count or available_cores(), len(work))
        try:
            cluster = LocalCluster(
                n_workers=workers, threads_per_worker=1, processes=True,
                dashboard_address="127.0.0.1:0", scheduler_kwargs={"dashboard": False},
                host="127.0.0.1", memory_limit=0,
            )  # fmt: skip
        except RuntimeError as error:
            raise IngestError(
                f"{workers} worker processes could not be started.",
                cause="Each begins by importing the script that runs, and starts workers itself "
                f"if that does so outside a main guard ({error}).",
                next_step="Put the script's work under if __name__ == '__main__':, or use Threads.",
            ) from error
        with cluster, Client(cluster) as client:
            _on_client(client, work, watch)


@dataclass(frozen=True, slots=True)
class Distributed:
    """A dask.distributed cluster, by the address of its scheduler (``tcp://...``).

    Its workers must see the imagery and the folder of the output under the same paths, and have
    this package installed. SLURM, Kubernetes or a cloud start it with their own launchers
    (dask-jobqueue, dask-kubernetes, Coiled), which give the address. With an empty address the
    client that is active in this process is used.
    """

    address: str = ""

    @property
    def pieces(self) -> int:
        """Two for each thread of the cluster."""
        with self._client() as client:
            _wait_for_a_worker(client)
            counts = client.nthreads().values()
        return max(2, 2 * int(sum(counts)))

    @property
    def threads(self) -> int:
        """One: the cluster runs a piece on each of its threads."""
        return 1

    def run(self, work: Sequence[Work], watch: Callable[[], None]) -> None:
        """Send the pieces to the workers."""
        with self._client() as client:
            _on_client(client, work, watch)

    def _client(self) -> AbstractContextManager[Any]:
        from contextlib import nullcontext

        from distributed import Client, default_client

        if not self.address:
            return nullcontext(default_client())
        try:
            client: AbstractContextManager[Any] = Client(self.address, timeout=15)
        except (OSError, ValueError) as error:
            raise IngestError(
                f"No dask scheduler answers at {self.address!r}.",
                cause=f"{type(error).__name__}: {error}.",
                next_step="Start it (dask scheduler, dask worker), and give the address it prints.",
            ) from error
        return client


def _wait_for_a_worker(client: Any) -> None:
    try:
        client.wait_for_workers(1, timeout=_PATIENCE)
    except TimeoutError as error:
        raise IngestError(
            f"The dask scheduler at {client.scheduler.address} has no worker.",
            cause=f"None came within {_PATIENCE:g} seconds.",
            next_step="Start workers (dask worker ADDRESS; a minimum of one for clusters that "
            "adapt), and run it again.",
        ) from error


def _on_client(client: Any, work: Sequence[Work], watch: Callable[[], None]) -> None:
    futures = client.map(_call, list(work), pure=False, retries=3)
    try:
        while not all(f.done() for f in futures):
            time.sleep(_POLL)
            watch()
        client.gather(futures)
    finally:
        client.cancel(futures)
    watch()


def _call(piece: Work) -> int:
    return piece()


def active_scheduler() -> Scheduler:
    """Threads, or the dask.distributed client that is active in this process."""
    import sys

    if "distributed" in sys.modules:
        from distributed import default_client

        try:
            default_client()
        except ValueError:
            return Threads()
        return Distributed()
    return Threads()


def read_scheduler(text: str) -> Scheduler:
    """Read ``threads``, ``threads:4``, ``processes``, ``processes:4`` or an address.

    Raises
    ------
    IngestError
        If it is none of these.
    """
    name, _, count = text.partition(":")
    kinds: dict[str, type[Threads] | type[Processes]] = {"threads": Threads, "processes": Processes}
    if "://" in text:
        return Distributed(text)
    if name in kinds and (not count or (count.isdigit() and int(count) > 0)):
        return kinds[name](int(count or 0))
    raise IngestError(
        f"{text!r} is not a scheduler.",
        cause="It is neither threads, processes, nor the address of a dask scheduler.",
        next_step="Give e.g. threads:4, processes:4 or tcp://host:8786.",
    )


def available_cores() -> int:
    """Cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _check_count(count: int) -> None:
    if count < 0:
        raise IngestError(
            f"{count} workers were asked for.",
            cause="It takes at least one.",
            next_step="Give a number of workers, or 0 for all cores.",
        )
