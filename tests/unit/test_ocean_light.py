"""Attenuation from reflectance, units, and the depth that light reaches."""

import numpy as np
import pandas as pd
import pytest
import xarray as xr

import eocausal.ocean as ocean
from eocausal.effects import EffectPath
from eocausal.errors import EstimationError, OutcomeError
from eocausal.ocean import AttenuationUnits, Sensor

HUNDREDTH = AttenuationUnits.HUNDREDTH_PER_METRE


def a_path(observed, drawn, post=None):
    observed, drawn = np.atleast_1d(observed), np.atleast_2d(drawn)
    index = pd.date_range("2019-05-01", periods=len(observed), freq="MS")
    post = np.ones(len(observed), bool) if post is None else post
    return EffectPath(index, observed.astype(float), drawn.astype(float), post)


@pytest.mark.parametrize(
    ("sensor", "equal_bands"),
    [
        (Sensor.SEAWIFS, -0.8515), (Sensor.MODIS, -0.8813), (Sensor.MERIS, -0.8641),
        (Sensor.VIIRS, -0.8730), (Sensor.OCTS, -0.8878),
    ],
)  # fmt: skip
def test_equal_bands_leave_the_first_coefficient(sensor, equal_bands):
    found = ocean.kd490_from_reflectance(np.array([0.004]), np.array([0.004]), sensor)
    assert found.kd490[0] == pytest.approx(0.0166 + 10**equal_bands)


def test_bluer_water_is_clearer_and_the_polynomial_is_the_published_one():
    ratio = np.array([0.5, 1.0, 2.0, 5.0])
    found = ocean.kd490_from_reflectance(0.002 * ratio, np.full(4, 0.002), Sensor.MODIS)
    x = np.log10(ratio)
    power = -0.8813 - 2.0584 * x + 2.5878 * x**2 - 3.4885 * x**3 - 1.5061 * x**4
    assert found.kd490 == pytest.approx(0.0166 + 10**power)
    assert (np.diff(found.kd490) < 0).all()


def test_every_pixel_without_a_value_says_why():
    blue = xr.DataArray([[0.004, -0.001, np.nan], [0.0, 0.0001, 0.003]], dims=("y", "x"))
    green = xr.DataArray([[0.003, 0.002, 0.002], [0.002, 0.02, np.inf]], dims=("y", "x"))
    found = ocean.kd490_from_reflectance(blue, green, Sensor.SEAWIFS)
    assert found.flags.tolist() == [[0, 2, 1], [2, 3, 1]]
    assert np.isfinite(found.kd490.to_numpy()).sum() == 1
    assert found.kd490.attrs["units"] == "m-1"
    frame = found.to_frame()
    assert frame["pixels"].sum() == 6
    assert frame.loc["not_positive", "pixels"] == 2
    assert "above 6.4 m-1" in found.summary()


def test_reflectances_that_cannot_be():
    with pytest.raises(OutcomeError, match="shapes"):
        ocean.kd490_from_reflectance(np.ones(2), np.ones(3), Sensor.MODIS)
    with pytest.raises(OutcomeError, match="blue reflectance is typically 3"):
        ocean.kd490_from_reflectance(np.full(3, 3.0), np.full(3, 0.01), Sensor.MODIS)


def test_a_factor_of_100_is_named():
    with pytest.raises(OutcomeError, match="factor of 100") as error:
        ocean.per_metre(np.array([4.7, 5.4]))
    assert "HUNDREDTH_PER_METRE" in str(error.value)
    with pytest.raises(OutcomeError, match="factor of 100") as error:
        ocean.per_metre(np.array([0.047, 0.054]), HUNDREDTH)
    assert "PER_METRE" in str(error.value)
    assert ocean.per_metre(np.array([4.7]), HUNDREDTH) == pytest.approx(0.047)
    assert ocean.per_metre(np.array([4.7]), turbid=True) == pytest.approx(4.7)
    with pytest.raises(OutcomeError, match="no value"):
        ocean.per_metre(np.array([np.nan]))


