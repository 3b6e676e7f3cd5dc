"""Controls: ranked before the event alone, mixed, averaged over regions, kept out of reach."""

import warnings

import numpy as np
import pandas as pd
import pytest
import xarray as xr
from scipy.optimize import minimize
from scipy.signal import lfilter

from eocausal.errors import (
    AlignmentError,
    EmptyInputError,
    EstimationError,
    GeometryError,
    LeakageError,
    OutcomeError,
)
from eocausal.estimators.controls import rank_controls
from eocausal.estimators.controls_innovations import (
    correlations_with,
    independent_number,
    innovations,
)
from eocausal.estimators.controls_reach import check_reach, distances_km, outside_reach
from eocausal.estimators.controls_region import Centre, pixel_table, region_control
from eocausal.estimators.structural_model import Season, StructuralModel
from eocausal.estimators.structural_priors import CompatiblePrior
from eocausal.estimators.synthetic_control import Match, synthetic_control
from eocausal.estimators.synthetic_control_weights import simplex_weights

DATES = pd.date_range("2005-01-01", periods=144, freq="MS")
BEFORE = "2015-01"
PAST = np.asarray(pd.Timestamp("2015-01-01") > DATES)
SITE = pd.DataFrame({"lon": [122.0], "lat": [-2.8]})


def red(rng, shape, phi=0.6):
    shocks = rng.normal(size=(*shape[:-1], shape[-1] + 50))
    return lfilter([1.0], [1.0, -phi], shocks)[..., 50:]


def world(seed=0, times=144):
    """An outcome that moves with two of six candidates, and has its season in common with one."""
    rng = np.random.default_rng(seed)
    x = red(rng, (6, times)).T
    season = 3 * np.cos(2 * np.pi * np.arange(times) / 12)
    y = x[:, 0] + 0.7 * x[:, 1] + season + 0.5 * red(rng, (times,))
    dates = pd.date_range(end=DATES[-1], periods=times, freq="MS")
    table = pd.DataFrame(x, dates, ["strong", "weak", "n1", "n2", "n3", "seasonal"])
    table["seasonal"] += season
    return pd.Series(y, dates), table


Y, X = world()
MODEL = StructuralModel(season=12)


def test_controls_that_predict_come_first():
    found = rank_controls(*world(times=240), BEFORE, model=MODEL)
    assert set(found.best()) == {"strong", "weak"}
    assert found.error_best < 0.7 * found.error_alone
    assert found.table.index[0] == found.best(1)[0]
    assert found.table.loc[["strong", "weak"], "inclusion"].min() > 0.95
    assert found.table.loc[["n1", "n2", "n3", "seasonal"], "inclusion"].max() < 0.5
    assert abs(found.table.loc["seasonal", "correlation"]) < 0.3
    assert "2 of 6 controls tried belong to the model" in found.summary()
    assert "6 candidates up to 2014-12-01" in repr(found)
    assert found.block == 12


def test_nothing_after_the_event_is_read():
    found = rank_controls(Y, X, BEFORE, full=4)
    y, x = Y.copy(), X.copy()
    y[~PAST], x.loc[~PAST] = 1e6, np.random.default_rng(1).normal(size=(24, 6))
    x.loc[~PAST, "n1"] = np.nan
    pd.testing.assert_frame_equal(rank_controls(y, x, BEFORE, full=4).table, found.table)
    mixed = synthetic_control(Y, X, BEFORE, season=12)
    again = synthetic_control(y, x, BEFORE, season=12)
    pd.testing.assert_series_equal(mixed.weights, again.weights)
    assert (mixed.rmse, mixed.rmse_ahead) == (again.rmse, again.rmse_ahead)
    region = region_control(X, BEFORE)
    after = region_control(x.drop(columns="n1"), BEFORE)
    assert after.pixels["used"].all()
    assert np.isclose(
        region_control(X.drop(columns="n1"), BEFORE).series[PAST], after.series[PAST]
    ).all()
    assert region.series.notna().all()


