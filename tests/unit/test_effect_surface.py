"""Effects per neighborhood from the scores of a weighted study."""

from dataclasses import replace

import geopandas as gpd
import numpy as np
import pandas as pd
import pytest
from shapely.geometry import box

from eocausal.errors import AlignmentError, EstimationError
from eocausal.estimators.arm_means import Estimand
from eocausal.estimators.effect_surface import effect_surface
from eocausal.estimators.inference import Clustered
from eocausal.estimators.logit import Logit
from eocausal.estimators.ridge import Ridge
from eocausal.estimators.scores import AIPW, Hajek
from eocausal.estimators.weighting import Weighting, weight
from eocausal.folds import GroupFolds, SpatialBlocks


def world(n=700, elsewhere=100, seed=0, per_place=1, strange=0):
    """Places whose image features drive treatment, outcome and effect."""
    rng = np.random.default_rng(seed)
    z = rng.normal(size=(n + elsewhere, 6))
    if strange:
        z[-strange:] += 15.0
    labels = pd.Index([f"p{i:04d}" for i in range(len(z))], name="neighborhood")
    effect = 1 + z[:, 0] - 0.5 * z[:, 1]
    row = np.repeat(np.arange(n), per_place)
    w = (rng.random(len(row)) < 1 / (1 + np.exp(-0.7 * z[row, 0]))).astype(int)
    y = z[row, 0] + z[row, 2] + w * effect[row] + rng.normal(size=len(row))
    units = pd.DataFrame(
        {"w": w, "y": y, "neighborhood": labels[row], "district": row // 10,
         "lon": 0.1 * (row % 30), "lat": 0.1 * (row // 30)},
        index=[f"u{i}" for i in range(len(row))],
    )  # fmt: skip
    boxes = [box(i % 30, i // 30, i % 30 + 1, i // 30 + 1) for i in range(len(z))]
    places = gpd.GeoDataFrame(geometry=boxes, index=labels, crs=4326)
    return units, pd.DataFrame(z, index=labels), places, effect


def fit(units, features, **decisions):
    return weight(
        units, treatment="w", outcome="y", images={"chip": features},
        decisions=Weighting(**decisions), seed=1,
    )  # fmt: skip


@pytest.mark.parametrize("per_place", [1, 3])
def test_effects_of_places_are_found_in_the_study_and_elsewhere(per_place):
    units, features, places, effect = world(per_place=per_place)
    fitted = fit(units, features)
    found = effect_surface(fitted, features, places)
    table = found.table
    assert list(table.index) == list(places.index)
    assert np.corrcoef(table["estimate"], effect)[0, 1] > 0.9
    covered = (table["ci_low"] <= effect) & (effect <= table["ci_high"])
    assert covered.mean() > 0.85
    assert table["in_trial"].sum() == 700
    assert (table["status"] == "ok").mean() > 0.9
    assert found.meta["n_places"] == 700
    assert found.meta["signal_sd"] == pytest.approx(np.sqrt(1.25), rel=0.5)
    # Smoothing keeps the average: that of the places in the study is the effect of the analysis.
    average = table["estimate"].to_numpy()[:700].mean()
    assert abs(average - fitted.estimate.estimate) < 0.5 * fitted.estimate.std_error


def test_places_unlike_any_of_the_study_and_places_without_image_are_marked():
    units, features, places, _ = world(strange=5)
    found = effect_surface(fit(units, features.iloc[:700]), features.drop(index="p0750"), places)
    assert (found.table["status"].iloc[-5:] == "extrapolated").all()
    assert (found.table["support"].iloc[-5:] < 0.2).all()
    assert found.table.loc["p0750", "status"] == "no_image"
    assert np.isnan(found.table.loc["p0750", "estimate"])


def test_the_order_of_units_and_places_does_not_matter():
    units, features, places, _ = world(n=300, elsewhere=20)
    decided = {"propensity": Logit(), "outcome_model": Ridge((1.0,)), "folds": None}
    fitted = fit(units, features, **decided)
    one = effect_surface(fitted, features, places).table
    turned = fit(units.iloc[::-1], features, **decided)
    two = effect_surface(turned, features.iloc[::-1], places).table
    for column in ("estimate", "std_error", "support"):
        np.testing.assert_allclose(two[column], one[column], rtol=1e-6)
    assert (one["status"] == "ok").mean() > 0.9


def test_a_unit_that_could_hardly_be_in_an_arm_does_not_make_the_map():
    units, features, places, _ = world()
    fitted = fit(units, features)
    plain = effect_surface(fitted, features, places).table["estimate"]
    unit = 5
    influence = fitted.means.influence.copy()
    influence[unit, 1] += 100 / len(units)
    loud = replace(fitted, means=replace(fitted.means, influence=influence))
    shaken = effect_surface(loud, features, places).table["estimate"]
    e = fitted.nuisances.propensity.copy()
    e[unit] = [1 - 1e-6, 1e-6]
    known = replace(loud, nuisances=replace(fitted.nuisances, propensity=e))
    calm = effect_surface(known, features, places).table["estimate"]
    assert (shaken - plain).abs().max() > 0.2
    assert (calm - plain).abs().max() < 0.05


def test_correlated_scores_widen_the_map():
    units, features, places, _ = world()
    shock = np.random.default_rng(5).normal(size=80)[units["district"]]
    by_district = (np.random.default_rng(6).random(80) < 0.5).astype(int)[units["district"]]
    units["y"] += 2 * shock + by_district - units["w"]
    units["w"] = by_district
    decided = {"propensity": Logit(), "folds": GroupFolds("district")}
    alone = effect_surface(fit(units, features, **decided), features, places).table
    together = effect_surface(
        fit(units, features, **decided, vcov=Clustered("district")), features, places
    ).table
    assert together["std_error"].min() > 1.2 * alone["std_error"].min()
    blocks = effect_surface(
        fit(units, features, **decided), features, places, blocks=SpatialBlocks(km=60)
    ).table
    assert blocks["std_error"].min() > alone["std_error"].min()


def test_each_of_several_treatments_has_its_map():
    units, features, places, effect = world(n=900)
    rng = np.random.default_rng(3)
    units["w"] = np.where(units["w"] == 1, rng.choice(["road", "school"], 900), "none")
    units["y"] += 2.0 * (units["w"] == "school")
    fitted = fit(units, features)
    maps = [effect_surface(fitted, features, places, arm=a).table["estimate"]
            for a in ("road", "school")]  # fmt: skip
    assert (maps[1] - maps[0]).mean() == pytest.approx(2, abs=0.4)
    assert np.corrcoef(maps[0], effect)[0, 1] > 0.7
    with pytest.raises(EstimationError, match="no arm 'bridge'"):
        effect_surface(fitted, features, places, arm="bridge")


@pytest.mark.parametrize("score", [Hajek(), AIPW(Estimand.ATT), AIPW(Estimand.ATO)])
def test_scores_that_are_no_effects_of_units_are_refused(score):
    units, features, places, _ = world(n=300, elsewhere=20)
    fitted = fit(units, features, score=score)
    with pytest.raises(EstimationError, match="are not effects of units"):
        effect_surface(fitted, features, places)


def test_other_places_are_refused():
    units, features, places, _ = world(n=300, elsewhere=20)
    fitted = fit(units, features)
    with pytest.raises(AlignmentError):
        effect_surface(fitted, features, places.set_index("q" + places.index))
