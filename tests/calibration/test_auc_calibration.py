"""The AUC of treatment under randomization: how often its interval misses one half."""

import numpy as np
import pandas as pd
import pytest

from eocausal.designs import Trial
from eocausal.estimators.auc import treatment_auc
from eocausal.folds import RandomFolds

pytestmark = pytest.mark.slow


def test_a_trial_is_rarely_taken_for_predictable():
    trial, rejected, runs = Trial("arm"), 0, 200
    for seed in range(runs):
        rng = np.random.default_rng(seed)
        z = pd.DataFrame(rng.normal(size=(200, 30)))
        units = pd.DataFrame({"neighborhood": np.arange(200), "arm": rng.integers(0, 2, 200)})
        found = treatment_auc(trial, units, z, RandomFolds(5), seed=seed)
        rejected += not found.ci_low <= 0.5 <= found.ci_high
    assert 0.01 <= rejected / runs <= 0.09