def test_many_candidates_are_screened_and_bad_ones_named():
    rng = np.random.default_rng(2)
    many = pd.DataFrame(red(rng, (300, 144)).T, DATES).add_prefix("p")
    many = many.assign(strong=X["strong"], same=2 * Y + 1, flat=3.0, empty=np.nan)
    found = rank_controls(Y, many, BEFORE, model=MODEL, full=3)
    assert found.best(1) == ["strong"]
    assert found.table["error"].notna().sum() == 3
    assert "is the outcome" in found.table.loc["same", "note"]
    assert found.table.loc["flat", "note"] == "does not vary"
    assert "too few" in found.table.loc["empty", "note"]
    assert "not among the 3" in found.table.iloc[4]["note"]


def test_gaps_are_compared_at_the_same_times_and_priors_may_be_compatible():
    y, x = world(times=240)
    x = x[["strong", "n1"]]
    x.iloc[20:50, 0] = np.nan
    model = StructuralModel(prior=CompatiblePrior())
    found = rank_controls(y, x, BEFORE, model=model, block=6)
    assert found.table.index[0] == "strong"
    assert found.table["inclusion"].between(0, 1).all()
    assert found.table["blocks"].gt(20).all()


@pytest.mark.parametrize(
    ("change", "error", "said"),
    [
        ({"candidates": X[[]]}, EmptyInputError, "no candidate"),
        ({"candidates": X.set_axis(DATES + pd.Timedelta(days=3))}, AlignmentError, "share no"),
        ({"before": "2006-06"}, OutcomeError, "17 times"),
        ({"held_out": 1.0}, EstimationError, "held_out=1.0"),
    ],
)
def test_ranking_that_means_nothing_is_refused(change, error, said):
    asked = {"outcome": Y, "candidates": X, "before": BEFORE} | change
    with pytest.raises(error, match=said):
        rank_controls(**asked)


def test_weights_solve_the_problem_that_is_stated():
    rng = np.random.default_rng(3)
    donors = red(rng, (5, 60)).T
    target = donors @ [0.6, 0.3, 0.1, 0.0, 0.0] + 0.3 * rng.normal(size=60)
    for ridge in (0.0, 0.3):

        def loss(w, ridge=ridge):
            return np.mean((target - donors @ w) ** 2) + ridge * (w**2).sum()

        other = minimize(
            loss, np.full(5, 0.2), method="SLSQP", bounds=[(0, 1)] * 5,
            constraints={"type": "eq", "fun": lambda w: w.sum() - 1}, options={"ftol": 1e-14},
        )  # fmt: skip
        found = simplex_weights(target, donors, ridge)
        assert found == pytest.approx(other.x, abs=1e-5)
        assert found.sum() == pytest.approx(1)
        assert loss(found) <= other.fun + 1e-12
    assert simplex_weights(donors[:, 2], donors) == pytest.approx([0, 0, 1, 0, 0], abs=1e-9)
    assert simplex_weights(1e6 * target, 1e6 * donors) == pytest.approx(
        simplex_weights(target, donors)
    )
    assert simplex_weights(target, donors, 1e9) == pytest.approx(np.full(5, 0.2), abs=1e-6)


