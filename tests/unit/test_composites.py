"""Composites against plain numpy and against loops over pixels written from the definitions."""

import warnings

import numpy as np
import pytest

from eocausal.errors import BandError, IngestError, SceneError
from eocausal.ingest.composites import (
    BestPixel,
    Mean,
    Median,
    Medoid,
    NearestDay,
    Percentile,
    count_valid,
    median_of_looks,
)
from eocausal.ingest.indices import index

BANDS = ("red", "nir", "green")
UNKNOWN = np.iinfo(np.int64).min
NAN = np.float32(np.nan)
EVERY = [
    Median(), Mean(), Medoid(), Percentile(10), BestPixel("red"), BestPixel("ndvi", highest=False),
    NearestDay(7, 1),
]  # fmt: skip


def days(*dates: str) -> np.ndarray:
    return np.array(dates, dtype="datetime64[D]").astype(np.int64)


def some_looks(count, size=13, missing=0.3, seed=0, whole=0.2):
    """Random looks with single bands missing here and whole observations there."""
    rng = np.random.default_rng(seed)
    looks = rng.normal(0.3, 0.2, (count, 3, size, size + 4)).astype(np.float32)
    looks[rng.random(looks.shape) < missing] = np.nan
    gone = rng.random((count, size, size + 4)) < whole
    looks.transpose(0, 2, 3, 1)[gone] = np.nan
    return looks, np.sort(rng.integers(15_000, 19_000, count))


def quiet(function, *args, **options):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)
        return function(*args, **options)


@pytest.mark.parametrize("count", [1, 2, 3, 4, 5, 6, 7, 8, 9, 11, 16, 17, 24, 25, 40])
@pytest.mark.parametrize("missing", [0.0, 0.4])
def test_median_mean_and_percentiles_are_those_of_numpy(count, missing):
    looks, when = some_looks(count, missing=missing, seed=count, whole=missing / 2)
    before = looks.copy()
    wide = looks.astype(np.float64)
    expected = {
        Median(): quiet(np.nanmedian, wide, axis=0),
        Mean(): quiet(np.nanmean, wide, axis=0),
        Percentile(0): quiet(np.nanmin, wide, axis=0),
        Percentile(100): quiet(np.nanmax, wide, axis=0),
        Percentile(17.5): quiet(np.nanpercentile, wide, 17.5, axis=0),
        Percentile(90): quiet(np.nanpercentile, wide, 90, axis=0),
    }
    for composite, wanted in expected.items():
        got = composite.reduce(looks, when, BANDS)
        assert got.dtype == np.float32
        if isinstance(composite, Median) or composite in (Percentile(0), Percentile(100)):
            np.testing.assert_array_equal(got, wanted.astype(np.float32))
        np.testing.assert_allclose(got, wanted, rtol=1e-6, atol=1e-7)
    np.testing.assert_array_equal(looks, before)


def test_chunks_do_not_show():
    looks, when = some_looks(6, size=120, missing=0.2)
    looks[:, :, :40] = np.nan_to_num(looks[:, :, :40], nan=0.5)
    wide = looks.astype(np.float64)
    got = Median().reduce(looks, when, BANDS)
    np.testing.assert_array_equal(got, quiet(np.nanmedian, wide, axis=0).astype(np.float32))
    medoid = Medoid().reduce(looks, when, BANDS)
    for y, x in ((0, 0), (39, 100), (60, 60), (119, 123)):
        one = looks[:, :, y : y + 1, x : x + 1]
        np.testing.assert_array_equal(
            medoid[:, y : y + 1, x : x + 1], Medoid().reduce(one, when, BANDS)
        )


def test_infinite_values_and_minus_zero_do_no_harm():
    looks = np.float32([[[[np.inf, -np.inf, -0.0]]], [[[1.0, 2.0, 0.0]]], [[[3.0, 4.0, -0.0]]]])
    got = median_of_looks(looks)
    np.testing.assert_array_equal(got, np.float32([[[2.0, 3.0, 0.0]]]))
    assert not np.signbit(got).any()
    np.testing.assert_array_equal(
        Mean().reduce(looks, UNKNOWN * np.ones(3, int), ("a",)), np.float32([[[2.0, 3.0, 0.0]]])
    )


def medoid_by_definition(looks):
    out = np.full(looks.shape[1:], np.nan, dtype=np.float32)
    for y, x in np.ndindex(looks.shape[2:]):
        points = looks[:, :, y, x].astype(np.float64)
        points = points[np.isfinite(points).all(axis=1)]
        if len(points):
            sums = [sum(np.linalg.norm(p - q) for q in points) for p in points]
            out[:, y, x] = points[int(np.argmin(sums))]
    return out


