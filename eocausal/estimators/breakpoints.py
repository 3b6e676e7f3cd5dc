"""Breakpoints of a series: when, how large, how sure, and whether red noise would look alike."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from eocausal.errors import EstimationError
from eocausal.estimators.breaks_dates import DateInterval, bai_interval, sieve_interval
from eocausal.estimators.breaks_input import Observed, observe
from eocausal.estimators.breaks_model import BreakModel
from eocausal.estimators.breaks_number import Sequential, UDMax, bic, choose_sequentially, lwz
from eocausal.estimators.breaks_partial import fit_partitions
from eocausal.estimators.breaks_result import Break, Breaks
from eocausal.estimators.breaks_scan import candidates, independent, regimes, scan
from eocausal.estimators.breaks_sieve import (
    ArSieve,
    Autoregression,
    fit_autoregression,
)
from eocausal.estimators.breaks_sup_f import SupF, sup_f

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from eocausal.estimators.breaks_bai_perron import Partitions

    Float64 = NDArray[np.float64]

__all__ = ["breakpoints"]


def breakpoints(
    series: pd.Series | Float64,
    times: Sequence[object] | pd.Index | None = None,
    *,
    controls: pd.DataFrame | None = None,
    model: BreakModel | None = None,
    choice: Sequential | str | int | None = None,
    interval: str = "red noise",
    level: float = 0.95,
    seed: int = 0,
) -> Breaks:
    """Find the breaks of a series.

    Parameters
    ----------
    series
        (T,) values, NaN where missing: those times are left out, and the dates of the others kept.
    times
        (T,) dates or whole numbers, rising; None: the index of ``series``.
    controls
        (T, c) further regressors; a time without one of them is left out as well.
    model
        What may change; ``BreakModel()`` is a level and nothing else.
    choice
        How many breaks: ``Sequential()`` tests against red noise (the default), ``'bic'``,
        ``'lwz'``, or a number.
    interval
        Of dates: ``'red noise'`` draws it, ``'bai'`` is the theory for independent errors,
        ``'bai hac'`` the same for autocorrelated ones.
    level
        Of these intervals.
    seed
        Of all that is drawn.

    Returns
    -------
    Breaks

    Raises
    ------
    OutcomeError
        If there is no value, too few, an infinite one, or all are the same.
    EstimationError
        If segments do not fit, or columns cannot be told apart.
    DuplicateIdError, PanelError, AlignmentError
        If times are double, unsorted or not as many as values.
    """
    model = model or BreakModel()
    seen = observe(series, times, controls, model)
    n, q, s = len(seen.values), seen.changing.shape[1], seen.shared.shape[1]
    parts = fit_partitions(seen.values[None], seen.changing, seen.shared, seen.shortest, seen.most)
    criteria = {"bic": bic(parts.rss[0], n, q, s), "lwz": lwz(parts.rss[0], n, q, s)}
    number = _number(Sequential() if choice is None else choice, seen, parts, criteria, seed)
    at = tuple(int(b) for b in parts.breaks[number.count][0])
    base = independent(np.concatenate([regimes(seen.changing, at), seen.shared], axis=1))
    noise = fit_autoregression(
        seen.values - base @ (base.T @ seen.values), seen.calendar.position,
        lambda drawn: drawn - (drawn @ base) @ base.T, number.sieve, seed,
    )  # fmt: skip
    dates = [_interval(seen, at, k, interval, level, number.sieve, seed) for k in range(len(at))]
    return Breaks(
        seen.name, seen.calendar, seen.values, _lasting(seen, at), seen.changing,
        seen.shared, model, number.rule,
        tuple(_break(seen, at, k, d, noise, number.sieve, seed) for k, d in enumerate(dates)),
        parts.rss[0], criteria["bic"], criteria["lwz"],
        tuple(tuple(int(b) for b in found[0]) for found in parts.breaks),
        number.anything, number.tests, noise, seen.left_out,
    )  # fmt: skip


@dataclass(frozen=True, slots=True)
class _Number:
    count: int
    rule: str
    sieve: ArSieve
    anything: UDMax | None = None
    tests: tuple[SupF, ...] = ()


def _number(
    choice: Sequential | str | int,
    seen: Observed,
    parts: Partitions,
    criteria: dict[str, Float64],
    seed: int,
) -> _Number:
    if isinstance(choice, Sequential):
        count, anything, tests = choose_sequentially(
            seen.values, seen.changing, seen.shared, seen.shortest, parts,
            seen.calendar.position, choice, seed,
        )  # fmt: skip
        rule = f"tests against red noise at {choice.level:.0%}"
        return _Number(count, rule, choice.sieve, anything, tests)
    if isinstance(choice, str) and choice in criteria:
        rule = f"{choice.upper()}, which takes red noise for breaks"
        return _Number(int(criteria[choice].argmin()), rule, ArSieve())
    if isinstance(choice, int) and 0 <= choice < len(parts.breaks):
        return _Number(int(choice), "as many as asked for", ArSieve())
    raise EstimationError(
        f"choice={choice!r} does not say how many breaks.",
        cause=f"It is a rule, or a number from 0 to {len(parts.breaks) - 1} here.",
        next_step="Use Sequential(), 'bic', 'lwz' or a number; longer series have room for more.",
    )


def _interval(
    seen: Observed,
    at: tuple[int, ...],
    k: int,
    interval: str,
    level: float,
    sieve: ArSieve,
    seed: int,
) -> DateInterval:
    columns = seen.values, seen.changing, seen.shared, at, k
    position = seen.calendar.position
    if interval == "red noise":
        return sieve_interval(
            *columns, position=position, shortest=seen.shortest, level=level, sieve=sieve, seed=seed
        )
    if interval in ("bai", "bai hac"):
        return bai_interval(
            *columns, level=level, position=position if interval == "bai hac" else None
        )
    raise EstimationError(
        f"interval={interval!r} is unknown.",
        cause="Intervals of dates are drawn with red noise, or come from the theory of Bai.",
        next_step="Use 'red noise', 'bai' or 'bai hac'.",
    )


def _break(
    seen: Observed,
    at: tuple[int, ...],
    k: int,
    found: DateInterval,
    noise: Autoregression,
    sieve: ArSieve,
    seed: int,
) -> Break:
    """Describe break k: its dates, how large it is, and whether it could be left out."""
    here, others = at[k], [b for b in at if b != at[k]]
    edges = [0, *others, len(seen.values)]
    inside = candidates(len(seen.values), seen.shortest, others)
    inside = inside[(inside > edges[k]) & (inside < edges[k + 1])]
    look = scan(seen.changing, seen.shared, inside, others)
    test = sup_f(seen.values, look, seen.calendar.position, sieve, seed)
    change, std_error = _change(seen, at, k, noise)
    label = seen.calendar.label
    return Break(
        here, label(here - 1), label(here), label(found.first), label(found.last), found,
        change, std_error, test.p_value,
    )  # fmt: skip


def _change(
    seen: Observed, at: tuple[int, ...], k: int, noise: Autoregression
) -> tuple[float, float]:
    """Return the step of level and trend at break k and its standard error."""
    q = seen.changing.shape[1]
    design = np.concatenate([regimes(seen.changing, at), seen.shared], axis=1)
    inverse = np.linalg.pinv(design)
    step = np.where(np.arange(q) < seen.level_columns, seen.changing[at[k]], 0.0)
    weight = np.zeros(design.shape[1])
    weight[q * k : q * (k + 1)], weight[q * (k + 1) : q * (k + 2)] = -step, step
    left = seen.values - design @ (inverse @ seen.values)
    free = len(left) / (len(left) - design.shape[1])
    variance = free * np.mean(left**2) * noise.inflation**2
    toward = weight @ inverse
    return float(toward @ seen.values), float(np.sqrt(variance) * np.linalg.norm(toward))


def _lasting(seen: Observed, at: tuple[int, ...]) -> Float64:
    """Return (n,) what columns with lasting coefficients add, less its mean."""
    changing = regimes(seen.changing, at)
    design = np.concatenate([changing, seen.shared], axis=1)
    coefficients = np.linalg.lstsq(design, seen.values, rcond=None)[0]
    part = seen.shared @ coefficients[changing.shape[1] :]
    return np.asarray(part - part.mean())
