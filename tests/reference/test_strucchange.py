"""The flow of the Nile, as R's strucchange finds its break.

Zeileis et al. (2002, Journal of Statistical Software 7(2)): breakpoints(Nile ~ 1), confint and
Fstats print the sums of squares, criteria, interval and statistic below to the digits given.
"""

import numpy as np
import pandas as pd
import pytest
from statsmodels.datasets import nile

from eocausal.estimators.breakpoints import breakpoints
from eocausal.estimators.breaks_scan import candidates, scan

RSS = [2835156.75, 1597457.194, 1552923.616, 1538096.513, 1507888.476, 1659993.500]
BIC = [1318.242, 1270.084, 1276.467, 1284.718, 1291.944, 1310.765]


@pytest.fixture(scope="module")
def flow():
    table = nile.load_pandas().data
    years = pd.to_datetime(table["year"].astype(int).astype(str))
    return pd.Series(table["volume"].to_numpy(float), pd.DatetimeIndex(years), name="Nile")


@pytest.fixture(scope="module")
def found(flow):
    return breakpoints(flow, choice="bic", interval="bai")


def test_sums_of_squares_and_criteria(found):
    np.testing.assert_allclose(found.rss, RSS, rtol=1e-9, atol=6e-4)
    np.testing.assert_allclose(found.bic, BIC, atol=6e-4)


def test_date_and_interval(found):
    assert found.at == (28,)
    assert (found.breaks[0].before, found.breaks[0].after) == ("1898", "1899")
    interval = found.breaks[0].interval
    assert (interval.first, interval.last) == (25, 32)


def test_largest_f(flow):
    look = scan(np.ones((100, 1)), np.empty((100, 0)), candidates(100, 15))
    left = look.residuals(flow.to_numpy()[None])
    f = look.statistics(left, look.reductions(left))[0]
    assert f.max() == pytest.approx(75.930, abs=6e-4)
    assert look.at[f.argmax()] == 28
