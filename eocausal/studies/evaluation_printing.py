"""The table of sectors for a terminal."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rich.table import Table

__all__ = ["main_records", "sector_grid"]


def main_records(records: Sequence[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    """Return a record per kind, adjusted as the headline: the effect asked for, or what stands in.

    Kinds without any number keep the record that says why.
    """
    primary = next((r for r in records if r.get("primary")), None)
    mine = [r for r in records if "sector" in r and not r.get("prediction")]
    last = primary["adjustment"] if primary is not None else None
    rows: dict[tuple[str, str], Mapping[str, Any]] = {}
    for r in mine:
        if last is not None and r.get("adjustment") != last:
            continue
        if r.get("population") == "difference":
            continue
        key = (str(r["funder"]), str(r["sector"]))
        if key not in rows or _rank(r) < _rank(rows[key]):
            rows[key] = r
    return [rows[key] for key in sorted(rows)]


def _rank(record: Mapping[str, Any]) -> int:
    if record.get("estimate") is None:
        return 3
    return {"asked for": 0, "stands in": 1}.get(str(record.get("population")), 2)


def sector_grid(records: Sequence[Mapping[str, Any]]) -> Table:
    """Return the table of sectors, the headline in bold."""
    from rich import box
    from rich.table import Table

    grid = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for name in ("funder", "sector", "effect"):
        grid.add_column(name, overflow="fold")
    for name in ("treated", "of", "estimate", "std. error", "interval", "q"):
        grid.add_column(name, justify="right", no_wrap=True)
    for r in main_records(records):
        cells = [r["funder"], r["sector"], r["estimand"], f"{r['n_treated']:,}", f"{r['n']:,}"]
        if r.get("estimate") is None:
            cells += [str(r["status"]), "", "", ""]
        else:
            q = r.get("q_value")
            cells += [
                f"{r['estimate']:.3f}", f"{r['std_error']:.3f}",
                f"{r['ci_low']:.3f} to {r['ci_high']:.3f}", "" if q is None else f"{q:.3f}",
            ]  # fmt: skip
        grid.add_row(*cells, style="bold" if r.get("primary") else None)
    return grid
