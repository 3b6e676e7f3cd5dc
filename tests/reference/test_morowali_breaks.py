"""Monthly Kd490 off Morowali: the breaks its authors print, and what a season and sensors do.

Their record (supplMorowaliOcean, MIT): PELT, binary segmentation and windows of ruptures with an
rbf cost agree on May 2019; Cliff's delta of the two regimes -0.8057, earlier against later.
"""

import pandas as pd
import pytest

from eocausal.estimators.breakpoints import breakpoints
from eocausal.estimators.breaks_consensus import consensus
from eocausal.estimators.breaks_model import BreakModel
from eocausal.estimators.breaks_number import Sequential
from eocausal.estimators.breaks_peers import BinSeg, Pelt, Window
from eocausal.estimators.breaks_sensors import (
    SensorChange,
    SensorChanges,
    hold_against_sensors,
)
from eocausal.estimators.breaks_sieve import ArSieve
from eocausal.estimators.shift_sizes import cliffs_delta

pytestmark = pytest.mark.realdata

QUICK = ArSieve(draws=199, bias_draws=50)
AQUA = SensorChange("2002-07-01", "MODIS-Aqua enters the merge")


@pytest.fixture
def zone(real_data):
    def read(name):
        path = real_data("morowali") / f"{name}_Zone_Kd490_Temp_Sal.csv"
        return pd.read_csv(path, parse_dates=["Time"]).set_index("Time")["Kd490"]

    return read


def test_three_detectors_agree_on_may_2019(zone):
    values = zone("Impact").to_numpy()
    found = {d.name: d.find(values) for d in (Pelt(), BinSeg(), Window())}
    assert found == {"PELT": (256,), "BinSeg": (51, 256, 294), "Window": (29, 257, 269)}
    (one,) = consensus(found).agreed
    assert (one.at, len(one.methods)) == (256, 3)
    assert cliffs_delta(values[:256], values[256:]) == pytest.approx(0.8057, abs=5e-5)


def test_the_control_steps_where_a_sensor_enters(zone):
    control = zone("Control")
    model = BreakModel(harmonics=2)
    found = breakpoints(control, model=model, choice="bic", interval="bai")
    assert [(b.before, b.after) for b in found.breaks] == [
        ("2002-07", "2002-08"), ("2006-10", "2006-11"),
    ]  # fmt: skip
    verdict = hold_against_sensors(found, SensorChanges((AQUA,), sieve=QUICK))
    assert verdict.breaks["declared"].tolist() == [f"{AQUA.what} ({AQUA.date})", ""]
    assert breakpoints(control, model=model, choice=Sequential(sieve=QUICK)).breaks == ()
