"""Effects where the confounder is in the pixels: bias, coverage, and warnings where it is not."""

import importlib.util
from functools import cache
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

pytestmark = pytest.mark.slow

BENCHMARKS = Path(__file__).resolve().parents[2] / "benchmarks"


@pytest.fixture(scope="module")
def benchmark():
    path = BENCHMARKS / "image_confounding.py"
    spec = importlib.util.spec_from_file_location("image_confounding_benchmark", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def errors(rows: pd.DataFrame, name: str, column: str = "error") -> pd.Series:
    """Return one value per replication; missing where the estimate was refused."""
    return rows.loc[rows["name"] == name, column].astype(float).reset_index(drop=True)


def centred(error: pd.Series, slack: float = 0.0) -> bool:
    """Say whether a mean error is within 3.5 Monte Carlo errors (and some slack) of zero."""
    return abs(error.mean()) < slack + 3.5 * error.sem()


def test_pixels_stand_in_for_the_confounder_of_the_tutorial(benchmark):
    runs = 30
    rows = pd.DataFrame(
        [row for i in range(runs) for row in benchmark.tutorial_once(i, seed=1, others=0)]
    )
    image = errors(rows, "RandomConv")
    assert errors(rows, "table").mean() > 0.7
    assert errors(rows, "naive difference").mean() > 1.8
    assert errors(rows, "RandomConv", "refused").mean() < 0.2
    assert centred(image)
    assert centred(image - errors(rows, "table and what is hidden"), 0.01)
    assert np.sqrt((image**2).mean()) < 0.2
    assert errors(rows, "RandomConv", "covered").mean() > 0.8


@pytest.mark.realdata
def test_a_kernel_in_real_chips_is_found_by_the_largest_response(benchmark, real_data, monkeypatch):
    monkeypatch.setenv("EOCAUSAL_DATA", str(real_data("uganda_yop").parent))
    names = ("RandomConv, mean and max", "RandomConv, mean")
    rows = pd.DataFrame([
        row
        for i in range(30)
        for row in benchmark.kernel_once(i, width=8, factor=1, names=names, seed=1)
    ])  # fmt: skip
    largest, mean = (errors(rows, name) for name in names)
    oracle = np.sqrt((errors(rows, "true probabilities", "hajek") ** 2).mean())
    assert errors(rows, "naive difference").mean() == pytest.approx(0.82, abs=0.06)
    assert 0.1 < oracle < 0.25
    assert np.sqrt((largest**2).mean()) < 1.5 * 0.16
    assert largest.mean() < mean.mean()


@cache
def replications(benchmark, carrier: str, runs: int, warnings: int = 0) -> pd.DataFrame:
    return pd.DataFrame([
        row
        for i in range(runs)
        for row in benchmark.embedded_once(i, carrier=carrier, seed=1, blocks=0, warnings=warnings)
    ])  # fmt: skip


def test_what_is_linear_in_the_embedding_is_adjusted_for(benchmark):
    rows = replications(benchmark, "span", 40)
    image, oracle = errors(rows, "table and image"), errors(rows, "table and what is hidden")
    assert errors(rows, "table").mean() == pytest.approx(0.58, abs=0.06)
    assert errors(rows, "table", "covered").mean() == 0
    assert centred(image, 0.01)
    assert abs((image - oracle).mean()) < 0.03
    assert errors(rows, "table and image", "covered").mean() > 0.85
    ratio = np.sqrt((errors(rows, "table and image", "se") ** 2).mean()) / image.std()
    assert 0.75 < ratio < 1.4


def test_what_the_image_hardly_tells_stays_and_placebos_say_so(benchmark):
    rows = replications(benchmark, "latent", 15, warnings=15)
    image = errors(rows, "table and image")
    assert errors(rows, "R2", "r2").mean() < 0.7
    assert image.mean() > 0.15
    assert errors(rows, "table and image", "covered").mean() < 0.3
    assert errors(rows, "warnings", "placebo not passed").mean() > 0.8
    assert errors(rows, "warnings", "image and known confounders not passed").mean() > 0.8
