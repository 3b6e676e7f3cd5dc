"""The published impact on Kd490 off Morowali, and statsmodels, which computed it.

Printed by the authors (supplMorowaliOcean, MIT, reports/bsts_report.txt): local linear trend,
season of 12, three controls, learned 1998-01..2019-04. Their parameters are not printed; they were
found by least squares from the 68 monthly predictions and widths that are, and give back each of
these 136 numbers within 0.6 of the last digit printed. They are not those of the highest likelihood: it is
higher by 0.67 elsewhere, and the coefficient of the control's Kd490 is still where the search
began (0.516). The same program stops elsewhere again with other versions of its libraries.
"""

import warnings

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
PREDICTED = [  # 2019-05..2024-12
    4.5066, 5.0735, 5.1084, 5.0920, 5.0097, 4.7467, 4.5803, 4.4045, 4.4726, 4.4487, 4.1526, 4.2496,
    4.5050, 4.9627, 4.9831, 4.9305, 4.9125, 4.7388, 4.6160, 4.5490, 4.5255, 4.4481, 4.1568, 4.2444,
    4.5379, 4.8742, 5.0423, 4.7614, 4.8684, 4.7010, 4.7011, 4.5407, 4.5652, 4.4776, 4.1650, 4.2963,
    4.7035, 5.0378, 5.2459, 4.9985, 4.8649, 4.8842, 4.7141, 4.5188, 4.5648, 4.5472, 4.3302, 4.4155,
    4.5713, 5.0174, 5.0940, 5.0408, 5.2047, 4.7458, 4.6041, 4.4261, 4.6579, 4.6491, 4.3805, 4.5126,
    4.8686, 5.1422, 5.2714, 4.9547, 4.9816, 4.7770, 4.6596, 4.5567,
]  # fmt: skip
WIDTH = [
    1.0327, 1.0330, 1.0333, 1.0335, 1.0338, 1.0341, 1.0343, 1.0346, 1.0341, 1.0344, 1.0347, 1.0350,
    1.0376, 1.0380, 1.0383, 1.0387, 1.0391, 1.0395, 1.0398, 1.0402, 1.0398, 1.0403, 1.0407, 1.0411,
    1.0440, 1.0444, 1.0449, 1.0454, 1.0459, 1.0464, 1.0469, 1.0474, 1.0472, 1.0477, 1.0482, 1.0488,
    1.0520, 1.0526, 1.0532, 1.0538, 1.0544, 1.0551, 1.0557, 1.0564, 1.0562, 1.0569, 1.0576, 1.0583,
    1.0618, 1.0625, 1.0633, 1.0640, 1.0648, 1.0656, 1.0664, 1.0672, 1.0672, 1.0681, 1.0689, 1.0697,
    1.0735, 1.0744, 1.0753, 1.0763, 1.0772, 1.0782, 1.0791, 1.0801,
]  # fmt: skip


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
    assert frame["predicted"].to_numpy() == pytest.approx(PREDICTED, abs=6.1e-5)
    assert width.to_numpy() == pytest.approx(WIDTH, abs=6.1e-5)
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
