"""Gather what is known of a published study and of this one."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

if TYPE_CHECKING:
    from eocausal.reports.impact_paper import PaperFacts
    from eocausal.studies.impact_space import ImpactSpace

__all__ = ["paper_facts"]

STEPPED = 0.05


def paper_facts(space: ImpactSpace, unit: str, in_time: dict[str, Any], drift: str) -> PaperFacts:
    """Return what is known, for :func:`eocausal.reports.impact_paper.paper_words`.

    Parameters
    ----------
    unit
        Of the outcome.
    in_time, drift
        What pretended events and the check of drift found.
    """
    from eocausal.reports.impact_paper import PaperFacts

    study = space.study
    assert study.published is not None
    found = space.kept("variants.json")["records"]
    usable = [r for r in found if r.get("estimate") is not None]
    likely = [r for r in usable if "std_error_of_one" in r]
    priors = {n: v.prior for n, v in study.variants.items()}
    compatible = [
        r for r in usable
        if (p := priors.get(r["variant"])) is not None and p.compatible is not None
    ]  # fmt: skip
    breaks = space.kept("breaks.json") if study.breaks is not None else []
    known = [item for item in breaks if not item["refused"]]
    return PaperFacts(
        source=study.published.source,
        printed=study.published.model_dump(exclude_none=True),
        own=space.kept("effect.json")["records"][0],
        unit=unit,
        given=next((r for r in likely if r["given"]), None),
        best=next((r for r in likely if not r["given"]), None),
        compatible=compatible[-1] if compatible else None,
        years=_years(space.outcome, study.event.when),
        in_time=in_time,
        drift=drift,
        depths=space.kept("optics.json") if study.optics is not None else [],
        sensor_steps=[
            {"series": item["name"], **s} for item in known for s in item["sensors"]
            if s["p_value"] is not None and s["p_value"] < STEPPED
        ],
        sensor_breaks=[
            {"series": item["name"], **c} for item in known for c in item["coincide"]
            if c["declared"]
        ],
        by_bic=[
            {"series": item["name"], **b} for item in known if not item["breaks"]
            for b in item["by_bic"] if b["declared"]
        ],
    )  # fmt: skip


def _years(outcome: pd.Series[float], when: str) -> list[tuple[int, float]]:
    """Return the mean of the first and last whole year before the event, if there are two."""
    times = pd.DatetimeIndex(outcome.index)
    before = outcome[np.asarray(times < pd.Timestamp(when))].dropna()
    years = pd.DatetimeIndex(before.index).year
    counts = before.groupby(years).count()
    usual = counts.max() if len(counts) else 0
    whole = [int(y) for y in counts.index[counts >= 0.9 * usual]]
    if len(whole) < 2:
        return []
    means = before.groupby(years).mean()
    return [(y, float(means[y])) for y in (whole[0], whole[-1])]
