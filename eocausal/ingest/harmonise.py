"""Sensors and processing versions made comparable, in the table of scenes.

Everything here is linear, so no pixel is touched: a copy of the table comes back whose ``scales``
and ``offsets`` (value = stored * scale + offset) are other ones. Each function may be applied
twice without harm, and leaves scenes of other sensors and quality bands as they are.
"""

from __future__ import annotations

import math
import re
from collections.abc import Collection, Mapping
from typing import Any, Final

import geopandas as gpd
import pandas as pd

from eocausal.contracts import check_columns, some
from eocausal.errors import BandError, SceneError
from eocausal.provenance import Failure, FailureLedger

__all__ = ["landsat_c2_scale", "landsat_to_oli", "sentinel2_offset"]

Row = dict[str, Any]
Linear = tuple[float, float]
"""Scale and offset."""

_TRUE: Final = ("true", "1", "1.0")
_S2_SHIFT: Final = -1000.0
_S2_SHIFTED_FROM: Final = pd.Timestamp("2022-01-25")
_S2_NAME: Final = re.compile(r"(?<![A-Za-z0-9])S2[A-D]_|_MSIL[12][AC]_")
_S2_BASELINE: Final = re.compile(r"_N(\d\d)\d\d(?=[_./]|$)")
_HLS: Final = re.compile(r"HLS[._][SL]30", re.IGNORECASE)
_S2_BAND: Final = re.compile(
    r"(b0?[1-9]|b1[0-2]|b8a|coastal|blue|green|red|rededge([1-4]|0\d\d)?|nir(08|09)?|cirrus"
    r"|swir(1|2|16|22))(_[126]0m)?"
)
_S2_OTHER: Final = re.compile(
    r"(scl|aot|wvp|tci|visual|preview|thumbnail|cld|snw|qa\w*|\w*mask\w*|msk_\w+|cloud\w*|snow\w*)"
    r"(_[126]0m)?"
)

_LANDSAT_ID: Final = re.compile(r"(?<![A-Za-z0-9])L([COTEM])0([4-9])_L[12]")
_LANDSAT_C2_L2: Final = re.compile(
    r"(?<![A-Za-z0-9])L[COTE]0[4-9]_L2S[PR]_\d{6}_\d{8}_(\d{8}_)?02_"
)
_LANDSAT_PLATFORM: Final = re.compile(r"landsat[-_ ]?0?([4-9])$", re.IGNORECASE)
_LANDSAT_BANDS: Final = {
    "coastal": "coastal", "blue": "blue", "green": "green", "red": "red", "nir": "nir",
    "nir08": "nir", "swir1": "swir1", "swir16": "swir1", "swir2": "swir2", "swir22": "swir2",
    "lwir": "thermal", "lwir11": "thermal", "st_b6": "thermal", "st_b10": "thermal",
}  # fmt: skip
_TM_BANDS: Final = {
    "sr_b1": "blue", "sr_b2": "green", "sr_b3": "red", "sr_b4": "nir", "sr_b5": "swir1",
    "sr_b7": "swir2",
}  # fmt: skip
_OLI_BANDS: Final = {
    "sr_b1": "coastal", "sr_b2": "blue", "sr_b3": "green", "sr_b4": "red", "sr_b5": "nir",
    "sr_b6": "swir1", "sr_b7": "swir2",
}  # fmt: skip
_LANDSAT_OTHER: Final = re.compile(
    r"qa\w*|sr_qa\w*|(sr_)?cloud_qa|(sr_)?atmos_opacity|st_[a-z]{2,}|atran|cdist|drad|emis|emsd"
    r"|trad|urad|\w*mask\w*"
)
_C2_REFLECTANCE: Final[Linear] = (0.0000275, -0.2)
_C2_THERMAL: Final[Linear] = (0.00341802, 149.0)
_C1_REFLECTANCE: Final[Linear] = (0.0001, 0.0)
_AS_STORED: Final[Linear] = (1.0, 0.0)
_TO_OLI: Final[Mapping[str, Linear]] = {
    "blue": (0.8474, 0.0003),
    "green": (0.8483, 0.0088),
    "red": (0.9047, 0.0061),
    "nir": (0.8462, 0.0412),
    "swir1": (0.8937, 0.0254),
    "swir2": (0.9071, 0.0172),
}
"""Slope and intercept by band: surface OLI = intercept + slope * surface ETM+."""


