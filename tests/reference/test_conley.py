"""Conley variances of a regression against fixest (uniform kernel, great circle, R = 6376 km)."""

import json

import numpy as np
import pandas as pd
import pytest

from eocausal.estimators.inference import Spherical, Uniform, conley_variance


@pytest.fixture
def quakes(reference):
    folder = reference("conley")
    table = pd.read_csv(folder / "quakes.csv")
    wanted = json.loads((folder / "fixest.json").read_text())["values"]
    x = np.column_stack([np.ones(len(table)), table["mag"]])
    inverse = np.linalg.inv(x.T @ x)
    residual = table["depth"].to_numpy() - x @ (inverse @ x.T @ table["depth"].to_numpy())
    return table, (x * residual[:, None]) @ inverse, wanted


def test_uniform_kernel_equals_fixest(quakes):
    table, psi, wanted = quakes
    found = conley_variance(
        psi, table["long"].to_numpy(), table["lat"].to_numpy(), 100, Uniform(), 6376.0
    )
    expected = wanted["quakes_100_spherical_noadj"]["se"]
    assert np.sqrt(found[0, 0]) == pytest.approx(expected["(Intercept)"], rel=1e-9)
    assert np.sqrt(found[1, 1]) == pytest.approx(expected["mag"], rel=1e-9)
    adjusted = np.sqrt(found[1, 1] * 999 / 998)
    assert adjusted == pytest.approx(wanted["quakes_100_spherical"]["se"]["mag"], rel=1e-9)


def test_without_neighbours_it_is_white(quakes):
    table, psi, wanted = quakes
    apart = np.linspace(-170, 170, len(table))
    found = conley_variance(psi, apart, np.zeros(len(table)), 1.0)
    # fixest multiplies its heteroskedastic variance by n/(n - 1) even without adjustment
    white = np.sqrt(found[1, 1] * 1000 / 999)
    assert white == pytest.approx(wanted["hetero_noadj"]["se"]["mag"], rel=1e-9)


def test_against_the_full_matrix_across_the_date_line():
    rng = np.random.default_rng(0)
    lon = (179 + 4 * rng.random(300) + 180) % 360 - 180
    lat, psi = rng.uniform(-80, 80, 300), rng.normal(size=300)
    a, b = np.deg2rad(lon), np.deg2rad(lat)
    cosine = np.sin(b)[:, None] * np.sin(b) + np.cos(b)[:, None] * np.cos(b) * np.cos(
        a[:, None] - a
    )
    u = 6371.0 * np.arccos(np.clip(cosine, -1, 1)) / 900
    np.fill_diagonal(u, 0.0)
    kernel = np.where(u < 1, 1 - 1.5 * u + 0.5 * u**3, 0.0)
    assert conley_variance(psi, lon, lat, 900)[0, 0] == pytest.approx(psi @ kernel @ psi, rel=1e-6)


def test_spherical_kernel_is_positive_semidefinite(quakes):
    table, _, _ = quakes
    lon, lat = table["long"].to_numpy(), table["lat"].to_numpy()
    rng = np.random.default_rng(1)
    for km in (50, 500, 3000):
        psi = rng.normal(size=(len(table), 6))
        values = np.linalg.eigvalsh(conley_variance(psi, lon, lat, km, Spherical()))
        assert values.min() >= -1e-9 * values.max()
