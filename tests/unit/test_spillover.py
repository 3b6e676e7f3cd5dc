"""Treated neighbours and what they do to the untreated."""

import numpy as np
import pandas as pd
import pytest

from eocausal.checks.base import Verdict
from eocausal.checks.spillover import (
    Spillover,
    neighbour_effect,
    spillover_table,
    treated_neighbours,
)
from eocausal.errors import EstimationError, MissingColumnError
from eocausal.estimators.conley import Conley, Projected, places_of
from eocausal.estimators.weighting import Weighting, weight

KM = 111.19492664455873


def study(n=1200, spill=0.0, effect=1.0, seed=0, edge=1000.0):
    """Units scattered over a square; neighbours within 50 km may spill over."""
    rng = np.random.default_rng(seed)
    km = rng.uniform(0, edge, (n, 2))
    x = rng.normal(size=n)
    w = (rng.random(n) < 1 / (1 + np.exp(-0.7 * x + 0.5))).astype(int)
    units = pd.DataFrame(
        {
            "lon": km[:, 0] / KM,
            "lat": km[:, 1] / KM - 4.5,
            "east": 1000 * km[:, 0],
            "north": 1000 * km[:, 1],
            "x": x,
            "w": w,
        },
        index=pd.Index([f"u{i}" for i in range(n)], name="unit"),
    )
    near = treated_neighbours(places_of(units, "lon", "lat", None), w == 1, 50.0)
    units["y"] = x + effect * w + spill * near.share + rng.normal(size=n)
    return units


def fitted(units, treatment="w", **decisions):
    return weight(
        units, treatment=treatment, outcome="y", covariates=["x"],
        decisions=Weighting(**decisions), seed=1,
    )  # fmt: skip


def test_neighbours_are_those_of_all_pairs():
    rng = np.random.default_rng(0)
    units = pd.DataFrame({"lon": rng.uniform(-2, 2, 200), "lat": rng.uniform(50, 52, 200)})
    units.loc[:9, ["lon", "lat"]] = [0.0, 51.0]
    treated = rng.random(200) < 0.4
    lon, lat = np.deg2rad(units["lon"].to_numpy()), np.deg2rad(units["lat"].to_numpy())
    half = np.sin((lat[:, None] - lat) / 2) ** 2
    half += np.cos(lat[:, None]) * np.cos(lat) * np.sin((lon[:, None] - lon) / 2) ** 2
    distance = 2 * 6371.0 * np.arcsin(np.sqrt(half))
    for km in (1.0, 20.0, 100.0):
        close = (distance <= km) & ~np.eye(200, dtype=bool)
        near = treated_neighbours(places_of(units, "lon", "lat", None), treated, km)
        np.testing.assert_array_equal(near.count, close.sum(axis=1))
        np.testing.assert_array_equal(near.treated, (close & treated).sum(axis=1))
        alone = near.count == 0
        assert (near.share[alone] == 0).all()
        np.testing.assert_allclose(near.share[~alone] * near.count[~alone], near.treated[~alone])


def test_no_spillover_passes_and_one_is_measured():
    clean = Spillover(km=(25, 50)).run(fitted(study()))
    assert clean.verdict is Verdict.PASS
    subject = fitted(study(spill=2.0))
    found = Spillover(km=(25, 50, 100)).run(subject)
    assert found.verdict is Verdict.FAIL
    row = found.table.set_index("km").loc[50.0]
    assert abs(row["coefficient"] - 2.0) < 3 * row["coefficient_se"]
    assert row["coefficient_se"] < 0.5
    assert row["shift"] == pytest.approx(row["coefficient"] * row["share_untreated"])
    assert "neighbours" in found.detail


def test_a_small_spillover_beside_a_large_effect_warns():
    result = Spillover(km=(50,)).run(fitted(study(n=3000, spill=1.0, effect=8.0)))
    assert result.values["smallest_p"] < 0.05
    assert result.verdict is Verdict.WARN


def test_the_coefficient_is_a_regression_where_the_model_knows_nothing():
    import statsmodels.api as sm

    units = study(spill=1.0)
    subject = fitted(units)
    near = treated_neighbours(places_of(units, "lon", "lat", None), units["w"] == 1, 50.0)
    found = neighbour_effect(subject, near, Conley(1e-6))
    use = ((units["w"] == 0) & (near.count > 0)).to_numpy()
    x = np.column_stack([near.share, np.log(np.maximum(near.count, 1)), units["x"]])[use]
    ols = sm.OLS(units["y"].to_numpy()[use], sm.add_constant(x)).fit(cov_type="HC2")
    assert found.estimate == pytest.approx(ols.params[1], abs=0.1 * ols.bse[1])
    assert found.std_error == pytest.approx(ols.bse[1], rel=0.03)


def test_metres_and_degrees_say_the_same():
    subject = fitted(study(n=400, edge=300.0))
    degrees = spillover_table(subject, [20.0])
    metres = spillover_table(subject, [20.0], projected=Projected("east", "north"))
    assert metres["exposed"][0] == pytest.approx(degrees["exposed"][0], abs=0.02)
    assert metres["coefficient"][0] == pytest.approx(degrees["coefficient"][0], abs=0.1)


def test_units_without_treated_neighbours_are_compared_with_all():
    units = study(n=1500, edge=2500.0)
    subject = fitted(units)
    row = spillover_table(subject, [40.0]).iloc[0]
    near = treated_neighbours(places_of(units, "lon", "lat", None), units["w"] == 1, 40.0)
    apart = near.treated == 0
    assert row["unexposed"] == apart.sum()
    assert row["exposed"] == pytest.approx(1 - apart.mean())
    alone = weight(units[apart], treatment="w", outcome="y", covariates=["x"], seed=0).estimate
    assert row["estimate"] == pytest.approx(alone.estimate)
    assert row["difference"] == pytest.approx(alone.estimate - subject.estimate.estimate)
    assert 0 < row["difference_se"] < row["std_error"]


def test_distances_at_which_nothing_can_be_seen_are_rows_with_a_reason():
    subject = fitted(study(n=300))
    table = spillover_table(subject, [0.01, 2000.0])
    assert "0 untreated units have neighbours" in table["note"][0]
    assert table["exposed"][1] == 1.0
    assert "no estimate" in table["note"][1]
    result = Spillover(km=(0.01,)).run(subject)
    assert result.verdict is Verdict.WARN
    assert "cannot be seen" in result.claim


def test_several_treatments_share_the_coefficient():
    units = study()
    rng = np.random.default_rng(3)
    units["kind"] = np.where(units["w"] == 1, rng.choice(["road", "school"], len(units)), "none")
    table = spillover_table(fitted(units, treatment="kind"), [30.0])
    assert list(table["treatment"]) == ["road", "school"]
    assert table["coefficient"].nunique() == 1
    assert table["difference"].nunique() == 2


def test_faults_are_named():
    subject = fitted(study(n=300))
    with pytest.raises(MissingColumnError, match="longitude"):
        Spillover(km=(10,), lon="longitude").run(subject)
    for km in ((), (0,), (float("nan"),)):
        with pytest.raises(EstimationError, match="no distances"):
            Spillover(km=km)
