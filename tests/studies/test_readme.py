"""What the README shows is true: its study is valid and its Python runs."""

import json
import re
import subprocess
import sys
from pathlib import Path

import geopandas as gpd
import numpy as np
import pandas as pd
import pytest
import xarray as xr
import yaml

import eocausal as eo
from eocausal.simulate.coast import simulate_coast, write_coast
from eocausal.simulate.world import WorldConfig, render_world
from eocausal.studies.encoders import cards_of, encoder_of, network_of
from eocausal.studies.load import load_study, read_ingestion
from eocausal.studies.scenes import periods_of
from eocausal.studies.schema_encoder import EncoderChoice

README = (Path(__file__).resolve().parents[2] / "README.md").read_text(encoding="utf-8")


def block(language, number=0):
    return re.findall(rf"```{language}\n(.*?)```", README, flags=re.S)[number]


def test_every_block_is_tested():
    assert len(re.findall(r"```yaml\n", README)) == 4
    assert len(re.findall(r"```python\n", README)) == 7


def test_study_that_ingests_is_valid(tmp_path):
    path = tmp_path / "valley.yaml"
    path.write_text(block("yaml", 1), encoding="utf-8")
    data = read_ingestion(path).study.data
    assert data.imagery.lock == "scenes.lock.json"
    assert len(periods_of(data.imagery.periods, None)) == 36
    assert [s.name for s in data.panel.statistics] == ["mean", "quantile"]


