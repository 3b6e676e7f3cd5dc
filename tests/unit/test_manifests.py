"""Data manifests: complete, free of local paths, true to the data where the data are."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import rasterio
import xarray as xr
import yaml

from eocausal.provenance import hash_file, hash_tree
from eocausal.simulate.world import WorldConfig, render_world

FOLDER = Path(__file__).resolve().parents[2] / "data_manifests"
NAMES = sorted(path.stem for path in FOLDER.glob("*.yaml"))
OBSERVED = [name for name in NAMES if name != "world"]
REQUIRED = {
    "name": str,
    "title": str,
    "description": str,
    "kind": str,
    "sources": list,
    "license": str,
    "access": str,
    "citation": list,
    "tables": dict,
    "files": list,
}
LICENSES = {
    "MIT",
    "BSD-3-Clause",
    "GPL-3.0-only",
    "ODC-By-1.0",
    "LicenseRef-NASA-public-domain",
    "LicenseRef-various",
}


def load(name: str) -> dict:
    return yaml.safe_load((FOLDER / f"{name}.yaml").read_text(encoding="utf-8"))


def test_every_data_set_has_a_manifest():
    assert {"uganda_yop", "world", "morowali", "africa_wealth", "aiddata"} <= set(NAMES)
    assert len(NAMES) == 11


@pytest.mark.parametrize("name", NAMES)
def test_manifest_has_its_keys(name):
    manifest = load(name)
    assert {k: type(manifest.get(k)) for k in REQUIRED} == REQUIRED
    assert set(manifest) <= {*REQUIRED, "imagery", "generator"}
    assert manifest["name"] == name
    assert manifest["license"] in LICENSES
    assert manifest["citation"]
    for table, columns in manifest["tables"].items():
        for column, told in columns.items():
            assert told.get("description"), (table, column)
    if manifest["kind"] == "generated":
        assert manifest["generator"]
        return
    assert manifest["kind"] == "observed"
    assert all(source["url"].startswith("https://") for source in manifest["sources"])
    assert manifest["sources"]
    for file in manifest["files"]:
        digest = file.get("sha256", file.get("tree_sha256"))
        assert re.fullmatch(r"[0-9a-f]{64}", digest)
        assert file["bytes"] > 0
        assert file["path"].endswith("/") == ("tree_sha256" in file)


@pytest.mark.parametrize("name", NAMES)
def test_manifest_names_no_local_path(name):
    text = (FOLDER / f"{name}.yaml").read_text(encoding="utf-8")
    assert not re.search(r"(^|[\s'\"(])(/[a-z]+/|~/|\.\./|[A-Z]:\\)", text)


@pytest.mark.realdata
@pytest.mark.parametrize("name", OBSERVED)
def test_manifest_is_true_to_the_files(name, real_data):
    folder = real_data(name)
    manifest = load(name)
    for file in manifest["files"]:
        path = folder / file["path"]
        if "tree_sha256" in file:
            inside = [p for p in path.rglob("*") if p.is_file()]
            assert len(inside) == file["files"]
            assert sum(p.stat().st_size for p in inside) == file["bytes"]
            assert hash_tree(path) == file["tree_sha256"]
        else:
            assert path.stat().st_size == file["bytes"]
            assert hash_file(path) == file["sha256"]
    told = {file["path"].rstrip("/") for file in manifest["files"]}
    assert told == {p.name for p in folder.iterdir()}


@pytest.mark.realdata
@pytest.mark.parametrize("name", OBSERVED)
def test_manifest_describes_the_columns(name, real_data):
    folder = real_data(name)
    for pattern, columns in load(name)["tables"].items():
        paths = sorted(folder.glob(pattern))
        assert paths, pattern
        for path in paths:
            assert_columns(path, set(columns))


def test_manifest_of_the_world_describes_what_is_rendered(tmp_path):
    config = WorldConfig(n_neighborhoods=20, n_trial=10, years=(2017,), scenes_per_year=1)
    files = render_world(config, tmp_path / "world")
    manifest = load("world")
    for name, columns in manifest["tables"].items():
        assert_columns(files.folder / name, set(columns))
    bands, step = manifest["imagery"]["scenes/"]["bands"], manifest["imagery"]["scenes/"]
    for path in files.scenes:
        with rasterio.open(path) as scene:
            assert list(scene.descriptions) == bands
            assert scene.res == (step["resolution_m"],) * 2
            assert str(scene.crs) in step["crs"]
            assert scene.nodata == step["nodata"]


def assert_columns(path: Path, told: set[str]) -> None:
    """Tables must be described whole; of a NetCDF file, what is described must be in it."""
    if path.suffix == ".csv":
        assert set(pd.read_csv(path, nrows=1).columns) == told
    elif path.suffix == ".parquet":
        present = set(pd.read_parquet(path).columns)
        assert present - {f"V{i}" for i in np.arange(1, 513)} == told - {"V1..V512"}
    elif path.suffix == ".gpkg":
        import geopandas as gpd

        assert set(gpd.read_file(path).columns) - {"geometry"} == told
    elif path.suffix == ".nc":
        with xr.open_dataset(path, decode_times=False) as dataset:
            assert told <= set(dataset.data_vars)
    else:
        pytest.fail(f"no way to read the columns of {path.name}")
