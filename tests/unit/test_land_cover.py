"""Land cover: areas on the globe, transitions, intensity analysis, adjusted areas, timing."""

import numpy as np
import pandas as pd
import pytest
import xarray as xr

import eocausal.land_cover as lc
from eocausal.errors import (
    AlignmentError,
    BandError,
    CRSError,
    EmptyInputError,
    EstimationError,
    MissingColumnError,
)

LEGEND = lc.Legend({1: "Forest", 2: "Field", 3: "Town", 9: "Cloud"}, frozenset({9}))


def maps(*years, first=2017, dims=("time", "y", "x"), metres=1000.0):
    values = np.array(years)
    coords = {
        dims[0]: pd.to_datetime([f"{first + k}-01-01" for k in range(len(years))]),
        dims[1]: metres * np.arange(values.shape[1])[::-1],
        dims[2]: metres * np.arange(values.shape[2]),
    }
    return xr.DataArray(values, dims=dims, coords=coords)


BEFORE = [[1, 1, 1], [2, 2, 1], [3, 9, 1]]
AFTER = [[1, 1, 3], [2, 3, 1], [3, 1, 9]]


def test_areas_by_class_and_year():
    found = lc.class_areas(maps(BEFORE, AFTER), LEGEND)
    assert found.km2.loc[2017].tolist() == [5.0, 2.0, 1.0]
    assert found.km2.loc[2018].tolist() == [4.0, 1.0, 3.0]
    assert found.unobserved.tolist() == [1.0, 1.0]
    assert found.share.sum(axis=1).tolist() == [1.0, 1.0]
    assert found.of("Town").tolist() == [1.0, 3.0]
    both = lc.class_areas(maps(BEFORE, AFTER), LEGEND, common=True)
    assert both.km2.loc[2017].tolist() == [4.0, 2.0, 1.0]
    assert both.km2.loc[2018].tolist() == [3.0, 1.0, 3.0]
    frame = found.to_frame()
    assert len(frame) == 6
    assert frame["km2"].sum() == 16
    assert "Town 1.00 to 3.00 km² (+2.00)" in found.summary()


def test_a_mask_and_missing_values():
    within = xr.DataArray(np.array([[1, 1, 1], [0, 0, 0], [0, 0, 0]], bool), dims=("y", "x"))
    found = lc.class_areas(maps(BEFORE, AFTER), LEGEND, within=within)
    assert found.km2.loc[2018].tolist() == [2.0, 0.0, 1.0]
    holes = maps(BEFORE, AFTER).astype(float).where(lambda m: m != 2)
    assert lc.class_areas(holes, LEGEND).unobserved.tolist() == [3.0, 2.0]


def test_degrees_are_areas_of_the_ellipsoid():
    """The globe has 510,065,621.7 km² (WGS 84)."""
    lat, lon = np.arange(-89.5, 90), np.arange(0.5, 360)
    whole = xr.DataArray(
        np.ones((1, 180, 360), int), dims=("year", "lat", "lon"),
        coords={"year": [2020], "lat": lat[::-1], "lon": lon},
    )  # fmt: skip
    found = lc.class_areas(whole, LEGEND)
    assert found.of("Forest").iloc[0] == pytest.approx(510_065_621.7, rel=1e-7)
    rows = lc.GridPixels().of_rows(whole)
    assert rows[90] == pytest.approx(110.574 * 111.320, rel=1e-3)
    nominal = lc.class_areas(whole, LEGEND, pixels=lc.NominalPixels(100))
    assert nominal.of("Forest").iloc[0] == pytest.approx(180 * 360 * 0.01)


def test_transitions_keep_what_both_maps_saw():
    found = lc.cross_years(maps(BEFORE, AFTER), LEGEND)
    assert found.between(2017, 2018).to_numpy().tolist() == [[3, 0, 1], [0, 1, 1], [0, 0, 1]]
    flows = found.flows().set_index("class")
    assert flows.loc["Town", ["gain", "loss", "net", "swap"]].tolist() == [2, 0, 2, 0]
    assert flows["net"].sum() == 0
    assert found.to_frame()["km2"].sum() == 7
    without = lc.cross_years(maps(BEFORE, AFTER), LEGEND, exclude=["Field"])
    assert without.matrices[0].to_numpy().tolist() == [[3, 1], [0, 1]]
    assert "Forest to Town 1.00 km²" in found.summary()


