"""A map of effects: pixels, gaps, orientation, files, workers, resuming, words and refusals."""

from functools import partial

import numpy as np
import pandas as pd
import pytest
import xarray as xr

from eocausal.designs import Event
from eocausal.errors import AlignmentError, CubeError, EmptyInputError, EstimationError
from eocausal.estimators import impact_map_run
from eocausal.estimators.impact_looks import Looks
from eocausal.estimators.impact_map import bsts_map
from eocausal.estimators.impact_map_grid import grid_of
from eocausal.estimators.impact_map_run import tiles_of
from eocausal.estimators.impact_map_tiles import ESTIMATES, PixelStatus
from eocausal.estimators.structural import fit_structural
from eocausal.estimators.structural_grid import fit_grid
from eocausal.estimators.structural_model import StructuralModel, Trend
from eocausal.estimators.structural_priors import CompatiblePrior

TIMES, ROWS, COLUMNS, FROM = 96, 6, 8, 66
DATES = pd.date_range("2010-01-01", periods=TIMES, freq="MS")
EVENT = Event(f"{DATES[FROM]:%Y-%m-%d}")
LAT = 10.0 - 0.5 * np.arange(ROWS)
LON = 120.0 + 0.5 * np.arange(COLUMNS)


def world(effect=2.0, share=0.25, lat=LAT, lon=LON, seed=0):
    rng = np.random.default_rng(seed)
    values = 10.0 + 0.5 * rng.normal(size=(TIMES, ROWS, COLUMNS))
    values += rng.normal(size=(ROWS, COLUMNS))
    values[FROM:, :3, :4] += effect
    values[rng.random(values.shape) < share] = np.nan
    values[:, 5, 7] = np.nan
    values[:, 5, 6] = np.where(np.arange(TIMES) < FROM, 7.0, values[:, 4, 6])
    values[:60, 5, 5] = np.nan
    values[FROM:, 5, 4] = np.nan
    return xr.DataArray(
        values, {"time": DATES, "lat": lat, "lon": lon}, ("time", "lat", "lon"), name="kd",
        attrs={"units": "m-1"},
    )  # fmt: skip


@pytest.fixture(scope="module")
def found():
    return bsts_map(world(), EVENT)


def test_effects_are_found_where_they_are(found):
    data = found.data
    inside = np.zeros((ROWS, COLUMNS), bool)
    inside[:3, :4] = True
    known = data["status"].to_numpy() == PixelStatus.OK
    hit = data["q_value"].to_numpy() < 0.05
    assert hit[inside].all()
    assert hit[known & ~inside].mean() < 0.15
    truth = np.where(inside, 2.0, 0.0)
    holds = (data["ci_low"].to_numpy() < truth) & (data["ci_high"].to_numpy() > truth)
    assert holds[known].mean() > 0.85
    assert data["relative"].to_numpy()[inside] == pytest.approx(np.full(12, 0.2), abs=0.08)
    assert (data["relative_low"] < data["relative"]).to_numpy()[known].all()
    assert found.area["ci_low"] < 2.0 * 12 / 44 < found.area["ci_high"]
    assert data["q_value_dependent"].to_numpy()[known] == pytest.approx(
        np.minimum(data["q_value"].to_numpy()[known] * (1 / np.arange(1, 45)).sum(), 1.0)
    )


def test_every_pixel_has_a_status_and_reasons_are_counted(found):
    status = found.data["status"].to_numpy()
    assert status[5, 4:].tolist() == [
        PixelStatus.NO_AFTER, PixelStatus.FEW, PixelStatus.CONSTANT, PixelStatus.EMPTY,
    ]  # fmt: skip
    assert (np.isfinite(found.data["estimate"].to_numpy()) == (status == PixelStatus.OK)).all()
    assert dict(zip(found.failures["status"], found.failures["pixels"], strict=True)) == {
        "empty": 1, "few": 1, "constant": 1, "no_after": 1,
    }  # fmt: skip
    text = found.summary()
    assert "44 of 48 pixels have an effect of the event 2015-07-01 on kd" in text
    assert "1 no value at any time" in text
    assert "mean series" in text
    assert "ImpactMap(kd, 44 of 48 pixels" in repr(found)
    assert len(found.to_frame()) == ROWS * COLUMNS