@pytest.mark.parametrize("count", [1, 2, 3, 5, 12])
def test_medoid_by_its_definition(count):
    looks, when = some_looks(count, missing=0.05, seed=count)
    np.testing.assert_array_equal(Medoid().reduce(looks, when, BANDS), medoid_by_definition(looks))


def test_medoid_of_ties_is_the_first_look():
    looks = np.float32([[5, 5], [1, 1], [1, 1], [5, 5], [3, 3]])[:, :, None, None]
    looks = np.concatenate([looks, looks + np.float32([0.1, 0.7])[:, None, None]], axis=3)
    got = Medoid().reduce(looks, np.arange(5), ("a", "b"))
    np.testing.assert_array_equal(got, looks[4])
    two = Medoid().reduce(looks[:2], np.arange(2), ("a", "b"))
    np.testing.assert_array_equal(two, looks[0])
    rng = np.random.default_rng(1)
    base = rng.random((7, 2, 50, 50)).astype(np.float32)
    doubled = np.concatenate([base, base])
    tagged = Medoid().reduce(doubled, np.arange(14), ("a", "b"))
    np.testing.assert_array_equal(tagged, Medoid().reduce(base, np.arange(7), ("a", "b")))


def best_by_definition(looks, score, bands):
    out = np.full(looks.shape[1:], np.nan, dtype=np.float32)
    for y, x in np.ndindex(looks.shape[2:]):
        found = None
        for look in looks[:, :, y, x]:
            if np.isfinite(look).all():
                value = score(dict(zip(bands, look.astype(np.float64), strict=True)))
                if found is None or value > found[0]:
                    found = (value, look)
        if found is not None:
            out[:, y, x] = found[1]
    return out


@pytest.mark.parametrize(
    ("composite", "score"),
    [
        (BestPixel("red"), lambda b: b["red"]),
        (BestPixel("red", highest=False), lambda b: -b["red"]),
        (BestPixel("difference = nir - green"), lambda b: b["nir"] - b["green"]),
        (BestPixel("ndvi"), lambda b: (b["nir"] - b["red"]) / (b["nir"] + b["red"])),
        (BestPixel("NDWI", highest=False),
         lambda b: -(b["green"] - b["nir"]) / (b["green"] + b["nir"])),
    ],
)  # fmt: skip
def test_best_pixel_is_one_whole_look(composite, score):
    looks, when = some_looks(8, missing=0.05, seed=2)
    looks = np.abs(looks) + np.float32(0.01)
    got = composite.reduce(looks, when, BANDS)
    np.testing.assert_array_equal(got, best_by_definition(looks, score, BANDS))


def test_best_pixel_prefers_a_band_to_an_index_of_that_name():
    looks = np.float32([[1, 5, 0.1], [1, 2, 0.9]]).reshape(2, 3, 1, 1)
    bands = ("red", "nir", "ndvi")
    assert BestPixel("ndvi").reduce(looks, np.arange(2), bands)[2, 0, 0] == np.float32(0.9)


def test_best_pixel_takes_a_look_without_a_score_only_as_the_last_choice():
    looks = np.float32([[0, 0, 1], [0.3, 0.1, 2], [NAN, 0.9, 3]]).reshape(3, 3, 1, 1)
    got = BestPixel("ndvi").reduce(looks, np.arange(3), BANDS)
    np.testing.assert_array_equal(got, looks[1])
    got = BestPixel("ndvi").reduce(looks[:1], np.arange(1), BANDS)
    np.testing.assert_array_equal(got, looks[0])
    tie = BestPixel("ndvi").reduce(np.concatenate([looks[1:2], 2 * looks[1:2]]), days(), BANDS)
    np.testing.assert_array_equal(tie, looks[1])


def test_nearest_day_counts_across_new_year_and_years():
    when = days("1999-12-20", "2004-02-29", "2010-01-08", "2011-06-30", "2012-07-04")
    looks = np.arange(5, dtype=np.float32)[:, None, None, None] + np.zeros((5, 1, 1, 1), "f4")

    def chosen(month, day, keep=slice(None)):
        return int(NearestDay(month, day).reduce(looks[keep], when[keep], ("a",))[0, 0, 0])

    assert chosen(1, 1) == 2
    assert chosen(12, 31) == 2  # 8 days after, against 11 before
    assert chosen(12, 27) == 0
    assert chosen(7, 1) == 3
    assert chosen(7, 2) == 3  # two days from either: the first
    assert chosen(7, 3) == 4
    assert chosen(3, 1) == 1
    assert chosen(1, 1, slice(0, 2)) == 0


