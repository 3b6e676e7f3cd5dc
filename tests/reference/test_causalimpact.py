"""CausalImpact's priors against R (CausalImpact 1.4.1, bsts 0.9.10, 20,000 draws) on Morowali.

The numbers are the reference runs of METHODS.md section 5. Tolerances: the average within the
larger of 4 Monte Carlo errors and 0.02 sd, ends within 0.08 sd, inclusion within 0.03. The
draws of R's seasonal runs are taken as worth 2,000 independent ones, the others as all.
"""

import numpy as np
import pandas as pd
import pytest

from eocausal.estimators.structural import fit_structural
from eocausal.estimators.structural_model import StructuralModel
from eocausal.estimators.structural_priors import CompatiblePrior

BEFORE = np.arange(324) < 256  # 1998-01..2019-04


@pytest.fixture(scope="module")
def zones(real_data):
    folder = real_data("morowali")
    impact, control = (
        pd.read_csv(folder / f"{zone}_Zone_Kd490_Temp_Sal.csv") for zone in ("Impact", "Control")
    )
    x = control[["Kd490", "Temperature", "Salinity"]].to_numpy()
    return impact["Kd490"].to_numpy()[None], x


def fitted(zones, hole=False, **options):
    y, x = zones[0].copy(), zones[1]
    if hole:
        y[:, 100:118] = np.nan
    season = options.pop("season", None)
    model = StructuralModel(season=season, prior=CompatiblePrior(**options))
    return fit_structural(y, BEFORE, model, controls=x)


@pytest.mark.realdata
@pytest.mark.parametrize(
    ("options", "average", "low", "high", "independent"),
    [
        ({}, 0.8948, 0.7727, 1.0144, 20_000),
        ({"season": 12}, 0.8602, 0.7373, 0.9786, 2_000),
        ({"season": 12, "level_sd": 0.1}, 0.8479, 0.3740, 1.3253, 2_000),
        ({"season": 12, "hole": True}, 0.8656, 0.7467, 0.9811, 2_000),
    ],
)
def test_average_effects_equal_r(zones, options, average, low, high, independent):
    found = fitted(zones, **options).average(~BEFORE)
    sd = (high - low) / (2 * 1.96)
    tolerance = max(4 * sd / np.sqrt(independent), 0.02 * sd)
    assert found.estimate[0] == pytest.approx(average, abs=tolerance)
    assert found.ci_low[0] == pytest.approx(low, abs=0.08 * sd)
    assert found.ci_high[0] == pytest.approx(high, abs=0.08 * sd)


@pytest.mark.realdata
def test_cumulative_and_relative_effects_and_inclusion_equal_r(zones):
    fit = fitted(zones, season=12)
    shares = fit.inclusion()[0]
    assert shares == pytest.approx([1.0, 0.32, 0.78], abs=0.03)
    paths = fit.paths(0, draws=2000, seed=1)
    after = zones[0][0, ~BEFORE]
    total = paths.replicate[:, ~BEFORE].sum(1)
    error = 4 * 4.2 / np.sqrt(1000)  # sd of the sum, draws of both
    assert (after.sum() - total).mean() == pytest.approx(58.49, abs=error)
    relative = (after.sum() / total - 1).mean()
    assert relative == pytest.approx(0.1905, abs=error / total.mean() * 1.2)
