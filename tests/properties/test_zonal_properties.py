"""What must hold of coverage and statistics whatever the polygon, the grid and the pixels."""

import numpy as np
import scipy.sparse as sparse
import shapely
from hypothesis import given, settings
from hypothesis import strategies as st

from eocausal.ingest.coverage import Coverage, coverage_of, pieces_of
from eocausal.ingest.grid import SceneGrid
from eocausal.ingest.statistics import (
    ClassShare,
    Count,
    Layer,
    Max,
    Mean,
    Min,
    Quantile,
    StdDev,
    Zone,
)

seeds = st.integers(0, 2**32 - 1)
GRID = SceneGrid("EPSG:32636", (7.0, 0, 500_000.0, 0, -7.0, 90_000.0), 30, 20)


def star(rng, grid=GRID):
    a, _, c, _, e, f = grid.transform
    angle = np.sort(rng.uniform(0, 2 * np.pi, 9))
    radius = rng.uniform(0.1, 1, 9) * a * rng.choice([0.5, 3, 15])
    x, y = c + a * grid.width * rng.uniform(-0.1, 1.1), f + e * grid.height * rng.uniform(-0.1, 1.1)
    ring = np.c_[x + radius * np.cos(angle), y + radius * np.sin(angle)]
    return shapely.Polygon(ring).buffer(0)


def random_zone(rng, n=6, p=40):
    fraction = sparse.random(n, p, density=0.4, random_state=rng, format="csr")
    area = rng.uniform(1, 3, p) if rng.random() < 0.5 else np.ones(1)
    valid = rng.random(p) < rng.choice([0.1, 0.7, 0.95, 1.0])
    values = np.where(valid, np.round(rng.normal(0, 5, p)), 0.0)
    cover = Coverage(np.arange(p), fraction, area, np.ones(n))
    weights = np.asarray(fraction.todense()) * area
    return Zone(cover, Layer(values, valid)), weights, values, valid


@given(seeds)
@settings(max_examples=60, deadline=None)
def test_coverage_is_the_area_of_the_intersection(seed):
    rng = np.random.default_rng(seed)
    shapes = np.array([star(rng) for _ in range(4)], dtype=object)
    cover = coverage_of(shapes, GRID.crs, GRID)
    a, _, c, _, e, f = GRID.transform
    rows, cols = np.divmod(cover.pixels, GRID.width)
    cells = shapely.box(c + a * cols, f + e * (rows + 1), c + a * (cols + 1), f + e * rows)
    dense = np.asarray(cover.fraction.todense())
    for k, shape in enumerate(shapes):
        truth = shapely.area(shapely.intersection(shape, cells)) / 49
        assert np.allclose(dense[k], truth, atol=2e-6)
    frame = shapely.box(c, f + e * GRID.height, c + a * GRID.width, f)
    assert np.allclose(cover.inside, shapely.area(shapely.intersection(shapes, frame)), rtol=1e-5,
                       atol=1e-3)  # fmt: skip


@given(seeds)
@settings(max_examples=40, deadline=None)
def test_a_partition_of_a_polygon_adds_up_to_it(seed):
    rng = np.random.default_rng(seed)
    whole = star(rng)
    cut = shapely.box(*shapely.union(whole, whole.centroid).bounds)
    middle = whole.centroid.x
    halves = [
        whole.intersection(shapely.box(cut.bounds[0], cut.bounds[1], middle, cut.bounds[3])),
        whole.intersection(shapely.box(middle, cut.bounds[1], cut.bounds[2], cut.bounds[3])),
    ]
    shapes = np.array([whole, *(h.buffer(0) for h in halves)], dtype=object)
    cover = coverage_of(shapes, GRID.crs, GRID)
    assert np.isclose(cover.inside[0], cover.inside[1:].sum(), rtol=1e-5, atol=1e-3)


@given(seeds, st.integers(1, 40), st.integers(1, 40), st.integers(0, 3))
@settings(max_examples=60, deadline=None)
def test_pieces_give_every_pixel_back(seed, high, wide, margin):
    rng = np.random.default_rng(seed)
    pixels = rng.permutation(GRID.width * GRID.height)[: rng.integers(1, 200)]
    image = np.arange(GRID.width * GRID.height).reshape(GRID.height, GRID.width)
    out = np.full(len(pixels), -1)
    for piece in pieces_of(pixels, GRID, (high, wide), margin=margin):
        left, top, width, height = piece.box
        assert left >= 0 <= top
        window = image[top : top + height, left : left + width]
        assert window.shape == (height, width)
        out[piece.at] = window.ravel()[piece.local]
    assert (out == pixels).all()


@given(seeds)
@settings(max_examples=80, deadline=None)
def test_statistics_are_those_of_each_polygon_by_itself(seed):
    zone, weights, values, valid = random_zone(np.random.default_rng(seed))
    kinds = (Mean(), StdDev(), Min(), Max(), Count(), ClassShare({"zero": 0, "odd": (1, 3, -1)}))
    mean, std, low, high, count, (zero, odd) = (
        found if len(found) > 1 else found[0] for found in (k.compute(zone) for k in kinds)
    )
    for k, row in enumerate(weights):
        used = (row > 0) & valid
        w, x = row[used], values[used]
        if not used.any():
            assert np.isnan([mean[k], std[k], low[k], high[k], zero[k]]).all()
            assert count[k] == 0
            continue
        assert np.isclose(mean[k], np.average(x, weights=w))
        truth = np.sqrt(np.average((x - np.average(x, weights=w)) ** 2, weights=w))
        assert np.isclose(std[k], truth, atol=1e-6)
        assert (low[k], high[k]) == (x.min(), x.max())
        assert np.isclose(zero[k], w[x == 0].sum() / w.sum())
        assert np.isclose(odd[k], w[np.isin(x, [1, 3, -1])].sum() / w.sum())


@given(seeds, st.floats(0, 1))
@settings(max_examples=80, deadline=None)
def test_with_equal_weights_a_quantile_is_numpys(seed, q):
    rng = np.random.default_rng(seed)
    fraction = sparse.csr_matrix((rng.random((5, 30)) < 0.4).astype(float))
    cover = Coverage(np.arange(30), fraction, np.ones(1), np.ones(5))
    values = rng.normal(size=30)
    found = Quantile(q).compute(Zone(cover, Layer(values, np.ones(30, dtype=bool))))[0]
    for k in range(5):
        mine = values[fraction[k].indices]
        assert np.isclose(found[k], np.quantile(mine, q) if len(mine) else np.nan, equal_nan=True)


@given(seeds)
@settings(max_examples=60, deadline=None)
def test_quantiles_rise_with_q_and_stay_within_the_values(seed):
    zone, _, _, _ = random_zone(np.random.default_rng(seed))
    rising = [Quantile(q).compute(zone)[0] for q in (0.0, 0.2, 0.5, 0.9, 1.0)]
    some = np.isfinite(rising[0])
    assert (np.diff(np.array(rising)[:, some], axis=0) >= -1e-9).all()
    assert (rising[0][some] == Min().compute(zone)[0][some]).all()
    assert (rising[-1][some] == Max().compute(zone)[0][some]).all()