def test_nearest_day_fills_gaps_from_the_next_nearest_whole_look():
    when = days("2020-07-01", "2020-07-05", "2020-08-01")
    looks = np.full((3, 2, 1, 4), np.nan, dtype=np.float32)
    looks[0, :, 0, 0], looks[1, :, 0, :3], looks[2, :, 0, :] = 1, 2, 3
    looks[1, 1, 0, 2] = np.nan
    got = NearestDay(7, 1).reduce(looks, when, ("a", "b"))
    np.testing.assert_array_equal(got, np.float32([[[1, 2, 3, 3]]] * 2))
    when[0] = UNKNOWN
    got = NearestDay(7, 1).reduce(looks, when, ("a", "b"))
    np.testing.assert_array_equal(got, np.float32([[[2, 2, 3, 3]]] * 2))


def test_count_is_of_looks_valid_in_all_bands():
    looks, _ = some_looks(9)
    expected = np.isfinite(looks).all(axis=1).sum(axis=0)
    got = count_valid(looks)
    assert got.dtype == np.uint16
    np.testing.assert_array_equal(got, expected)


@pytest.mark.parametrize("composite", EVERY, ids=repr)
def test_nothing_valid_is_nan_and_no_looks_too(composite):
    for count in (0, 1, 2, 5):
        looks = np.full((count, 3, 4, 5), np.nan, dtype=np.float32)
        got = composite.reduce(looks, np.arange(count), BANDS)
        assert got.shape == (3, 4, 5)
        assert got.dtype == np.float32
        assert np.isnan(got).all()
    assert count_valid(np.empty((0, 3, 4, 5), dtype=np.float32)).sum() == 0


@pytest.mark.parametrize("composite", EVERY, ids=repr)
def test_memory_views_and_repeats_change_nothing(composite):
    looks, when = some_looks(7, missing=0.1)
    once = composite.reduce(looks, when, BANDS)
    strided = np.repeat(looks, 2, axis=3)[..., ::2]
    read_only = looks.copy()
    read_only.setflags(write=False)
    for again in (strided, read_only, np.asfortranarray(looks)):
        assert composite.reduce(again, when, BANDS).tobytes() == once.tobytes()


@pytest.mark.parametrize("composite", EVERY, ids=repr)
def test_check_lets_good_decisions_pass(composite):
    composite.check(BANDS, dated=True)


def test_check_refuses_before_any_pixel_is_read():
    with pytest.raises(BandError, match=r"'greenness'.*'red', 'nir'.*'ndvi'"):
        BestPixel("greenness").check(("red", "nir"), dated=True)
    with pytest.raises(BandError, match=r"'ndvi' needs 'nir'"):
        BestPixel().check(("red", "nir08"), dated=True)
    BestPixel("g = (nir08 - red) / (nir08 + red)").check(("red", "nir08"), dated=False)
    with pytest.raises(SceneError, match="date of every scene"):
        NearestDay(7, 1).check(BANDS, dated=False)
    Median().check((), dated=False)


def test_a_composite_names_the_bands_it_must_see():
    assert BestPixel("ndvi").needs(("red", "swir1")) == ("nir",)
    assert BestPixel("ndvi").needs(("ndvi", "swir1")) == ()
    assert BestPixel("g = nir08 / red").needs(()) == ("nir08", "red")
    assert BestPixel("age").needs(("red",)) == ("age",)
    assert [c.needs(()) for c in (Median(), Medoid(), NearestDay(1, 1))] == [()] * 3


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: Percentile(101), "0 to 100"),
        (lambda: Percentile(float("nan")), "0 to 100"),
        (lambda: NearestDay(2, 29), "every year"),
        (lambda: NearestDay(13, 1), "every year"),
        (lambda: NearestDay("7", 1), "every year"),
        (lambda: BestPixel("g = nir +"), "cannot be read"),
    ],
)
def test_wrong_decisions_are_refused(make, words):
    with pytest.raises(IngestError, match=words):
        make()


def test_best_pixel_of_an_index_scores_as_the_index():
    looks, when = some_looks(4, missing=0)
    got = BestPixel("ndvi").reduce(looks, when, BANDS)
    scores = np.stack([index("ndvi").evaluate(dict(zip(BANDS, k, strict=True))) for k in looks])
    there = index("ndvi").evaluate(dict(zip(BANDS, got, strict=True)))
    some = np.isfinite(there)
    assert some.sum() > 100
    np.testing.assert_array_equal(there[some], quiet(np.nanmax, scores, axis=0)[some])