def test_a_mixture_is_found_again_in_any_unit():
    rng = np.random.default_rng(4)
    x = pd.DataFrame(red(rng, (8, 144)).T, DATES).add_prefix("site")
    y = pd.Series(5 + x.to_numpy() @ [0.5, 0.3, 0.2, 0, 0, 0, 0, 0], DATES)
    y += 0.05 * rng.normal(size=144)
    found = synthetic_control(y, x, BEFORE, match=Match.LEVEL)
    assert found.weights.to_numpy()[:3] == pytest.approx([0.5, 0.3, 0.2], abs=0.03)
    assert found.donors == pytest.approx(1 / (0.25 + 0.09 + 0.04), rel=0.1)
    assert found.rmse == pytest.approx(0.05, abs=0.01)
    assert found.rmse_ahead < 0.07 < found.rmse_equal
    gap = (y - found.series)[PAST]
    assert gap.mean() == pytest.approx(0, abs=1e-10)
    assert np.sqrt((gap**2).mean()) == pytest.approx(found.rmse)
    standard = synthetic_control(y, x, BEFORE)
    scaled = synthetic_control(100 * y, x * np.arange(1, 9) + 7, BEFORE)
    assert scaled.weights.to_numpy() == pytest.approx(standard.weights.to_numpy(), abs=1e-8)
    assert scaled.series.to_numpy() == pytest.approx(100 * standard.series.to_numpy())
    assert synthetic_control(y, x, BEFORE, ridge=5.0).donors > standard.donors
    plain = synthetic_control(y - 5, x, BEFORE, match=Match.VALUES)
    assert plain.series.to_numpy() == pytest.approx(x.to_numpy() @ plain.weights.to_numpy())
    assert "donors" in repr(found)
    assert "site0 5" in found.summary()


def test_a_season_in_common_does_not_decide():
    with_season = synthetic_control(Y, X, BEFORE)
    without = synthetic_control(Y, X, BEFORE, season=Season(12, harmonics=2))
    assert with_season.weights["seasonal"] > 0.5
    assert without.weights["seasonal"] < 0.2
    assert without.weights.idxmax() == "strong"
    assert without.rmse < with_season.rmse


@pytest.mark.parametrize(
    ("donors", "asked", "error", "said"),
    [
        (X.assign(n1=np.nan), {}, OutcomeError, "'n1'"),
        (X.assign(copy=3 * Y), {}, EstimationError, "'copy'"),
        (X.assign(n1=2.0), {}, EstimationError, "do not vary"),
        (X, {"ridge": -1.0}, EstimationError, "ridge=-1"),
        (X[[]], {}, OutcomeError, "all 0 donors"),
    ],
)
def test_mixtures_that_mean_nothing_are_refused(donors, asked, error, said):
    with pytest.raises(error, match=said):
        synthetic_control(Y, donors, BEFORE, **asked)
    with pytest.raises(OutcomeError, match="does not vary"):
        synthetic_control(Y * 0 + 1, X, BEFORE)


def test_clouds_do_not_move_a_region_whose_pixels_differ_in_level():
    rng = np.random.default_rng(5)
    common = red(rng, (144,))
    level = np.linspace(0, 50, 40)
    values = common[:, None] + level + 0.1 * rng.normal(size=(144, 40))
    cloudy = np.where(rng.random((144, 40)) < 0.6, np.nan, values)
    places = pd.DataFrame({"lon": 122.0, "lat": np.linspace(-80, 0, 40)})
    area = np.cos(np.deg2rad(places["lat"].to_numpy()))
    for centre in Centre:
        found = region_control(pd.DataFrame(cloudy, DATES), BEFORE, places=places, centre=centre)
        expected = common + level @ area / area.sum()
        assert np.abs(found.series - expected).max() < 0.6  # 20 if clouds moved it
        assert found.coverage["share"].mean() == pytest.approx(0.4, abs=0.02)
    number = np.tile(np.where(np.arange(40) < 20, 3, 0), (144, 1))
    looks = pd.DataFrame(number, DATES)
    half = region_control(pd.DataFrame(values, DATES), BEFORE, looks=looks)
    assert half.coverage["pixels"].eq(20).all()
    assert half.coverage["looks"].eq(60).all()
    few = region_control(pd.DataFrame(cloudy, DATES), BEFORE, least_share=0.42)
    assert 20 < few.series.isna().sum() < 130
    assert "of 40 pixels" in repr(few)
    assert "% of it is seen" in few.summary()
    assert "value" in few.to_frame()


