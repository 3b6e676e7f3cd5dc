"""Partial R² of every column from one matrix, against regressions one by one."""

import numpy as np
import pandas as pd
import pytest

from eocausal.checks.sensitivity.linear_bias import partial_r2_of
from eocausal.checks.sensitivity.linear_strengths import linear_strengths, partial_r2_of_each
from eocausal.estimators.observational import observe

N = 500


@pytest.fixture
def table():
    rng = np.random.default_rng(0)
    x = rng.normal(size=(N, 3))
    country = rng.choice(["a", "b", "c"], N)
    home = pd.Series(country).map({"a": 0.0, "b": 0.5, "c": 1.0}).to_numpy()
    w = (x[:, 0] + home + rng.normal(size=N) > 0.5).astype(int)
    y = x @ [1.0, 0.5, 0.0] + 2 * home + w + rng.normal(size=N)
    columns = {f"x{k}": x[:, k] for k in range(3)}
    return pd.DataFrame({**columns, "country": country, "w": w, "y": y})


def test_equal_to_regressions_one_by_one(table):
    image = pd.DataFrame(np.random.default_rng(1).normal(size=(N, 20)))
    data = observe(table, treatment="w", outcome="y", covariates=["x0", "x1", "x2", "country"],
                   images={"image": image})  # fmt: skip
    found = linear_strengths(data)
    assert list(found.index) == ["x0", "x1", "x2", "country"]
    x, names = data.confounders.x, np.array(data.confounders.names)
    w = data.arm.astype(float)
    for name in found.index:
        own = np.array([n == name or n.startswith(f"{name}=") for n in names])
        placed = partial_r2_of(x[:, own], w, x[:, ~own])
        outcome = partial_r2_of(x[:, own], data.y, np.column_stack([w, x[:, ~own]]))
        assert found.loc[name, "c_treatment"] == pytest.approx(placed / (1 - placed), rel=1e-8)
        expected = min(outcome / (1 - outcome), 1.0)
        assert found.loc[name, "c_outcome"] == pytest.approx(expected, rel=1e-8)


def test_columns_that_others_express_or_that_do_not_vary_add_nothing():
    rng = np.random.default_rng(2)
    a = rng.normal(size=(N, 2))
    x = np.column_stack([a, a.sum(axis=1), np.full(N, 3.0), 1e9 + 1e-3 * a[:, 0]])
    y = a[:, 0] + rng.normal(size=N)
    groups = [np.array([k]) for k in range(5)]
    np.testing.assert_allclose(partial_r2_of_each(x, y, groups)[:4], 0, atol=1e-6)
    alone = partial_r2_of_each(a, y, [np.array([0])])[0]
    assert alone == pytest.approx(partial_r2_of(a[:, :1], y, a[:, 1:]), rel=1e-9)
    assert partial_r2_of_each(a, np.full(N, 2.0), [np.array([0])])[0] == 0


def test_a_column_that_is_the_outcome_explains_all(table):
    x = table[["x0", "x1", "y"]].to_numpy()
    assert partial_r2_of_each(x, table["y"].to_numpy(), [np.array([2])])[0] == pytest.approx(1)
