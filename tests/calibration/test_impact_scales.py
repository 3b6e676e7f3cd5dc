"""Whether effects turned back from the logarithm and the log odds keep the coverage they state."""

import numpy as np
import pandas as pd
import pytest
from scipy.signal import lfilter
from scipy.special import expit

from eocausal.estimators.impact import bsts
from eocausal.estimators.impact_transforms import Log, Logit
from eocausal.estimators.impact_windows import EventRow

pytestmark = pytest.mark.slow

SERIES, BEFORE, AFTER = 250, 144, 24


@pytest.mark.parametrize(("transform", "back"), [(Log(), np.exp), (Logit(), expit)])
def test_intervals_cover_no_effect_on_the_scale_of_the_outcome(transform, back):
    """Red noise of sd 0.5 on the model's scale: three standard errors around 0.95."""
    rng = np.random.default_rng(11)
    shocks = rng.normal(size=(SERIES, 100 + BEFORE + AFTER)) * np.sqrt(1 - 0.5**2)
    series = back(0.5 * lfilter([1.0], [1.0, -0.5], shocks, axis=1)[:, 100:])
    rows = [
        bsts(pd.Series(y), EventRow(BEFORE), transform=transform, draws=500, seed=k).effects.row()
        for k, y in enumerate(series)
    ]
    covered = np.mean([row["effect_low"] <= 0 <= row["effect_high"] for row in rows])
    assert abs(covered - 0.95) < 3 * np.sqrt(0.05 * 0.95 / SERIES)
    bias = np.array([row["effect"] for row in rows])
    assert abs(bias.mean()) < 4 * bias.std() / np.sqrt(SERIES)
    median = back(0.0)  # what turning the mean of the model back would predict
    if isinstance(transform, Log):
        assert abs(series[:, BEFORE:].mean() - median) > 4 * bias.std() / np.sqrt(SERIES)
