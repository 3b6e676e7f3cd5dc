"""Real clouds: two and a half years of Sentinel-2 NDVI over farmland and forest.

The truth for a season is the median of its dates without any cloud; composites are made of the
other, cloudy dates of the same season only, so that they never see what they are held against.
"""

import json

import numpy as np
import pytest

from eocausal.ingest.composites import (
    BestPixel,
    Mean,
    Median,
    Medoid,
    NearestDay,
    Percentile,
    count_valid,
)
from eocausal.ingest.masks import CloudProbability, NonZero, Values

pytestmark = pytest.mark.realdata

SUMMER = ("2017-06-01", "2017-08-31")
BANDS = ("ndvi",)


@pytest.fixture(scope="module")
def patch(real_data):
    """NDVI, cloud mask and cloud probability (date, y, x), days and cloud cover."""
    folder = real_data("s2_eopatch")
    arrays = [
        np.load(folder / f"{n}.npy", allow_pickle=False)[..., 0] for n in ("NDVI", "CLM", "CLP")
    ]
    cover = np.load(folder / "CLOUD_COVERAGE.npy", allow_pickle=False)[:, 0].astype(float)
    times = json.loads((folder / "timestamps.json").read_text())
    days = np.array(times, dtype="datetime64[D]").astype(np.int64)
    return *arrays, days, cover


@pytest.fixture(scope="module")
def summer(patch):
    """Cloudy looks of one summer, their masks, and the truth from its clear dates."""
    ndvi, clm, clp, days, cover = patch
    first, last = (np.datetime64(d, "D").astype(np.int64) for d in SUMMER)
    inside = (days >= first) & (days <= last)
    clear, cloudy = inside & (cover == 0), inside & (cover > 0)
    assert (clear.sum(), cloudy.sum()) == (7, 5)
    truth = np.median(ndvi[clear], axis=0)
    return ndvi[cloudy][:, None], clm[cloudy], clp[cloudy], days[cloudy], truth


def masked(looks, mask, stored):
    clear = np.stack([mask.clear(s) for s in stored])
    return np.where(clear[:, None], looks, np.float32(np.nan))


def error(image, truth, where):
    return float(np.sqrt(np.mean((image[0] - truth)[where] ** 2)))


MASKS = [
    (Values("clm", keep=(0,)), "mask"),
    (NonZero("clear"), "clear"),
    (CloudProbability("clp", below=0.4), "probability"),
    (Values("clm", keep=(0,), dilate=2), "mask"),
]
COMPOSITES = [
    Median(), Mean(), Medoid(), Percentile(60), NearestDay(7, 15), NearestDay(8, 9),
]  # fmt: skip


def stored_as(what, clm, clp):
    return {"mask": clm, "clear": 1 - clm, "probability": clp}[what]


@pytest.mark.parametrize(("mask", "what"), MASKS, ids=str)
@pytest.mark.parametrize("composite", COMPOSITES, ids=repr)
def test_masked_composites_are_nearer_to_the_clear_season(summer, composite, mask, what):
    looks, clm, clp, days, truth = summer
    raw = composite.reduce(looks, days, BANDS)
    kept = masked(looks, mask, stored_as(what, clm, clp))
    where = count_valid(kept) >= 1
    assert where.mean() > 0.9
    image = composite.reduce(kept, days, BANDS)
    np.testing.assert_array_equal(np.isfinite(image[0]), where)
    assert (image[0] != raw[0])[where].mean() > 0.1
    assert error(image, truth, where) < 0.75 * error(raw, truth, where)


def test_growing_the_mask_takes_the_edges_of_clouds(summer):
    looks, clm, _, days, truth = summer
    thin, wide = (masked(looks, Values("clm", keep=(0,), dilate=d), clm) for d in (0, 4))
    lost = np.isfinite(thin) & ~np.isfinite(wide)
    assert 0.01 < lost.mean() < 0.2
    where = count_valid(wide) >= 1
    assert error(Median().reduce(wide, days, BANDS), truth, where) < error(
        Median().reduce(thin, days, BANDS), truth, where
    )


def test_the_maximum_ndvi_finds_the_clear_look_by_itself(summer):
    """Clouds lower NDVI, which is why Holben took its maximum: here it needs no mask."""
    looks, _, _, days, truth = summer
    where = np.ones(truth.shape, dtype=bool)
    best = error(BestPixel("ndvi").reduce(looks, days, BANDS), truth, where)
    assert best < 0.1
    assert best < 0.5 * error(Median().reduce(looks, days, BANDS), truth, where)


def test_looks_counted_are_the_dates_without_cloud(patch):
    ndvi, clm, _, _, _ = patch
    kept = masked(ndvi[:, None], Values("clm", keep=(0,)), clm)
    np.testing.assert_array_equal(count_valid(kept), (clm == 0).sum(axis=0))
    everything = Median().reduce(kept, np.arange(len(kept)), BANDS)[0]
    one = [np.median(ndvi[clm[:, y, x] == 0, y, x]) for y, x in ((0, 0), (50, 50), (100, 99))]
    assert [everything[y, x] for y, x in ((0, 0), (50, 50), (100, 99))] == one