def sentinel2_offset(
    scenes: gpd.GeoDataFrame,
    *,
    bands: Collection[str] | None = None,
    ledger: FailureLedger | None = None,
) -> gpd.GeoDataFrame:
    """Bring Sentinel-2 scenes of all processing baselines onto one scale.

    From baseline 04.00 (25 January 2022; Collection 1 is 05.00 for all years) pixels hold the
    reflectance times 10,000 plus 1,000, so that dark surfaces may be negative. The offset of
    these scenes becomes -1000 DN (times their scale) and that of older ones 0, whatever the
    table said.

    The baseline is taken from the column ``baseline`` (``'05.09'``), else from the product's name
    (``_N0509_``) in ``item`` or ``href``, else from the date. The date is a guess: an image of
    2019 that was processed again in 2023 has the offset. Where the column ``offset_applied`` is
    true (``earthsearch:boa_offset_applied`` in STAC), the archive has taken the 1,000 away already.

    Parameters
    ----------
    scenes
        From ``scan`` or a STAC search. A scene is Sentinel-2 by its column ``platform`` or its
        name (``S2A_...``); HLS tiles have no such offset and are left alone.
    bands
        Names of the reflectance bands, if not the usual ones (``B04``, ``red``...).
    ledger
        Receives a row for each scene whose baseline was guessed from its date
        (``baseline_from_date``) and each whose declared offset was wrong
        (``offset_contradicted``).

    Returns
    -------
    GeoDataFrame
        A copy with other ``offsets`` and a column ``baseline_source``: ``'column'``, ``'name'``
        or ``'date'``; empty for other sensors.

    Raises
    ------
    SceneError
        If no scene is from Sentinel-2, one has neither baseline nor date, an offset is neither 0
        nor -1000 DN, or pixels are not integers.
    BandError
        If it is not known whether a band holds reflectance.

    References
    ----------
    ESA, *Sentinel-2 Products Specification Document*, ``BOA_ADD_OFFSET`` and
    ``RADIO_ADD_OFFSET``.
    """
    rows = _rows(scenes)
    ours = [_is_sentinel2(row) for row in rows]
    _check_any(ours, rows, "Sentinel-2", "platform='sentinel-2a', or names like S2A_MSIL2A_...")
    _check_given(bands, rows)
    notes: list[Failure] = []
    offsets, sources = [], []
    for row, own in zip(rows, ours, strict=True):
        if own:
            _check_stored(row)
        major, source = _baseline(row) if own else (0, "")
        if source == "date":
            detail = f"Its processing baseline is not known; by its date it is {major:02d}.00."
            notes.append(_note(row, "baseline_from_date", detail))
        shifted = major >= 4 and _text(row.get("offset_applied")).lower() not in _TRUE
        offsets.append(_s2_offsets(row, shifted, bands, notes) if own else tuple(row["offsets"]))
        sources.append(source)
    if ledger is not None:
        ledger.rows.extend(notes)
    table = scenes.copy()
    table["offsets"] = pd.Series(offsets, index=table.index, dtype=object)
    table["baseline_source"] = pd.Series(sources, index=table.index, dtype="str")
    return table


