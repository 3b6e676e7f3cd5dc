"""One rule for all sensitivity checks: compare what is needed with what was measured."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from eocausal.checks.base import Verdict

if TYPE_CHECKING:
    import pandas as pd

    from eocausal.effects import EffectEstimate

__all__ = ["judge"]


def judge(
    effect: EffectEstimate,
    point: float,
    interval: float,
    benchmarks: pd.Series,
    whole_image: pd.Series,
    *,
    measure: str,
) -> tuple[Verdict, str]:
    """Compare the strength that overturns an effect with that of measured confounders.

    Fail if one measured confounder is as strong as what brings the estimate to zero; warn if it is
    as strong as what brings the interval there, or if nothing was measured to compare with; pass
    otherwise, and where the interval includes zero by itself, so that no effect is claimed. Whole
    images, hundreds of features left out together, decide only where there is no column.

    Parameters
    ----------
    effect
        The effect.
    point, interval
        Strength at which the bounds on the estimate, and the ends of their interval, reach zero.
    benchmarks, whole_image
        Strength of each measured confounder, and whether it is a whole image.
    measure
        What strength is, in words.
    """
    if effect.ci_low <= 0 <= effect.ci_high:
        return Verdict.PASS, "There is no effect to overturn; an effect may as well be hidden."
    columns = benchmarks[~whole_image.astype(bool)].dropna()
    known = columns if len(columns) else benchmarks.dropna()
    if known.empty:
        return Verdict.WARN, (
            "No measured confounder could be left out to compare with; judge the number by what is "
            "known about the placement."
        )
    name, strongest = str(known.idxmax()), float(known.max())
    strength = f"{strongest:.3g}" if math.isfinite(strongest) else "without bound"
    said = f"The strongest measured confounder is {name!r} ({strength}: {measure})."
    if strongest >= point:
        return Verdict.FAIL, (
            f"{said} Something unmeasured that is as strong would leave no effect. Do not report "
            "the effect without it; look for what else decided the placement."
        )
    if strongest >= interval:
        return Verdict.WARN, (
            f"{said} Something unmeasured that is as strong would make the interval include zero."
        )
    return Verdict.PASS, f"{said} Something unmeasured would have to be stronger."
