"""Windows and weights of chips on a scene."""

import numpy as np
import pytest
from affine import Affine

from eocausal.ingest import sampling
from eocausal.ingest.grid import ChipGrids, SceneGrid, project
from eocausal.ingest.resample import Bilinear, Nearest
from eocausal.ingest.sampling import place_chips

UTM = "EPSG:32636"


def scene_grid(width=100, height=80, crs=UTM, pixel=10.0, west=500_000.0, north=100_000.0):
    transform = Affine(pixel, 0, west, 0, -pixel, north)
    return SceneGrid(crs, tuple(transform)[:6], width, height)


def chips_at(centres, size, pixel=10.0, crs=UTM) -> ChipGrids:
    x = np.array([500_000.0 + 10.0 * c for c, _ in centres])
    y = np.array([100_000.0 - 10.0 * r for _, r in centres])
    return ChipGrids.centred([crs] * len(centres), x, y, pixel, size)


def pixels_of(piece, size, values):
    """What a piece makes of a scene: (pixel, value)."""
    left, top, wide, high = piece.box
    window = values[top : top + high, left : left + wide].astype(float)
    if piece.corner is not None:
        inner, outer = piece.overlap(size)
        out = np.full((size, size), np.nan)
        out[outer] = window[inner]
        return out
    out = np.full(size * size, np.nan)
    out[slice(None) if piece.pixels is None else piece.pixels] = piece.weights @ window.ravel()
    return out.reshape(size, size)


@pytest.mark.parametrize("margin", [0, 1, 7, 200])
def test_a_margin_moves_nothing(margin):
    values = np.arange(8000).reshape(80, 100)
    centres = [(50, 40), (4, 4), (0, 0), (100, 80), (97, 3), (50.25, 40.5), (1.3, 78.6)]
    plain = place_chips(chips_at(centres, 8), scene_grid(), Nearest())
    wider = place_chips(chips_at(centres, 8), scene_grid(), Nearest(), margin=margin)
    for a, b in zip(plain, wider, strict=True):
        assert len(a) == len(b) == 1
        np.testing.assert_array_equal(pixels_of(a[0], 8, values), pixels_of(b[0], 8, values))
        left, top, wide, high = b[0].box
        assert left <= max(a[0].box[0] - margin, 0)
        assert top <= max(a[0].box[1] - margin, 0)
        assert left + wide >= min(a[0].box[0] + a[0].box[2] + margin, 100)
        assert top + high >= min(a[0].box[1] + a[0].box[3] + margin, 80)
        assert left >= 0
        assert top >= 0
        assert left + wide <= 100
        assert top + high <= 80


def test_a_margin_brings_no_chip_onto_a_scene():
    beside = [(-4, 40), (104, 40), (50, -4), (50, 84), (-200, -200)]
    assert place_chips(chips_at(beside, 8), scene_grid(), Nearest(), margin=50) == [[]] * 5
    touching = place_chips(chips_at([(-3, 40), (103, 40)], 8), scene_grid(), Nearest(), margin=2)
    assert [len(p) for p in touching] == [1, 1]


@pytest.mark.parametrize("method", [Nearest(), Bilinear()], ids=["nearest", "bilinear"])
@pytest.mark.parametrize("pixel", [3.0, 10.0, 26.0])
def test_weights_add_up_to_one_and_stay_in_the_window(method, pixel):
    chips = chips_at([(50.3, 40.2), (2.2, 1.1), (98.7, 79.4)], 9, pixel=pixel)
    for (piece,) in place_chips(chips, scene_grid(), method, precision=np.float64):
        np.testing.assert_allclose(piece.weights.sum(axis=1), 1.0, rtol=1e-12)
        assert piece.weights.data.min() >= 0
        assert piece.weights.shape[1] == piece.box[2] * piece.box[3]
        assert piece.centre.min() >= 0
        assert piece.centre.max() < piece.weights.shape[1]


@pytest.mark.parametrize("crs", ["EPSG:32635", "EPSG:4326", "EPSG:3857", "ESRI:102022"])
@pytest.mark.parametrize("size", [10, 11, 64, 256])
def test_interpolated_positions_are_within_a_ten_thousandth_of_a_pixel(crs, size):
    """Chebyshev interpolation against the projection of every pixel."""
    pixel = 10.0 if crs != "EPSG:4326" else 9e-5
    west, north = (float(v) for v in project(UTM, crs, 499_000.0, 101_000.0))
    scene = scene_grid(500, 500, crs, pixel, west, north)
    chips = chips_at([(0, 0), (50, 40), (80, 10)], size)
    fast, exact = sampling._positions(chips, scene), sampling._exact(chips, scene)
    for a, b in zip(fast, exact, strict=True):
        assert np.abs(a - b).max() < 2e-4


def test_a_chip_at_both_ends_of_a_scene_is_read_in_parts(monkeypatch):
    """A chip across the antimeridian needs the first and the last columns, not all between."""
    scene = SceneGrid("EPSG:4326", (1e-3, 0, -180, 0, -1e-3, 90), 360_000, 180_000)
    x, y = project("EPSG:4326", "EPSG:32601", np.array([180.0]), np.array([10.0]))
    chips = ChipGrids.centred(["EPSG:32601"], x, y, 1000.0, 32)
    (pieces,) = place_chips(chips, scene, Nearest())
    assert len(pieces) == 2
    assert sum(p.box[2] * p.box[3] for p in pieces) < 200_000
    spread = np.sort(np.concatenate([p.pixels for p in pieces]))
    np.testing.assert_array_equal(spread, np.arange(32 * 32))
    monkeypatch.setattr(sampling, "_LARGEST", 10**12)
    (whole,) = place_chips(chips, scene, Nearest())
    assert whole[0].box[2] > 350_000
