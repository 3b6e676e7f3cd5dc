"""What the numbers say, in careful plain words."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from scipy.stats import norm

from eocausal.effects import Status
from eocausal.reports.content import CheckLike
from eocausal.reports.tables import (
    as_float,
    format_interval,
    format_level,
    format_number,
    format_together,
    vcov_words,
)

if TYPE_CHECKING:
    from eocausal.effect_map import EffectMap

__all__ = [
    "claim_in_words",
    "effect_sentence",
    "heterogeneity_in_words",
    "map_sentence",
    "median_split_p",
    "primary_estimate",
    "treatment_auc_in_words",
    "truth_in_words",
]

HEADLINE_TARGET = "AUTOC"


def primary_estimate(estimates: Sequence[Mapping[str, Any]]) -> Mapping[str, Any] | None:
    """Choose the headline: the record marked ``primary``, else a clustered one, else the first."""
    ranked = (
        [e for e in estimates if e.get("primary")],
        [e for e in estimates if str(e.get("vcov", "")).startswith("Clustered")],
        list(estimates),
    )
    return next((group[0] for group in ranked if group), None)


def failed_checks(checks: Sequence[CheckLike]) -> list[CheckLike]:
    """Return the checks with the verdict ``fail``."""
    return [check for check in checks if str(check.verdict) == "fail"]


def claim_in_words(
    estimates: Sequence[Mapping[str, Any]],
    effect_map: EffectMap | None,
    checks: Sequence[CheckLike],
    *,
    heterogeneity: pd.DataFrame | None = None,
    outcome: str = "",
    unit: str = "",
) -> str:
    """Say what was found, how sure it is, and what the map may be used for.

    Parameters
    ----------
    estimates
        Records; see :func:`primary_estimate` for which one is the headline.
    effect_map
        Effects per neighborhood, or None.
    checks
        Results of checks; a failed one puts the claim in doubt, in its first sentence.
    heterogeneity
        ``target, split, estimate, std_error, ratio``, one row per split, or None.
    outcome, unit
        The outcome in words and what it is measured in.

    Returns
    -------
    str
        Short paragraphs, separated by empty lines: doubt (if a check failed), the average effect,
        heterogeneity, the map.
    """
    parts = []
    failed = failed_checks(checks)
    if failed:
        names = " and ".join(f"“{check.name}”" for check in failed)
        which = "check" if len(failed) == 1 else "checks"
        parts.append(
            f"In doubt: the {which} {names} failed. Until that is explained, the numbers below "
            "should not be used."
        )
    headline = primary_estimate(estimates)
    if headline is not None:
        parts.append(effect_sentence(headline, outcome=outcome, unit=unit))
    found: bool | None = None
    if heterogeneity is not None and len(heterogeneity):
        found = heterogeneity_found(heterogeneity)
        parts.append(heterogeneity_in_words(heterogeneity))
    if effect_map is not None:
        parts.append(map_sentence(effect_map, heterogeneity_found=found))
    return "\n\n".join(parts)


def effect_sentence(record: Mapping[str, Any], *, outcome: str = "", unit: str = "") -> str:
    """Say one estimate with its interval and standard error."""
    named = record.get("outcome")
    what = outcome or (f"the outcome “{named}”" if named else "the outcome")
    estimate, error = as_float(record.get("estimate")), as_float(record.get("std_error"))
    low, high = as_float(record.get("ci_low")), as_float(record.get("ci_high"))
    if not math.isfinite(estimate):
        return f"There is no estimate of the effect on {what}."
    if not (math.isfinite(low) and math.isfinite(high)):
        return (
            f"The estimated effect on {what} is {_with_unit(format_number(estimate), unit)}, "
            "but how uncertain it is could not be computed, so that nothing can be concluded."
        )
    level = format_level(as_float(record.get("level", 0.95)))
    shown, a, b = format_together([abs(estimate), low, high])
    vcov = vcov_words(str(record.get("vcov") or ""))
    basis = f"standard error {format_number(error)}" + (f", {vcov}" if vcov else "")
    n = record.get("n")
    basis += (
        f", n\N{NO-BREAK SPACE}=\N{NO-BREAK SPACE}{int(n):,}"
        if n is not None and math.isfinite(as_float(n))
        else ""
    )
    if low > 0 or high < 0:
        direction = "raised" if estimate > 0 else "lowered"
        return (
            f"On average the treatment {direction} {what} by {_with_unit(shown, unit)} "
            f"({level} interval of the effect {a} to {b}; {basis})."
        )
    signed = format_together([estimate, low, high])[0]
    return (
        f"There is no evidence that the treatment changed {what} on average: the estimate is "
        f"{_with_unit(signed, unit)} ({level} interval {a} to {b}; {basis}). The data are "
        f"compatible with any effect in that interval, not only with none."
    )


def _with_unit(number: str, unit: str) -> str:
    return f"{number} {unit}" if unit else number


def median_split_p(ratios: np.ndarray[Any, Any]) -> float:
    """Combine the two-sided tests of dependent splits into one p-value.

    Twice the median of p-values is a valid p-value however they depend on each other (Meinshausen,
    Meier & Bühlmann 2009, JASA 104, with γ = 1/2). A negative median ratio means that the ranking
    is no better than chance, and gives 1.

    Parameters
    ----------
    ratios
        (splits,) estimate over standard error in each split.

    Examples
    --------
    >>> float(round(median_split_p(np.array([2.6, 3.1, 1.2])), 4))
    0.0186
    """
    finite = np.asarray(ratios, dtype=float)
    finite = finite[np.isfinite(finite)]
    if not finite.size or np.median(finite) <= 0:
        return 1.0
    return min(1.0, 2.0 * float(np.median(2.0 * norm.sf(finite.clip(min=0.0)))))


def _headline_ratios(heterogeneity: pd.DataFrame) -> tuple[str, np.ndarray[Any, Any]]:
    targets = list(dict.fromkeys(heterogeneity["target"].astype(str)))
    target = HEADLINE_TARGET if HEADLINE_TARGET in targets else targets[0]
    rows = heterogeneity[heterogeneity["target"].astype(str) == target]
    return target, rows["ratio"].to_numpy(float)


def heterogeneity_found(heterogeneity: pd.DataFrame, *, alpha: float = 0.05) -> bool:
    """Say whether the ranking of places by predicted effect does better than chance."""
    return median_split_p(_headline_ratios(heterogeneity)[1]) < alpha


def heterogeneity_in_words(heterogeneity: pd.DataFrame) -> str:
    """Say what the distribution of RATE over splits shows.

    Parameters
    ----------
    heterogeneity
        ``target, split, estimate, std_error, ratio``, one row per target and split.
    """
    target, ratios = _headline_ratios(heterogeneity)
    finite = ratios[np.isfinite(ratios)]
    if not finite.size:
        return "Whether the effect differs between places could not be tested."
    low, middle, high = np.quantile(finite, [0.25, 0.5, 0.75])
    p = median_split_p(finite)
    numbers = (
        f"the gain from ranking places by predicted effect ({target}), divided by its standard "
        f"error, has the median {format_number(middle, 2)} over {finite.size} splits (middle half "
        f"{format_interval(float(low), float(high), 2)}; p {_p_relation(p)} for all splits "
        "together)"
    )
    if p < 0.05:
        return (
            "There is evidence that the effect differs between places in a way the imagery can "
            f"see: {numbers}."
        )
    return (
        "There is no evidence that the imagery can tell where the effect is larger: "
        f"{numbers}. That is not evidence that the effect is the same everywhere."
    )


def _p_relation(p: float) -> str:
    return "< 0.001" if p < 0.001 else f"= {p:.2g}"


def map_sentence(effect_map: EffectMap, *, heterogeneity_found: bool | None) -> str:
    """Say what a map of effects may be used for, given what is known about heterogeneity."""
    table = effect_map.table
    extrapolated = int((table["status"].astype(str) == Status.EXTRAPOLATED).sum())
    missing = int(table["estimate"].isna().sum())
    if heterogeneity_found is True:
        use = (
            "The map may be used to compare groups of places; the estimate of a single place is "
            "uncertain by as much as its interval says."
        )
    elif heterogeneity_found is False:
        use = (
            "The map shows the best guess for each place, but its differences between places "
            "cannot be told from chance and should not be used to choose places."
        )
    else:
        use = (
            "Whether the differences between places on the map are more than chance was not "
            "tested, so they should not be used to choose places."
        )
    known = len(table) - missing
    if extrapolated:
        use += (
            f" For {extrapolated:,} of the {known:,} mapped places the imagery is unlike any place "
            "of the study: those estimates are extrapolations, and hatched or crossed on the map."
        )
    if missing:
        has = "place has" if missing == 1 else "places have"
        use += f" {missing:,} {has} no estimate and {'is' if missing == 1 else 'are'} grey."
    return use


def treatment_auc_in_words(auc: pd.DataFrame) -> str:
    """Say how well the imagery tells treated from untreated places, and which number counts.

    Parameters
    ----------
    auc
        ``folds, auc, ci_low, ci_high, used, why``.
    """
    used = auc[auc["used"].astype(bool)]
    if not len(used):
        return "None of the numbers below is used."
    row = used.iloc[0]
    low, high = float(row["ci_low"]), float(row["ci_high"])
    text = (
        f"With the folds that count ({row['folds']}) the area under the ROC curve is "
        f"{float(row['auc']):.3f} ({low:.3f} to {high:.3f}); 0.5 is what chance gives. "
    )
    if low <= 0.5 <= high:
        text += "There is no evidence that the imagery tells the arms apart."
    elif low > 0.5:
        text += "The imagery tells the arms apart better than chance."
    else:
        text += "That is below chance, which points to folds that balance the arms, not to signal."
    return f"{text} {row['why']}".strip()


def truth_in_words(truth: pd.DataFrame) -> str:
    """Compare estimates with the known truth of a simulated world.

    Parameters
    ----------
    truth
        ``estimate, ci_low, ci_high, truth``, one row per neighborhood.
    """
    use = truth[np.isfinite(truth["estimate"].to_numpy(float))]
    if not len(use):
        return "No neighborhood has an estimate to compare with the truth."
    estimate, known = use["estimate"].to_numpy(float), use["truth"].to_numpy(float)
    covered = (use["ci_low"].to_numpy(float) <= known) & (known <= use["ci_high"].to_numpy(float))
    error = math.sqrt(float(np.mean((estimate - known) ** 2)))
    varies = len(use) > 2 and estimate.std() > 0 and known.std() > 0
    correlation = f"{np.corrcoef(estimate, known)[0, 1]:.2f}" if varies else "undefined"
    return (
        f"This world is simulated, so the truth is known. Over {len(use):,} neighborhoods the "
        f"correlation of estimate and truth is {correlation}, the root mean square error "
        f"{format_number(error)} (the truth has a standard deviation of "
        f"{format_number(float(known.std()))}), and {covered.mean():.0%} of the intervals cover "
        "the truth."
    )
