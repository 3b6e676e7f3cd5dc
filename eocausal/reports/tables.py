"""Numbers and tables as text: one way to print a number in every part of a report."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from numbers import Integral, Real
from typing import Any

import numpy as np
import pandas as pd

__all__ = [
    "TextTable",
    "estimates_table",
    "failures_table",
    "flatten",
    "format_interval",
    "format_level",
    "format_number",
    "format_p",
    "text_table",
]

MINUS = "\N{MINUS SIGN}"
MISSING = "\N{EN DASH}"
MAX_ROWS = 300

_FAILURE_WORDS = {
    "read_error": "The file could not be read",
    "outside": "Outside every scene",
    "nodata_only": "No valid pixel",
    "band_missing": "A band is missing",
    "no_crs": "No coordinate reference system",
    "no_image": "Nothing was seen of the place",
    "value_missing": "A value is missing",
}


@dataclass(frozen=True, slots=True)
class TextTable:
    """A table ready to print: cells are text, ``numeric`` says which columns to align right."""

    header: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    numeric: tuple[bool, ...]
    left_out: int = 0


def format_number(value: Any, digits: int = 3) -> str:
    """Print a number with ``digits`` significant digits, and integers in full.

    Examples
    --------
    >>> format_number(0.074231), format_number(12345.6), format_number(float("nan"))
    ('0.0742', '12,346', '–')
    """
    if isinstance(value, Integral):
        return f"{int(value):,}".replace("-", MINUS)
    number = float(value)
    if not math.isfinite(number):
        return MISSING if math.isnan(number) else ("∞" if number > 0 else f"{MINUS}∞")
    if number == 0:
        return "0"
    size = abs(number)
    if size < 1e-4 or size >= 1e7:
        return f"{number:.{digits - 1}e}".replace("-", MINUS)
    decimals = max(0, digits - 1 - math.floor(math.log10(size)))
    text = f"{number:,.{decimals}f}"
    return text.replace("-", MINUS)


def format_together(values: Sequence[float], digits: int = 3) -> list[str]:
    """Print numbers that are read together with the same number of decimals.

    The decimals are those the largest of them needs for ``digits`` significant digits.
    """
    finite = [abs(v) for v in values if math.isfinite(v) and v != 0]
    if not finite or max(finite) < 1e-4 or max(finite) >= 1e7:
        return [format_number(v, digits) for v in values]
    decimals = max(0, digits - 1 - math.floor(math.log10(max(finite))))
    out = []
    for value in values:
        if not math.isfinite(value):
            out.append(format_number(value))
            continue
        rounded = round(float(value), decimals) + 0.0
        out.append(f"{rounded:,.{decimals}f}".replace("-", MINUS))
    return out


def format_interval(low: float, high: float, digits: int = 3) -> str:
    """Print an interval as ``low to high``; an en dash if it is unknown."""
    if not (math.isfinite(low) and math.isfinite(high)):
        return MISSING
    a, b = format_together([low, high], digits)
    return f"{a} to {b}"


def format_level(level: float) -> str:
    """Print the level of an interval, none of its digits rounded away.

    Examples
    --------
    >>> format_level(0.95), format_level(0.975), format_level(0.999)
    ('95%', '97.5%', '99.9%')
    """
    return f"{100 * level:g}%"


def format_p(value: float) -> str:
    """Print a p-value, never as zero."""
    if not math.isfinite(value):
        return MISSING
    return "< 0.001" if value < 0.001 else f"{value:.3f}"


def as_float(value: Any) -> float:
    """Return a record's value as a float, NaN where it is absent or not a number."""
    return float(value) if isinstance(value, Real) else math.nan


def format_cell(value: Any) -> str:
    """Print any table cell."""
    if isinstance(value, bool | np.bool_):
        return "yes" if value else "no"
    if isinstance(value, Real):
        return format_number(value)
    if value is None or value is pd.NA or value is pd.NaT:
        return MISSING
    if isinstance(value, list | tuple | set | frozenset):
        items = sorted(value, key=str) if isinstance(value, set | frozenset) else value
        return ", ".join(format_cell(item) for item in items)
    return str(value)


