"""Chips beside what mattered in them."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Self

import numpy as np
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Colormap, LinearSegmentedColormap, Normalize
from matplotlib.figure import Figure

from eocausal.contracts import check_cube, check_same_neighborhoods
from eocausal.errors import AlignmentError
from eocausal.reports.contact_sheet import (
    CaptionedFigure,
    Stretch,
    checked_bands,
    cut_label,
    draw_chip,
    drawn_periods,
    north_up,
)
from eocausal.reports.plots import BLUE, INK, ORANGE, house_style
from eocausal.reports.tables import format_number

if TYPE_CHECKING:
    import pandas as pd
    import xarray as xr
    from numpy.typing import NDArray

__all__ = ["salience_figure"]

DEFAULT_CHIPS = 6
"""Places drawn where none are named, and in a row."""

CELL = 1.5
"""Width and height of a chip, inches."""

LIMIT = 0.995
"""Share of pixels within the ends of the scale of colors."""


@dataclass(frozen=True, slots=True)
class _Scale:
    """Colors of salience, one scale for all chips: blue below 0, orange above.

    Attributes
    ----------
    limit
        Where the scale ends.
    signed
        Whether it begins at minus the limit, and not at 0.
    """

    limit: float
    signed: bool

    @classmethod
    def of(cls, values: NDArray[np.float64]) -> Self:
        """Fit the scale to finite values."""
        size = np.abs(values)
        limit = float(np.quantile(size, LIMIT)) if size.size else 0.0
        return cls(limit or float(size.max(initial=0.0)) or 1.0, bool((values < 0).any()))

    @property
    def norm(self) -> Normalize:
        """From values to shares of the scale."""
        return Normalize(-self.limit if self.signed else 0.0, self.limit)

    @property
    def colors(self) -> Colormap:
        """From shares of the scale to colors; white at 0."""
        stops = [BLUE, "#ffffff", ORANGE] if self.signed else ["#ffffff", ORANGE]
        return LinearSegmentedColormap.from_list("salience", stops)

    def paint(self, values: NDArray[np.floating[Any]]) -> NDArray[np.float64]:
        """Turn a map ``(y, x)`` into ``(y, x, 4)`` colors, see-through near 0 and where NaN."""
        picture = np.asarray(self.colors(self.norm(np.nan_to_num(values))), dtype=float)
        strength = np.abs(np.nan_to_num(values)) / self.limit
        picture[..., 3] = np.clip(strength, 0.0, 1.0) ** 0.5
        return picture


def salience_figure(
    cube: xr.Dataset,
    salience: xr.DataArray,
    *,
    bands: Sequence[str] | None = None,
    neighborhoods: Sequence[Hashable] | None = None,
    name: str = "salience",
) -> CaptionedFigure:
    """Draw chips and, below each, its salience over the same chip in grey, north up.

    Parameters
    ----------
    cube
        The cube the salience was computed from. Only the chips drawn and a sample for the stretch
        are read.
    salience
        As :func:`eocausal.encoders.salience.salience` gives it.
    bands
        One band or three; natural or false color by name if None.
    neighborhoods
        Those drawn; the first six of ``salience`` if None. Of a sequence, each takes its own
        pair of rows with a column for each of at most eight periods.
    name
        Of the figure as a file.

    Raises
    ------
    CubeError, AlignmentError, BandError
    """
    own = salience.indexes["neighborhood"]
    drawn = own[:DEFAULT_CHIPS] if neighborhoods is None else type(own)(list(neighborhoods))
    check_same_neighborhoods(drawn, own, what="salience", of="figure")
    present = check_cube(cube).indexes["neighborhood"]
    check_same_neighborhoods(drawn, present, what="cube", of="figure")
    stretch = Stretch.of(cube, checked_bands(cube, bands))
    maps = salience.sel(neighborhood=drawn)
    if "period" not in maps.dims:
        maps = maps.expand_dims("period", 1)
    periods = _shared_periods(cube, maps)
    values = maps.to_numpy()[np.isfinite(maps.to_numpy())]
    scale = _Scale.of(values.astype(np.float64))
    with house_style():
        if len(periods) == 1:
            one = [(label, periods[0]) for label in drawn]
            cells = [one[i : i + DEFAULT_CHIPS] for i in range(0, len(one), DEFAULT_CHIPS)]
        else:
            cells = [[(label, p) for p in periods] for label in drawn]
        figure = _draw(cube, maps, cells, stretch, scale)
    return CaptionedFigure(name, figure, _caption(maps, drawn, stretch, scale))


def _shared_periods(cube: xr.Dataset, maps: xr.DataArray) -> list[int]:
    count = cube.sizes["period"]
    if maps.sizes["period"] != count:
        raise AlignmentError(
            f"The salience has {maps.sizes['period']} periods, the cube {count}.",
            cause="Each map is drawn over its own chip.",
            next_step="Give the cube from which the salience was computed.",
        )
    return drawn_periods(cube)


def _draw(
    cube: xr.Dataset,
    maps: xr.DataArray,
    cells: list[list[tuple[Hashable, int]]],
    stretch: Stretch,
    scale: _Scale,
) -> Figure:
    gap, top, side, bar = 0.06, 0.34, 0.12, 0.75
    columns = max(len(row) for row in cells)
    block = 2 * CELL + gap
    width = 2 * side + columns * (CELL + gap)
    height = len(cells) * (block + top) + bar
    figure = Figure(figsize=(width, height))
    for i, row in enumerate(cells):
        for j, (label, period) in enumerate(row):
            left = (side + j * (CELL + gap)) / width
            for k in (0, 1):
                bottom = height - (i + 1) * top - i * block - (k + 1) * CELL - k * gap
                axes = figure.add_axes((left, bottom / height, CELL / width, CELL / height))
                axes.set_axis_off()
                if k == 0:
                    draw_chip(axes, cube, label, period, stretch)
                    axes.set_title(_title(cube, label, period), fontsize=8, pad=3, color=INK)
                else:
                    _overlay(axes, cube, maps, label, period, stretch, scale)
    _color_bar(figure, scale, str(maps.attrs.get("units", "")), width, height)
    return figure


def _title(cube: xr.Dataset, label: Hashable, period: int) -> str:
    if cube.sizes["period"] == 1:
        return cut_label(str(label), 24)
    return f"{cut_label(str(label), 12)} · {cut_label(str(cube.indexes['period'][period]), 9)}"


def _overlay(
    axes: Any,
    cube: xr.Dataset,
    maps: xr.DataArray,
    label: Hashable,
    period: int,
    stretch: Stretch,
    scale: _Scale,
) -> None:
    chip = cube["image"].isel(period=period).sel(neighborhood=label, band=list(stretch.bands))
    picture = stretch.paint(north_up(cube, label, chip.transpose("band", "y", "x").to_numpy()))
    grey = picture.copy()
    # a pale grey leaves room for the colors
    grey[..., :3] = 0.35 + 0.6 * picture[..., :3].mean(axis=-1, keepdims=True)
    one = maps.isel(period=period).sel(neighborhood=label).transpose("y", "x").to_numpy()
    height, width = one.shape
    extent = (0, width, 0, height)
    axes.imshow(grey, extent=extent, interpolation="nearest")
    over = scale.paint(north_up(cube, label, one[None])[0])
    axes.imshow(over, extent=extent, interpolation="nearest")


def _color_bar(figure: Figure, scale: _Scale, units: str, width: float, height: float) -> None:
    length = min(3.0, 0.7 * width)
    axes = figure.add_axes(
        ((width - length) / 2 / width, 0.42 / height, length / width, 0.1 / height)
    )
    figure.colorbar(ScalarMappable(scale.norm, scale.colors), cax=axes, orientation="horizontal")
    axes.tick_params(labelsize=7.5, length=2)
    axes.locator_params(nbins=5)
    axes.set_title(f"salience ({units})" if units else "salience", fontsize=8, pad=3, color=INK)


def _caption(maps: xr.DataArray, drawn: pd.Index, stretch: Stretch, scale: _Scale) -> str:
    names = ", ".join(stretch.bands)
    color = f"{names} as red, green and blue" if len(stretch.bands) == 3 else f"{names} in grey"
    signs = (
        "Orange pixels raise the number, blue ones lower it; "
        if scale.signed
        else "The stronger the color, the more the number answers to the pixel; "
    )
    return (
        f"Chips of {len(drawn)} places ({color}), and below each how much its pixels matter to: "
        f"{maps.attrs.get('target', 'the target')}, by {maps.attrs.get('method', 'its method')}. "
        f"{signs}the scale is the same for all and ends at "
        f"{format_number(scale.limit)}. This shows what the number was computed from, "
        "not what causes treatment or effect; whatever stands out in an image can stand out here, "
        "too, whether or not anything was learnt."
    )
