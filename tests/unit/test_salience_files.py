"""Salience as GeoTIFFs and as figures."""

import numpy as np
import pandas as pd
import pytest
import rasterio
import xarray as xr

from eocausal.encoders import salience_files
from eocausal.encoders.salience_files import write_salience
from eocausal.errors import AlignmentError, BandError, CubeError, EncoderError
from eocausal.reports.plots import to_png
from eocausal.reports.salience import salience_figure
from eocausal.simulate.changes import ChangeWorldConfig, simulate_changes
from eocausal.simulate.objects import ObjectWorldConfig, simulate_objects

ATTRS = {"method": "Gradient(pool=1)", "target": "logit of treatment", "units": "logit"}


def maps_of(cube, *, signed=True):
    """Made-up maps, one for each period, NaN where the image is."""
    rng = np.random.default_rng(0)
    values = rng.normal(size=cube["image"].isel(band=0).shape).astype(np.float32)
    values = values if signed else np.abs(values)
    values[np.isnan(cube["image"].to_numpy()).any(axis=2)] = np.nan
    names = ("neighborhood", "period", "lon", "lat")
    made = xr.DataArray(
        values,
        dims=("neighborhood", "period", "y", "x"),
        coords={name: cube[name] for name in names}
        | {"score": (("neighborhood", "period"), values[..., 0, 0])},
        attrs=ATTRS,
    )
    return made if cube.sizes["period"] > 1 else made.isel(period=0)


@pytest.fixture
def cube():
    made = simulate_objects(ObjectWorldConfig(n=5, size=18, shapes=2)).cube
    labels = ["Kampala", "../../up", "a/b: <c>", "Ñandú", "///"]
    made["image"][1, :, :, :4] = np.nan
    return made.assign_coords(neighborhood=labels)


@pytest.fixture(scope="module")
def sequence():
    return simulate_changes(ChangeWorldConfig(n=4, size=24, periods=3, missing=0.4)).cube


def test_rasters_lie_where_their_chips_lie(cube, tmp_path):
    salience = maps_of(cube)
    folder = write_salience(salience.isel(neighborhood=[3, 1]), cube, tmp_path / "maps")
    table = pd.read_csv(folder / "manifest.csv")
    assert table["neighborhood"].tolist() == ["Ñandú", "../../up"]
    assert table["target"].unique().tolist() == ["logit of treatment"]
    np.testing.assert_allclose(table["lon"], cube["lon"][[3, 1]])
    for row, i in zip(table.itertuples(), (3, 1), strict=True):
        with rasterio.open(folder / row.file) as source:
            assert source.crs == rasterio.CRS.from_string(str(cube["crs"].values[i]))
            assert tuple(source.transform)[:6] == tuple(cube["transform"].values[i])
            assert source.dtypes == ("float32",)
            assert np.isnan(source.nodata)
            assert source.compression.name == "deflate"
            assert source.tags()["neighborhood"] == row.neighborhood
            np.testing.assert_array_equal(source.read(1), salience[i])


def test_a_sequence_has_a_band_a_period(sequence, tmp_path):
    salience = maps_of(sequence)
    folder = write_salience(salience, sequence, tmp_path / "maps")
    with rasterio.open(folder / "000002_2.tif") as source:
        assert source.descriptions == tuple(sequence.indexes["period"])
        np.testing.assert_array_equal(source.read(), salience[2])


def test_no_label_leads_out_of_the_folder(cube, tmp_path):
    folder = write_salience(maps_of(cube), cube, tmp_path / "here" / "maps")
    names = sorted(path.name for path in folder.iterdir())
    assert names == ["000000_Kampala.tif", "000001_up.tif", "000002_a-b-c.tif",
                     "000003_and.tif", "000004.tif", "manifest.csv"]  # fmt: skip
    assert sorted(p.name for p in tmp_path.rglob("*") if p.is_dir()) == ["here", "maps"]


