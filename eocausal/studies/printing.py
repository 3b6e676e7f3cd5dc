"""What commands print: tables for people, JSON for programs."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import typer

if TYPE_CHECKING:
    from rich.console import Console

    from eocausal.studies.ingest import IngestResult
    from eocausal.studies.run import RunResult

__all__ = ["console", "print_ingested", "print_json", "print_records", "print_run"]

TABLE_WIDTH = 116


def console(*, error: bool = False) -> Console:
    """Return a console that wraps nothing and colours no numbers."""
    from rich.console import Console

    return Console(stderr=error, highlight=False, soft_wrap=True)


def print_json(value: Any) -> None:
    """Print strict JSON: a NaN in it is an error, not a word that no parser knows."""
    typer.echo(json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False, default=str))


def print_ingested(result: IngestResult, *, as_json: bool) -> None:
    """Print what an ingestion left."""
    if as_json:
        print_json(result.record())
        return
    if not result.ran:
        typer.echo("Nothing to do: every output is up to date.")
    typer.echo("\n".join([f"{result.folder}:", *(f"  {fact}." for fact in result.facts)]))


def print_run(result: RunResult, *, as_json: bool) -> None:
    """Print the estimates and checks of a study, and where its report is."""
    if as_json:
        print_json(list(result.records))
        return
    if not result.ran:
        typer.echo("Nothing to do: every output is up to date.\n")
    if any("sector" in r for r in result.records):
        from eocausal.studies.evaluation_printing import sector_grid

        wide = console()
        wide.width = max(wide.width, TABLE_WIDTH)
        wide.print(sector_grid(result.records), markup=False)
    else:
        print_records(result.records, as_json=False)
    typer.echo(f"\n{result.claim}\n")
    styles = {"pass": "green", "warn": "yellow", "fail": "bold red"}
    screen = console()
    for check in result.checks:
        screen.print(f"[{styles[check.verdict]}]{check.verdict.upper():<4}[/]", end=" ")
        screen.print(f"{check.name}: {check.claim}", markup=False)
    typer.echo(f"\nReport: {result.folder / 'report.html'}")


def print_records(records: Sequence[Any], *, as_json: bool, notes: Sequence[str] = ()) -> None:
    """Print estimates, the headline in bold, and below them what was noticed."""
    if as_json:
        print_json(list(records))
        return
    from rich import box
    from rich.table import Table

    from eocausal.reports.tables import vcov_words

    grid = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    treatments = len({r.get("treatment") for r in records}) > 1
    for name in (*(("treatment",) if treatments else ()), "estimand", "method", "variance"):
        grid.add_column(name, overflow="fold")
    for name in ("estimate", "std. error", "interval", "p", "n"):
        grid.add_column(name, justify="right", no_wrap=True)
    for r in records:
        low, high = _number(r["ci_low"]), _number(r["ci_high"])
        grid.add_row(
            *([str(r.get("treatment", ""))] if treatments else []),
            r["estimand"], r["method"], vcov_words(r.get("vcov", "")), _number(r["estimate"]),
            _number(r["std_error"]), f"{low} to {high}" if low else "",
            _probability(r["p_value"]), f"{r['n']:,}" if r["n"] is not None else "",
            style="bold" if r.get("primary") else None,
        )  # fmt: skip
    screen = console()
    screen.width = max(screen.width, TABLE_WIDTH)
    screen.print(grid, markup=False)
    for note in [*notes, *dict.fromkeys(r["note"] for r in records if r.get("note"))]:
        screen.print(note, markup=False)


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.4f}"


def _probability(value: float | None) -> str:
    if value is None:
        return ""
    return "<0.001" if value < 0.001 else f"{value:.3f}"