def landsat_c2_scale(
    scenes: gpd.GeoDataFrame, *, bands: Mapping[str, str] | None = None
) -> gpd.GeoDataFrame:
    """Give Landsat Collection 2 Level-2 scenes the scale of their product guide.

    Surface reflectance is stored * 0.0000275 - 0.2, surface temperature (K) is stored *
    0.00341802 + 149. The files do not say so.

    Parameters
    ----------
    scenes
        From ``scan`` or a STAC search. A scene is such a product by its name
        (``LC08_L2SP_..._02_T1``) in ``item`` or ``href``.
    bands
        What bands are, if not named as usual (``SR_B4``, ``red``, ``nir08``...): a mapping from
        their names to ``blue``, ``green``, ``red``, ``nir``, ``swir1``, ``swir2``, ``coastal`` or
        ``thermal``.

    Returns
    -------
    GeoDataFrame
        A copy with other ``scales`` and ``offsets``.

    Raises
    ------
    SceneError
        If no scene is such a product, or one has another scale already or no integers.
    BandError
        If it is not known what a band is, or ``bands`` says something else.

    References
    ----------
    USGS, *Landsat 8-9 Collection 2 Level 2 Science Product Guide*, LSDS-1619.
    """
    rows = _rows(scenes)
    ours = [_LANDSAT_C2_L2.search(_name(row)) is not None for row in rows]
    what = "a Landsat Collection 2 Level-2 product"
    _check_any(ours, rows, what, "names like LC08_L2SP_007066_20200101_20200823_02_T1_SR_B4.TIF")
    _check_given(bands, rows)
    _check_kinds(bands)

    def scaled(row: Row, kind: str, now: Linear) -> Linear:
        _check_stored(row)
        wanted = _C2_THERMAL if kind == "thermal" else _C2_REFLECTANCE
        if not (_same(now, _AS_STORED) or _same(now, wanted)):
            raise _wrong_scale(row, now, f"not the guide's {wanted}", "Leave out landsat_c2_scale")
        return wanted

    done = [not own or row.get("harmonised") == "OLI" for row, own in zip(rows, ours, strict=True)]
    changed = [
        _linears(row) if skip else _landsat_linears(row, bands, scaled)
        for row, skip in zip(rows, done, strict=True)
    ]
    return _with_linears(scenes, changed)


def landsat_to_oli(
    scenes: gpd.GeoDataFrame, *, bands: Mapping[str, str] | None = None
) -> gpd.GeoDataFrame:
    """Make surface reflectance of Landsat 4, 5 and 7 comparable with that of Landsat 8 and 9.

    Ordinary least squares of OLI on ETM+ surface reflectance, from 59 million pairs of pixels
    seen a day apart over the United States. It takes TM for ETM+, and it was fitted before
    Collection 2: where small differences matter, compare scenes of your own. Bands without a
    coefficient (thermal, coastal, quality) stay as they are.

    Parameters
    ----------
    scenes
        Scenes whose scales and offsets give surface reflectance: from Collection 2 (see
        :func:`landsat_c2_scale`) or Collection 1 (0.0001). The satellite is taken from the column
        ``platform`` (``'landsat-7'``), else from the product's name (``LE07_...``).
    bands
        As in :func:`landsat_c2_scale`.

    Returns
    -------
    GeoDataFrame
        A copy with other ``scales`` and ``offsets``, and a column ``harmonised``: ``'OLI'`` for
        scenes that were changed, else empty.

    Raises
    ------
    SceneError
        If no scene is from Landsat, one is from the MSS, or one is not in reflectance.
    BandError
        If it is not known what a band is, or ``bands`` says something else.

    References
    ----------
    Roy et al. (2016), Characterization of Landsat-7 to Landsat-8 reflective wavelength and
    normalized difference vegetation index continuity, *Remote Sensing of Environment* 185, 57-70,
    Table 2.
    """
    rows = _rows(scenes)
    missions = [_landsat_mission(row) for row in rows]
    what = "platform='landsat-7', or names like LE07_L2SP_..."
    _check_any([m is not None for m in missions], rows, "Landsat", what)
    _check_given(bands, rows)
    _check_kinds(bands)

    def to_oli(row: Row, kind: str, now: Linear) -> Linear:
        if kind not in _TO_OLI:
            return now
        if not (_same(now, _C2_REFLECTANCE) or _same(now, _C1_REFLECTANCE)):
            raise _wrong_scale(
                row, now, "which is not surface reflectance", "Apply landsat_c2_scale(scenes) first"
            )
        slope, intercept = _TO_OLI[kind]
        return slope * now[0], slope * now[1] + intercept

    changed, marks = [], []
    for row, mission in zip(rows, missions, strict=True):
        older = mission is not None and mission <= 7
        done = row.get("harmonised") == "OLI"
        marks.append("OLI" if older else "")
        changed.append(
            _landsat_linears(row, bands, to_oli) if older and not done else _linears(row)
        )
    table = _with_linears(scenes, changed)
    table["harmonised"] = pd.Series(marks, index=table.index, dtype="str")
    return table


