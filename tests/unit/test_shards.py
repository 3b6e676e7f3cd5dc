"""Shards written by hand are what zarr-python writes and reads."""

import json
import warnings

import numpy as np
import pytest
import zarr
from ingest_helpers import chips, write_tif
from test_gather import GRID, UTM, noise, places_on

from eocausal.contracts import ChipStatus
from eocausal.ingest.shards import ShardWriter, compressor


def make_array(folder, shape, length, dtype="uint16", fill=0):
    return zarr.create_array(
        folder, shape=shape, dtype=dtype, chunks=(1, *shape[1:]), shards=(length, *shape[1:]),
        fill_value=fill, compressors=compressor(), zarr_format=3,
    )  # fmt: skip


def write_by_hand(folder, values, length, empty=()):
    for start in range(0, len(values), length):
        part = values[start : start + length]
        path = folder / "c" / str(start // length) / "/".join("0" * (values.ndim - 1))
        writer = ShardWriter(path, length)
        for k, chunk in enumerate(part, start):
            writer.add(None if k in empty else writer.encode(chunk))
        writer.close()


@pytest.mark.parametrize(("n", "length"), [(1, 1), (7, 7), (10, 4), (9, 3), (5, 16)])
@pytest.mark.parametrize("dtype", ["uint8", "int16", "float32"])
def test_a_shard_by_hand_is_one_of_zarr(tmp_path, n, length, dtype):
    rng = np.random.default_rng(n)
    values = rng.integers(1, 100, (n, 3, 2, 8, 8)).astype(dtype)
    make_array(tmp_path / "hand", values.shape, length, dtype)
    write_by_hand(tmp_path / "hand", values, length)
    np.testing.assert_array_equal(zarr.open_array(tmp_path / "hand", mode="r")[:], values)
    own = make_array(tmp_path / "own", values.shape, length, dtype)
    own[:] = values
    for path in sorted((tmp_path / "own/c").rglob("0")):
        if path.is_file():
            other = tmp_path / "hand" / path.relative_to(tmp_path / "own")
            assert sorted(pieces(other, length)) == sorted(pieces(path, length))


def pieces(path, length) -> list[bytes]:
    """Compressed chunks of a shard, read as the specification of sharding_indexed says."""
    content = path.read_bytes()
    index = np.frombuffer(content[-(16 * length + 4) : -4], dtype="<u8").reshape(length, 2)
    return [content[a : a + b] for a, b in index.tolist() if a != 2**64 - 1]


def test_chunks_that_are_empty_read_as_missing(tmp_path):
    values = noise(0, count=2, height=8, width=8)[None].repeat(6, axis=0)
    make_array(tmp_path / "a", values.shape, 4)
    write_by_hand(tmp_path / "a", values, 4, empty={0, 3, 4, 5})
    found = zarr.open_array(tmp_path / "a", mode="r")
    assert (found[[0, 3, 4, 5]] == 0).all()
    np.testing.assert_array_equal(found[1:3], values[1:3])
    assert (tmp_path / "a/c/1/0/0/0").stat().st_size == 4 * 16 + 4


def test_a_damaged_shard_is_not_read_in_silence(tmp_path):
    """The index carries a CRC-32C."""
    values = noise(0, count=2, height=8, width=8)[None].repeat(4, axis=0)
    make_array(tmp_path / "a", values.shape, 4)
    write_by_hand(tmp_path / "a", values, 4)
    path = tmp_path / "a/c/0/0/0/0"
    content = bytearray(path.read_bytes())
    content[-10] ^= 1
    path.write_bytes(bytes(content))
    with pytest.raises(ValueError, match="checksum"):
        zarr.open_array(tmp_path / "a", mode="r")[:]


def test_a_shard_that_is_dropped_leaves_nothing(tmp_path):
    writer = ShardWriter(tmp_path / "c/0", 2)
    writer.add(writer.encode(np.zeros((2, 2), "uint8")))
    assert len(list(tmp_path.rglob("*.tmp"))) == 1
    writer.drop()
    writer.drop()
    assert [p for p in tmp_path.rglob("*") if p.is_file()] == []


@pytest.mark.parametrize("count", [2, 3, 5])
def test_periods_that_fill_more_than_one_chunk(tmp_path, count):
    """A chip's periods beyond 1 MiB go to further shards; the last chunk may be short."""
    size = 512
    years = [str(2001 + k) for k in range(count)]
    for k, year in enumerate(years):
        if k != 1:
            write_tif(tmp_path / f"in/s_{year}.tif", noise(k, count=1, height=600, width=600), UTM,
                      GRID, names=["a"], nodata=0)  # fmt: skip
    cube = chips(tmp_path, places_on(GRID, (300, 300), (290, 310), (2000, 300)), tmp_path / "in",
                 bands=["a"], resolution=30.0, size=size, periods=years)  # fmt: skip
    store = zarr.open_array(tmp_path / "cube.zarr/image", mode="r")
    assert store.chunks == (1, 2, 1, size, size)
    files = [p for p in (tmp_path / "cube.zarr/image/c").rglob("*") if p.is_file()]
    assert len(files) == -(-count // 2)
    for k, year in enumerate(years):
        codes = cube["status"].values[:, k].tolist()
        if k == 1:
            assert codes == [ChipStatus.NO_SOURCE] * 3
            assert np.isnan(cube["image"].values[:, k]).all()
            continue
        assert codes == [ChipStatus.OK, ChipStatus.OK, ChipStatus.OUTSIDE]
        whole = noise(k, count=1, height=600, width=600)[0]
        np.testing.assert_array_equal(cube["image"].values[0, k, 0], whole[44:556, 44:556])
        np.testing.assert_array_equal(cube["image"].values[1, k, 0], whole[54:566, 34:546])
        assert np.isnan(cube["image"].values[2, k]).all()
        middle = "07-01" if year == "2004" else "07-02"
        assert cube["date"].values[0, k] == np.datetime64(f"{year}-{middle}")


def test_the_metadata_is_plain_zarr(tmp_path):
    write_tif(tmp_path / "s.tif", noise(0), UTM, GRID, names=["a", "b"], nodata=0)
    chips(tmp_path, places_on(GRID, (300, 200)), tmp_path / "s.tif", bands=["a", "b"], size=16,
          resolution=30.0)  # fmt: skip
    found = json.loads((tmp_path / "cube.zarr/image/zarr.json").read_text())
    assert found["zarr_format"] == 3
    assert found["codecs"][0]["name"] == "sharding_indexed"
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        group = zarr.open_group(tmp_path / "cube.zarr", mode="r")
        assert group["image"].attrs["_FillValue"] == 0
