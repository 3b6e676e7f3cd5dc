"""Contact sheets: places beside those whose images the encoder takes to be most alike."""

from __future__ import annotations

import textwrap
from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from eocausal.contracts import check_columns, check_cube, check_same_neighborhoods, some
from eocausal.errors import BandError
from eocausal.reports.plots import BLUE, GREY, INK, SOFT, house_style
from eocausal.reports.tables import format_number

if TYPE_CHECKING:
    import xarray as xr
    from numpy.typing import NDArray

__all__ = [
    "CaptionedFigure",
    "Stretch",
    "checked_bands",
    "contact_sheet",
    "cut_label",
    "draw_chip",
    "drawn_periods",
    "north_up",
    "picture_bands",
]

SAMPLE = 200
STRETCH = (0.02, 0.98)
MAX_PERIODS = 8
CHIP = 1.15
"""Width and height of a chip, inches."""

LABEL = 0.36
_UNITS = {"metre": "m", "degree": "degrees"}
MISSING = "#e4e7ea"
COMPOSITES = (("red", "green", "blue"), ("nir", "red", "green"), ("swir1", "nir", "red"),
              ("swir2", "nir", "green"))  # fmt: skip


@dataclass(frozen=True, slots=True, eq=False)
class CaptionedFigure:
    """A figure, its name as a file, and what it shows in plain words."""

    name: str
    figure: Figure
    caption: str


@dataclass(frozen=True, slots=True)
class Stretch:
    """Values that are drawn black and white in each band, the same for all chips of a cube.

    Attributes
    ----------
    bands
        One band (grey) or three (red, green, blue).
    low, high
        One value per band.
    """

    bands: tuple[str, ...]
    low: tuple[float, ...]
    high: tuple[float, ...]

    @classmethod
    def of(cls, cube: xr.Dataset, bands: Sequence[str], *, seed: int = 0) -> Stretch:
        """Take the 2nd and 98th percentile of each band over a seeded sample of 200 chips."""
        usable = np.argwhere(cube["valid"].transpose("neighborhood", "period").to_numpy() > 0)
        rng = np.random.default_rng(seed)
        size = min(SAMPLE, len(usable))
        chosen = usable[np.sort(rng.choice(len(usable), size=size, replace=False))]
        image = cube["image"].sel(band=list(bands))
        chips = [
            image.isel(neighborhood=int(i), period=int(j)).transpose("band", "y", "x").to_numpy()
            for i, j in chosen
        ]
        low, high = [], []
        for at in range(len(bands)):
            values = [chip[at][np.isfinite(chip[at])] for chip in chips]
            pixels = np.concatenate(values) if values else np.zeros(0)
            ends = np.quantile(pixels, STRETCH) if pixels.size else np.array([0.0, 1.0])
            low.append(float(ends[0]))
            high.append(float(ends[1]) if ends[1] > ends[0] else float(ends[0]) + 1.0)
        return cls(tuple(bands), tuple(low), tuple(high))

    def paint(self, chip: NDArray[np.floating[Any]]) -> NDArray[np.float64]:
        """Turn a chip ``(band, y, x)`` into ``(y, x, 4)`` colors, transparent where invalid."""
        low, high = (np.array(v)[:, None, None] for v in (self.low, self.high))
        seen = np.isfinite(chip).all(axis=0)
        shade = np.clip((np.where(seen, chip, low) - low) / (high - low), 0.0, 1.0)
        if len(self.bands) == 1:
            shade = np.repeat(shade, 3, axis=0)
        return np.concatenate([shade, seen[None]], axis=0).transpose(1, 2, 0).astype(float)


def picture_bands(names: Sequence[str]) -> tuple[str, ...]:
    """Choose the bands of a picture by name: natural color if there is, else false color.

    A band counts as red if its name begins with ``red``, and so on. Without a known composite the
    first three bands are taken, or the first if there are fewer than three.
    """
    lower = {str(name).lower(): str(name) for name in names}
    for composite in COMPOSITES:
        found = [
            lower.get(color)
            or next((own for low, own in lower.items() if low.startswith(color)), None)
            for color in composite
        ]
        if all(found):
            return tuple(str(name) for name in found)
    return tuple(str(name) for name in names[: 3 if len(names) >= 3 else 1])