def test_pixels_within_reach_are_left_out_of_a_region():
    lat = [-2.8, -2.81, -3.5]
    array = xr.DataArray(
        np.random.default_rng(6).normal(size=(144, 3, 2)), dims=("time", "lat", "lon"),
        coords={"time": DATES, "lat": lat, "lon": [122.0, 122.01]},
    )  # fmt: skip
    array[:, 2, 1] = np.nan
    pixels, places = pixel_table(array)
    assert pixels.shape == (144, 5)
    assert places.loc[4].tolist() == [122.0, -3.5]
    found = region_control(pixels, BEFORE, places=places, event=SITE, reach_km=20)
    assert found.pixels["used"].tolist() == [False, False, False, False, True]
    assert "4 pixels left out: within 20 km of the event" in found.summary()
    assert found.series.to_numpy() == pytest.approx(array[:, 2, 0].to_numpy())
    with pytest.raises(EmptyInputError, match="No pixel"):
        region_control(pixels, BEFORE, places=places, event=SITE, reach_km=500)
    with pytest.raises(EstimationError, match="needs reach_km"):
        region_control(pixels, BEFORE, reach_km=500)
    with pytest.raises(AlignmentError, match="another order"):
        region_control(pixels, BEFORE, places=places.iloc[::-1])
    with pytest.raises(AlignmentError, match="Looks"):
        region_control(pixels, BEFORE, looks=pixels.add_prefix("x"))


def test_distances_and_refusal_of_controls_in_reach():
    places = pd.DataFrame(
        {"lon": [122.0, 123.0, 122.0], "lat": [-2.8, -2.8, 87.2]}, ["a", "b", "c"]
    )
    km = distances_km(places, SITE)
    degree = np.pi * 6371.0 / 180
    assert km["a"] == 0
    assert km["b"] == pytest.approx(degree * np.cos(np.deg2rad(2.8)), rel=1e-3)
    assert km["c"] == pytest.approx(90 * degree)
    zone = pd.DataFrame({"lon": [0.0, 122.9], "lat": [0.0, -2.8]})
    assert distances_km(places, zone)["b"] == pytest.approx(0.1 * degree * 0.9988, rel=1e-3)
    across = pd.DataFrame({"lon": [179.9], "lat": [0.0]})
    assert distances_km(across, across.assign(lon=-179.9))[0] == pytest.approx(0.2 * degree)
    assert outside_reach(places, SITE, 50).tolist() == [False, True, True]
    assert check_reach(places.loc[["b", "c"]], SITE, 50)["b"] > 100
    with pytest.raises(LeakageError, match=r"1 of 3 controls lie within 50 km of the event: a \(0"):
        check_reach(places, SITE, 50)
    with pytest.raises(EstimationError, match="not a distance"):
        outside_reach(places, SITE, -1.0)
    with pytest.raises(GeometryError, match="beyond a pole"):
        distances_km(places.assign(lat=91.0), SITE)


def test_what_is_new_has_no_season_and_no_memory_left():
    rng = np.random.default_rng(7)
    t = np.arange(3000)
    series = red(rng, (2, 3000), 0.9).T + 5 * np.cos(2 * np.pi * t / 12)[:, None]
    series[rng.random(3000) < 0.2, 0] = np.nan
    new = innovations(series, (Season(12),))
    both = np.isfinite(new[1:, 1])
    assert abs(np.corrcoef(new[1:, 1][both][1:], new[1:, 1][both][:-1])[0, 1]) < 0.06
    assert np.nanstd(new, axis=0) == pytest.approx([1.0, 1.0], abs=0.06)
    assert abs(correlations_with(new[:, 0], new[:, [1]])[0]) < 0.08
    assert np.isnan(correlations_with(new[:, 0], np.full((3000, 1), 2.0)))[0]


def test_the_number_of_independent_series():
    rng = np.random.default_rng(8)
    own = rng.normal(size=(300, 40))
    assert independent_number(own) == pytest.approx(40, rel=0.1)
    assert independent_number(np.repeat(own[:, :10], 4, axis=1)) == pytest.approx(10, rel=0.1)
    common = 3 * rng.normal(size=(300, 1)) + own
    assert 1 <= independent_number(common) < 2
    gaps = np.where(rng.random(own.shape) < 0.4, np.nan, own)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert independent_number(gaps) == pytest.approx(40, rel=0.1)
