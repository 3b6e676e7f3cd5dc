"""Hashes, atomic outputs, the ledger and the stage cache."""

import json
import os
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from eocausal.provenance import (
    Failure,
    FailureLedger,
    StageCache,
    atomic_path,
    hash_file,
    hash_json,
    hash_tree,
    versions,
    write_json,
)


@dataclass(frozen=True)
class First:
    km: float


@dataclass(frozen=True)
class Second:
    km: float


def test_hash_of_values():
    assert hash_json({"a": 1, "b": [1, 2]}) == hash_json({"b": [1, 2], "a": 1})
    assert hash_json([1, 2]) != hash_json([2, 1])
    assert hash_json(First(1.0)) != hash_json(Second(1.0))
    assert hash_json(First(1.0)) != hash_json(First(2.0))
    assert hash_json(np.float64(0.5)) == hash_json(0.5)
    assert hash_json(np.arange(3)) == hash_json([0, 1, 2])
    assert hash_json({3, 1, 2}) == hash_json([1, 2, 3])
    assert hash_json(Path("x")) == hash_json("x")
    assert hash_json(pd.Timestamp("2001-01-01")) == hash_json(pd.Timestamp("2001-01-01"))
    with pytest.raises(TypeError, match="has no JSON form"):
        hash_json(object())


def test_hash_of_nested_decisions():
    assert hash_json(First(First(1.0))) != hash_json(First(Second(1.0)))


def test_hash_of_files_and_folders(tmp_path):
    (tmp_path / "d/e").mkdir(parents=True)
    (tmp_path / "d/a").write_text("one")
    (tmp_path / "d/e/b").write_text("two")
    before = hash_tree(tmp_path / "d")
    assert hash_tree(tmp_path / "d/a") == hash_file(tmp_path / "d/a")
    assert hash_file(tmp_path / "d/a") == (
        "7692c3ad3540bb803c020b3aee66cd8887123234ea0c6e7143c0add73ff431ed"
    )
    os.utime(tmp_path / "d/a", (0, 0))
    assert hash_tree(tmp_path / "d") == before
    (tmp_path / "d/e/b").rename(tmp_path / "d/e/c")
    renamed = hash_tree(tmp_path / "d")
    (tmp_path / "d/e/c").write_text("three")
    assert len({before, renamed, hash_tree(tmp_path / "d")}) == 3


def stop_halfway(target, error):
    with atomic_path(target) as temporary:
        temporary.write_text("half writ")
        raise error


def test_atomic_file(tmp_path):
    target = tmp_path / "new/out.txt"
    with atomic_path(target) as temporary:
        temporary.write_text("first")
        assert not target.exists()
    assert target.read_text() == "first"
    with pytest.raises(RuntimeError, match="halfway"):
        stop_halfway(target, RuntimeError("halfway"))
    assert target.read_text() == "first"
    with pytest.raises(KeyboardInterrupt):
        stop_halfway(target, KeyboardInterrupt())
    assert os.listdir(target.parent) == ["out.txt"]
    with atomic_path(target) as temporary:
        temporary.write_text("fourth")
    assert target.read_text() == "fourth"


def test_atomic_folder_replaces_folder_and_file(tmp_path):
    target = tmp_path / "out.zarr"
    for text in ("one", "two"):
        with atomic_path(target) as temporary:
            temporary.mkdir()
            (temporary / text).write_text(text)
    assert os.listdir(target) == ["two"]
    with pytest.raises(ValueError, match="no"):
        stop_halfway(target, ValueError("no"))
    assert os.listdir(target) == ["two"]
    assert os.listdir(tmp_path) == ["out.zarr"]
    with atomic_path(target) as temporary:
        temporary.write_text("a file now")
    assert target.read_text() == "a file now"


def test_atomic_needs_something_written(tmp_path):
    with pytest.raises(FileNotFoundError, match="nothing was written"), atomic_path(tmp_path / "x"):
        pass
    assert os.listdir(tmp_path) == []