def contact_sheet(
    cube: xr.Dataset,
    neighbors: pd.DataFrame,
    *,
    bands: Sequence[str] | None = None,
    seed: int = 0,
    name: str = "contact_sheet",
) -> CaptionedFigure:
    """Draw places and their nearest neighbors, north up; image sequences as strips of periods.

    Parameters
    ----------
    cube
        The cube that was encoded. Only the chips drawn and a sample for the stretch are read.
    neighbors
        ``query, rank, neighbor, relative, km``, as
        :func:`eocausal.checks.embedding_space.nearest_neighbors` gives them.
    bands
        One band or three; :func:`picture_bands` if None.
    seed
        Of the sample of chips behind the stretch of colors.

    Raises
    ------
    CubeError, MissingColumnError, AlignmentError, BandError
    """
    check_columns(
        neighbors, ["query", "rank", "neighbor", "relative", "km"], what="table of neighbors"
    )
    present = check_cube(cube).indexes["neighborhood"]
    wanted = pd.Index([*neighbors["query"], *neighbors["neighbor"]]).unique()
    check_same_neighborhoods(wanted, present, what="cube", of="contact sheet")
    chosen = checked_bands(cube, bands)
    stretch = Stretch.of(cube, chosen, seed=seed)
    groups: list[Group] = [(query, rows.sort_values("rank"))
              for query, rows in neighbors.groupby("query", sort=False)]  # fmt: skip
    periods = drawn_periods(cube)
    with house_style():
        draw = _grid if len(periods) == 1 else _strips
        figure = draw(cube, groups, stretch, periods)
    return CaptionedFigure(name, figure, _caption(cube, groups, stretch, periods))


def checked_bands(cube: xr.Dataset, bands: Sequence[str] | None) -> tuple[str, ...]:
    """Return the bands of the picture, chosen by name if None (``BandError``)."""
    names = [str(name) for name in cube.indexes["band"]]
    chosen = picture_bands(names) if bands is None else tuple(bands)
    missing = [name for name in chosen if name not in names]
    if missing or len(chosen) not in (1, 3):
        raise BandError(
            f"The picture cannot be made of the bands {some(chosen)}.",
            cause=f"It takes one band (grey) or three (red, green, blue) of: {some(names, 20)}.",
            next_step="Name one or three of these.",
        )
    return chosen


def drawn_periods(cube: xr.Dataset) -> list[int]:
    """Return the periods drawn: those in which anything was seen, at most eight, evenly chosen."""
    seen = np.flatnonzero((cube["valid"] > 0).any("neighborhood").to_numpy())
    if not len(seen):
        return [0]
    pick = np.unique(np.linspace(0, len(seen) - 1, min(MAX_PERIODS, len(seen))).round().astype(int))
    return [int(i) for i in seen[pick]]


Group = tuple[Hashable, pd.DataFrame]


def _grid(cube: xr.Dataset, groups: list[Group], stretch: Stretch, periods: list[int]) -> Figure:
    """Draw one row per query: its chip, then those of its neighbors."""
    columns = 1 + max((len(rows) for _, rows in groups), default=0)
    figure, cells = _cells(len(groups), columns, gap_after_first=True)
    for row, (query, rows) in enumerate(groups):
        draw_chip(cells[row][0], cube, query, periods[0], stretch, edge=BLUE)
        _label(cells[row][0], str(query), "", bold=True)
        for column, near in enumerate(rows.itertuples(), start=1):
            draw_chip(cells[row][column], cube, near.neighbor, periods[0], stretch)
            _label(cells[row][column], str(near.neighbor), _apart(near))
    return figure


def _strips(cube: xr.Dataset, groups: list[Group], stretch: Stretch, periods: list[int]) -> Figure:
    """Draw one row per place and one column per period; a query is followed by its neighbors."""
    total = sum(1 + len(rows) for _, rows in groups)
    breaks = np.cumsum([1 + len(rows) for _, rows in groups])[:-1]
    figure, cells = _cells(total, len(periods), breaks=set(breaks.tolist()), left=1.25, label=0.08)
    names = [str(cube.indexes["period"][p]) for p in periods]
    row = 0
    for query, rows in groups:
        places = [(query, "", True)]
        places += [(near.neighbor, _apart(near), False) for near in rows.itertuples()]
        for label, words, main in places:
            for cell, period in zip(cells[row], periods, strict=True):
                draw_chip(cell, cube, label, period, stretch, edge=BLUE if main else GREY)
            _row_label(cells[row][0], str(label), words, bold=main)
            row += 1
    for cell, period_name in zip(cells[0], names, strict=True):
        cell.set_title(cut_label(period_name, 14), fontsize=8.5, pad=4)
    return figure


def _cells(
    rows: int,
    columns: int,
    *,
    breaks: set[int] | None = None,
    gap_after_first: bool = False,
    left: float = 0.1,
    label: float = LABEL,
) -> tuple[Figure, list[list[Any]]]:
    """Lay out square axes by inches; returns them row by row."""
    gap, margin, wide = 0.06, 0.1, 0.22
    top = 0.3 if breaks is not None else margin
    breaks = breaks or set()
    extra = wide if gap_after_first else 0.0
    width = left + columns * (CHIP + gap) + extra + margin
    height = top + rows * (CHIP + label) + len(breaks) * wide + margin
    figure = Figure(figsize=(width, height))
    cells, y = [], height - top
    for row in range(rows):
        y -= CHIP + (wide if row in breaks else 0.0)
        line = []
        for column in range(columns):
            x = left + column * (CHIP + gap) + (extra if column else 0.0)
            axes = figure.add_axes((x / width, y / height, CHIP / width, CHIP / height))
            axes.set_axis_off()
            line.append(axes)
        cells.append(line)
        y -= label
    return figure, cells