def test_python_that_ingests_runs(tmp_path):
    """As a script, which is how a worker process would import it."""
    config = WorldConfig(seed=5, n_neighborhoods=30, n_trial=20, chip_px=32, scenes_per_year=1)
    render_world(config, tmp_path / "w")
    (tmp_path / "w" / "scenes").rename(tmp_path / "scenes")
    places = gpd.read_file(tmp_path / "w" / "neighborhoods.gpkg")
    places.rename(columns={"neighborhood": "village"}).to_file(tmp_path / "villages.gpkg")
    (tmp_path / "ingests.py").write_text(block("python", 1), encoding="utf-8")
    done = subprocess.run(
        [sys.executable, "ingests.py"], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    cube = eo.open_cube(tmp_path / "cube.zarr")
    assert cube["image"].shape[:3] == (30, 3, 3)
    assert float(cube["valid"].mean()) > 0.5
    assert "time" in done.stdout


def test_study_that_encodes_is_valid(tmp_path):
    path = tmp_path / "valley.yaml"
    path.write_text(block("yaml", 2), encoding="utf-8")
    study = read_ingestion(path).study
    assert study.data.encoder.sequence.head == "mean_trend"
    assert study.embedding.covariates == ("elevation", "urban")


def test_every_encoder_of_the_table_can_be_made():
    table = README[README.index("| encoder | for |") :]
    rows = re.findall(r"^\| `([^`]+)` \|", table, flags=re.M)
    assert len(rows) == 6
    for row in rows:
        choice = EncoderChoice.model_validate(yaml.safe_load(f"{{{row}}}" if ":" in row else row))
        cards = [c for c in cards_of(choice) if c.weights is not None]
        if choice.trained is not None:
            assert network_of(choice.trained.network, Path()).name.startswith("SmallCNN")
        elif not cards:
            assert encoder_of(choice, Path()).name


@pytest.mark.slow
def test_python_that_trains_runs(tmp_path, monkeypatch, capsys):
    config = WorldConfig(seed=5, n_neighborhoods=30, n_trial=24, chip_px=16, scenes_per_year=1)
    files = render_world(config, tmp_path / "w")
    places = eo.read_neighborhoods(files.neighborhoods, id="neighborhood")
    eo.build_cube(
        places, eo.scan(tmp_path / "w" / "scenes"), bands=["red", "nir"], resolution=30, size=16,
        periods=["2015/2017"], out=tmp_path / "cube.zarr",
    )  # fmt: skip
    people = pd.read_csv(files.units, index_col="unit")
    people = people.rename(columns={"arm": "treated"}).assign(village=people["neighborhood"])
    monkeypatch.chdir(tmp_path)
    exec(block("python", 2), {"people": people})
    said = capsys.readouterr().out
    assert "propensity" in said
    assert "features span about" in said
    assert len(list((tmp_path / "salience").glob("*.tif"))) >= 5


@pytest.mark.slow
def test_python_that_weights_runs(tmp_path, monkeypatch, capsys):
    files = render_world(WorldConfig(seed=5, scenes_per_year=1), tmp_path / "w")
    (tmp_path / "w" / "scenes").rename(tmp_path / "scenes")
    places = gpd.read_file(files.neighborhoods).set_index("neighborhood")
    places.rename_axis("village").reset_index().to_file(tmp_path / "villages.gpkg")
    truth = json.loads(files.truth.read_text(encoding="utf-8"))
    wealth = pd.read_csv(files.wealth)
    last = wealth[wealth["year"] == wealth["year"].max()].set_index("neighborhood")["wealth"]
    begun = {name: place["aid_start"] for name, place in truth["neighborhoods"].items()}
    villages = pd.DataFrame(places[["lon", "lat"]]).assign(
        wealth=last, road=pd.Series(begun).notna().astype(int)
    )
    monkeypatch.chdir(tmp_path)
    made = {"villages": villages}
    exec(block("python", 3), made)
    said = capsys.readouterr().out
    assert "CheckResult(PASS Balance after weighting" in said
    assert "FAIL" not in said
    effect = made["fitted"].estimate
    true = truth["aid"]["ate_transport"]
    assert effect.ci_low < true < effect.ci_high
    assert (tmp_path / "effects.gpkg").exists()
    rng = np.random.default_rng(0)
    seen = 0.5 * last + rng.normal(0, 0.2, len(last))
    known = last.where(rng.random(len(last)) < 0.5)
    exec(block("python", 4), {"villages": villages.assign(predicted_wealth=seen, wealth=known)})
    assert "prediction" in capsys.readouterr().out


def test_study_is_valid(tmp_path):
    path = tmp_path / "my_trial.yaml"
    path.write_text(block("yaml"), encoding="utf-8")
    study = load_study(path)
    assert study.design.trial.cluster == "village"


@pytest.mark.slow
def test_python_runs(tmp_path, monkeypatch, capsys):
    render_world(
        WorldConfig(seed=5, n_neighborhoods=80, n_trial=60, scenes_per_year=1), tmp_path / "w"
    )
    (tmp_path / "w" / "scenes").rename(tmp_path / "scenes")
    places = gpd.read_file(tmp_path / "w" / "neighborhoods.gpkg")
    places.rename(columns={"neighborhood": "village"}).to_file(tmp_path / "villages.gpkg")
    people = pd.read_csv(tmp_path / "w" / "units.csv", index_col="unit")
    people = people.rename(columns={"arm": "treated"}).assign(village=people["neighborhood"])
    monkeypatch.chdir(tmp_path)
    exec(block("python"), {"people": people, "eo": eo})
    said = capsys.readouterr().out
    assert "neighborhoods have an estimate" in said
    assert "AUTOC" in said
    assert (tmp_path / "effects.tif").exists()


def test_every_public_name_exists_and_is_documented():
    for name in eo.__all__:
        if name != "__version__":
            assert getattr(eo, name).__doc__, name
    for name in eo.checks.__all__:
        assert getattr(eo.checks, name).__doc__, name
    assert len(eo.__all__) <= 120


@pytest.fixture(scope="module")
def coast(tmp_path_factory):
    folder = tmp_path_factory.mktemp("coast")
    data = simulate_coast(WorldConfig(seed=5).coast, np.random.default_rng(5))
    write_coast(data, folder / "kd490_monthly.nc")
    return folder


def test_python_about_an_event_runs(tmp_path, coast, monkeypatch, capsys):
    data = xr.open_dataset(coast / "kd490_monthly.nc")
    zones = {name: data["kd490"].where(data["zone"] == at).mean(("lat", "lon")).to_series()
             for name, at in (("kd490", 1), ("other_bay", 2))}  # fmt: skip
    sea = pd.DataFrame(zones)
    sea["temperature"] = np.random.default_rng(0).normal(28.0, 1.0, len(sea))
    monkeypatch.chdir(tmp_path)
    made = {"sea": sea}
    exec(block("python", 5), made)
    said = capsys.readouterr().out
    assert "CheckResult(" in said
    assert "break" in said
    true = WorldConfig().coast.effect
    effects = made["impact"].effects.row()
    assert effects["effect_low"] < true < effects["effect_high"]
    assert (tmp_path / "impact.png").exists()


@pytest.mark.slow
def test_python_that_maps_an_event_runs(coast, monkeypatch, capsys):
    monkeypatch.chdir(coast)
    exec(block("python", 6), {})
    assert "pixels" in capsys.readouterr().out
    assert (coast / "effects.tif").exists()


def test_study_of_an_event_is_valid(coast):
    path = coast / "port.yaml"
    path.write_text(block("yaml", 3), encoding="utf-8")
    assert load_study(path).event.when == "2015-06"
