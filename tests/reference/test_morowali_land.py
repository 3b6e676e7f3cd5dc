"""Land cover beside the nickel park of Morowali against its authors' tables.

Printed in supplMorowaliOcean (MIT): reports/lulc_percentage_report.txt and
reports/intensity_analysis_report.txt, pixels taken as 10 m squares, water and clouds left out of
transitions. Areas and transitions come out to the pixel. Two of their levels do not: their uniform
rate of an interval is divided by the years twice, so that all seven intervals are called active,
which no seven intervals can be; and their transitions are in percent of all change of the losing
class, not of its size.
"""

import numpy as np
import pandas as pd
import pytest
import xarray as xr

import eocausal.land_cover as lc

pytestmark = [pytest.mark.realdata, pytest.mark.slow]

PRINTED_2017 = {
    "Water": 2_810_701, "Trees": 1_548_511, "Flooded vegetation": 8_164, "Crops": 71_985,
    "Built area": 122_561, "Bare ground": 34_431, "Rangeland": 112_241,
}  # fmt: skip
PRINTED_2024 = {
    "Water": 2_817_567, "Trees": 1_307_457, "Flooded vegetation": 2_850, "Crops": 73_416,
    "Built area": 461_789, "Bare ground": 14_301, "Rangeland": 74_586,
}  # fmt: skip
NOMINAL = lc.NominalPixels(10.0)


@pytest.fixture(scope="module")
def cover(real_data):
    with xr.open_dataset(real_data("morowali") / "sentinel2LULC_IMIP.nc") as data:
        return data["lulc"].load()


@pytest.fixture(scope="module")
def crossed(cover):
    return lc.cross_years(cover, pixels=NOMINAL, exclude=["Water", "Snow/ice"])


@pytest.fixture(scope="module")
def areas(cover):
    return lc.class_areas(cover, pixels=NOMINAL)


def test_areas_are_the_printed_ones(areas):
    for year, printed in ((2017, PRINTED_2017), (2024, PRINTED_2024)):
        ours = (1e4 * areas.km2.loc[year, list(printed)]).to_dict()
        assert ours == pytest.approx(printed, abs=0.01)
    built, trees = areas.of("Built area"), areas.of("Trees")
    assert (built[2017], built[2024]) == pytest.approx((12.26, 46.18), abs=0.005)
    assert (trees[2017], trees[2024]) == pytest.approx((154.9, 130.7), abs=0.05)


def test_pixels_of_the_grid_are_smaller_than_10_m(cover, areas):
    """0.2 degrees in 2,226 pixels are 9.93 by 9.99 m: all areas are 0.7 % less."""
    on_globe = lc.class_areas(cover.isel(time=[0, 7]))
    ratio = on_globe.km2.sum(axis=1) / areas.km2.loc[[2017, 2024]].sum(axis=1)
    assert ratio.to_numpy() == pytest.approx(0.9933, abs=2e-4)


def test_transitions_are_the_printed_ones(crossed):
    pixels = (1e4 * crossed.between(2017, 2018)).round().astype(int)
    assert pixels.loc["Trees"].tolist() == [1_488_890, 1_265, 7_296, 18_984, 0, 17_947]
    assert pixels.loc["Built area"].tolist() == [806, 0, 330, 119_646, 722, 568]
    assert pixels.loc["Rangeland"].tolist() == [17_496, 193, 17_350, 6_527, 0, 69_450]
    flows = crossed.flows().set_index(["first", "class"])
    assert 1e4 * flows.loc[(2022, "Built area"), "gain"] == pytest.approx(92_431)
    assert 1e4 * flows.loc[(2021, "Trees"), "loss"] == pytest.approx(88_747)


def test_intervals_have_the_printed_rates_and_cannot_all_be_fast(crossed):
    found = lc.intensity_analysis(crossed)
    printed = [6.6878, 7.1628, 6.7573, 7.4028, 10.0063, 9.4960, 6.2749]
    assert found.intervals["intensity"].to_numpy() == pytest.approx(printed, abs=6e-5)
    uniform = found.intervals["uniform"].iloc[0]
    assert uniform / 7 == pytest.approx(1.0978, abs=5e-5)  # what they print as uniform
    assert found.intervals["fast"].tolist() == [False] * 4 + [True, True, False]


def test_built_up_land_grew_faster_years_after_the_break(areas):
    found = lc.timing_beside_break(areas, "Built area", "2019-05")
    assert found.fastest == (2022, 2023)
    assert found.supports is False
    rates = found.rates
    assert rates["before"] == pytest.approx(4.31, abs=0.005)
    assert rates["during"] == pytest.approx(3.92, abs=0.005)
    assert rates["after"] == pytest.approx(5.44, abs=0.005)


def test_clouds_of_the_first_year_hide_some_of_the_change(cover, areas):
    common = lc.class_areas(cover, pixels=NOMINAL, common=True)
    assert np.ptp(common.km2.sum(axis=1)) == pytest.approx(0.0, abs=1e-9)
    change = pd.DataFrame({
        "all": areas.km2.loc[2024] - areas.km2.loc[2017],
        "common": common.km2.loc[2024] - common.km2.loc[2017],
    })  # fmt: skip
    assert change.loc["Trees"].to_numpy() == pytest.approx([-24.1, -27.1], abs=0.06)
    assert change.loc["Built area"].to_numpy() == pytest.approx([33.9, 32.5], abs=0.06)