def test_only_an_older_result_is_replaced(cube, tmp_path):
    folder = write_salience(maps_of(cube), cube, tmp_path / "maps")
    write_salience(maps_of(cube)[:2], cube, folder)
    assert len(list(folder.glob("*.tif"))) == 2
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "manifest.csv").write_text("a,b\n")
    for other in (tmp_path / "mine", tmp_path / "mine" / "manifest.csv"):
        with pytest.raises(EncoderError, match="holds no salience"):
            write_salience(maps_of(cube), cube, other)
    assert (tmp_path / "mine" / "manifest.csv").read_text() == "a,b\n"


def test_a_failure_leaves_nothing(cube, tmp_path, monkeypatch):
    real = salience_files._write_tiff

    def full(path, *rest):
        if path.name.startswith("000003"):
            raise OSError(28, "No space left on device")
        real(path, *rest)

    monkeypatch.setattr(salience_files, "_write_tiff", full)
    with pytest.raises(OSError, match="No space"):
        write_salience(maps_of(cube), cube, tmp_path / "maps")
    assert list(tmp_path.iterdir()) == []


def test_cubes_that_do_not_fit_are_refused(cube, tmp_path):
    salience = maps_of(cube)
    with pytest.raises(CubeError, match="no coordinate 'crs'"):
        write_salience(salience, cube.drop_vars("crs"), tmp_path / "maps")
    with pytest.raises(AlignmentError, match="Kampala"):
        write_salience(salience, cube.isel(neighborhood=[1, 2]), tmp_path / "maps")
    with pytest.raises(CubeError, match="18 by 18"):
        write_salience(salience, cube.isel(x=slice(9)), tmp_path / "maps")


def test_the_figure_shows_chips_and_their_salience(cube):
    made = salience_figure(cube, maps_of(cube))
    assert "red, green, blue as red, green and blue" in made.caption
    assert "Orange pixels raise" in made.caption
    assert "logit of treatment" in made.caption
    assert to_png(made.figure)[:4] == b"\x89PNG"
    assert len(made.figure.axes) == 2 * 5 + 1
    plain = salience_figure(cube, maps_of(cube, signed=False), bands=["nir"], neighborhoods=["///"])
    assert "nir in grey" in plain.caption
    assert "The stronger the color" in plain.caption
    assert len(plain.figure.axes) == 2 + 1


def test_overlays_follow_the_values_and_the_north(cube):
    salience = maps_of(cube, signed=False) * 0
    salience[0, 2, 5] = 1.0
    overlay = salience_figure(cube, salience, neighborhoods=["Kampala"]).figure.axes[1]
    colors = np.asarray(overlay.images[1].get_array())
    assert colors[..., 3].argmax() == 2 * 18 + 5
    assert (colors[..., 3] > 0).sum() == 1
    turned = cube.copy()
    turned["transform"] = cube["transform"] * [1, 1, 1, 1, -1, 1]
    overlay = salience_figure(turned, salience, neighborhoods=["Kampala"]).figure.axes[1]
    assert np.asarray(overlay.images[1].get_array())[..., 3].argmax() == 15 * 18 + 5


def test_a_sequence_takes_a_pair_of_rows_a_place(sequence):
    made = salience_figure(sequence, maps_of(sequence), neighborhoods=[0, 3])
    assert len(made.figure.axes) == 2 * 2 * 3 + 1
    with pytest.raises(AlignmentError, match="periods"):
        salience_figure(sequence, maps_of(sequence).isel(period=[0, 1]))


def test_empty_maps_are_drawn_and_wrong_bands_refused(cube):
    empty = maps_of(cube) * np.nan
    empty.attrs = ATTRS
    assert to_png(salience_figure(cube, empty).figure)
    with pytest.raises(BandError):
        salience_figure(cube, empty, bands=["swir"])
    with pytest.raises(AlignmentError):
        salience_figure(cube, empty, neighborhoods=["nowhere"])


def test_many_places_are_drawn_in_rows_of_six():
    cube = simulate_objects(ObjectWorldConfig(n=9, size=18, shapes=2)).cube
    figure = salience_figure(cube, maps_of(cube), neighborhoods=list(range(9))).figure
    assert len(figure.axes) == 2 * 9 + 1
    assert figure.get_figwidth() < 10
    titles = [axes.get_title() for axes in figure.axes if axes.get_title().isdigit()]
    assert titles == [str(i) for i in range(9)]