def test_the_published_change_of_depth_and_what_it_is_of():
    """Printed: 97.784 -> 85.490 m, -12.294 m, as depth of 1 % of PAR; it is that of 490 nm."""
    path = a_path(5.380750, np.full((20, 1), 4.704264))
    table = ocean.compare_relations(path, units=HUNDREDTH)
    first = table.iloc[0]
    assert first["expected"] == pytest.approx(97.784, abs=5e-4)
    assert first["observed"] == pytest.approx(85.490, abs=5e-4)
    assert first["change"] == pytest.approx(-12.294, abs=5e-4)
    assert "not of PAR" in first["meaning"]
    others = table["change"].iloc[1:]
    assert others.max() == pytest.approx(-4.1, abs=0.05)
    assert others.min() == pytest.approx(-6.8, abs=0.05)


def test_depth_of_a_mean_is_not_the_mean_of_depths():
    rng = np.random.default_rng(0)
    drawn = 0.05 * np.exp(rng.normal(0, 0.3, (4000, 12)))
    found = ocean.euphotic_depth_effect(a_path(np.full(12, 0.05), drawn), ocean.DepthOf490())
    assert found.expected.mean() == pytest.approx(92 * np.exp(0.045), rel=0.01)
    assert found.at_mean_expected.mean() == pytest.approx(92 * np.exp(-0.045), rel=0.02)
    low, high = np.quantile(found.average, [0.025, 0.975])
    row = found.record()
    assert (row["change_low"], row["change_high"]) == pytest.approx((low, high))
    assert len(found.to_frame()) == 12


def test_a_draw_without_a_depth_leaves_its_time_out():
    drawn = np.array([[0.05, 0.05], [0.04, 0.01]])
    found = ocean.euphotic_depth_effect(
        a_path([0.05, 0.05], drawn), ocean.EuphoticFromChlorophyll()
    )
    assert found.left_out == 1
    assert "1 times without" in found.summary()
    with pytest.raises(OutcomeError, match="No time"):
        ocean.euphotic_depth_effect(a_path([0.05], np.array([[0.05], [0.01]])), ocean.DepthOfPar())


def test_chlorophyll_and_back():
    chl = np.array([0.02, 0.1, 1.0, 10.0])
    for bridge in (
        ocean.AttenuationOfChlorophyll(), ocean.AttenuationOfChlorophyll(0.077746, 0.672846)
    ):  # fmt: skip
        assert bridge.chlorophyll(bridge.attenuation(chl)) == pytest.approx(chl)
    assert ocean.AttenuationOfChlorophyll().attenuation(np.array([1.0])) == pytest.approx(0.08902)
    assert np.isnan(ocean.AttenuationOfChlorophyll().chlorophyll(np.array([0.0166, 0.01]))).all()
    assert np.isnan(ocean.AttenuationOfChlorophyll().attenuation(np.array([0.0]))).all()


def test_a_thinner_layer_loses_more_of_its_red():
    kd = np.linspace(0.03, 0.4, 20)
    one, two = (ocean.attenuation_of_par(kd, layer) for layer in ocean.Layer)
    assert (one > two).all()
    assert one[0] == pytest.approx(0.0864 + 0.884 * 0.03 - 0.00137 / 0.03)
    assert np.isnan(ocean.attenuation_of_par(np.array([0.01]))).all()


@pytest.mark.parametrize("relation", ocean.RELATIONS, ids=lambda r: r.name)
def test_murkier_water_is_darker(relation):
    low, high = relation.valid
    kd = np.geomspace(max(low, 0.02), min(high, 0.45), 50)
    depth = relation.depth(kd)
    assert (np.diff(depth) < 0).all()
    assert (depth > 0).all()
    assert relation.source
    assert relation.meaning


def test_lee_solves_its_equation_and_deepens_with_less_light():
    a, bb = np.array([0.02, 0.1, 0.5, np.nan]), np.array([0.002, 0.005, 0.02, 0.01])
    depth = ocean.photic_depth_lee(a, bb)
    k1 = -0.057 + 0.482 * np.sqrt(a) + 4.221 * bb
    k2 = (0.183 + 0.702 * a - 2.567 * bb) * (1.465 - 0.667)
    left = (k1 + k2 / np.sqrt(1 + depth)) * depth
    assert left[:3] == pytest.approx(np.log(100))
    assert np.isnan(depth[3])
    assert (ocean.photic_depth_lee(a, bb, percent=10)[:3] < depth[:3]).all()
    assert (ocean.photic_depth_lee(a, bb, sun_zenith=60)[:3] < depth[:3]).all()
    with pytest.raises(EstimationError, match="%"):
        ocean.photic_depth_lee(a, bb, percent=0)
