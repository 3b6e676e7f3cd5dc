"""Whether the numbers of a series can be what they are called: units, and a control's own past."""

from __future__ import annotations

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from eocausal.errors import EstimationError
from eocausal.estimators.impact_calendar import time_label

__all__ = ["check_controls", "check_units", "notes_on_units"]

Float64 = NDArray[np.float64]
Bool = NDArray[np.bool_]
HUNDRED = (80.0, 125.0)
APART = 10.0  # factor between the values of two units with none between
FEW = 3
SAME = 1.0 - 1e-8
FLAT = 1e-10


def check_units(name: str, x: Float64, times: pd.Index, before: Bool, post: Bool) -> list[str]:
    """Refuse a series of which a part is a hundred times as large as the rest.

    Either the medians before and after the event are, and those of sizes too, or the values fall
    into two groups with none between. One or two such values are not refused, nor are medians of
    opposite sign or close to zero among anomalies of both signs: units do not change a sign.

    Returns
    -------
    What was noticed.

    Raises
    ------
    EstimationError
    """
    finite = np.isfinite(x)
    if _near(x[finite]):
        return []
    sides = [x[side & finite] for side in (before, post)]
    if all(len(side) for side in sides):
        first, second = map(_median, sides)
        if _hundred(first, second) and _hundred(*(_median(np.abs(side)) for side in sides)):
            raise _mixed(f"{name} has a median of {first:.4g} before and {second:.4g} after "
                         "the event.")  # fmt: skip
    known = np.flatnonzero(finite & (x != 0))
    if len(known) < 3 or x[known].min() < 0 < x[known].max():
        return []
    size = np.log(np.abs(x[known]))
    order = np.argsort(size)
    gaps = np.diff(size[order])
    at = int(np.argmax(gaps))
    low, high = order[: at + 1], order[at + 1 :]
    middle = [float(np.exp(np.median(size[part]))) for part in (low, high)]
    if gaps[at] > np.log(APART) and _hundred(middle[0], middle[1]):
        few = known[np.sort(low if len(low) <= len(high) else high)]
        if len(few) < FEW:
            shown = ", ".join(f"{time_label(times[i])}: {x[i]:.4g}" for i in few)
            return [
                f"{name} is a hundred times as large or small as at all other times in {shown}. "
                "Is it in another unit there?"
            ]
        raise _mixed(
            f"{name} is near {middle[0]:.4g} at {len(low)} times and near {middle[1]:.4g} at "
            f"{len(high)}, with nothing between; the fewer begin at {time_label(times[few[0]])}."
        )
    return []


def _near(known: Float64) -> bool:
    """Whether values of one sign are too near each other to be in two units."""
    if not len(known):
        return True
    low, high = float(known.min()), float(known.max())
    return (low > 0 and high < HUNDRED[0] * low) or (high < 0 and low > HUNDRED[0] * high)


def _median(values: Float64) -> float:
    """Return the median of numbers; NumPy's own takes ten times as long for so few."""
    ordered, half = np.sort(values), len(values) // 2
    return float(ordered[half] if len(values) % 2 else 0.5 * (ordered[half - 1] + ordered[half]))


def _hundred(first: float, second: float) -> bool:
    """Whether two values of one sign are a factor of about 100 apart."""
    ratio = second / first if first and second else 1.0
    return ratio > 0 and HUNDRED[0] <= max(ratio, 1.0 / ratio) <= HUNDRED[1]


def _mixed(fact: str) -> EstimationError:
    return EstimationError(
        fact,
        cause="A factor near 100 looks like two units, such as m-1 and 10^-2 m-1.",
        next_step="Bring all values to one unit.",
    )


def check_controls(
    controls: pd.DataFrame, y: Float64, before: Bool, scales: tuple[Float64, ...] = ()
) -> None:
    """Refuse controls that know the effect, or can say nothing.

    Parameters
    ----------
    y
        (T,) the outcome.
    scales
        The outcome on other scales, such as its logarithm.

    Raises
    ------
    EstimationError
        If a control is the outcome, has no value before the event, or does not vary there.
    """
    for name, x in zip(controls.columns, controls.to_numpy(dtype=float).T, strict=True):
        if any(_same(x, own) for own in (y, *scales)):
            raise EstimationError(
                f"Control {name} is the outcome, in the same or another unit.",
                cause="It knows the effect, so that none would be found.",
                next_step="Leave it out.",
            )
        learned = x[before & np.isfinite(x)]
        if len(learned) == 0 or learned.std() <= FLAT * max(abs(float(learned.mean())), 1e-300):
            fact = "has no value" if len(learned) == 0 else f"is {learned[0]:g} at all times"
            raise EstimationError(
                f"Control {name} {fact} before the event.",
                cause="Nothing can be learned there of how the outcome goes with it.",
                next_step="Leave it out.",
            )


def _same(x: Float64, y: Float64) -> bool:
    both = np.isfinite(x) & np.isfinite(y)
    if both.sum() < 3:
        return False
    first, second = (part[both] - part[both].mean() for part in (x, y))
    size = float(np.sqrt((first @ first) * (second @ second)))
    return size > 0 and abs(float(first @ second)) > SAME * size


def notes_on_units(
    outcome: pd.Series, controls: pd.DataFrame, before: Bool, units: dict[str, str]
) -> list[str]:
    """Return what looks odd between an outcome and controls that are named like it.

    Parameters
    ----------
    outcome, controls
        Over the same times.
    units
        Unit of each, by name, where known.
    """
    notes: list[str] = []
    own = str(outcome.name or "")
    if not own:
        return notes
    for name in map(str, controls.columns):
        if own.lower() not in name.lower() and name.lower() not in own.lower():
            continue
        middle = float(outcome[before].median())  # NaN without a value, and then nothing is odd
        other = float(controls[name][before].median())
        if _hundred(middle, other):
            notes.append(
                f"{own} is near {middle:.4g} and the control {name} near {other:.4g}: a factor of "
                "about 100, perhaps two units (m-1 and 10^-2 m-1). The estimate does not depend on "
                "the unit of a control."
            )
        elif {own, name} <= set(units) and units[own] != units[name]:
            notes.append(f"{own} is in {units[own]}, the control {name} in {units[name]}.")
    return notes