def test_swap_is_gain_that_loss_made_up_for():
    found = lc.cross_years(maps([[1, 1, 2]], [[2, 1, 1]], metres=1000.0).pad(
        y=(0, 1), mode="edge").assign_coords(y=[1000.0, 0.0]), LEGEND)  # fmt: skip
    flows = found.flows().set_index("class")
    assert flows.loc["Forest", ["net", "swap"]].tolist() == [0, 4]


def random_transitions(seed=0, steps=4, kinds=3):
    rng = np.random.default_rng(seed)
    cube = [rng.integers(1, kinds + 1, (30, 40))]
    for _ in range(steps):
        new = rng.integers(1, kinds + 1, (30, 40))
        cube.append(np.where(rng.random((30, 40)) < rng.uniform(0.05, 0.4), new, cube[-1]))
    return lc.cross_years(maps(*cube), LEGEND)


def test_intensities_average_to_the_uniform_ones():
    """What makes an intensity uniform: each level's weighted mean is the level above."""
    found = random_transitions()
    analysis = lc.intensity_analysis(found)
    assert analysis.intervals["intensity"].mean() == pytest.approx(
        analysis.intervals["uniform"].iloc[0]
    )
    assert 0 < analysis.intervals["fast"].sum() < len(analysis.intervals)
    for (first, last), matrix in zip(found.intervals, found.matrices, strict=True):
        table = matrix.to_numpy()

        def here(frame, first=first, last=last):
            return frame[(frame["first"] == first) & (frame["last"] == last)]

        part = here(analysis.categories)
        rate = here(analysis.intervals)["intensity"].iloc[0]
        assert part["loss"].to_numpy() @ table.sum(1) / table.sum() == pytest.approx(rate)
        assert part["gain"].to_numpy() @ table.sum(0) / table.sum() == pytest.approx(rate)
        for n, name in enumerate(found.classes):
            gains, losses = here(analysis.gains), here(analysis.losses)
            gains, losses = gains[gains["to"] == name], losses[losses["from"] == name]
            start, end = np.delete(table.sum(1), n), np.delete(table.sum(0), n)
            mean = gains["intensity"].to_numpy() @ start / start.sum()
            assert mean == pytest.approx(gains["uniform"].iloc[0])
            mean = losses["intensity"].to_numpy() @ end / end.sum()
            assert mean == pytest.approx(losses["uniform"].iloc[0])
            assert gains["km2"].to_numpy() == pytest.approx(np.delete(table[:, n], n))
            assert losses["km2"].to_numpy() == pytest.approx(np.delete(table[n], n))


def test_intensities_by_hand():
    table = pd.DataFrame([[80.0, 15, 5], [0, 90, 0], [0, 5, 5]], list("ABC"), list("ABC"))
    two = lc.Transitions((2000, 2005, 2006), (table, table), lc.NominalPixels())
    found = lc.intensity_analysis(two)
    assert found.intervals["intensity"].tolist() == pytest.approx([2.5, 12.5])
    assert found.intervals["uniform"].tolist() == pytest.approx([50 / 1200 * 100] * 2)
    assert found.intervals["fast"].tolist() == [False, True]
    first = found.categories.iloc[:3].set_index("class")
    assert first["gain"].tolist() == pytest.approx([0.0, 100 * 20 / 110 / 5, 100 * 5 / 10 / 5])
    assert first["loss"].tolist() == pytest.approx([4.0, 0.0, 10.0])
    gains = found.gains.iloc[:6].set_index(["from", "to"])
    assert gains.loc[("C", "B"), "intensity"] == pytest.approx(10.0)
    assert gains.loc[("C", "B"), "uniform"] == pytest.approx(100 * 20 / 110 / 5)
    assert bool(gains.loc[("C", "B"), "targeted"])
    assert not bool(gains.loc[("A", "B"), "targeted"])
    losses = found.losses.iloc[:6].set_index(["from", "to"])
    assert losses.loc[("A", "C"), "intensity"] == pytest.approx(100 * 5 / 10 / 5)
    assert losses.loc[("A", "C"), "uniform"] == pytest.approx(100 * 20 / 120 / 5)
    assert found.sources("B")["km2"].to_dict() == {"A": 30.0, "C": 10.0}
    assert found.sinks("A").loc["C", "targeted"] == 2
    assert found.steady().loc["C", "loss_stationary"]
    assert "2005-2006 (12.50 %)" in found.summary()


