"""Encoders named in studies: made, trained, described, explained, or refused."""

import json
import re
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import rasterio
from study_helpers import STUDY, eocausal, small_study

from eocausal.encoders.base import open_embedding
from eocausal.errors import EocausalError, StudyError
from eocausal.provenance import hash_tree
from eocausal.simulate.objects import ObjectWorldConfig, render_objects
from eocausal.studies.embed import read_description
from eocausal.studies.explain import _extremes
from eocausal.studies.ingest import run_ingestion
from eocausal.studies.load import read_study
from eocausal.studies.plan import plan_study
from eocausal.studies.run import run_study
from eocausal.studies.stages import stages_of
from eocausal.studies.validate import validate_study

OBJECTS = ObjectWorldConfig(n=81, size=36, shapes=5, seed=2)
PLACES = """\
study: Shapes
seed: 4
data:
  root: world
  neighborhoods: {file: places.csv, id: place, size_m: 1080}
  imagery:
    files: scenes
    bands: [blue, green, red, nir]
    resolution: 30
    periods: [2015]
    units: reflectance x 10000
"""
TRAINED = (
    "{network: {small_cnn: {widths: [8, 16]}}, objective: %s, folds: 3, epochs: 2, batch_size: 16}"
)


@pytest.fixture(scope="module")
def world(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("shapes")
    render_objects(OBJECTS, folder / "world")
    units = pd.read_csv(folder / "world" / "units.csv")
    places = pd.read_csv(folder / "world" / "places.csv")
    places.assign(shapes=units["objects"]).to_csv(folder / "world" / "places.csv", index=False)
    return folder


def encoded(world: Path, encoder: str, more: str = "", *, out: str = "run"):
    path = world / "study.yaml"
    path.write_text(f"{PLACES}  encoder: {encoder}\n{more}", encoding="utf-8")
    return run_ingestion(path, world / out, encode=True)


@pytest.mark.parametrize(
    ("encoder", "features", "name"),
    [
        ("{random_conv: {features: 32, patch: [3, 5], scales: [1, 2]}}", 32, "RandomConv"),
        ("spectral_stats", None, "SpectralStats"),
        ("{model: {card: resnet18}}", 512, "resnet18"),
        (
            "{multi_scale: {sizes: [9, 36], encoder: {random_conv: {features: 16}}}}",
            32,
            "MultiScale",
        ),
    ],
)
def test_every_encoder_of_images_can_be_named(world, encoder, features, name):
    result = encoded(world, encoder)
    embedding = open_embedding(result.folder / "embedding.zarr")
    assert name in embedding.attrs["encoder"] or name == "MultiScale"
    assert embedding.sizes["neighborhood"] == OBJECTS.n
    assert features is None or embedding.sizes["feature"] == features
    assert np.isfinite(embedding).all()
    check, pictures = read_description(result.folder)
    assert [p.name for p in pictures][:2] == ["contact_sheet", "embedding_pca"]
    assert all(p.png.startswith(b"\x89PNG") and p.caption for p in pictures)
    assert "features span about" in check.claim


def test_a_second_time_nothing_is_done_and_another_seed_encodes_anew(world):
    first = encoded(world, "{random_conv: {features: 16}}", out="again")
    before = hash_tree(first.folder / "embedding.zarr")
    assert encoded(world, "{random_conv: {features: 16}}", out="again").ran == ()
    path = world / "study.yaml"
    path.write_text(path.read_text(encoding="utf-8").replace("seed: 4", "seed: 5"))
    other = run_ingestion(path, world / "again", encode=True)
    assert "Encode chips" in other.ran
    assert "Cut chips" not in other.ran
    assert hash_tree(other.folder / "embedding.zarr") != before


def test_covariates_of_places_are_told_as_far_as_they_are_seen(world):
    more = "embedding: {covariates: [shapes], blocks_km: 2, places: 2, neighbors: 2}\n"
    result = encoded(world, "{random_conv: {features: 256, patch: 5}}", more, out="told")
    check, pictures = read_description(result.folder)
    row = check.table[check.table["honest"]].iloc[0]
    assert row["covariate"] == "shapes"
    assert row["score"] > 0.3
    assert "embedding_predictability" in [p.name for p in pictures]


@pytest.mark.parametrize(
    ("encoder", "more", "says"),
    [
        ("random_conv", "embedding: {covariates: [age]}", "no column age"),
        ("random_conv", "embedding: {covariates: [lon], blocks_km: 900}", "blocks? of 900 km"),
        ("{sequence: {head: mean_trend}}", "", "one period"),
        ("{trained: {network: {sequence: {head: gru}}}}", "", "one period"),
        ("{trained: {objective: dragonnet}}", "", "no design and no outcome"),
    ],
)
def test_what_cannot_work_is_refused_before_a_chip_is_cut(world, encoder, more, says):
    path = world / "late.yaml"
    path.write_text(f"{PLACES}  encoder: {encoder}\n{more}\n", encoding="utf-8")
    with pytest.raises(StudyError) as listed:
        validate_study(path)
    assert re.search(says, "\n".join(listed.value.problems))
    with pytest.raises(EocausalError, match=says):
        run_ingestion(path, world / "late", encode=True)
    assert not (world / "late" / "cube.zarr").exists()


def test_five_places_are_described_without_scores(world):
    places = pd.read_csv(world / "world" / "places.csv")
    places.head(5).to_csv(world / "world" / "five.csv", index=False)
    path = world / "five.yaml"
    text = PLACES.replace("places.csv", "five.csv")
    more = "embedding: {covariates: [shapes]}\n"
    path.write_text(f"{text}  encoder: {{random_conv: {{features: 16}}}}\n{more}")
    check, pictures = read_description(run_ingestion(path, world / "five", encode=True).folder)
    assert [p.name for p in pictures] == ["contact_sheet", "embedding_pca"]
    assert check.table["note"].str.contains("fewer than 30 places").all()


def test_a_far_place_without_image_does_not_widen_the_blocks(world):
    places = pd.read_csv(world / "world" / "places.csv")
    far = pd.DataFrame({"place": [999], "lon": [33.9], "lat": [2.3], "shapes": [3]})
    pd.concat([places, far]).to_csv(world / "world" / "far.csv", index=False)
    path = world / "far.yaml"
    text = PLACES.replace("places.csv", "far.csv")
    more = "embedding: {covariates: [shapes]}\n"
    path.write_text(f"{text}  encoder: {{random_conv: {{features: 16}}}}\n{more}")
    check, _ = read_description(run_ingestion(path, world / "far", encode=True).folder)
    assert check.values["places_unseen"] == 1
    assert (check.table["n"] == OBJECTS.n).all()
    assert check.table["folds"].iloc[0] == "blocks of 0.9 km"


def test_another_encoder_leaves_nothing_of_the_one_before(world):
    first = encoded(world, "{trained: %s}" % (TRAINED % "simclr"), out="changed")
    assert (first.folder / "encoder").is_dir()
    (first.folder / "encoder.partial").mkdir()
    encoded(world, "{random_conv: {features: 16}}", out="changed")
    assert not (first.folder / "encoder").exists()
    assert not (first.folder / "encoder.partial").exists()


def test_stages_know_what_they_depend_on(tmp_path):
    def changed(**keys: str) -> set[str]:
        text = STUDY.replace("{random_conv: {features: 16}}", "{trained: {objective: dragonnet}}")
        path.write_text(text, encoding="utf-8")
        before = {s.name: s.parameters(read_study(path).study) for s in stages_of_file(path)}
        for old, new in keys.items():
            text = text.replace(WHAT[old], new)
        path.write_text(text, encoding="utf-8")
        after = {s.name: s.parameters(read_study(path).study) for s in stages_of_file(path)}
        return {name for name in before if before[name] != after[name]}

    def stages_of_file(path):
        return stages_of(read_study(path).study)

    path = tmp_path / "study.yaml"
    WHAT = {"covariates": "[age, female]", "id": "id: unit}", "prob": ", prob: prob"}
    assert "embedding" not in changed(covariates="[age]")
    assert "embedding" in changed(covariates="[age]\n  missing_covariates: drop")
    assert {"embedding", "description"} <= changed(id="id: unit, neighborhood: village}")
    assert "embedding" not in changed(prob="")


def test_salience_of_fewer_places_than_asked_for_shows_each_once():
    effect = pd.Series([3.0, 1.0, 2.0, 5.0, 4.0], index=list("abcde"))
    assert _extremes(effect, 4) == ["d", "e", "c", "b"]
    for count in range(2, 13):
        drawn = _extremes(effect, count)
        assert len(drawn) == len(set(drawn)) == min(count, 5)
        assert drawn == sorted(drawn, key=lambda label: -effect[label])


def test_training_without_labels_needs_no_design(world):
    result = encoded(world, "{trained: %s}" % (TRAINED % "simclr"), out="trained")
    assert "Train encoder and encode chips" in result.ran
    embedding = open_embedding(result.folder / "embedding.zarr")
    assert embedding.attrs["cross_fitted"] == "no label was used"
    assert embedding.sizes["feature"] == 32
    assert "learning_curves" in [p.name for p in read_description(result.folder)[1]]


def test_a_sequence_becomes_one_vector(tmp_path):
    path = small_study(tmp_path)
    text = STUDY.replace("periods: [2016/2017]", "periods: [2016, 2017]")
    text = text.replace(
        "{random_conv: {features: 16}}",
        "{sequence: {frames: {random_conv: {features: 16}}, head: mean_difference}}",
    )
    path.write_text(text, encoding="utf-8")
    result = run_ingestion(path, tmp_path / "run", encode=True)
    embedding = open_embedding(result.folder / "embedding.zarr")
    assert dict(embedding.sizes) == {"neighborhood": 44, "feature": 32}


def test_a_trained_encoder_is_cross_fitted_shown_and_explained(tmp_path):
    path = small_study(tmp_path)
    text = STUDY.replace("{random_conv: {features: 16}}", "{trained: %s}" % (TRAINED % "dragonnet"))
    text = text.replace("splits: 2}", "splits: 2}\n  salience: {method: gradient, places: 4}")
    path.write_text(text, encoding="utf-8")
    result = run_study(path, tmp_path / "run")
    embedding = open_embedding(result.folder / "embedding.zarr")
    assert embedding.attrs["cross_fitted"] == "by fold"
    assert set(np.unique(embedding["fold"])) == {-1, 0, 1, 2}
    report = (result.folder / "report.html").read_text(encoding="utf-8")
    assert "Which pixels move the effect" in report
    assert "What the images show, as the encoder sees it" in report
    table = pd.read_csv(result.folder / "salience" / "manifest.csv")
    with rasterio.open(result.folder / "salience" / table["file"][0]) as raster:
        assert raster.shape == (12, 12)
        assert raster.crs.to_epsg() in (32635, 32636)
        assert np.isfinite(raster.read()).any()
    assert any("image embedding" in check.name for check in result.checks)


@pytest.mark.parametrize(
    ("encoder", "says"),
    [
        ("{model: {card: resnet18_imagenet}}", "weights"),
        ("{model: {card: no_such}}", "no model named"),
        ("{random_conv: {features: 33}}", "features"),
        ("{random_conv: {patch: 99}}", "pixels"),
        ("{multi_scale: {sizes: [99]}}", "99"),
        ("{sequence: {head: attention}}", "mean_trend"),
        ("{trained: {network: {sequence: {head: gru}}, objective: outcome, folds: 2}}", "folds"),
    ],
)
def test_what_cannot_work_is_found_before_anything_is_read(world, encoder, says):
    path = world / "wrong.yaml"
    path.write_text(f"{PLACES}  encoder: {encoder}\n", encoding="utf-8")
    with pytest.raises(StudyError) as caught:
        validate_study(path)
    problems = "\n".join(caught.value.problems)
    assert "data.encoder" in problems
    assert says in problems


def test_salience_needs_effects_that_are_linear_in_features(tmp_path):
    path = small_study(tmp_path)
    text = STUDY.replace("{folds: 3, splits: 2}", "{folds: 3, splits: 2, basis: forest}")
    path.write_text(text.replace("checks:", "  salience: true\nchecks:"), encoding="utf-8")
    with pytest.raises(StudyError) as caught:
        validate_study(path)
    assert "basis: ridge" in "\n".join(caught.value.problems)


@pytest.mark.parametrize(
    ("encoder", "trains"),
    [
        ("spectral_stats", False),
        ("{sequence: {frames: {random_conv: {features: 16}}, head: mean}}", False),
        ("{trained: {network: {small_cnn: {widths: [8]}}, epochs: 4}}", True),
    ],
)
def test_a_plan_says_how_long_encoding_and_training_take(tmp_path, encoder, trains):
    path = small_study(tmp_path)
    text = STUDY.replace("{random_conv: {features: 16}}", encoder)
    path.write_text(text.replace("periods: [2016/2017]", "periods: [2016, 2017]"))
    plan = plan_study(path)
    assert plan.problems == ()
    assert 0 < plan.encoding < 60
    assert (plan.training > plan.encoding) if trains else plan.training == 0
    assert plan.seconds > plan.encoding + plan.training
    assert "Encoding them takes about" in plan.summary()
    assert ("of training" in plan.summary()) == trains
    if trains:
        path.write_text(path.read_text().replace("epochs: 4", "epochs: 400"))
        assert plan_study(path).training > 20 * plan.training


def test_the_command_says_what_it_left(world):
    path = world / "command.yaml"
    path.write_text(f"{PLACES}  encoder: {{random_conv: {{features: 16}}}}\n", encoding="utf-8")
    done = eocausal("encode", path, "--out", world / "run_command")
    assert done.returncode == 0, done.stderr
    assert "embedding.zarr: 81 neighborhoods x 16 features, by RandomConv" in done.stdout
    assert "embedding/: contact_sheet.png" in done.stdout
    again = eocausal("encode", path, "--out", world / "run_command", "--json")
    assert json.loads(again.stdout)["ran"] == []
    path.write_text(PLACES, encoding="utf-8")
    without = eocausal("encode", path, "--out", world / "run_command")
    assert without.returncode == 2
    assert "names no encoder" in without.stderr