def text_table(frame: pd.DataFrame, *, max_rows: int = MAX_ROWS) -> TextTable:
    """Print a table, its index first where the index has a name.

    Parameters
    ----------
    frame
        Any table.
    max_rows
        Rows kept; ``left_out`` counts the others.
    """
    if frame.index.name is not None and frame.index.name not in frame.columns:
        frame = frame.reset_index()
    shown = frame.iloc[:max_rows]
    numeric = tuple(
        pd.api.types.is_numeric_dtype(kind) and not pd.api.types.is_bool_dtype(kind)
        for kind in frame.dtypes
    )
    columns = [[format_cell(v) for v in shown.iloc[:, i].tolist()] for i in range(shown.shape[1])]
    header = tuple(str(name).replace("_", " ") for name in frame.columns)
    return TextTable(header, tuple(zip(*columns, strict=True)), numeric, len(frame) - len(shown))


def estimates_table(estimates: Sequence[Mapping[str, Any]]) -> TextTable:
    """Print the records of estimates, one row each, the headline marked in its last column."""
    rows = []
    for e in estimates:
        rows.append((
            str(e.get("estimand", "")),
            str(e.get("method", "")),
            vcov_words(str(e.get("vcov", "")) if e.get("vcov") else ""),
            format_number(as_float(e.get("estimate"))),
            format_number(as_float(e.get("std_error"))),
            format_interval(as_float(e.get("ci_low")), as_float(e.get("ci_high"))),
            format_p(as_float(e.get("p_value"))),
            format_cell(e.get("n")),
            "headline" if e.get("primary") else "",
            str(e.get("note") or ""),
        ))  # fmt: skip
    header = (
        "estimand", "method", "standard error", "estimate", "SE", "interval", "p", "n", "", "note",
    )  # fmt: skip
    keep = [i for i in range(len(header)) if i not in (8, 9) or any(row[i] for row in rows)]
    numeric = tuple(3 <= i <= 7 for i in keep)
    return TextTable(
        tuple(header[i] for i in keep), tuple(tuple(r[i] for i in keep) for r in rows), numeric
    )


def vcov_words(vcov: str) -> str:
    """Say a variance rule's repr in words.

    Examples
    --------
    >>> vcov_words("Clustered(by='village')"), vcov_words("HC2()")
    ('clustered by village', 'robust (HC2)')
    """
    import re

    if match := re.fullmatch(r"Clustered\(by=(['\"])(.*)\1\)", vcov):
        return f"clustered by {match[2]}"
    if match := re.match(r"Conley\(km=([0-9.e+-]+)", vcov):
        return f"spatial, {float(match[1]):g} km (Conley)"
    if match := re.fullmatch(r"(HC\d)\(\)", vcov):
        return f"robust ({match[1]})"
    return vcov


def failures_table(failures: pd.DataFrame) -> TextTable:
    """Count what could not be used, by stage, kind and reason, with one example each.

    Parameters
    ----------
    failures
        Columns ``stage, kind, subject, reason, detail``; may be empty.
    """
    header = ("stage", "what", "reason", "count", "for example")
    if not len(failures):
        return TextTable(header, (), (False, False, False, True, False))
    rows = []
    for key, group in failures.astype(str).groupby(["stage", "kind", "reason"], sort=True):
        stage, kind, reason = key
        first = group.sort_values(["subject", "detail"]).iloc[0]
        example = f"{first['subject']}: {first['detail']}" if first["detail"] else first["subject"]
        words = _FAILURE_WORDS.get(str(reason), str(reason).replace("_", " ").capitalize())
        rows.append((str(stage), str(kind), words, f"{len(group):,}", str(example)))
    return TextTable(header, tuple(rows), (False, False, False, True, False))


def flatten(values: Mapping[str, Any], prefix: str = "") -> list[tuple[str, str]]:
    """Turn nested mappings into pairs of dotted name and text.

    Examples
    --------
    >>> flatten({"seed": 7, "versions": {"numpy": "2.4"}})
    [('seed', '7'), ('versions.numpy', '2.4')]
    """
    pairs: list[tuple[str, str]] = []
    for name, value in values.items():
        label = f"{prefix}{name}"
        if isinstance(value, Mapping):
            pairs.extend(flatten(value, f"{label}."))
        else:
            is_number = isinstance(value, Real) and not isinstance(value, bool)
            pairs.append((label, str(value) if is_number else format_cell(value)))
    return pairs
