"""What a report says, before it is drawn."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol

import pandas as pd

if TYPE_CHECKING:
    from eocausal.effect_map import EffectMap

__all__ = ["CheckLike", "Gallery", "Picture", "ReportContent"]


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
    data: Sequence[tuple[str, str]] = ()
    failures: pd.DataFrame = field(default_factory=pd.DataFrame)
    provenance: Mapping[str, Any] = field(default_factory=dict)
    outcome: str = ""
    unit: str = ""