def _rows(scenes: gpd.GeoDataFrame) -> list[Row]:
    check_columns(scenes, ("href", "bands", "scales", "offsets", "time"), what="table of scenes")
    columns = [c for c in scenes.columns if c != "geometry"]
    return [
        dict(zip(columns, row, strict=True))
        for row in zip(*(scenes[c] for c in columns), strict=True)
    ]


def _name(row: Row) -> str:
    """Item and path, in which the product's name may be."""
    item = row.get("item")
    return f"{item}/ {row['href']}" if isinstance(item, str) else str(row["href"])


def _linears(row: Row) -> list[Linear]:
    return [(float(s), float(o)) for s, o in zip(row["scales"], row["offsets"], strict=True)]


def _with_linears(scenes: gpd.GeoDataFrame, linears: list[list[Linear]]) -> gpd.GeoDataFrame:
    table = scenes.copy()
    for column, at in (("scales", 0), ("offsets", 1)):
        values = [tuple(pair[at] for pair in row) for row in linears]
        table[column] = pd.Series(values, index=table.index, dtype=object)
    return table


def _same(one: Linear, other: Linear) -> bool:
    return math.isclose(one[0], other[0], rel_tol=1e-6) and math.isclose(
        one[1], other[1], rel_tol=1e-6, abs_tol=1e-12
    )


def _note(row: Row, reason: str, detail: str) -> Failure:
    return Failure("harmonise", "scene", str(row["href"]), reason, detail)


def _text(value: Any) -> str:
    return "" if value is None or pd.isna(value) else str(value).strip()


def _check_any(ours: list[bool], rows: list[Row], what: str, told_by: str) -> None:
    if not any(ours):
        raise SceneError(
            f"None of the {len(rows)} scenes is known to be {what}.",
            cause=f"They are told by {told_by}; here is {some((r['href'] for r in rows), 3)}.",
            next_step="Add the column platform, keep the products' names, or leave this step out.",
        )


def _check_given(bands: Collection[str] | None, rows: list[Row]) -> None:
    present = {band for row in rows for band in row["bands"]}
    missing = [b for b in bands or () if b not in present]
    if missing:
        raise BandError(
            f"No scene has a band {some(missing)}.",
            cause=f"The scenes have {some(sorted(present), 20)}.",
            next_step="Correct the names in bands=...",
        )


def _check_kinds(bands: Mapping[str, str] | None) -> None:
    kinds = tuple(dict.fromkeys(_LANDSAT_BANDS.values()))
    for band, kind in (bands or {}).items():
        if kind not in kinds:
            raise BandError(
                f"bands says that {band!r} is {kind!r}.",
                cause=f"A band can be {some(kinds, 20)}.",
                next_step="Give one of these; leave out quality bands.",
            )


def _unknown_band(row: Row, band: str, how: str) -> BandError:
    return BandError(
        f"What the band {band!r} of {row['href']} holds is not known.",
        cause="Reflectance has to be changed and quality bands must not be.",
        next_step=how,
    )


def _wrong_scale(row: Row, now: Linear, why: str, how: str) -> SceneError:
    return SceneError(
        f"A band of {row['href']} has scale {now[0]:g} and offset {now[1]:g}, {why}.",
        cause="The change holds for these units only.",
        next_step=f"{how}, or correct the columns scales and offsets.",
    )


