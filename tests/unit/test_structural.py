"""Fitting many series: gaps, scales, refusals, and answers that make sense."""

import numpy as np
import pytest

from eocausal.errors import EstimationError, OutcomeError
from eocausal.estimators.structural import fit_structural
from eocausal.estimators.structural_model import (
    Engine,
    Season,
    StructuralModel,
    Trend,
    engine_of,
)
from eocausal.estimators.structural_priors import CompatiblePrior, LearnedPrior

TIMES = 90
BEFORE = np.arange(TIMES) < 60
RNG = np.random.default_rng(0)
X = RNG.normal(size=(TIMES, 2))


def series(count=4, effect=0.0):
    rng = np.random.default_rng(1)
    y = 10.0 + X @ [1.0, 0.5] + 0.3 * rng.normal(size=(count, TIMES))
    return y + effect * ~BEFORE


@pytest.mark.parametrize("prior", [LearnedPrior(), CompatiblePrior()])
def test_a_planted_effect_is_found_and_its_interval_holds_it(prior):
    found = fit_structural(series(effect=2.0), BEFORE, StructuralModel(prior=prior), controls=X)
    average = found.average(~BEFORE)
    assert average.estimate == pytest.approx(np.full(4, 2.0), abs=0.4)
    assert ((average.ci_low < 2.0) & (average.ci_high > 2.0)).sum() >= 3
    assert (average.p_value < 0.01).all()
    assert (average.n == 30).all()
    paths = found.paths(2, draws=3000, seed=1)
    drawn = (series(effect=2.0)[2] - paths.replicate)[:, ~BEFORE].mean(1)
    assert drawn.mean() == pytest.approx(average.estimate[2], abs=5 * drawn.std() / 3000**0.5)
    assert np.quantile(drawn, 0.975) == pytest.approx(average.ci_high[2], abs=0.15 * drawn.std())


def test_units_and_order_of_series_do_not_matter():
    y = series()
    plain = fit_structural(y, BEFORE, controls=X).average(~BEFORE)
    other = fit_structural(100 * y[::-1] - 7, BEFORE, controls=3 - X / 9).average(~BEFORE)
    assert other.estimate[::-1] == pytest.approx(100 * plain.estimate, rel=1e-6)
    assert other.ci_low[::-1] == pytest.approx(100 * plain.ci_low, rel=1e-6)


def test_gaps_change_only_the_series_that_has_them():
    y = series()
    holed = y.copy()
    holed[1, :5] = np.nan
    holed[1, 70:80] = np.nan
    full, part = (fit_structural(v, BEFORE, controls=X).average(~BEFORE) for v in (y, holed))
    for row in (0, 2, 3):
        assert part.estimate[row] == pytest.approx(full.estimate[row], rel=1e-10)
    assert part.n.tolist() == [30, 20, 30, 30]
    alone = fit_structural(holed[1:2], BEFORE, controls=X).average(~BEFORE)
    assert alone.ci_high[0] == pytest.approx(part.ci_high[1], rel=1e-10)


def test_a_season_and_a_line_are_seen_through():
    t = np.arange(TIMES)
    y = 5 + 0.05 * t + np.sin(2 * np.pi * t / 12) + np.random.default_rng(2).normal(0, 0.2, TIMES)
    y = y + 1.5 * ~BEFORE
    model = StructuralModel(season=12, trend=Trend.LINE)
    found = fit_structural(y[None], BEFORE, model).average(~BEFORE)
    assert found.ci_low[0] < 1.5 < found.ci_high[0]
    assert found.std_error[0] < 0.5
    path = fit_structural(y[None], BEFORE, model).paths(0, draws=200, seed=1)
    wanted = 5 + 0.05 * t + np.sin(2 * np.pi * t / 12)
    assert path.expected[:, BEFORE].mean(0) == pytest.approx(wanted[BEFORE], abs=0.35)


def test_noisier_times_count_less():
    rng = np.random.default_rng(3)
    variance = np.where(np.arange(TIMES) % 2 == 0, 1.0, 100.0)
    y = rng.normal(size=(60, TIMES)) * np.sqrt(variance)
    clear = np.where(~BEFORE & (variance == 1.0), True, False)
    plain = fit_structural(y, BEFORE).average(clear)
    known = fit_structural(y, BEFORE, variance=variance).average(clear)
    assert known.std_error.mean() < 0.5 * plain.std_error.mean()
    assert np.abs(known.estimate).mean() < np.abs(plain.estimate).mean()


def test_controls_that_explain_are_selected_and_others_are_not():
    rng = np.random.default_rng(4)
    x = rng.normal(size=(TIMES, 6))
    y = x[:, :2] @ [1.0, -1.0] + 0.3 * rng.normal(size=(3, TIMES))
    shares = fit_structural(y, BEFORE, controls=x).inclusion()
    assert (shares[:, :2] > 0.99).all()
    assert (shares[:, 2:] < 0.3).all()


def test_series_that_say_nothing_are_refused_and_the_others_go_on():
    y = series()
    y[0] = np.nan
    y[2, BEFORE] = 3.25
    found = fit_structural(y, BEFORE, controls=X)
    average = found.average(~BEFORE)
    assert np.isnan(average.estimate[[0, 2]]).all()
    assert np.isfinite(average.estimate[[1, 3]]).all()
    assert "0 values" in found.refused[0]
    assert "3.25 at all times" in found.refused[2]
    with pytest.raises(OutcomeError, match="at all times"):
        found.paths(2)


def test_times_with_a_missing_control_are_left_out():
    y, x = series(), X.copy()
    x[3, 0] = x[80, 1] = np.nan
    found = fit_structural(y, BEFORE, controls=x)
    assert (found.average(~BEFORE).n == 29).all()
    paths = found.paths(0, draws=10)
    assert np.isnan(paths.replicate[:, [3, 80]]).all()
    assert np.isfinite(np.delete(paths.replicate, [3, 80], axis=1)).all()


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"before": np.zeros(TIMES, bool)}, "No time is before"),
        ({"before": np.ones(5, bool)}, "mask of"),
        ({"controls": X[:5]}, "Controls"),
        ({"controls": np.ones((TIMES, 1))}, "does not vary"),
        ({"variance": np.zeros(TIMES)}, "above zero"),
        (
            {
                "controls": RNG.normal(size=(TIMES, 12)),
                "model": StructuralModel(engine=Engine.GRID),
            },
            "engine grid cannot",
        ),
    ],
)
def test_what_cannot_be_is_refused(options, said):
    given = {"before": BEFORE, "model": None, **options}
    with pytest.raises(EstimationError, match=said):
        fit_structural(series(), given.pop("before"), given.pop("model"), **given)


@pytest.mark.parametrize("wrong", [{"period": 1}, {"period": 12, "harmonics": 7}])
def test_seasons_that_are_none_are_refused(wrong):
    with pytest.raises(EstimationError, match="A season of"):
        Season(**wrong)


def test_the_engine_follows_from_the_model():
    compatible = CompatiblePrior()
    assert engine_of(StructuralModel(season=12), 3) is Engine.GRID
    assert engine_of(StructuralModel(season=12, prior=compatible), 3) is Engine.COLLAPSED
    assert engine_of(StructuralModel(season=(12, 5), prior=compatible), 3) is Engine.COLLAPSED
    assert engine_of(StructuralModel(trend=Trend.SEMI_LOCAL), 0) is Engine.COLLAPSED
    assert engine_of(StructuralModel(dynamic=True), 1) is Engine.GIBBS
    assert engine_of(StructuralModel(), 9) is Engine.GIBBS
