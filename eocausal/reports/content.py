"""What a report says, before it is drawn."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol

import pandas as pd

if TYPE_CHECKING:
    from eocausal.effect_map import EffectMap
    from eocausal.reports.impact_content import ImpactContent

__all__ = ["CheckLike", "Gallery", "Picture", "PlacedContent", "ReportContent"]


class CheckLike(Protocol):
    """What a report needs of a check's result (``eocausal.checks.base.CheckResult`` has it)."""

    @property
    def name(self) -> str:
        """Short title."""
        ...

    @property
    def verdict(self) -> str:
        """One of ``'pass'``, ``'warn'``, ``'fail'``."""
        ...

    @property
    def claim(self) -> str:
        """One sentence with the number that decided."""
        ...

    @property
    def detail(self) -> str:
        """What it means and what to do about it."""
        ...

    @property
    def table(self) -> pd.DataFrame:
        """Numbers behind the claim."""
        ...


@dataclass(frozen=True, slots=True, eq=False)
class Picture:
    """A drawn picture (PNG), and what it shows in plain words."""

    name: str
    caption: str
    png: bytes


@dataclass(frozen=True, slots=True, eq=False)
class Gallery:
    """Pictures of one subject: a title, words under it, pictures."""

    title: str
    words: str
    pictures: Sequence[Picture]


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class PlacedContent:
    """What a report of an evaluation of placed projects shows besides.

    Attributes
    ----------
    sectors
        Effects by kind of projects and adjustment, as
        :func:`eocausal.reports.evaluation_forest.forest_figure` takes them.
    stand_ins
        The same for the population that stands in where the effect asked for is refused, for all
        kinds; may be empty.
    differences
        ``funder, sector, adjustment, estimand, estimate, std_error, ci_low, ci_high, p_value,
        q_value``: what the image changed, and funders against each other.
    kinds
        ``funder, sector, n, n_treated`` and how many places were left out and why.
    gaps
        ``funder, sector, words, n_inside, share``.
    placement
        As :func:`eocausal.reports.evaluation_forest.placement_figure` takes it.
    curves
        Calibration of the headline's placement; may be empty.
    importance
        How much its model leans on each column; may be empty.
    balance
        Differences of the headline's arms before and after weighting.
    bounds, benchmarks
        Of the marginal sensitivity model, and factors of measured confounders; may be empty.
    corrections
        Effects on predicted outcomes, naive and corrected; may be empty.
    correction_words
        What they say, in sentences.
    estimand, stand_in
        The effect asked for, e.g. ``ATE``, and the one that stands in; ``""`` for none.
    headline
        Funder and sector that are looked at closely.
    adjustment
        What the headline is adjusted for.
    """

    sectors: pd.DataFrame
    stand_ins: pd.DataFrame
    differences: pd.DataFrame
    kinds: pd.DataFrame
    gaps: pd.DataFrame
    placement: pd.DataFrame
    curves: pd.DataFrame
    importance: pd.DataFrame
    balance: pd.DataFrame
    bounds: pd.DataFrame
    benchmarks: Mapping[str, float]
    corrections: pd.DataFrame
    correction_words: Sequence[str]
    estimand: str
    stand_in: str
    headline: tuple[str, str]
    adjustment: str


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class ReportContent:
    """Everything a report shows.

    Attributes
    ----------
    title
        Title of the study.
    claim
        The finding in words (:func:`eocausal.reports.text.claim_in_words`).
    summary
        Further sentences under the claim.
    estimates
        Records as in ``estimates.json``; the one with ``primary: True`` is the headline.
    effect_map
        Effects per neighborhood, or None.
    checks
        Results of checks; failed ones are shown at the very top.
    heterogeneity
        One row per split: ``target, split, estimate, std_error, ratio``; or None.
    heterogeneity_text
        What the distribution over splits says, in words; written from the table if empty.
    treatment_auc
        How well image features tell the arms apart: ``folds, auc, ci_low, ci_high, used, why``.
    truth
        For simulated worlds: ``neighborhood, estimate, ci_low, ci_high, truth``.
    galleries
        Pictures that were drawn before, by subject.
    placed
        What an evaluation of placed projects shows besides; None for trials.
    impact
        What a study of an event on a series shows besides; None for others.
    data
        Facts about the data, as pairs of label and value.
    failures
        The failure ledger (:class:`eocausal.provenance.FailureLedger`) as a table.
    provenance
        Seed, versions, hashes; nested mappings are shown as dotted names.
    outcome
        The outcome's name in words, for axis labels.
    unit
        What the outcome is measured in, e.g. ``'standard deviations'``.
    """

    title: str
    claim: str
    summary: Sequence[str] = ()
    estimates: Sequence[Mapping[str, Any]] = ()
    effect_map: EffectMap | None = None
    checks: Sequence[CheckLike] = ()
    heterogeneity: pd.DataFrame | None = None
    heterogeneity_text: str = ""
    treatment_auc: pd.DataFrame | None = None
    truth: pd.DataFrame | None = None
    galleries: Sequence[Gallery] = ()
    placed: PlacedContent | None = None
    impact: ImpactContent | None = None
    data: Sequence[tuple[str, str]] = ()
    failures: pd.DataFrame = field(default_factory=pd.DataFrame)
    provenance: Mapping[str, Any] = field(default_factory=dict)
    outcome: str = ""
    unit: str = ""