def _check_stored(row: Row) -> None:
    """Refuse pixels that someone has turned into reflectance already."""
    if str(row.get("dtype", "")).startswith("float"):
        raise SceneError(
            f"The pixels of {row['href']} are {row['dtype']}.",
            cause="The products hold integers, so these were scaled before, nobody knows how.",
            next_step="Leave these scenes out of this step, or start from the products' own files.",
        )


def _is_sentinel2(row: Row) -> bool:
    name = _name(row)
    if _HLS.search(name):
        return False
    platform = _text(row.get("platform")).lower().replace("_", "-")
    return platform.startswith(("sentinel-2", "sentinel2")) or _S2_NAME.search(name) is not None


def _baseline(row: Row) -> tuple[int, str]:
    """Major number of the processing baseline, and where it was found."""
    given = re.fullmatch(r"[Nn]?0*(\d{1,2})(\.\d+|\d\d)?", _text(row.get("baseline")))
    if given:
        return int(given[1]), "column"
    named = _S2_BASELINE.search(_name(row))
    if named:
        return int(named[1]), "name"
    undated = bool(pd.isna(row["time"]))
    if undated:
        raise SceneError(
            f"The processing baseline of {row['href']} is not known.",
            cause="There is no column baseline, none in the name, and no date to guess it from.",
            next_step="Add a column baseline, e.g. '05.09' (s2:processing_baseline in STAC).",
        )
    return (4 if row["time"] >= _S2_SHIFTED_FROM else 3), "date"


def _s2_offsets(
    row: Row, shifted: bool, bands: Collection[str] | None, notes: list[Failure]
) -> tuple[float, ...]:
    offsets, contradicted = [], []
    for band, (scale, offset) in zip(row["bands"], _linears(row), strict=True):
        if not _holds_reflectance(row, band, bands):
            offsets.append(offset)
            continue
        if not (
            _same((scale, offset), (scale, 0.0))
            or _same((scale, offset), (scale, _S2_SHIFT * scale))
        ):
            raise _wrong_scale(
                row, (scale, offset), "neither 0 nor -1000 DN", "Leave out sentinel2_offset"
            )
        if offset != 0 and not shifted:
            contradicted.append(band)
        offsets.append(_S2_SHIFT * scale if shifted else 0.0)
    if contradicted:
        detail = (
            f"It declares an offset of -1000 DN for {some(contradicted, 20)}, but its pixels are "
            "from before baseline 04.00, or had it taken away; 0 is used."
        )
        notes.append(_note(row, "offset_contradicted", detail))
    return tuple(offsets)


def _holds_reflectance(row: Row, band: str, bands: Collection[str] | None) -> bool:
    if bands is not None:
        return band in bands
    if _S2_BAND.fullmatch(band.lower()):
        return True
    if _S2_OTHER.fullmatch(band.lower()):
        return False
    raise _unknown_band(row, band, "Name the reflectance bands in bands=[...].")


def _landsat_mission(row: Row) -> int | None:
    product = _LANDSAT_ID.search(_name(row))
    if product and product[1] == "M":
        raise SceneError(
            f"{row['href']} is from the multispectral scanner (MSS).",
            cause="Its bands are others; no coefficients to OLI are published for them.",
            next_step="Leave these scenes out.",
        )
    platform = _LANDSAT_PLATFORM.search(_text(row.get("platform")))
    found = platform[1] if platform else product[2] if product else None
    return None if found is None else int(found)


def _landsat_linears(row: Row, bands: Mapping[str, str] | None, change: Any) -> list[Linear]:
    """Scale and offset of each band, changed by what the band is."""
    mission = _landsat_mission(row)
    numbered = _TM_BANDS if mission is not None and mission <= 7 else _OLI_BANDS
    linears = []
    for band, now in zip(row["bands"], _linears(row), strict=True):
        low = band.lower()
        kind = (bands or {}).get(band) or _LANDSAT_BANDS.get(low) or numbered.get(low)
        if kind is None and not _LANDSAT_OTHER.fullmatch(low):
            raise _unknown_band(row, band, "Say what it is: bands={'b1': 'blue', ...}.")
        linears.append(now if kind is None else change(row, kind, now))
    return linears
