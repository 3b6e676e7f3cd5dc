"""The search for breaks: sums of squares, dates and columns against brute force."""

from itertools import combinations, pairwise

import numpy as np
import pytest

from eocausal.errors import EstimationError
from eocausal.estimators.breaks_bai_perron import partition, room_for
from eocausal.estimators.breaks_number import bic, lwz
from eocausal.estimators.breaks_partial import fit_partitions
from eocausal.estimators.breaks_scan import candidates, regimes, scan

STEPS = np.arange(54)
LINE = (STEPS / 54)[:, None]
ONES = np.ones((54, 1))
SEASON = np.column_stack([np.cos(2 * np.pi * STEPS / 12), np.sin(2 * np.pi * STEPS / 12)])
NONE = ONES[:, :0]
DESIGNS = {
    "level": (ONES, NONE),
    "level and trend": (np.hstack([ONES, LINE]), NONE),
    "everything": (np.hstack([ONES, SEASON]), NONE),
    "level, season lasts": (ONES, SEASON),
    "level, trend and season last": (ONES, np.hstack([SEASON, LINE])),
    "level and trend, season lasts": (np.hstack([ONES, LINE]), SEASON),
}


def brute_force(y, changing, shared, shortest, breaks):
    best = np.inf, ()
    for at in combinations(range(shortest, len(y) - shortest + 1), breaks):
        if all(b - a >= shortest for a, b in pairwise([0, *at, len(y)])):
            design = np.hstack([regimes(changing, at), shared])
            left = y - design @ np.linalg.lstsq(design, y, rcond=None)[0]
            best = min(best, (float(left @ left), at))
    return best


@pytest.mark.parametrize("name", DESIGNS)
@pytest.mark.parametrize("breaks", [0, 1, 2])
def test_the_best_partition_is_that_of_brute_force(name, breaks):
    changing, shared = DESIGNS[name]
    y = np.random.default_rng(3).normal(5.0, 1.0, (3, 54))
    y[1, 20:] += 2.0
    found = fit_partitions(y, changing, shared, 12, 2)
    for series in range(3):
        rss, at = brute_force(y[series], changing, shared, 12, breaks)
        assert found.rss[series, breaks] == pytest.approx(rss, rel=1e-10)
        assert tuple(found.breaks[breaks][series]) == at


def test_three_breaks_of_a_level_are_found_beside_a_lasting_season():
    y = np.random.default_rng(4).normal(0.0, 0.3, (1, 54)) + SEASON @ [1.0, 0.5]
    for at, step in ((14, 2.0), (28, -3.0), (41, 4.0)):
        y[0, at:] += step
    found = fit_partitions(y, ONES, SEASON, 8, 3)
    rss, at = brute_force(y[0], ONES, SEASON, 8, 3)
    assert tuple(found.breaks[3][0]) == at == (14, 28, 41)
    assert found.rss[0, 3] == pytest.approx(rss, rel=1e-10)


def test_a_series_is_split_the_same_alone_and_in_company():
    y = np.random.default_rng(5).normal(size=(700, 54))
    for changing, shared in (DESIGNS["everything"], DESIGNS["level, season lasts"]):
        together = fit_partitions(y, changing, shared, 10, 3)
        alone = fit_partitions(y[650:651], changing, shared, 10, 3)
        np.testing.assert_allclose(together.rss[650], alone.rss[0], rtol=1e-10)
        for m in range(4):
            np.testing.assert_array_equal(together.breaks[m][650], alone.breaks[m][0])


def test_units_and_offset_do_not_move_breaks():
    y = np.random.default_rng(6).normal(size=(4, 54))
    changing, shared = DESIGNS["level, trend and season last"]
    plain = fit_partitions(y, changing, shared, 10, 2)
    scaled = fit_partitions(1e-3 * y + 7e4, changing, shared, 10, 2)
    np.testing.assert_allclose(scaled.rss, 1e-6 * plain.rss, rtol=1e-6)
    np.testing.assert_array_equal(scaled.breaks[2], plain.breaks[2])


def test_breaks_leave_room_for_segments():
    assert room_for(54, 18) == 2
    with pytest.raises(EstimationError, match="3 breaks need 4 segments of 18"):
        partition(np.zeros((1, 54)), ONES, 18, 3)
    with pytest.raises(EstimationError, match="Each segment needs"):
        partition(np.zeros((1, 54)), np.hstack([ONES, SEASON]), 3, 1)


def test_columns_that_cannot_be_told_apart_are_refused():
    twice = np.hstack([ONES, ONES])
    with pytest.raises(EstimationError, match="combination of the others over"):
        partition(np.zeros((1, 54)), twice, 10, 1)
    still = np.hstack([ONES, (STEPS >= 30)[:, None].astype(float)])
    with pytest.raises(EstimationError, match="within a segment"):
        partition(np.zeros((1, 54)), still, 10, 1)
    with pytest.raises(EstimationError, match="beside a break at observation 30"):
        scan(ONES, still[:, 1:], candidates(54, 10))


def test_scanned_reductions_are_differences_of_sums_of_squares():
    y = np.random.default_rng(7).normal(size=54)
    changing, shared = DESIGNS["level and trend, season lasts"]
    look = scan(changing, shared, candidates(54, 8, [26]), [26])
    assert look.at.min() == 8
    assert not {*range(19, 34)} & set(look.at.tolist())
    left = look.residuals(y[None])
    reductions = look.reductions(left)[0]
    for k in (0, len(look.at) - 1):
        rss = []
        for given in ([26], sorted([26, int(look.at[k])])):
            design = np.hstack([regimes(changing, given), shared])
            rest = y - design @ np.linalg.lstsq(design, y, rcond=None)[0]
            rss.append(rest @ rest)
        assert reductions[k] == pytest.approx(rss[0] - rss[1], rel=1e-9)
        after = look.after(left, np.array([k]))
        assert (after**2).sum() == pytest.approx(rss[1], rel=1e-9)
        f = (rss[0] - rss[1]) / rss[1] * (54 - 2 * 3 - 2)
        assert look.statistics(left, look.reductions(left))[0, k] == pytest.approx(f, rel=1e-9)


def test_criteria_count_each_break_as_a_parameter():
    rss = np.array([10.0, 8.0])
    n, q, s = 50, 2, 3
    steps = np.diff(bic(rss, n, q, s))[0]
    assert steps == pytest.approx(n * np.log(0.8) + 3 * np.log(n))
    more = 0.299 * 3 * np.log(n) ** 2.1 / n + np.log((n - 5) / (n - 8))
    assert np.diff(lwz(rss, n, q, s))[0] == pytest.approx(np.log(0.8) + more)
