"""Figures of an embedding: its leading components, what it tells, how far it reaches, training.

Each function takes numbers as :mod:`eocausal.checks` gives them and returns a
:class:`~eocausal.reports.contact_sheet.CaptionedFigure`; chips are drawn in
:mod:`eocausal.reports.contact_sheet`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from matplotlib.cm import ScalarMappable
from matplotlib.colors import ListedColormap, Normalize, to_rgb
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from scipy.stats import rankdata

from eocausal.contracts import check_columns
from eocausal.estimators.bases import PrincipalComponents
from eocausal.estimators.learners import feature_frame
from eocausal.reports.contact_sheet import CaptionedFigure
from eocausal.reports.plots import (
    BLUE,
    GREY,
    GRID,
    INK,
    ORANGE,
    SOFT,
    WIDTH,
    house_style,
    short_label,
)
from eocausal.reports.tables import MINUS, format_number, format_p

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    import xarray as xr
    from numpy.typing import NDArray

__all__ = ["correlogram_figure", "learning_curves", "pca_view", "predictability_figure"]

MEASURES = {
    "R2": "share of variance told in places held out (R²; line at 0: nothing)",
    "AUC": "area under the ROC curve in places held out (line at 0.5: chance)",
}
CHANCE = {"R2": 0.0, "AUC": 0.5}
FOLD_COLORS = ("#1f5a94", "#c4601d", "#3d7d4f", "#7a4f9a", "#9a7b1d", "#a03b4f")
MAP_SHARE = 0.4
"""A map is at least this share as wide as it is high, and the other way round."""

FLOOR = -0.25
"""Scores far below chance are drawn at the edge of the axis, with an arrow."""


def pca_view(
    embedding: xr.DataArray, color: pd.Series | None = None, *, name: str = "embedding_pca"
) -> CaptionedFigure:
    """Draw places by their first two principal components and, as colors, on the map.

    Parameters
    ----------
    embedding
        Periods are averaged. With coordinates ``lon`` and ``lat`` a map is drawn beside the
        scatter, red, green and blue being the ranks of the first three components.
    color
        Indexed by neighborhood: two values get two colors, numbers a scale, missing values grey.

    Raises
    ------
    EmbeddingError
    """
    frame = feature_frame(embedding)
    parts = PrincipalComponents.fit(frame.to_numpy(), 3)
    scores = np.zeros((len(frame), 3))
    found = parts(frame.to_numpy())
    scores[:, : found.shape[1]] = found
    power = scores.var(axis=0)
    share = power / max(float(power.sum()), 1e-300) * parts.explained
    mapped = {"lon", "lat"} <= set(embedding.coords)
    with house_style():
        figure = Figure(figsize=(9.4 if mapped else 5.2, 4.6), layout="constrained")
        axes = figure.subplots(1, 2 if mapped else 1, squeeze=False)[0]
        _scatter(figure, axes[0], scores, None if color is None else color.reindex(frame.index))
        axes[0].set_xlabel(f"first component ({share[0]:.0%} of the variance)")
        axes[0].set_ylabel(f"second component ({share[1]:.0%})")
        if mapped:
            at = embedding.indexes["neighborhood"].get_indexer(frame.index)
            lon, lat = (np.asarray(embedding[c].values, float)[at] for c in ("lon", "lat"))
            _color_map(axes[1], lon, lat, scores, power)
    words = (
        f"Each dot is a place; the first three principal components carry {share.sum():.0%} of "
        "the variance of the standardised features."
    )
    if mapped:
        words += (
            " On the map the ranks of places on these components are red, green and blue: places "
            "of like color look alike to the encoder. Large patches of one color mean that near "
            "places look alike."
        )
    return CaptionedFigure(name, figure, words)


def _scatter(
    figure: Figure, axes: Any, scores: NDArray[np.float64], color: pd.Series | None
) -> None:
    size = 26 if len(scores) <= 400 else (12 if len(scores) <= 3000 else 4)
    dots = {"s": size, "linewidths": 0, "alpha": 0.8, "rasterized": True}
    x, y = scores[:, 0], scores[:, 1]
    axes.grid(color=GRID, linewidth=0.7)
    axes.set_axisbelow(True)
    if color is None:
        axes.scatter(x, y, color=BLUE, **dots)
        return
    values = color.to_numpy(dtype=float, na_value=np.nan)
    seen, title = np.isfinite(values), short_label(str(color.name or ""))
    axes.scatter(x[~seen], y[~seen], color=GREY, **dots)
    kinds = np.unique(values[seen])
    if len(kinds) <= 2:
        for kind, shade, marker in zip(kinds, (BLUE, ORANGE), "o^", strict=False):
            here = values == kind
            axes.scatter(x[here], y[here], color=shade, marker=marker, **dots,
                         label=f"{title} {kind:g} ({int(here.sum()):,})")  # fmt: skip
        axes.legend(frameon=False, fontsize=8.5, loc="best")
        return
    scale = Normalize(*np.quantile(values[seen], [0.02, 0.98]))
    shades = _scale_colors()
    axes.scatter(x[seen], y[seen], c=shades(scale(values[seen])), **dots)
    bar = figure.colorbar(ScalarMappable(scale, shades), ax=axes, aspect=30, extend="both")
    bar.set_label(title)
    bar.outline.set_visible(False)


def _scale_colors() -> ListedColormap:
    from matplotlib import colormaps

    return ListedColormap(colormaps["YlGnBu"](np.linspace(0.2, 1.0, 64)))


def _color_map(
    axes: Any,
    lon: NDArray[np.float64],
    lat: NDArray[np.float64],
    scores: NDArray[np.float64],
    power: NDArray[np.float64],
) -> None:
    """Draw places on an equirectangular map, true to scale at its middle."""
    shades = np.stack(
        [rankdata(s) / len(s) if p > 0 else np.full(len(s), 0.5)
         for s, p in zip(scores.T, power, strict=True)], axis=1,
    )  # fmt: skip
    turn = np.deg2rad(lon)
    middle = np.rad2deg(np.arctan2(np.nanmean(np.sin(turn)), np.nanmean(np.cos(turn))))
    east = middle + (lon - middle + 180) % 360 - 180
    size = 30 if len(lon) <= 400 else (14 if len(lon) <= 3000 else 4)
    axes.scatter(east, lat, c=0.1 + 0.85 * shades, s=size, linewidths=0, rasterized=True)
    stretch = 1 / max(float(np.cos(np.deg2rad(np.nanmedian(lat)))), 0.05)
    axes.set_aspect(stretch)
    # places along a line still make a map
    least = MAP_SHARE * max(
        np.nanmax(east) - np.nanmin(east), stretch * np.ptp(lat[np.isfinite(lat)])
    )
    for values, unit, set_limits in ((east, 1.0, axes.set_xlim), (lat, stretch, axes.set_ylim)):
        low, high = float(np.nanmin(values)), float(np.nanmax(values))
        half = max(high - low, least / unit, 1e-6) / 2 * 1.1
        set_limits((low + high) / 2 - half, (low + high) / 2 + half)
    axes.ticklabel_format(useOffset=False)
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_major_locator(MaxNLocator(4))
    axes.set_xlabel("longitude")
    axes.set_ylabel("latitude")
    for side in ("top", "right"):
        axes.spines[side].set_visible(True)


def predictability_figure(
    table: pd.DataFrame, *, name: str = "embedding_predictability"
) -> CaptionedFigure:
    """Draw how well known covariates are told from the embedding, in places held out.

    Parameters
    ----------
    table
        ``covariate, measure, folds, honest, score, ci_low, ci_high``, as
        :func:`eocausal.checks.predictability.predictability` gives it; rows without a score are
        left out.
    """
    columns = ["covariate", "measure", "folds", "honest", "score", "ci_low", "ci_high"]
    check_columns(table, columns, what="table of predictability")
    rows = table[np.isfinite(table["score"].to_numpy(float))]
    measures = [m for m in MEASURES if (rows["measure"] == m).any()] or ["R2"]
    order = {
        m: rows[(rows["measure"] == m) & rows["honest"]]
        .sort_values("score", ascending=False)["covariate"].tolist()
        for m in measures
    }  # fmt: skip
    height = [0.75 + 0.5 * max(1, len(order[m])) for m in measures]
    kinds = rows.drop_duplicates("honest").sort_values("honest", ascending=False)
    labels = dict(zip(kinds["honest"], kinds["folds"], strict=True))
    with house_style():
        figure = Figure(figsize=(WIDTH + 0.5, sum(height) + 0.4), layout="constrained")
        grid = figure.subplots(len(measures), 1, squeeze=False, height_ratios=height)[:, 0]
        for axes, measure in zip(grid, measures, strict=True):
            _scores(axes, rows[rows["measure"] == measure], order[measure], measure, labels)
        handles, names = grid[0].get_legend_handles_labels()
        if handles:
            figure.legend(handles, names, loc="outside upper left", ncols=2, frameon=False,
                          fontsize=8.5)  # fmt: skip
    honest = labels.get(True, "the folds used")
    random = (
        " Random folds leave out places whose neighbors were fitted on, which may flatter."
        if False in labels
        else ""
    )
    words = (
        "How well each known covariate can be told from the embedding in places that the model has "
        f"not seen (folds: {honest}), with 95% intervals.{random} Confounders that were not "
        "measured may be told better or worse than these."
    )
    return CaptionedFigure(name, figure, words)


def _scores(
    axes: Any, rows: pd.DataFrame, order: list[str], measure: str, labels: dict[bool, str]
) -> None:
    chance = CHANCE[measure]
    floor = chance + FLOOR
    axes.axvline(chance, color=SOFT, linewidth=1)
    for honest, lift, shade, marker in ((True, 0.0, BLUE, "o"), (False, 0.26, GREY, "s")):
        mine = rows[rows["honest"] == honest].set_index("covariate")
        at = np.array([i for i, name in enumerate(order) if name in mine.index], float)
        if not len(at):
            continue
        mine = mine.loc[[name for name in order if name in mine.index]]
        low, high, score = (mine[c].to_numpy(float) for c in ("ci_low", "ci_high", "score"))
        axes.hlines(at + lift, np.maximum(low, floor), np.maximum(high, floor), color=shade,
                    linewidth=2.4 if honest else 1.6)  # fmt: skip
        far = score < floor
        axes.plot(score[~far], (at + lift)[~far], marker, color=shade,
                  markersize=7 if honest else 5, label=f"folds: {labels[honest]}")  # fmt: skip
        axes.plot(np.full(far.sum(), floor), (at + lift)[far], "<", color=shade, markersize=7)
        if honest:
            for y, x in zip(at, score, strict=True):
                words = f"{x:.2f}".replace("-", MINUS)
                axes.annotate(words, (max(x, floor), y), xytext=(0, 6), color=INK, ha="center",
                              textcoords="offset points", fontsize=8)  # fmt: skip
    axes.set_yticks(range(len(order)), [short_label(name) for name in order], fontsize=8.5)
    axes.set_ylim(max(len(order), 1) - 0.4, -0.7)
    axes.set_xlim(left=min(axes.get_xlim()[0], chance - 0.05), right=1.0)
    axes.tick_params(axis="y", length=0)
    axes.spines["left"].set_visible(False)
    axes.grid(axis="x", color=GRID, linewidth=0.7)
    axes.set_axisbelow(True)
    axes.set_xlabel(MEASURES[measure], fontsize=8.5)


def correlogram_figure(
    correlogram: pd.DataFrame,
    *,
    range_km: float,
    threshold: float,
    p_value: float,
    block_km: float | None = None,
    name: str = "embedding_correlogram",
) -> CaptionedFigure:
    """Draw how alike places are by their distance on the ground.

    Parameters
    ----------
    correlogram, range_km, threshold, p_value
        As :class:`eocausal.checks.autocorrelation.Autocorrelation` holds them.
    block_km
        Edge of the blocks that are held out, drawn as a line; None if there are none.
    """
    check_columns(correlogram, ["component", "km", "correlation"], what="correlogram")
    with house_style():
        figure = Figure(figsize=(WIDTH + 0.5, 3.4), layout="constrained")
        axes = figure.add_subplot()
        axes.axhline(0, color=SOFT, linewidth=1)
        axes.axhline(threshold, color=SOFT, linewidth=0.8, linestyle=":")
        others = [c for c in dict.fromkeys(correlogram["component"]) if c != "all"]
        for component, style in zip(others, _thin_lines(), strict=False):
            line = correlogram[correlogram["component"] == component]
            axes.plot(line["km"], line["correlation"], color=GREY, linewidth=1.1, linestyle=style,
                      label=component)  # fmt: skip
        main = correlogram[correlogram["component"] == "all"]
        axes.plot(main["km"], main["correlation"], "o-", color=BLUE, linewidth=2.2, markersize=5,
                  label="all, weighted")  # fmt: skip
        axes.set_xscale("log")
        for at, shade, words in ((range_km, BLUE, "range"), (block_km, ORANGE, "blocks")):
            if at is not None and np.isfinite(at) and at > 0:
                axes.axvline(at, color=shade, linewidth=1.4, linestyle="--",
                             label=f"{words}: {format_number(at, 2)} km")  # fmt: skip
        axes.xaxis.set_major_formatter(lambda value, _: f"{value:g}")
        axes.xaxis.set_minor_formatter(_minor_label(correlogram["km"].to_numpy(float)))
        axes.grid(color=GRID, linewidth=0.7)
        axes.set_axisbelow(True)
        axes.set_xlabel("distance between two places (km)")
        axes.set_ylabel("correlation of their features")
        axes.legend(frameon=False, fontsize=8, loc="upper right")
    return CaptionedFigure(name, figure, _reach_words(range_km, threshold, p_value, block_km))


def _minor_label(km: NDArray[np.float64]) -> Callable[[float, Any], str]:
    """Label steps between the powers of ten where these alone would leave the axis bare."""
    spread = km.max() / km.min() if len(km) else 1.0
    digits = "23468" if spread < 5 else ("25" if spread < 100 else "")

    def label(value: float, _: Any) -> str:
        return f"{value:g}" if f"{value:.0e}"[0] in digits else ""

    return label


def _thin_lines() -> Iterator[Any]:
    yield from ("-", "--", ":", "-.")
    while True:
        yield (0, (1, 3))


def _reach_words(range_km: float, threshold: float, p_value: float, block_km: float | None) -> str:
    if range_km == 0:
        found = "Near places are hardly more alike than distant ones"
    elif np.isinf(range_km):
        found = "Places are alike over all distances looked at"
    else:
        found = f"Places are alike up to about {format_number(range_km, 2)} km"
    relation = format_p(p_value)
    relation = relation if relation.startswith("<") else f"= {relation}"
    words = (
        f"{found}, where the correlation of their leading components falls below {threshold:g} "
        f"(test that near places are no more alike than chance: p {relation}). "
        if 0 < range_km < np.inf
        else f"{found} (test that near places are no more alike than chance: p {relation}). "
    )
    if block_km is not None and range_km > block_km:
        return words + (
            f"The blocks held out are {block_km:g} km wide, so that held-out scores are too good."
        )
    if range_km == 0:
        return words.rstrip()
    return words + "Blocks that are held out should be at least as wide."


def learning_curves(history: pd.DataFrame, *, name: str = "learning_curves") -> CaptionedFigure:
    """Draw the loss on places fitted on and on places held out, by epoch, one color per fold.

    Parameters
    ----------
    history
        ``fold, epoch, training, held_out``, and, if known, ``kept`` (True for the epoch whose
        weights were kept; else the epoch with the least held-out loss is marked).
    """
    check_columns(history, ["fold", "epoch", "training", "held_out"], what="learning history")
    folds = list(dict.fromkeys(history["fold"]))
    behind = []
    with house_style():
        figure = Figure(figsize=(WIDTH + 1.1, 3.6), layout="constrained")
        axes = figure.add_subplot()
        for i, fold in enumerate(folds):
            mine = history[history["fold"] == fold].sort_values("epoch")
            shade = FOLD_COLORS[i % len(FOLD_COLORS)]
            pale = tuple(0.55 + 0.45 * c for c in to_rgb(shade))
            axes.plot(mine["epoch"], mine["training"], color=pale, linewidth=1.3, linestyle="--")
            axes.plot(mine["epoch"], mine["held_out"], color=shade, linewidth=1.8,
                      label=f"fold {fold}" if len(folds) <= 10 else None)  # fmt: skip
            kept = _kept(mine)
            if kept is not None:
                axes.plot(kept["epoch"], kept["held_out"], "o", color="white", mec=shade, mew=1.8,
                          markersize=7)  # fmt: skip
                behind.append(int(mine["epoch"].max() - kept["epoch"]))
        _loss_range(axes, history)
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        axes.grid(color=GRID, linewidth=0.7)
        axes.set_axisbelow(True)
        axes.set_xlabel("epoch")
        axes.set_ylabel("loss")
        if len(folds) <= 10:
            figure.legend(loc="outside right upper", frameon=False, fontsize=8.5)
    words = (
        "Loss by epoch for each fold: solid on places held out, dashed on the places fitted on. "
        "The circle marks the weights that were kept."
    )
    if behind and min(behind) == 0:
        n = sum(b == 0 for b in behind)
        words += (
            f" In {n} of {len(behind)} folds the last epoch was the best: more epochs may help."
        )
    return CaptionedFigure(name, figure, words)


def _kept(mine: pd.DataFrame) -> pd.Series | None:
    if "kept" in mine and mine["kept"].astype(bool).any():
        return mine[mine["kept"].astype(bool)].iloc[-1]
    held = mine["held_out"].to_numpy(float)
    return mine.iloc[int(np.nanargmin(held))] if np.isfinite(held).any() else None


def _loss_range(axes: Any, history: pd.DataFrame) -> None:
    """Let no single burst of the loss hide the rest."""
    values = history[["training", "held_out"]].to_numpy(float)
    values = values[np.isfinite(values)]
    if len(values) < 8:
        return
    low, middle, high = np.quantile(values, [0.0, 0.5, 0.98])
    if values.max() > high + 3 * (high - low) and high > middle:
        axes.set_ylim(low - 0.05 * (high - low), high + 0.1 * (high - low))
