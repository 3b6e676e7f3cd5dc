"""Whatever the layout of the files: chips are the pixels that are there, in any order of work."""

import sys
import tempfile
from pathlib import Path

import numpy as np
from affine import Affine
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from ingest_helpers import centred, write_tif

from eocausal.ingest import work
from eocausal.ingest.blocks import BlockCache
from eocausal.ingest.cube import build_cube
from eocausal.ingest.schedule import Threads
from eocausal.ingest.sources import scan
from eocausal.provenance import hash_tree

sys.path.insert(0, str(Path(__file__).parents[1] / "unit"))
from test_gather import places_on

UTM = "EPSG:32636"
ORIGIN = centred(UTM, 32.58, 0.32, 30.0, 200, 200)

layouts = st.one_of(
    st.fixed_dictionaries({
        "tiled": st.just(True), "blockxsize": st.sampled_from([16, 48, 128]),
        "blockysize": st.sampled_from([16, 64, 256]),
        "interleave": st.sampled_from(["pixel", "band"]),
        "compress": st.sampled_from(["none", "deflate", "lzw"]),
    }),
    st.fixed_dictionaries({
        "blockysize": st.sampled_from([1, 5, 37, 300]),
        "interleave": st.sampled_from(["pixel", "band"]),
    }),
)  # fmt: skip


@st.composite
def scenes(draw):
    """One scene on whole pixels of a common grid, with holes."""
    kind = draw(st.sampled_from(["uint8", "int8", "uint16", "int16", "int32", "float32"]))
    width, height = draw(st.integers(1, 150)), draw(st.integers(1, 150))
    info = np.iinfo(kind) if kind != "float32" else None
    choice = [None, np.nan, -1.5] if info is None else [None, 0, int(info.min), int(info.max), 7]
    nodata = draw(st.sampled_from(choice))
    rng = np.random.default_rng(draw(st.integers(0, 1000)))
    low, high = (-100, 100) if info is None else (max(info.min, -20), min(info.max, 60))
    values = rng.integers(low, high, (2, height, width), endpoint=True).astype(kind)
    holes = rng.random((2, height, width)) < draw(st.sampled_from([0.0, 0.05, 0.7]))
    if nodata is not None:
        values[holes] = nodata
    return {
        "values": values, "nodata": nodata, "left": draw(st.integers(-40, 160)),
        "top": draw(st.integers(-40, 160)), "layout": draw(layouts),
        "year": draw(st.sampled_from([2001, 2001, 2002, 2003])),
    }  # fmt: skip


def oracle(found, spots, size, years):
    """Median of what is valid, pixel by pixel, from plain arrays: (chip, period, band, y, x)."""
    out = np.full((len(spots), len(years), 2, size, size), np.nan)
    canvas = []
    for one in found:
        whole = np.full((2, 500, 500), np.nan)
        values = one["values"].astype(float)
        if one["nodata"] is not None:
            values[one["values"] == one["nodata"]] = np.nan
        top, left = one["top"] + 100, one["left"] + 100
        whole[:, top : top + values.shape[1], left : left + values.shape[2]] = values
        canvas.append(whole)
    for p, (first, last) in enumerate(years):
        own = [c for c, one in zip(canvas, found, strict=True) if first <= one["year"] <= last]
        if not own:
            continue
        stack = np.ma.masked_invalid(np.stack(own))
        median = np.ma.median(stack, axis=0).filled(np.nan)
        for k, (col, row) in enumerate(spots):
            top, left = row + 100 - size // 2, col + 100 - size // 2
            out[k, p] = median[:, top : top + size, left : left + size]
    return out


@given(
    found=st.lists(scenes(), min_size=1, max_size=3),
    spots=st.lists(st.tuples(st.integers(-30, 200), st.integers(-30, 200)), min_size=1,
                   max_size=6, unique=True),
    size=st.sampled_from([2, 8, 20, 46]),
    periods=st.sampled_from([("2001", "2002"), ("2001/2003",), ("2003", "2001", "2002/2003")]),
    budget=st.sampled_from([0, 5_000, 10**8]),
    threads=st.sampled_from([1, 3]),
)  # fmt: skip
@settings(
    max_examples=25, deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
)  # fmt: skip
def test_chips_are_the_pixels_under_them(found, spots, size, periods, budget, threads):
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for k, one in enumerate(found):
            grid = ORIGIN @ Affine.translation(one["left"], one["top"])
            tag = {} if one["nodata"] is None else {"nodata": one["nodata"]}
            write_tif(folder / f"in/s{k}_{one['year']}.tif", one["values"], UTM, grid,
                      names=["a", "b"], **tag, **one["layout"])  # fmt: skip
        table, places = scan(folder / "in"), places_on(ORIGIN, *spots)
        ask = {"bands": ["a", "b"], "resolution": 30.0, "size": size, "periods": list(periods)}
        years = [tuple(int(y) for y in (p.split("/") * 2)[:2]) for p in periods]
        years = [(a, b) if "/" in p else (a, a) for p, (a, b) in zip(periods, years, strict=True)]
        expected = oracle(found, spots, size, years)
        if not np.isfinite(expected).all(axis=2).any(axis=(2, 3)).any():
            return
        cube = build_cube(places, table, out=folder / "c.zarr", max_failed=1.0, **ask)
        cube = cube.sel(neighborhood=places.index.astype(str))
        got = cube["image"].values
        np.testing.assert_array_equal(np.isnan(got), np.isnan(expected))
        kinds = {one["values"].dtype for one in found}
        looks = max(sum(a <= one["year"] <= b for one in found) for a, b in years)
        away = np.abs(got - expected)
        assert np.nanmax(away) <= (1.0 if looks > 1 and kinds != {np.dtype("float32")} else 1e-4)
        share = np.isfinite(expected).all(axis=2).mean(axis=(2, 3))
        np.testing.assert_allclose(cube["valid"].values, share, atol=1e-6)

        original = work.BlockCache, work._BATCH_BYTES
        try:
            work.BlockCache = lambda memory, *rest: BlockCache(budget, *rest)
            work._BATCH_BYTES = 3_000
            build_cube(places, table, out=folder / "d.zarr", max_failed=1.0,
                       scheduler=Threads(threads), **ask)  # fmt: skip
        finally:
            work.BlockCache, work._BATCH_BYTES = original
        assert hash_tree(folder / "c.zarr") == hash_tree(folder / "d.zarr")
