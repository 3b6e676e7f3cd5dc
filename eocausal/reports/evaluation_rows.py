"""The rows of a study of placed projects, made ready to be drawn and said."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd

__all__ = [
    "ADJUSTMENTS",
    "FALSE_DISCOVERIES",
    "METHODS",
    "asked_estimand",
    "cut",
    "in_order",
    "population_words",
    "status_word",
    "tidy_corrections",
    "tidy_placement",
    "tidy_sectors",
]

KEY = ["funder", "sector", "adjustment"]
NUMBERS = [
    "estimate", "std_error", "ci_low", "ci_high", "simultaneous_low", "simultaneous_high",
    "p_value", "q_value", "n", "n_treated", "ess_treated", "ess_control",
]  # fmt: skip
ADJUSTMENTS = ("table", "image", "both")
METHODS = ("measured", "naive", "linear calibration", "Tweedie", "prediction-powered")
FALSE_DISCOVERIES = 0.05

_POPULATIONS = {
    "ATE": "over all neighborhoods that were compared",
    "ATT": "in the neighborhoods that got a project",
    "ATO": "in neighborhoods that could about as well have got a project as not",
}


def tidy_sectors(sectors: pd.DataFrame, *, estimand: str | None = None) -> pd.DataFrame:
    """Return one row per funder, sector and adjustment, with every column and no surprise in it.

    Where a refused row stands beside an effect on another population, the effect is kept.

    Parameters
    ----------
    sectors
        ``funder, sector, adjustment, estimand, status, estimate, ci_low, ci_high`` and more;
        columns that are absent are filled with NaN, or nothing.
    estimand
        The effect that was asked for; default :func:`asked_estimand`.

    Returns
    -------
    DataFrame
        Besides, ``given`` (there is a number that may be shown), ``told`` (q-value below 0.05),
        ``fall_back`` (the number is the effect on another population than asked for), ``refused``
        (the effect asked for is, whether or not there is a fall-back).
    """
    table = _columns(sectors, (*KEY, "estimand", "status", "note"), NUMBERS)
    asked = estimand or asked_estimand(sectors)
    usable = table["status"].isin(["ok", "warned"])
    table["given"] = usable & np.isfinite(table["estimate"])
    table["told"] = table["given"] & (table["q_value"] < FALSE_DISCOVERIES)
    table["fall_back"] = table["given"] & (table["estimand"] != asked)
    table["refused"] = (table["status"] == "refused") | table["fall_back"]
    asked_for = (table["given"] & ~table["fall_back"]).to_numpy()
    best = np.where(asked_for, 0, np.where(table["given"], 1, 2))
    order = np.argsort(best, kind="stable")
    kept = table.iloc[order].drop_duplicates(KEY).sort_index()
    return kept.reset_index(drop=True)


def tidy_placement(placement: pd.DataFrame) -> pd.DataFrame:
    """Return one row per funder, sector and set of confounders, with every column."""
    names = ["auc", "ci_low", "ci_high", "gain_over_table", "gain_low", "gain_high"]
    table = _columns(placement, ("funder", "sector", "confounders"), names)
    return table.drop_duplicates(["funder", "sector", "confounders"]).reset_index(drop=True)


def tidy_corrections(corrections: pd.DataFrame) -> pd.DataFrame:
    """Return the rows with every column, in the usual order of methods.

    What belongs to no prediction has ``prediction`` empty.
    """
    names = ["estimate", "std_error", "ci_low", "ci_high", "n", "n_labelled"]
    table = _columns(corrections, ("prediction", "method"), names)
    order = in_order(table["method"].tolist(), METHODS)
    place = table["method"].map(order.index)
    return table.iloc[np.argsort(place.to_numpy(int), kind="stable")].reset_index(drop=True)


def _columns(frame: pd.DataFrame, texts: Sequence[str], numbers: Sequence[str]) -> pd.DataFrame:
    found: dict[str, Any] = {name: _texts(frame, name) for name in texts}
    for name in numbers:
        values = list(frame[name]) if name in frame else [np.nan] * len(frame)
        found[name] = pd.to_numeric(pd.Series(values, dtype=object), errors="coerce").astype(float)
    return pd.DataFrame(found)


def _texts(frame: pd.DataFrame, name: str) -> list[str]:
    if name not in frame:
        return [""] * len(frame)
    return ["" if pd.isna(v) else " ".join(str(v).split()) for v in frame[name]]


def asked_estimand(sectors: pd.DataFrame) -> str:
    """Guess which effect was asked for: of those that occur, that on the widest population."""
    found = [e for e in _texts(sectors, "estimand") if e]
    known = [e for e in _POPULATIONS if e in found]
    return (known or found or ["ATE"])[0]


def population_words(estimand: str) -> str:
    """Say whose effect an estimand is."""
    stem, kept, _ = estimand.partition(" of the kept")
    words = _POPULATIONS.get(stem, f"({stem})" if stem else "")
    return f"{words}, without those that trimming left out" if kept else words


def status_word(row: Any) -> str:
    """Say in two words why a row has no number."""
    if row["status"] == "few":
        return "too few treated"
    return "no overlap" if row["status"] == "refused" else "no estimate"


def in_order(names: Sequence[str], first: Sequence[str] = ()) -> list[str]:
    """Return distinct names, those of ``first`` first and the others as they appear."""
    seen = list(dict.fromkeys(names))
    return [n for n in first if n in seen] + [n for n in seen if n not in first]


def cut(text: str, width: int) -> str:
    """Return a text on one line, cut at ``width`` letters."""
    text = " ".join(text.split())
    return text if len(text) <= width else text[: width - 1].rstrip() + "…"
