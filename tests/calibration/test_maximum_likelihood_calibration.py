"""Without any effect: how often the interval of a mean holds zero, judged as one should and not."""

import numpy as np
import pandas as pd
import pytest

from eocausal.designs import Event
from eocausal.estimators.maximum_likelihood import maximum_likelihood
from eocausal.estimators.structural_model import Trend
from eocausal.estimators.unobserved_components import UnobservedComponents

pytestmark = pytest.mark.slow


def test_the_spread_of_one_time_never_finds_anything():
    """30 series of independent noise, 120 times before and 40 after.

    The joint standard error misses zero about as often as stated; that of a single time has
    p-values that pile up near one, where those of a true null are even.
    """
    index = pd.date_range("2000-01-01", periods=160, freq="MS")
    event = Event(f"{index[120]:%Y-%m-%d}")
    model = UnobservedComponents(Trend.LEVEL, None)
    joint, single = [], []
    for seed in range(30):
        noise = pd.Series(np.random.default_rng(seed).normal(size=160), index)
        found = maximum_likelihood(noise, event, model=model)
        joint.append(found.p_value)
        single.append(found.p_value_of_one)
    assert (np.array(joint) < 0.10).sum() <= 9
    assert 0.3 < np.median(joint) < 0.7
    assert min(single) > 0.10
    assert np.median(single) > 0.75
