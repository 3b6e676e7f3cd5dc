"""The benchmark's archive and its own check: they must be able to say that a cube is wrong."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import rasterio
import xarray as xr

_BENCHMARKS = Path(__file__).parents[2] / "benchmarks"


@pytest.fixture(scope="module")
def rows() -> Iterator[ModuleType]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "path", [str(_BENCHMARKS), *sys.path])
        yield importlib.import_module("ingest_rows")


@pytest.fixture(scope="module")
def archive(rows, tmp_path_factory):
    found = rows.Archive(tmp_path_factory.mktemp("archive"), side=1024, years=1)
    found.folder.mkdir(exist_ok=True)
    found.ensure(processes=1)
    return found


@pytest.fixture
def cube(rows, archive):
    def make(aligned: bool) -> tuple[xr.Dataset, object]:
        """What a right cube holds, made without the package."""
        sites = rows.Sites.draw(archive, 40, aligned=aligned)
        image = np.empty((40, 1, 6, 64, 64))
        for k in range(40):
            expected, hole = rows._expected(archive, sites, k, 0)
            image[k, 0] = np.where(hole, np.nan, np.nan_to_num(expected))
        coords = {"neighborhood": np.arange(40), "period": list(archive.labels)}
        dims = ("neighborhood", "period", "band", "y", "x")
        return xr.Dataset({"image": (dims, image)}, coords=coords), sites

    return make


def test_archive_is_the_same_again_and_is_kept(rows, archive, tmp_path):
    again = rows.Archive(tmp_path, side=1024, years=1)
    again.ensure(processes=1)
    (first,), (second,) = archive.files, again.files
    with rasterio.open(first) as one, rasterio.open(second) as two:
        pixels = one.read()
        assert np.array_equal(pixels, two.read())
        assert one.profile["interleave"] == "pixel"
        assert one.block_shapes == [(512, 512)] * 6
    assert 0 < (pixels == -32768).mean() < 0.5
    assert 1.5 < archive.pixel_bytes / archive.stored_bytes < 2.0
    made = second.stat().st_mtime_ns
    again.ensure(processes=1)
    assert second.stat().st_mtime_ns == made


@pytest.mark.parametrize("aligned", [True, False])
def test_blocks_are_those_under_the_chips(rows, archive, aligned):
    sites = rows.Sites.draw(archive, 60, aligned=aligned)
    for k in range(60):
        cols, chip_rows = sites.chip_pixels(k)
        reach = 0.0 if aligned else 0.5
        left, right, top, bottom = sites.boxes()[k]
        assert (left, top) == (np.floor(cols.min() - reach), np.floor(chip_rows.min() - reach))
        more = 0 if aligned else 1
        assert right == np.floor(cols.max() - reach) + more
        assert bottom == np.floor(chip_rows.max() - reach) + more
        first = [np.floor(v - reach).astype(int) for v in (chip_rows, cols)]
        needed = set()
        for step in range(more + 1):
            for across in range(more + 1):
                at = np.stack([first[0] + step, first[1] + across]).reshape(2, -1) // 512
                needed |= set(map(tuple, at.T.tolist()))
        assert set(sites[[k]].blocks(1024)) == needed
    assert sites.blocks(1024) == [(0, 0), (0, 1), (1, 0), (1, 1)]


def test_a_shorter_list_of_sites_begins_the_longer_one(rows, archive):
    few, many = (rows.Sites.draw(archive, n, aligned=False) for n in (10, 30))
    assert np.array_equal(few.cols, many.cols[:10])
    assert np.array_equal(few.rows, many.rows[:10])


@pytest.mark.parametrize("aligned", [True, False])
def test_a_right_cube_passes_and_a_wrong_one_does_not(rows, archive, cube, aligned):
    right, sites = cube(aligned)
    assert rows.check_chips(right, archive, sites, 40) <= 1.0
    full = np.flatnonzero(np.isfinite(right["image"].values).all(axis=(1, 2, 3, 4)))[0]
    wrong = right.copy(deep=True)
    wrong["image"][full, 0, 3, 10, 10] += 1.5
    with pytest.raises(SystemExit, match=f"chip {full} .* differs by 1.5"):
        rows.check_chips(wrong, archive, sites, 40)
    wrong = right.copy(deep=True)
    wrong["image"][full, 0, 3, 10, 10] = np.nan
    with pytest.raises(SystemExit, match=f"holes of chip {full}"):
        rows.check_chips(wrong, archive, sites, 40)


def test_an_aligned_chip_must_be_exact(rows, archive, cube):
    wrong, sites = cube(True)
    full = np.flatnonzero(np.isfinite(wrong["image"].values).all(axis=(1, 2, 3, 4)))[0]
    wrong["image"][full, 0, 0, 0, 0] += 1
    with pytest.raises(SystemExit, match="differs by 1"):
        rows.check_chips(wrong, archive, sites, 40)


def test_aligned_chips_are_windows_of_the_mosaic(rows, archive, cube):
    right, sites = cube(True)
    sampled = rows._sample(archive, sites)
    raw = np.where(np.isnan(right["image"]), rows.NODATA, right["image"])
    assert np.array_equal(raw, np.stack(sampled))


def test_blosc_settings_are_found_within_a_shard(rows):
    blosc = {"name": "blosc", "configuration": {"cname": "lz4", "clevel": 1}}
    sharding = {"name": "sharding_indexed", "configuration": {"codecs": [{"name": "b"}, blosc]}}
    assert rows._blosc_in({"codecs": [sharding]}) == blosc["configuration"]
    assert rows._blosc_in({"codecs": [{"name": "bytes"}]}) is None