def test_atomic_folder_in_place_of_a_file(tmp_path):
    target = tmp_path / "out"
    target.write_text("a file")
    with atomic_path(target) as temporary:
        temporary.mkdir()
    assert target.is_dir()


def test_write_json(tmp_path):
    value = {"a": float("nan"), "b": [np.float64(1.5), float("inf")], "c": First(2.0), 3: "é"}
    write_json(tmp_path / "x.json", value)
    text = (tmp_path / "x.json").read_text(encoding="utf-8")
    assert json.loads(text) == {
        "a": None, "b": [1.5, None], "c": {"__class__": "First", "km": 2.0}, "3": "é",
    }  # fmt: skip
    assert "é" in text
    with pytest.raises(TypeError):
        write_json(tmp_path / "x.json", object())
    assert (tmp_path / "x.json").read_text(encoding="utf-8") == text


@pytest.mark.parametrize(
    "value",
    [
        {"a": np.array([np.nan, 1.0])},
        First(float("nan")),
        {"a": np.float32("nan")},
        {"a": (1.0, float("-inf"))},
    ],
)
def test_written_json_is_strict(tmp_path, value):
    write_json(tmp_path / "x.json", value)

    def refuse(name):
        raise ValueError(name)

    json.loads((tmp_path / "x.json").read_text(), parse_constant=refuse)


def test_ledger(tmp_path):
    a = Failure("ingest", "scene", "b.tif", "read_error", "truncated")
    b = Failure("ingest", "chip", "n1", "outside", period="2001")
    first, second = FailureLedger(), FailureLedger()
    for failure in (a, b, a):
        first.add(failure)
    for failure in (b, a):
        second.add(failure)
    assert first.to_frame().equals(second.to_frame())
    first.write(tmp_path / "one.parquet")
    second.write(tmp_path / "two.parquet")
    assert hash_file(tmp_path / "one.parquet") == hash_file(tmp_path / "two.parquet")
    assert set(FailureLedger.read(tmp_path / "one.parquet").rows) == {a, b}
    assert FailureLedger.read(tmp_path / "none.parquet").rows == []
    FailureLedger().write(tmp_path / "empty.parquet")
    assert FailureLedger.read(tmp_path / "empty.parquet").rows == []


def test_stage_cache(tmp_path):
    cache = StageCache(tmp_path / "run/.stages")
    (tmp_path / "run/cube.zarr").mkdir(parents=True)
    (tmp_path / "run/cube.zarr/c0").write_text("pixels")
    key = cache.key("cube", {"resolution": 30}, {"scenes": "abc"})
    assert cache.fresh("cube", key) is None
    stored = cache.store("cube", key, ["cube.zarr"])
    assert (
        cache.fresh("cube", key) == stored == {"cube.zarr": hash_tree(tmp_path / "run/cube.zarr")}
    )
    for other in (
        cache.key("cube", {"resolution": 10}, {"scenes": "abc"}),
        cache.key("cube", {"resolution": 30}, {"scenes": "abd"}),
        cache.key("embed", {"resolution": 30}, {"scenes": "abc"}),
    ):
        assert cache.fresh("cube", other) is None
    (tmp_path / "run/cube.zarr/c0").write_text("other pixels")
    assert cache.fresh("cube", key) is None
    (tmp_path / "run/cube.zarr/c0").write_text("pixels")
    assert cache.fresh("cube", key) == stored
    (tmp_path / "run/cube.zarr/c0").unlink()
    assert cache.fresh("cube", key) is None


def test_stage_cache_with_a_damaged_note(tmp_path):
    cache = StageCache(tmp_path / "run/.stages")
    cache.folder.mkdir(parents=True)
    for damaged in ("{", "[]", "{}", '{"key": "key", "outputs": 1}'):
        (cache.folder / "cube.json").write_text(damaged)
        assert cache.fresh("cube", "key") is None


def test_versions():
    found = versions()
    assert found["numpy"] == np.__version__
    assert {"eocausal", "torch", "rasterio"} <= set(found)