CLASSES = ["Deforestation", "Forest gain", "Stable forest", "Stable non-forest"]
EXAMPLE = pd.DataFrame(
    [[66, 0, 5, 4], [0, 55, 8, 12], [1, 0, 153, 11], [2, 1, 9, 313]], CLASSES, CLASSES
)
MAPPED = dict(zip(CLASSES, [200_000, 150_000, 3_200_000, 6_450_000], strict=True))


def test_the_example_of_olofsson_2014():
    """Table 8 and page 54, in pixels of 0.09 ha: deforestation 21,158 ha +- 6,158 ha."""
    found = lc.adjusted_areas(EXAMPLE, MAPPED)
    table = found.table
    assert table["area"].iloc[0] == pytest.approx(235_086, abs=0.5)
    assert 0.09 * table["area"].to_numpy() == pytest.approx(
        [21_158, 11_686, 285_770, 581_386], abs=0.5
    )
    half = 0.09 * 1.96 * table["std_error"].to_numpy()
    assert half == pytest.approx([6_158, 3_756, 15_510, 16_282], abs=0.5)
    assert table["users"].to_numpy() == pytest.approx([0.88, 0.733, 0.927, 0.963], abs=5e-4)
    assert 1.96 * table["users_se"].to_numpy() == pytest.approx(
        [0.074, 0.101, 0.0397, 0.0205], abs=5e-4
    )
    assert table["producers"].to_numpy() == pytest.approx([0.749, 0.847, 0.935, 0.962], abs=5e-4)
    assert 1.96 * table["producers_se"].to_numpy() == pytest.approx(
        [0.213, 0.254, 0.0343, 0.0184], abs=5e-4
    )
    assert found.overall == pytest.approx(0.947, abs=5e-4)
    assert 1.96 * found.overall_se == pytest.approx(0.0185, abs=5e-5)
    assert found.proportions.to_numpy().sum() == pytest.approx(1.0)
    assert "Deforestation" in found.summary()


def test_the_example_of_olofsson_2013():
    names = ["Deforestation", "Forest", "Non-forest"]
    counts = pd.DataFrame([[97, 0, 3], [3, 279, 18], [2, 1, 97]], names, names)
    mapped = dict(zip(names, [22_353, 1_122_543, 610_228], strict=True))
    found = lc.adjusted_areas(counts, mapped).table
    assert found["area"].iloc[0] == pytest.approx(45_112, abs=1)
    assert found["std_error"].iloc[0] == pytest.approx(10_752, abs=1)
    assert found["producers"].to_numpy() == pytest.approx([0.481, 0.994, 0.897], abs=5e-4)


def test_adjusted_areas_are_unbiased_and_their_intervals_cover():
    """300 stratified samples of a map with known errors."""
    rng = np.random.default_rng(0)
    truth = np.array([[0.8, 0.2], [0.05, 0.95]])  # P(reference | map)
    area = np.array([100.0, 900.0])
    real = float(area @ truth[:, 0])
    got, held = [], 0
    for _ in range(300):
        counts = pd.DataFrame(
            [rng.multinomial(n, p) for n, p in zip([100, 300], truth, strict=True)],
            ["a", "b"], ["a", "b"],
        )  # fmt: skip
        row = lc.adjusted_areas(counts, {"a": 100.0, "b": 900.0}).table.loc["a"]
        got.append(row["area"])
        held += row["low"] <= real <= row["high"]
    assert np.mean(got) == pytest.approx(real, abs=4 * np.std(got) / np.sqrt(300))
    assert 0.91 <= held / 300 <= 0.98


def areas(values, first=2017):
    index = pd.Index(range(first, first + len(values)), name="year")
    table = pd.DataFrame({"Town": values, "Rest": 100.0 - np.array(values)}, index)
    return lc.ClassAreas(table, pd.Series(0.0, index), lc.NominalPixels())