def draw_chip(
    axes: Any,
    cube: xr.Dataset,
    label: Hashable,
    period: int,
    stretch: Stretch,
    *,
    edge: str = GREY,
) -> None:
    """Draw a chip, north up; hatched where no pixel is valid."""
    chip = cube["image"].isel(period=period).sel(neighborhood=label, band=list(stretch.bands))
    picture = stretch.paint(north_up(cube, label, chip.transpose("band", "y", "x").to_numpy()))
    height, width = picture.shape[:2]
    if not picture[..., 3].all():
        axes.add_patch(Rectangle((0, 0), width, height, facecolor=MISSING, edgecolor=GREY,
                                 hatch="////", linewidth=0, zorder=0))  # fmt: skip
    axes.imshow(
        picture, extent=(0, width, 0, height), interpolation="nearest", aspect="equal", zorder=1
    )
    axes.add_patch(Rectangle((0, 0), width, height, fill=False, edgecolor=edge, clip_on=False,
                             linewidth=2.0 if edge == BLUE else 0.6, zorder=2))  # fmt: skip


def north_up(
    cube: xr.Dataset, label: Hashable, chip: NDArray[np.floating[Any]]
) -> NDArray[np.floating[Any]]:
    """Turn a chip so that north is at the top and east on the right."""
    if "transform" not in cube.coords:
        return chip
    affine = cube["transform"].sel(neighborhood=label).to_numpy()
    chip = chip[:, ::-1] if affine[4] > 0 else chip
    return chip[:, :, ::-1] if affine[0] < 0 else chip


def cut_label(text: str, length: int) -> str:
    """Shorten a label in its middle: ids that begin alike differ at their ends."""
    text = " ".join(text.split())
    if len(text) <= length:
        return text
    tail = (length - 1) // 2
    return f"{text[: length - 1 - tail]}…{text[-tail:]}"


def _apart(near: Any) -> str:
    """Say how far a neighbor is: in the embedding, and on the ground."""
    words = f"{near.relative:.2f}" if np.isfinite(near.relative) else "–"
    return words + (f" · {format_number(near.km, 2)} km" if np.isfinite(near.km) else "")


def _label(axes: Any, name: str, words: str, *, bold: bool = False) -> None:
    axes.annotate(cut_label(name, 18), (0.5, 0), xytext=(0, -4), xycoords="axes fraction",
                  textcoords="offset points", ha="center", va="top", fontsize=8,
                  color=BLUE if bold else INK, weight="bold" if bold else "normal",
                  annotation_clip=False)  # fmt: skip
    axes.annotate(words, (0.5, 0), xytext=(0, -14), xycoords="axes fraction",
                  textcoords="offset points", ha="center", va="top", fontsize=7.5, color=SOFT,
                  annotation_clip=False)  # fmt: skip


def _row_label(axes: Any, name: str, words: str, *, bold: bool) -> None:
    axes.annotate(textwrap.fill(cut_label(name, 32), 16), (0, 0.5), xytext=(-8, 1),
                  xycoords="axes fraction", textcoords="offset points", ha="right", va="bottom",
                  fontsize=8.5, color=BLUE if bold else INK, weight="bold" if bold else "normal",
                  annotation_clip=False)  # fmt: skip
    axes.annotate(words, (0, 0.5), xytext=(-8, -2), xycoords="axes fraction",
                  textcoords="offset points", ha="right", va="top", fontsize=7.5, color=SOFT,
                  annotation_clip=False)  # fmt: skip


def _caption(cube: xr.Dataset, groups: list[Group], stretch: Stretch, periods: list[int]) -> str:
    names = ", ".join(stretch.bands)
    color = f"{names} as red, green and blue" if len(stretch.bands) == 3 else f"{names} in grey"
    where = (
        "Each row is a place, marked in blue, and the places whose features are nearest to its own."
        if len(periods) == 1
        else "Each row is a place over time; below a place marked in blue are those whose features "
        "are nearest to its own."
    )
    dropped = int((cube["valid"] > 0).any("neighborhood").sum()) - len(periods)
    more = f" {dropped} further periods are not drawn." if dropped > 0 else ""
    return (
        f"{where} The number under a name is the distance between features, 1 being that of any "
        f"two places, with the distance on the ground. Chips are {_width(cube)} wide, north "
        f"up, {color}, all with the same stretch; hatched where there is no "
        f"valid pixel.{more} Do places drawn together look alike, in what could matter?"
    )


def _width(cube: xr.Dataset) -> str:
    """Return the width of a chip with its unit, which is that of the cube's coordinate system."""
    size = format_number(float(cube.attrs["resolution"]) * cube.sizes["x"])
    if "crs" not in cube.coords:
        return f"{size} (in units of its coordinate system)"
    import pyproj

    unit = pyproj.CRS.from_user_input(str(np.ravel(cube["crs"].values)[0])).axis_info[0].unit_name
    return f"{size} {_UNITS.get(unit, unit)}"
