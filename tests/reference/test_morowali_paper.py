"""The published impact on Kd490 off Morowali, and statsmodels, which computed it.

Printed by the authors (supplMorowaliOcean, MIT, reports/bsts_report.txt): local linear trend,
season of 12, three controls, learned 1998-01..2019-04. Their parameters are not printed; they were
found by least squares (benchmarks/published_parameters.py) from the 68 monthly predictions and
widths that are, and give back each of these 136 numbers within 0.6 of the last digit printed. They
are not those of the highest likelihood: it is higher by 0.67 elsewhere, and the coefficient of the
control's Kd490 is still where the search began (0.516). The same program stops elsewhere again
with other versions of its libraries.
"""

import warnings
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from statsmodels.tsa.statespace.structural import UnobservedComponents as Peer

from eocausal.designs import Event
from eocausal.estimators.maximum_likelihood import maximum_likelihood
from eocausal.estimators.maximum_likelihood_result import Parameters
from eocausal.estimators.structural_model import Trend
from eocausal.estimators.unobserved_components import UnobservedComponents

pytestmark = pytest.mark.realdata

EVENT = Event("2019-05")
NAMES = ["Kd490", "Temperature", "Salinity"]
PAPER = Parameters(
    0.0647675274,
    {"level": 8.41576854e-09, "slope": 7.97275202e-09, "season": 6.46823350e-08},
    {"Kd490": 0.515799071, "Temperature": 0.0695076836, "Salinity": -0.112914315},
)
PRINTED = pd.read_csv(Path(__file__).with_name("morowali_published.csv"))


@pytest.fixture(scope="module")
def zones(real_data):
    def read(zone):
        path = real_data("morowali") / f"{zone}_Zone_Kd490_Temp_Sal.csv"
        return pd.read_csv(path, parse_dates=["Time"]).set_index("Time")

    return read("Impact")["Kd490"], read("Control")[NAMES]


@pytest.fixture(scope="module")
def highest(zones):
    return maximum_likelihood(zones[0], EVENT, zones[1])


def peer(zones, level):
    y, x = zones
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return Peer(y.to_numpy()[:256], level=level, seasonal=12, exog=x.to_numpy()[:256])


def filtered_by_peer(zones, level, parameters):
    model = peer(zones, level)
    values = [parameters.noise, *parameters.states.values(), *parameters.coefficients.values()]
    found = model.filter(np.array(values))
    return found, found.get_forecast(68, exog=zones[1].to_numpy()[256:])


def test_the_printed_numbers(zones):
    found = maximum_likelihood(zones[0], EVENT, zones[1], at=PAPER)
    assert found.average == pytest.approx(0.676485, abs=5e-6)
    assert found.relative == pytest.approx(0.143803, abs=2e-6)
    assert found.predicted == pytest.approx(4.704264, abs=5e-6)
    assert found.cumulative == pytest.approx(46.001006, abs=3e-4)
    frame = found.to_frame()
    width = frame["high"] - frame["low"]
    assert width.mean() == pytest.approx(1.051529, abs=1e-5)
    assert frame["predicted"].to_numpy() == pytest.approx(
        PRINTED["predicted"].to_numpy(), abs=6.1e-5
    )
    assert width.to_numpy() == pytest.approx(PRINTED["width"].to_numpy(), abs=6.1e-5)
    # The printed p is that of one month; the mean of 68 has a standard error a fourth of it.
    assert found.std_error_of_one == pytest.approx(0.26824728, abs=5e-6)
    assert found.p_value_of_one == pytest.approx(0.01167321, abs=5e-6)
    assert found.std_error == pytest.approx(0.070, abs=2e-3)
    assert found.collapsed == ("level", "season")


def test_the_highest_likelihood_is_higher_and_its_effect_smaller(zones, highest):
    paper = maximum_likelihood(zones[0], EVENT, zones[1], at=PAPER)
    assert highest.converged
    assert highest.log_likelihood > paper.log_likelihood + 0.6
    assert highest.average == pytest.approx(0.6708, abs=5e-4)
    assert highest.parameters.coefficients["Kd490"] == pytest.approx(0.597, abs=1e-3)
    assert highest.collapsed == ("level", "season")
    # The slope's variance looks like nothing too; without it, the effect would be another.
    line = Parameters(
        highest.parameters.noise, dict.fromkeys(highest.model.variances, 0.0),
        highest.parameters.coefficients,
    )  # fmt: skip
    fixed = maximum_likelihood(zones[0], EVENT, zones[1], at=line)
    assert fixed.log_likelihood < highest.log_likelihood
    assert fixed.average - highest.average > 0.03


def test_statsmodels_agrees_at_the_same_parameters(zones, highest):
    for name, level, ours in (
        ("paper", "local linear trend", maximum_likelihood(zones[0], EVENT, zones[1], at=PAPER)),
        ("highest", "local linear trend", highest),
    ):
        theirs, ahead = filtered_by_peer(zones, level, ours.parameters)
        assert ours.log_likelihood == pytest.approx(theirs.llf, abs=2e-5), name
        predicted = ours.observed - ours.effect
        assert predicted == pytest.approx(ahead.predicted_mean, abs=2e-6), name
        spread = np.sqrt(np.diag(ours.covariance))
        assert spread == pytest.approx(ahead.se_mean, abs=2e-6), name


@pytest.mark.slow
def test_statsmodels_does_not_find_more_likely_parameters(zones, highest):
    model = peer(zones, "local linear trend")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        stopped = model.fit(disp=False, maxiter=1000)
    assert stopped.llf <= highest.log_likelihood + 1e-6
    assert stopped.llf > highest.log_likelihood - 1.0


def test_with_a_level_alone(zones):
    model = UnobservedComponents(Trend.LEVEL)
    found = maximum_likelihood(zones[0], EVENT, zones[1], model=model)
    assert found.average == pytest.approx(0.778, abs=5e-4)
    assert found.collapsed == ("season",)
    theirs, ahead = filtered_by_peer(zones, "local level", found.parameters)
    assert found.log_likelihood == pytest.approx(theirs.llf, abs=2e-5)
    assert np.diag(found.covariance) == pytest.approx(ahead.var_pred_mean, abs=2e-6)