def test_timing_says_whether_growth_set_in_at_the_break():
    sudden = lc.timing_beside_break(areas([1.0, 1.1, 1.2, 6.0, 6.2, 6.3]), "Town", "2020-02")
    assert sudden.table["beside"].tolist() == ["before", "before", "during", "during", "after"]
    assert sudden.supports
    assert sudden.fastest == (2019, 2020)
    assert "which holds the break" in sudden.summary()
    steady = lc.timing_beside_break(areas([1.0, 2, 3, 4, 5, 6]), "Town", "2020-02")
    assert steady.supports is False
    assert "do not by themselves date it" in steady.summary()
    early = lc.timing_beside_break(areas([1.0, 2, 3, 4]), "Town", "2017-05")
    assert early.supports is None
    wide = lc.timing_beside_break(
        areas([1.0, 1.1, 1.2, 6.0, 6.2, 6.3]), "Town", "2020-02", interval=("2018-06", "2021-01")
    )
    assert wide.table["beside"].tolist() == ["during"] * 5
    with pytest.raises(MissingColumnError, match="Village"):
        lc.timing_beside_break(areas([1.0, 2, 3]), "Village", "2018-05")
    with pytest.raises(EstimationError, match="maps"):
        lc.timing_beside_break(areas([1.0, 2]), "Town", "2018-05")
    with pytest.raises(EstimationError, match="interval"):
        lc.timing_beside_break(areas([1.0, 2, 3]), "Town", "2018-05", interval=("2019", "2020"))


def test_bad_maps():
    with pytest.raises(BandError, match="without a name: 4"):
        lc.class_areas(maps([[1, 4], [1, 1]]), LEGEND)
    with pytest.raises(AlignmentError, match="time, rows and columns"):
        lc.class_areas(maps(BEFORE).isel(time=0), LEGEND)
    with pytest.raises(AlignmentError, match="2018, 2017"):
        lc.class_areas(maps(BEFORE, AFTER).isel(time=[1, 0]), LEGEND)
    with pytest.raises(AlignmentError, match="mask"):
        lc.class_areas(maps(BEFORE), LEGEND, within=xr.DataArray(np.ones((2, 2), bool)))
    with pytest.raises(AlignmentError, match="transition is from one map"):
        lc.cross_years(maps(BEFORE), LEGEND)
    with pytest.raises(MissingColumnError, match="Lake"):
        lc.cross_years(maps(BEFORE, AFTER), LEGEND, exclude=["Lake"])
    with pytest.raises(MissingColumnError, match="interval"):
        lc.cross_years(maps(BEFORE, AFTER), LEGEND).between(2017, 2019)
    with pytest.raises(CRSError, match="row and column"):
        lc.class_areas(maps(BEFORE, dims=("time", "row", "column")), LEGEND)
    with pytest.raises(CRSError, match="unevenly"):
        lc.class_areas(maps(BEFORE).assign_coords(x=[0.0, 1.0, 5.0]), LEGEND)
    with pytest.raises(EmptyInputError, match="legend"):
        lc.Legend({1: "Forest", 2: "Forest"})
    with pytest.raises(EstimationError, match="observed in both"):
        lc.intensity_analysis(lc.cross_years(maps([[9, 9], [9, 9]], [[1, 1], [1, 1]]), LEGEND))


def test_bad_samples():
    with pytest.raises(AlignmentError, match="same classes"):
        lc.adjusted_areas(EXAMPLE, {"Deforestation": 1.0})
    with pytest.raises(EstimationError, match="whole numbers"):
        lc.adjusted_areas(EXAMPLE / 10, MAPPED)
    thin = EXAMPLE.copy()
    thin.loc["Forest gain"] = [0, 1, 0, 0]
    with pytest.raises(EstimationError, match="Fewer than two samples"):
        lc.adjusted_areas(thin, MAPPED)
    never = EXAMPLE.copy()
    never.loc["Forest gain"] = 0
    found = lc.adjusted_areas(never, MAPPED | {"Forest gain": 0.0})
    assert np.isnan(found.table.loc["Forest gain", "users"])
    assert found.table.loc["Forest gain", "area"] > 0