def test_a_pixel_is_the_series_fitted_alone(found):
    cube = world()
    before = np.arange(TIMES) < FROM
    alone = fit_structural(cube.to_numpy()[:, 1, 2][None], before).average(~before)
    pixel = found.data.isel(lat=1, lon=2)
    assert float(pixel["estimate"]) == pytest.approx(alone.estimate[0], rel=1e-9)
    assert float(pixel["ci_low"]) == pytest.approx(alone.ci_low[0], rel=1e-7)
    assert float(pixel["p_value"]) == pytest.approx(alone.p_value[0], abs=1e-8)
    assert int(pixel["n_after"]) == alone.n[0]


@pytest.mark.parametrize("pixels", [7, 16])
def test_tiles_of_any_size_give_the_same_map(found, pixels):
    lazy = world().chunk({"time": 40, "lat": 2, "lon": 3})
    other = bsts_map(lazy, EVENT, pixels=pixels)
    for name in found.data:
        np.testing.assert_allclose(
            other.data[name].to_numpy(), found.data[name].to_numpy(), rtol=1e-7, atol=1e-9
        )
    assert other.area["estimate"] == pytest.approx(found.area["estimate"], rel=1e-9)


def test_tiles_follow_chunks_and_cover_the_grid_once():
    cube = world()
    grid = grid_of(cube)
    for lazy, pixels in (
        (cube, 5), (cube, 1000), (cube.chunk({"lat": 2, "lon": 3}), 6),
        (cube.chunk({"lat": 2, "lon": 3}), 13), (cube.chunk({"lat": 6, "lon": 8}), 8),
    ):  # fmt: skip
        seen = np.zeros((ROWS, COLUMNS), int)
        windows = tiles_of(lazy, grid, pixels)
        for window in windows:
            seen[window] += 1
            assert seen[window].size <= max(2 * pixels, 6)
        assert (seen == 1).all()


@pytest.mark.slow
def test_workers_change_nothing(tmp_path):
    from distributed import Client, LocalCluster

    path = tmp_path / "cube.nc"
    world().to_netcdf(path, engine="h5netcdf")
    with xr.open_dataset(path, engine="h5netcdf") as opened:
        here = bsts_map(opened["kd"], EVENT, pixels=16)
        said = []
        with (
            LocalCluster(
                n_workers=2, threads_per_worker=1, processes=True, dashboard_address=None,
                memory_limit=0,
            ) as cluster,
            Client(cluster) as client,
        ):  # fmt: skip
            cut = opened["kd"].chunk({"lat": 3})
            for cube in (opened["kd"], cut):
                there = bsts_map(
                    cube, EVENT, pixels=16, client=client, progress=lambda *a: said.append(a)
                )
                if cube is not cut:
                    xr.testing.assert_identical(here.data, there.data)
                    assert here.area.equals(there.area)
                else:
                    np.testing.assert_allclose(here.data["ci_low"], there.data["ci_low"], rtol=1e-8)
    assert said[0] == (0, 3)
    assert said[3][:2] == (3, 3)
    assert "left" in said[1][2]


def test_an_interrupted_map_goes_on_where_it_was(tmp_path, monkeypatch):
    cube, kept = world(), tmp_path / "kept"

    def stop(done, total, note=""):
        if done == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        bsts_map(cube, EVENT, pixels=8, resume=kept, progress=stop)
    assert len(list(kept.iterdir())) == 2
    fitted = []
    real = impact_map_run.fit_tile
    monkeypatch.setattr(impact_map_run, "fit_tile", lambda *a: (fitted.append(1), real(*a))[1])
    again = bsts_map(cube, EVENT, pixels=8, resume=kept)
    assert len(fitted) == 4
    np.testing.assert_array_equal(
        again.data["estimate"], bsts_map(cube, EVENT, pixels=8).data["estimate"]
    )
    fitted.clear()
    bsts_map(cube, EVENT, pixels=8, resume=kept, level=0.8)
    assert len(fitted) == 6
    (kept / "tile-0-0.npz").write_bytes(b"broken")
    fitted.clear()
    bsts_map(cube, EVENT, pixels=8, resume=kept, level=0.8)
    assert len(fitted) == 1


