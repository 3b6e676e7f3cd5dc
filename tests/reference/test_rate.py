"""RATE against grf's rank_average_treatment_effect.fit on the same scores and priorities."""

import json

import numpy as np
import pandas as pd
import pytest

from eocausal.errors import EstimationError, OneClusterError
from eocausal.estimators.ranking import AUTOC, Qini, rate


@pytest.fixture
def case(reference):
    folder = reference("rate")
    values = json.loads((folder / "grf.json").read_text())["values"]["AUTOC_cf"]
    return pd.read_csv(folder / "rate_data.csv"), values


def test_autoc_equals_grf(case):
    table, wanted = case
    found = rate(table["dr_score"], table["priority_cf"], repetitions=2000)
    assert found.estimate == pytest.approx(wanted["estimate"], rel=1e-10)
    # the sd of 2000 half-samples has a relative Monte Carlo error of 1/sqrt(4000) = 1.6 %
    assert found.std_error == pytest.approx(wanted["std_err"], rel=0.05)


def test_qini_by_its_definition(case):
    table, _ = case
    found = rate(table["dr_score"], table["priority_cf"], target=Qini(), repetitions=2)
    g = table.sort_values("priority_cf", ascending=False, kind="stable")["dr_score"].to_numpy()
    n = len(g)
    toc = np.cumsum(g) / np.arange(1, n + 1) - g.mean()
    expected = (np.arange(1, n + 1) / n * toc).sum() / n
    assert table["priority_cf"].is_unique
    assert found.estimate == pytest.approx(expected, rel=1e-12)


def test_ties_share_their_mean_whatever_the_order():
    rng = np.random.default_rng(0)
    score, priority = rng.normal(size=60), rng.integers(0, 4, 60).astype(float)
    shuffle = rng.permutation(60)
    a = rate(score, priority, repetitions=2).estimate
    b = rate(score[shuffle], priority[shuffle], repetitions=2).estimate
    assert a == pytest.approx(b, rel=1e-12)
    constant = rate(score, np.zeros(60), repetitions=2)
    assert constant.estimate == pytest.approx(0, abs=1e-12)


def test_bad_input_is_refused():
    with pytest.raises(EstimationError):
        rate(np.array([1.0, np.nan]), np.zeros(2))
    with pytest.raises(OneClusterError):
        rate(np.zeros(9), np.zeros(9), cluster=np.arange(9) // 3, target=AUTOC())
