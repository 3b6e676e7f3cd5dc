"""How a run tells what it is doing: a live display in a terminal, silence elsewhere."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from rich.console import Console
    from rich.progress import Progress

__all__ = ["Advance", "Live", "Quiet", "Reporter"]


class Advance(Protocol):
    """Told how many are done of how many, and perhaps how fast."""

    def __call__(self, done: int, total: int, note: str = "") -> None:
        """Take note."""


class Reporter(Protocol):
    """Something that is told of every stage."""

    def done(self, title: str) -> None:
        """Say that a stage was already done."""

    @contextmanager
    def stage(self, title: str) -> Iterator[Advance]:
        """Say that a stage runs; give what is told how far it is."""
        ...


def _say_nothing(done: int, total: int, note: str = "") -> None:
    pass


@dataclass(frozen=True, slots=True)
class Quiet:
    """Says nothing."""

    def done(self, title: str) -> None:
        """Say nothing."""

    @contextmanager
    def stage(self, title: str) -> Iterator[Advance]:
        """Say nothing."""
        yield _say_nothing


@dataclass(frozen=True, slots=True)
class Live:
    """A row per stage with elapsed and remaining time."""

    bars: Progress

    @classmethod
    @contextmanager
    def on(cls, console: Console) -> Iterator[Live]:
        """Show bars on a console while the block runs."""
        from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn
        from rich.progress import TimeRemainingColumn as Remaining

        columns = (TextColumn("{task.description:<22}"), BarColumn(24), TimeElapsedColumn(),
                   TextColumn("left"), Remaining(), TextColumn("{task.fields[state]}"))  # fmt: skip
        with Progress(*columns, console=console) as bars:
            yield cls(bars)

    def done(self, title: str) -> None:
        """Show a full bar."""
        task = self.bars.add_task(title, total=1, state="up to date")
        self.bars.update(task, completed=1)

    @contextmanager
    def stage(self, title: str) -> Iterator[Advance]:
        """Show a bar that fills."""
        task = self.bars.add_task(title, total=None, state="")
        said = ""

        def advance(done: int, total: int, note: str = "") -> None:
            nonlocal said
            said = note
            self.bars.update(task, completed=done, total=total, state=note)

        yield advance
        self.bars.update(task, total=1, completed=1, state=said or "done")