def test_a_control_zone_takes_out_what_all_share():
    rng = np.random.default_rng(3)
    shared = np.cumsum(rng.normal(size=TIMES)) * 0.5
    cube = world(share=0.3) + xr.DataArray(shared, {"time": DATES}, "time")
    zone = xr.DataArray(np.arange(COLUMNS) >= 6, dims="lon").broadcast_like(cube[0])
    zone = zone.transpose("lat", "lon") & (cube["lat"] > 8)
    with_zone = bsts_map(cube, EVENT, control_zone=zone)
    without = bsts_map(cube, EVENT)
    use = with_zone.data["status"].to_numpy() == PixelStatus.OK
    assert (with_zone.data["status"].to_numpy()[zone.to_numpy()] == PixelStatus.CONTROL).all()
    errors = [m.data["std_error"].to_numpy()[use].mean() for m in (with_zone, without)]
    assert errors[0] < 0.4 * errors[1]
    table = pd.DataFrame({"x": shared + 3.0}, DATES)
    known = bsts_map(cube, EVENT, table).data["estimate"].to_numpy()
    assert with_zone.data["estimate"].to_numpy()[use] == pytest.approx(known[use], abs=0.6)


def test_zones_have_intervals_of_their_own_mean(found):
    import geopandas as gpd
    from shapely import box

    code = np.full((ROWS, COLUMNS), -1)
    code[:3, :4], code[3:5] = 4, 9
    code[5, 7] = 11
    zone = xr.DataArray(code, dims=("lat", "lon"))
    table = found.zones(zone)
    assert table.index.tolist() == [4, 9, 11]
    assert table["pixels"].tolist() == [12, 16, 0]
    assert table.loc[4, "ci_low"] < 2.0 < table.loc[4, "ci_high"]
    assert table.loc[4, "std_error"] < 0.6 * float(found.data["std_error"][:3, :4].mean())
    assert np.isnan(table.loc[11, "estimate"])
    places = gpd.GeoDataFrame(
        geometry=[box(119.7, 8.7, 121.8, 10.3), box(0, 0, 1, 1)], index=["a", "b"], crs=4326
    )
    effects = found.to_effect_map(places)
    assert effects.table["status"].tolist() == ["ok", "refused"]
    assert effects.table.loc["a", "estimate"] == pytest.approx(table.loc[4, "estimate"], rel=1e-9)
    with pytest.raises(EmptyInputError, match="No zone"):
        found.zones(places.iloc[1:])


def files(found, folder):
    import rasterio

    found.write(folder / "map.tif")
    with rasterio.open(folder / "map.tif") as source:
        bands = dict(zip(source.descriptions, source.read(), strict=True))
        return source.crs.to_epsg(), source.transform, bands


def test_files_are_north_up_and_longitudes_to_180(tmp_path, found):
    epsg, place, bands = files(found, tmp_path)
    assert epsg == 4326
    assert (place.c, place.f) == pytest.approx((119.75, 10.25))
    np.testing.assert_allclose(bands["estimate"], found.data["estimate"], rtol=1e-6)
    flipped = bsts_map(world(lon=LON + 100.0).isel(lat=slice(None, None, -1)), EVENT)
    _, place, again = files(flipped, tmp_path)
    assert (place.c, place.f) == pytest.approx((-140.25, 10.25))
    np.testing.assert_allclose(again["estimate"], bands["estimate"], rtol=1e-5)
    assert (again["status"] == bands["status"]).all()
    turn = bsts_map(world(lon=45.0 * np.arange(COLUMNS)), EVENT)
    _, place, wrapped = files(turn, tmp_path)
    assert place.c == pytest.approx(-202.5)
    np.testing.assert_allclose(
        wrapped["estimate"], np.roll(found.data["estimate"], 4, axis=1), rtol=1e-5
    )
    across = bsts_map(world(lon=LON + 58.0), EVENT)
    assert files(across, tmp_path)[1].c == pytest.approx(177.75)


def test_netcdf_and_tables(tmp_path, found):
    import geopandas as gpd

    found.write(tmp_path / "map.nc")
    with xr.open_dataset(tmp_path / "map.nc", engine="h5netcdf") as opened:
        assert opened["estimate"].attrs["units"] == "m-1"
        assert opened["lat"].attrs["standard_name"] == "latitude"
        assert opened["spatial_ref"].attrs["grid_mapping_name"] == "latitude_longitude"
        assert set(ESTIMATES) <= set(opened.data_vars)
        assert "constant" in opened["status"].attrs["flag_meanings"]
    table = gpd.read_file(found.write(tmp_path / "map.gpkg"))
    assert len(table) == ROWS * COLUMNS
    assert table["status"].value_counts().to_dict() == {"ok": 44, "refused": 3, "no_image": 1}
    cell = table.set_index("neighborhood").loc["r0c0"].geometry
    assert cell.bounds == pytest.approx((119.75, 9.75, 120.25, 10.25))
    with pytest.raises(EstimationError, match="cannot be written"):
        found.write(tmp_path / "map.jpg")


