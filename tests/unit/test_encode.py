"""From a cube to an embedding: shapes, labels, batches, stores, devices."""

import json
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
import xarray as xr

from eocausal.contracts import check_cube, check_embedding
from eocausal.encoders import stream
from eocausal.encoders.base import (
    embed_array,
    encode,
    fit_encoder,
    image_spec,
    open_embedding,
    resolve_device,
)
from eocausal.encoders.devices import single_threaded_pool
from eocausal.encoders.random_conv import RandomConv
from eocausal.encoders.registry import load_encoder
from eocausal.encoders.small_cnn import SmallCNN
from eocausal.errors import CubeError, DeviceError, EncoderError
from eocausal.provenance import hash_tree

BANDS = ("blue", "green", "red", "nir")


def make_cube(n: int = 30, periods: int = 1, size: int = 16, seed: int = 0) -> xr.Dataset:
    """A cube with one empty chip (n03) and one half-seen chip (n05)."""
    rng = np.random.default_rng(seed)
    image = rng.normal(1000, 200, (n, periods, len(BANDS), size, size)).astype(np.float32)
    image[3] = np.nan
    image[5, :, :, : size // 2] = np.nan
    valid = np.isfinite(image).all(axis=2).mean(axis=(2, 3))
    labels = [str(2000 + p) for p in range(periods)]
    cube = xr.Dataset(
        {
            "image": (("neighborhood", "period", "band", "y", "x"), image),
            "valid": (("neighborhood", "period"), valid),
            "status": (("neighborhood", "period"), np.zeros((n, periods), np.int8)),
        },
        coords={
            "neighborhood": [f"n{i:02d}" for i in range(n)],
            "period": labels,
            "band": list(BANDS),
            "crs": ("neighborhood", ["EPSG:32636"] * n),
            "transform": (
                ("neighborhood", "affine"),
                np.tile([30.0, 0, 5e5, 0, -30, 1e5], (n, 1)),
            ),
            "lon": ("neighborhood", np.linspace(30, 31, n)),
            "lat": ("neighborhood", np.linspace(0, 1, n)),
            "period_start": ("period", [f"{p}-01-01" for p in labels]),
            "period_end": ("period", [f"{p}-12-31" for p in labels]),
            "last_date": ("period", [f"{p}-11-0{1 + i}" for i, p in enumerate(labels)]),
        },
        attrs={"resolution": 30.0, "units": "DN", "sources": "[]"},
    )
    return check_cube(cube)


ENCODER = RandomConv(features=32)


def test_one_period_gives_one_row_per_neighborhood():
    cube = make_cube()
    embedding = encode(cube, ENCODER, seed=5)
    assert embedding.dims == ("neighborhood", "feature")
    assert embedding.shape == (30, 32)
    assert embedding.dtype == np.float32
    assert embedding.attrs["encoder"] == f"{ENCODER.name}, seed=5"
    assert embedding.attrs["weights_sha256"] == ""
    assert json.loads(embedding.attrs["bands"]) == list(BANDS)
    assert embedding.attrs["last_image_date"] == "2000-11-01"
    assert embedding["valid"].sel(neighborhood="n05").item() == 0.5
    np.testing.assert_array_equal(embedding["lon"], cube["lon"])
    rows = np.isnan(embedding.values).any(axis=1)
    assert list(embedding["neighborhood"].values[rows]) == ["n03"]


def test_several_periods_keep_their_dimension():
    cube = make_cube(periods=3)
    embedding = encode(cube, ENCODER)
    assert embedding.dims == ("neighborhood", "period", "feature")
    assert embedding.attrs["last_image_date"] == "2002-11-03"
    fitted = fit_encoder(cube, ENCODER)
    chip = cube["image"].sel(neighborhood="n07", period="2001").values[None]
    expected = fitted.transform(chip)[0]
    np.testing.assert_allclose(
        embedding.sel(neighborhood="n07", period="2001"), expected, rtol=1e-5
    )


def test_chips_with_no_valid_share_are_nan_whatever_their_pixels():
    cube = make_cube()
    cube["valid"][10] = 0.0
    embedding = encode(cube, ENCODER)
    assert np.isnan(embedding.sel(neighborhood="n10")).all()


def test_an_unknown_date_makes_the_last_date_unknown():
    cube = make_cube(periods=2).assign_coords(last_date=("period", ["", "2001-05-05"]))
    assert encode(cube, ENCODER).attrs["last_image_date"] == ""
    cube["valid"][:, 0] = 0.0
    assert encode(cube, ENCODER).attrs["last_image_date"] == "2001-05-05"
    assert encode(cube.drop_vars("last_date"), ENCODER).attrs["last_image_date"] == ""


@pytest.mark.parametrize("name", ["random_conv", "resnet18"])
def test_batch_size_does_not_matter(name):
    cube = make_cube(n=20, periods=2, size=32)
    fitted = fit_encoder(cube, load_encoder(name), seed=1)
    whole = encode(cube, fitted, batch_size=64)
    for batch_size in (1, 7):
        other = encode(cube, fitted, batch_size=batch_size)
        np.testing.assert_allclose(other, whole, rtol=1e-5, atol=1e-5 * np.nanmax(np.abs(whole)))


def test_threads_change_no_bit_and_are_put_back():
    cube = make_cube(n=200)
    fitted = fit_encoder(cube, ENCODER)
    before = torch.get_num_threads()
    found = []
    try:
        for threads in (1, 3):
            torch.set_num_threads(threads)
            found.append(encode(cube, fitted, batch_size=16))
            assert torch.get_num_threads() == threads
            with ThreadPoolExecutor(1) as pool:
                assert pool.submit(torch.get_num_threads).result() == threads
    finally:
        torch.set_num_threads(before)
    np.testing.assert_array_equal(*found)


def test_each_thread_of_the_pool_runs_torch_alone():
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(2)
        with single_threaded_pool(3) as pool:
            assert set(pool.map(lambda _: torch.get_num_threads(), range(9))) == {1}
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(before)


def test_cube_on_disk_gives_the_same_as_in_memory(tmp_path: Path):
    cube = make_cube(n=40, periods=2)
    labels = {n: c.astype(object) for n, c in cube.coords.items() if c.dtype.kind == "U"}
    cube.assign_coords(labels).to_zarr(
        tmp_path / "cube.zarr",
        consolidated=False,
        encoding={"image": {"chunks": (3, 2, 4, 16, 16)}},
    )
    expected = encode(cube, ENCODER, seed=2)
    for chunks in (None, {}):
        with xr.open_zarr(tmp_path / "cube.zarr", consolidated=False, chunks=chunks) as stored:
            found = encode(stored, ENCODER, seed=2)
        np.testing.assert_allclose(found, expected, rtol=1e-5)


def test_a_cube_is_never_read_whole(monkeypatch):
    monkeypatch.setattr(stream, "_PIECE_BYTES", 1 << 18)
    cube = make_cube(n=600)
    largest = 0

    class Recorder(xr.backends.BackendArray):
        shape, dtype = cube["image"].shape, cube["image"].dtype

        def __getitem__(self, key):
            return xr.core.indexing.explicit_indexing_adapter(
                key, self.shape, xr.core.indexing.IndexingSupport.BASIC, self._read
            )

        def _read(self, key):
            nonlocal largest
            values = cube["image"].values[key]
            largest = max(largest, values.nbytes)
            return values

    lazy = cube.copy()
    lazy["image"] = (cube["image"].dims, xr.core.indexing.LazilyIndexedArray(Recorder()))
    fitted = fit_encoder(cube, ENCODER)
    embedding = encode(lazy, fitted)
    assert 0 < largest <= 1 << 18
    np.testing.assert_array_equal(embedding, encode(cube, fitted))


def test_store_round_trip_and_same_bytes(tmp_path: Path):
    cube = make_cube(periods=2)
    first = encode(cube, ENCODER, out=tmp_path / "a.zarr")
    encode(cube, ENCODER, out=tmp_path / "b.zarr")
    assert hash_tree(tmp_path / "a.zarr") == hash_tree(tmp_path / "b.zarr")
    xr.testing.assert_identical(open_embedding(tmp_path / "a.zarr"), first)
    encode(cube, ENCODER, out=tmp_path / "a.zarr", seed=9)
    assert hash_tree(tmp_path / "a.zarr") != hash_tree(tmp_path / "b.zarr")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a.zarr", "b.zarr"]


def test_one_period_store_keeps_scalar_coordinates(tmp_path: Path):
    first = encode(make_cube(), ENCODER, out=tmp_path / "e.zarr")
    found = open_embedding(tmp_path / "e.zarr")
    xr.testing.assert_identical(found, first)
    assert str(found["period_end"].values) == "2000-12-31"


def test_integer_labels_stay_integers(tmp_path: Path):
    cube = make_cube().assign_coords(neighborhood=np.arange(30) * 7)
    encode(cube, ENCODER, out=tmp_path / "e.zarr")
    assert open_embedding(tmp_path / "e.zarr").indexes["neighborhood"].dtype == np.int64


def test_a_fitted_encoder_serves_two_cubes():
    trial, country = make_cube(seed=1), make_cube(n=50, seed=2)
    fitted = fit_encoder(trial, ENCODER, seed=3)
    both = xr.concat(
        [trial, country.assign_coords(neighborhood=[f"c{i}" for i in range(50)])],
        "neighborhood",
        join="outer",
        compat="no_conflicts",
        data_vars="all",
        coords="different",
    )
    together = encode(both, fitted).values
    apart = np.concatenate([encode(trial, fitted).values, encode(country, fitted).values])
    np.testing.assert_allclose(together, apart, rtol=1e-5)


def test_fit_changes_nothing_and_results_are_frozen():
    cube = make_cube()
    before = cube.copy(deep=True)
    fitted = fit_encoder(cube, ENCODER)
    xr.testing.assert_identical(cube, before)
    with pytest.raises(AttributeError):
        fitted.name = "other"  # type: ignore[misc]
    state = torch.random.get_rng_state()
    fit_encoder(make_cube(size=32), load_encoder("resnet18"), seed=4)
    assert torch.equal(state, torch.random.get_rng_state())


@pytest.mark.parametrize(
    ("change", "word"),
    [
        (lambda c: c.isel(band=[1, 0, 2, 3]), "bands"),
        (lambda c: c.isel(band=[0, 1]), "bands"),
        (lambda c: c.assign_attrs(units="reflectance"), "units"),
        (lambda c: c.assign_attrs(resolution=10.0), "resolution"),
    ],
)
def test_a_fitted_encoder_refuses_other_images(change, word):
    cube = make_cube()
    fitted = fit_encoder(cube, ENCODER)
    with pytest.raises(EncoderError, match=word):
        encode(change(cube), fitted)


def test_chips_smaller_than_the_patch_are_refused():
    with pytest.raises(EncoderError, match="at least 9"):
        encode(make_cube(size=8), RandomConv(features=4, patch=9))


def test_broken_cubes_are_refused():
    with pytest.raises(CubeError, match="valid"):
        encode(make_cube().drop_vars("valid"), ENCODER)


def test_cubes_whose_shares_have_no_period_are_refused():
    cube = make_cube(periods=2)
    with pytest.raises(CubeError, match="valid has dims"):
        encode(cube.assign(valid=cube["valid"].isel(period=0, drop=True)), ENCODER)
    with pytest.raises(CubeError, match="no period"):
        encode(cube.isel(period=[]), fit_encoder(cube, ENCODER))
    turned = cube.assign(valid=cube["valid"].transpose())
    np.testing.assert_array_equal(encode(turned, ENCODER), encode(cube, ENCODER))


@pytest.mark.parametrize("wrong", ["resnet18", RandomConv, SmallCNN(), None])
def test_what_is_no_encoder_is_refused(wrong):
    with pytest.raises(EncoderError, match="cannot be fitted as an encoder"):
        encode(make_cube(), wrong)
    fitted = fit_encoder(make_cube(), ENCODER)
    with pytest.raises(EncoderError, match="cannot be fitted as an encoder"):
        fit_encoder(make_cube(), fitted)


def test_labels_that_cannot_be_stored_are_named(tmp_path: Path):
    cube = make_cube(n=12)
    mixed = cube.assign_coords(neighborhood=np.array(["a", *range(11)], dtype=object))
    pairs = pd.MultiIndex.from_product([["a", "b", "c"], range(4)])
    several = cube.drop_vars("neighborhood").assign_coords(
        xr.Coordinates.from_pandas_multiindex(pairs, "neighborhood")
    )
    out = tmp_path / "e.zarr"
    for wrong in (mixed, several):
        with pytest.raises(EncoderError, match="cannot be stored"):
            encode(wrong, ENCODER, out=out)
    encode(cube, ENCODER, out=out)  # what was left of the failures is not in the way
    assert sorted(p.name for p in tmp_path.iterdir()) == ["e.zarr"]


def test_the_array_core_gives_what_the_cube_gives():
    cube = make_cube()
    fitted = fit_encoder(cube, ENCODER)
    images = cube["image"].values[:, 0]
    calls: list[tuple[int, int]] = []
    features = embed_array(
        fitted, images, batch_size=8, device="cpu", progress=lambda *c: calls.append(c)
    )
    np.testing.assert_allclose(features, encode(cube, fitted), rtol=1e-5)
    assert calls[-1] == (30, 30)
    assert embed_array(fitted, images[:0]).shape == (0, 32)
    with pytest.raises(EncoderError, match="takes"):
        embed_array(fitted, images[:, :3])
    with pytest.raises(EncoderError, match="batch_size"):
        embed_array(fitted, images, batch_size=0)
    with pytest.raises(EncoderError, match="knows no dates"):
        embed_array(fitted, images, years=np.zeros((30, 1), np.float32))


def test_the_array_core_needs_neither_xarray_nor_zarr():
    code = (
        "import sys; import numpy as np\n"
        "from eocausal.encoders.core import ImageSpec\n"
        "from eocausal.encoders.runner import embed_array\n"
        "from eocausal.encoders.random_conv import RandomConv\n"
        "x = np.random.default_rng(0).normal(size=(8, 2, 9, 9)).astype('float32')\n"
        "f = RandomConv(features=4).fit(x, ImageSpec(('a', 'b'), 'DN', 30.0, 9, 9), seed=0)\n"
        "assert embed_array(f, x).shape == (8, 4)\n"
        "heavy = {'xarray', 'zarr', 'rasterio', 'dask', 'pandas', 'torchvision'}\n"
        "assert not heavy & set(sys.modules), heavy & set(sys.modules)\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_devices():
    assert resolve_device("cpu") == torch.device("cpu")
    assert resolve_device("auto").type in ("cpu", "cuda", "mps")
    for name in ("tpu", "cuda:x", "", "cpu:3", "mps:1"):
        with pytest.raises(DeviceError, match="is not a device"):
            resolve_device(name)
    with pytest.raises(DeviceError, match="'cuda:99'"):
        resolve_device("cuda:99")


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA GPU on this machine")
@pytest.mark.parametrize("name", ["random_conv", "resnet18"])
def test_gpu_agrees_with_cpu(name):
    cube = make_cube(n=40, size=32)
    fitted = fit_encoder(cube, load_encoder(name))
    cpu, gpu = (encode(cube, fitted, device=d).values for d in ("cpu", "cuda"))
    scale = np.nanmax(np.abs(cpu))
    assert np.nanmax(np.abs(cpu - gpu)) <= 1e-3 * scale


def test_embedding_keeps_its_contract():
    check_embedding(encode(make_cube(periods=2), ENCODER))
    spec = image_spec(make_cube())
    assert (spec.bands, spec.units, spec.height) == (BANDS, "DN", 16)
