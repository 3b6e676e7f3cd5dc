"""How a study of an event was done, in words, and what to cite."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from eocausal.studies.impact_space import ImpactSpace

__all__ = ["methods_words", "references"]

BSTS = (
    "Brodersen, K. H., Gallusser, F., Koehler, J., Remy, N., Scott, S. L. (2015). Inferring causal "
    "impact using Bayesian structural time-series models. Annals of Applied Statistics 9:247."
)
SPIKE = (
    "Scott, S. L., Varian, H. R. (2014). Predicting the present with Bayesian structural time "
    "series. International Journal of Mathematical Modelling and Numerical Optimisation 5:4."
)
BREAKS = (
    "Bai, J., Perron, P. (2003). Computation and analysis of multiple structural change models. "
    "Journal of Applied Econometrics 18:1."
)
LIGHT = (
    "Morel, A., Huot, Y., Gentili, B., Werdell, P. J., Hooker, S. B., Franz, B. A. (2007). "
    "Examining the consistency of products derived from various ocean color sensors in open ocean "
    "(Case 1) waters. Remote Sensing of Environment 111:69."
)
INTENSITY = (
    "Aldwaik, S. Z., Pontius, R. G. (2012). Intensity analysis to unify measurements of size and "
    "stationarity of land changes by interval, category, and transition. Landscape and Urban "
    "Planning 106:103."
)
DISCOVERY = (
    "Benjamini, Y., Hochberg, Y. (1995). Controlling the false discovery rate. Journal of the "
    "Royal Statistical Society B 57:289."
)


def methods_words(space: ImpactSpace) -> list[str]:
    """Say how the effect, its interval, breaks and placebos were computed."""
    study, model = space.study, space.study.model
    own = space.kept("effect.json")["records"][0]
    said = [
        f"The outcome before the event is a {space.kept('effect.json')['words']}. Its posterior "
        f"(engine {own['engine']}) predicts the times after it; the effect is what was observed "
        f"less {model.draws:,} draws of that prediction, averaged draw by draw, so that the "
        "interval of the average knows how errors of neighbouring times go together. Nothing is "
        "learned from times after the event."
    ]
    if model.prior.learned is not None:
        said.append(
            "How strongly neighbouring residuals depend on each other and how far the level walks "
            "are learned from the series, not set. Priors that set both, as CausalImpact's do, are "
            "shown beside it: on series that depend on their past, their intervals hold the truth "
            "less often than they say."
        )
    if study.breaks is not None:
        said.append(
            "Breaks are those of least squares over all dates (Bai and Perron), their number and "
            f"the intervals of their dates from {study.breaks.draws:,} series of red noise like "
            "what is left. A break in red noise that comes about by itself is not counted."
        )
    said.append(
        "Pretended events use the same model and as many times after them as the real one; "
        "p = (1 + number at least as far from zero) / (1 + number)."
    )
    return said


def references(space: ImpactSpace) -> list[str]:
    """Return what to cite."""
    study = space.study
    found = [BSTS, SPIKE]
    if study.breaks is not None:
        found.append(BREAKS)
    if study.optics is not None:
        found.append(LIGHT)
    if study.land_cover is not None:
        found.append(INTENSITY)
    if study.map is not None:
        found.append(DISCOVERY)
    if study.published is not None and study.published.reference:
        found.append(study.published.reference)
    return found
