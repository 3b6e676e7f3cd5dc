"""The Youth Opportunities Programme: the numbers anyone gets from the same table."""

import pandas as pd
import pytest

from eocausal.designs import Trial
from eocausal.estimators.inference import HC2
from eocausal.estimators.randomized import difference_in_means

pytestmark = pytest.mark.realdata


@pytest.fixture
def units(real_data):
    return pd.read_csv(real_data("uganda_yop") / "units.csv", index_col="unit_id")


def test_difference_in_means(units):
    trial = Trial("treat", cluster="image_key")
    robust = difference_in_means(units, trial, "y", vcov=HC2())
    clustered = difference_in_means(units, trial, "y")
    assert round(robust.estimate, 4) == 0.7415
    assert round(robust.std_error, 4) == 0.0615
    assert round(clustered.std_error, 4) == 0.0755
    assert robust.with_vcov(clustered.vcov).std_error == clustered.std_error
