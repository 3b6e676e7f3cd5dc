"""Surveyed wealth of Africa and what satellites make of it: shrinkage, and what corrections do."""

import numpy as np
import pandas as pd
import pytest

from eocausal.checks.base import Verdict
from eocausal.checks.measurement_error import PredictionError
from eocausal.estimators.labelled import labelled_study
from eocausal.estimators.logit import Logit
from eocausal.estimators.measurement import corrected_table
from eocausal.estimators.predicted_study import predicted_study
from eocausal.estimators.prediction_error import prediction_slope
from eocausal.estimators.scores import Hajek
from eocausal.estimators.weighting import Weighting, weight

pytestmark = pytest.mark.realdata

TEXTBOOK = Weighting(score=Hajek(), propensity=Logit(), folds=None)
LINEAR, POWERED = "linear calibration", "prediction-powered inference"


@pytest.fixture(scope="module")
def clusters(real_data):
    table = pd.read_csv(real_data("africa_wealth") / "dhs_preds_incountry.csv")
    rng = np.random.default_rng(0)
    chance = 1 / (1 + np.exp(-table["labels"]))
    return table.assign(
        drawn=(rng.random(len(table)) < chance).astype(int), urban=table["urban"].astype(int)
    )


@pytest.fixture(scope="module")
def maps(clusters):
    return [name for name in clusters.columns[6:] if name != "drawn"]


def compared(clusters, maps, treatment, covariate):
    fitted = weight(
        clusters, treatment=treatment, outcome="labels", covariates=[covariate],
        decisions=TEXTBOOK, seed=0,
    )  # fmt: skip
    table, _ = corrected_table(fitted, maps, labelled=0.1, seed=1)
    rows = table[1:].assign(ratio=table["estimate"] / table["estimate"][0])
    rows["z"] = (rows["estimate"] - table["estimate"][0]) / rows["std_error"]
    return fitted, rows.set_index(["correction", "prediction"])


def test_every_map_shrinks_wealth(clusters, maps):
    assert len(maps) == 12
    for name in maps:
        fitted = weight(
            clusters, treatment="drawn", outcome=name, covariates=["year"], decisions=TEXTBOOK,
        )  # fmt: skip
        slope = prediction_slope(labelled_study(fitted, "labels"))
        expected = np.polyfit(clusters["labels"], clusters[name], 1)[0]
        assert slope.estimate == pytest.approx(expected)
        assert slope.ci_high < 0.8


def test_arms_that_differ_in_wealth_only_are_attenuated_and_corrected(clusters, maps):
    """Arms are drawn by wealth itself: what a map says of a place tells nothing more of its arm."""
    fitted, rows = compared(clusters, maps, "drawn", "year")
    assert rows.loc["naive", "ratio"].max() < 0.78
    assert rows.loc["naive", "ratio"].min() < 0.25
    assert (rows.loc[LINEAR, "ratio"] - 1).abs().median() < 0.03
    assert ((rows.loc[LINEAR, "ratio"] - 1).abs() < 0.08).sum() >= 11
    assert (rows.loc[POWERED, "z"].abs() < 3).all()
    fine = predicted_study(fitted, "Resnet-18 MS+NL concat")
    assert PredictionError("labels").run(fine).values["ratio"] < 0.1


def test_maps_see_towns_beyond_their_wealth(clusters, maps):
    """Towns look richer than villages of the same wealth: only labels of both repair that."""
    fitted, rows = compared(clusters, maps, "urban", "country")
    assert (rows.loc["naive", "ratio"] < 1).all()
    assert (rows.loc[LINEAR, "ratio"] > 1.1).sum() >= 10
    assert (rows.loc[POWERED, "z"].abs() < 3).all()
    assert (rows.loc[POWERED, "ratio"] - 1).abs().max() < 0.04
    found = PredictionError("labels").run(predicted_study(fitted, "Resnet-18 MS+NL concat"))
    assert found.verdict is Verdict.FAIL
    assert found.values["bias"] > 0.3
