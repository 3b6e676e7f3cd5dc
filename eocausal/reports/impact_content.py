"""What a report of an event on a series shows besides, before it is drawn."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import pandas as pd

from eocausal.reports.content import Picture

__all__ = ["BrokenSeries", "ImpactContent", "LandCover", "PixelMap"]


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class BrokenSeries:
    """The breaks of one series.

    Attributes
    ----------
    name
        Of the series.
    values
        By time.
    levels
        ``first, last, level``: one row per regime, season and controls taken out.
    breaks
        ``before, after, first, last, change, std_error, p_value``.
    words
        What was found, in sentences.
    sensors
        Whether declared changes of the record are held against it.
    """

    name: str
    values: pd.Series[float]
    levels: pd.DataFrame
    breaks: pd.DataFrame
    words: Sequence[str]
    sensors: bool = True


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class LandCover:
    """Areas by class and year.

    Attributes
    ----------
    areas
        A row per year, a column per class, km2.
    followed
        Classes that are drawn.
    words
        What changed, and when beside the break in the water.
    tables
        By caption: transitions, intensities.
    """

    areas: pd.DataFrame
    followed: Sequence[str]
    words: Sequence[str]
    tables: Sequence[tuple[str, pd.DataFrame]] = ()


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class PixelMap:
    """Effects pixel by pixel.

    Attributes
    ----------
    words
        What the map shows, in sentences.
    pictures
        Drawn.
    """

    words: Sequence[str]
    pictures: Sequence[Picture]


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class ImpactContent:
    """What a report of an event on a series shows besides.

    Attributes
    ----------
    event
        As it is named in a sentence.
    when, end, learn_until
        Its first time, the last that counts, the last learned from; the latter two may be None.
    path
        ``observed, counterfactual, effect, cumulative``, each but the first with ``_low`` and
        ``_high``, and ``after`` (1 where the event counts), by time.
    variants
        ``name, method, estimate, ci_low, ci_high, relative, p_value, note, kind``: ``own``,
        ``variant`` or ``published``.
    variants_words
        What they say together.
    paper
        How the study differs from what was published and why, in paragraphs; may be empty.
    breaks
        Of the outcome first, then of each control.
    breaks_words
        What they say together, beside the event.
    sensors
        ``date, what`` of declared changes of the record.
    sensor_tests
        Tests of a break at these dates, by series.
    in_time
        Events that did not happen: ``when, estimate, ci_low, ci_high``; may be empty.
    in_space
        Series in the treated role: ``name, estimate, ci_low, ci_high, treated``; may be empty.
    controls_left_out, years_left_out
        ``name, kind, estimate, ci_low, ci_high``: the whole, then one left out; may be empty.
    depths
        Change of the euphotic depth: ``relation, means, before, after, change, ci_low, ci_high``.
    depth_words
        What it means.
    land
        Land cover, or None.
    pixels
        Effects pixel by pixel, or None.
    truth
        Sentences on the answer beside the truth of a simulated coast; may be empty.
    methods
        How it was done, in paragraphs.
    references
        What to cite.
    """

    event: str
    when: pd.Timestamp
    end: pd.Timestamp | None
    learn_until: pd.Timestamp | None
    path: pd.DataFrame
    variants: pd.DataFrame
    variants_words: Sequence[str] = ()
    paper: Sequence[str] = ()
    breaks: Sequence[BrokenSeries] = ()
    breaks_words: Sequence[str] = ()
    sensors: pd.DataFrame = field(default_factory=pd.DataFrame)
    sensor_tests: pd.DataFrame = field(default_factory=pd.DataFrame)
    in_time: pd.DataFrame = field(default_factory=pd.DataFrame)
    in_space: pd.DataFrame = field(default_factory=pd.DataFrame)
    controls_left_out: pd.DataFrame = field(default_factory=pd.DataFrame)
    years_left_out: pd.DataFrame = field(default_factory=pd.DataFrame)
    depths: pd.DataFrame = field(default_factory=pd.DataFrame)
    depth_words: Sequence[str] = ()
    land: LandCover | None = None
    pixels: PixelMap | None = None
    truth: Sequence[str] = ()
    methods: Sequence[str] = ()
    references: Sequence[str] = ()