def test_a_missing_month_is_put_back_and_seasons_are_seen_through():
    season = xr.DataArray(3 * np.sin(2 * np.pi * np.arange(TIMES) / 12), {"time": DATES}, "time")
    cube = (world(share=0.1) + season).isel(time=np.r_[0:10, 11:TIMES])
    model = StructuralModel(season=12)
    found = bsts_map(cube, EVENT, model=model, area=cube["lat"] * xr.ones_like(cube["lon"]) > 9)
    status = found.data["status"].to_numpy()
    assert (status[2:] == PixelStatus.OUTSIDE).all()
    assert found.data["estimate"].to_numpy()[:2, :4] == pytest.approx(np.full((2, 4), 2), abs=0.8)


def test_values_of_few_looks_count_less():
    rng = np.random.default_rng(5)
    looks = xr.DataArray(rng.choice([1, 25], (TIMES, ROWS, COLUMNS)), dims=("time", "lat", "lon"))
    looks[3] = 0
    noise = rng.normal(size=looks.shape) / np.sqrt(np.maximum(looks, 1))
    cube = xr.zeros_like(world()) + 10.0 + 0.0 * looks + noise
    plain, known = bsts_map(cube, EVENT), bsts_map(cube, EVENT, looks=looks)
    assert (known.data["n_before"] == FROM - 1).all()
    errors = [float(m.data["std_error"].mean()) for m in (known, plain)]
    assert errors[0] < 0.97 * errors[1]
    count = pd.Series(looks.to_numpy()[:, 1, 1], DATES)
    one = fit_grid(
        np.where(looks > 0, cube, np.nan)[:, 1, 1][None], np.arange(TIMES) < FROM,
        StructuralModel(), variance=Looks(count).variance().fillna(1.0).to_numpy(),
    ).average(np.arange(TIMES) >= FROM)  # fmt: skip
    pixel = known.data.isel(lat=1, lon=1)
    assert float(pixel["estimate"]) == pytest.approx(one.estimate[0], rel=1e-9)
    assert float(pixel["ci_high"]) == pytest.approx(one.ci_high[0], rel=1e-7)
    with pytest.raises(CubeError, match="The looks have"):
        bsts_map(cube, EVENT, looks=looks[1:])
    with pytest.raises(EstimationError, match="share of 2"):
        bsts_map(cube, EVENT, looks=looks, look_share=2.0)


PROJECTED = world().rename(lat="y", lon="x")


@pytest.mark.parametrize(
    ("call", "error", "said"),
    [
        (partial(bsts_map, world().mean("lat"), EVENT), CubeError, "dimensions time, lon"),
        (partial(bsts_map, world().drop_vars("lat"), EVENT), CubeError, "no coordinates lat"),
        (partial(bsts_map, PROJECTED, EVENT), Exception, "no coordinate reference system"),
        (
            partial(bsts_map, world(), EVENT, control_zone=world()[0] < -1e9),
            EmptyInputError, "has no pixel",
        ),
        (
            partial(bsts_map, world(), EVENT, control_zone=world(lat=LAT + 1)[0] > 0),
            AlignmentError, "other lat",
        ),
        (
            partial(bsts_map, world(), EVENT, pd.Series(1.0, pd.date_range("1950", periods=5))),
            AlignmentError, "no time in common",
        ),
        (
            partial(bsts_map, world(), EVENT, model=StructuralModel(trend=Trend.SEMI_LOCAL)),
            EstimationError, "A map with",
        ),
        (
            partial(
                bsts_map, world(), EVENT, model=StructuralModel(season=12, prior=CompatiblePrior())
            ),
            EstimationError, "seasons that stay .none under CausalImpact's priors",
        ),
        (partial(bsts_map, world(), EVENT, least=1000), EmptyInputError, "too few values"),
        (partial(bsts_map, world(), EVENT, workers=0), EstimationError, "0 workers"),
    ],
)  # fmt: skip
def test_what_cannot_be_is_refused(call, error, said):
    with pytest.raises(error, match=said):
        call()
