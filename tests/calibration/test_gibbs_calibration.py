"""Chains of the engine gibbs hold the truth as often as they should.

The ranks of ``benchmarks/gibbs_calibration.py``, of which a thousand series are a run of its own.
"""

import importlib.util
import sys
from pathlib import Path

import numpy as np
import pytest
from scipy import stats

SERIES = 30


@pytest.fixture(scope="module")
def study():
    path = Path(__file__).resolve().parents[2] / "benchmarks" / "gibbs_calibration.py"
    spec = importlib.util.spec_from_file_location("gibbs_calibration", path)
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


@pytest.mark.slow
@pytest.mark.parametrize("name", ["dynamic, ours", "Student, ours"])
def test_ranks_of_truths_are_uniform(study, name):
    found = study.ranks(study.CASES[name], SERIES, 0)
    for at in range(2):
        assert stats.kstest(found[:, at], "uniform").pvalue > 0.002
    held = (np.abs(found[:, 0] - 0.5) < 0.475).mean()
    assert held == pytest.approx(0.95, abs=4 * np.sqrt(0.05 * 0.95 / SERIES))
