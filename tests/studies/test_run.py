"""A study end to end: what it leaves, that nothing is done twice, that it agrees with the truth."""

import json
import shutil
from dataclasses import replace
from pathlib import Path

import geopandas as gpd
import numpy as np
import pandas as pd
import pytest
import rasterio
from study_helpers import STUDY, WORLD, eocausal, output_hashes, small_study

from eocausal.checks.base import CheckResult, Verdict
from eocausal.contracts import check_cube, check_effects
from eocausal.errors import StudyError
from eocausal.ingest.schedule import Threads
from eocausal.ingest.store import open_cube
from eocausal.studies.demo import run_demo
from eocausal.studies.load import load_study
from eocausal.studies.records import EstimateRecord
from eocausal.studies.run import run_study
from eocausal.studies.stages import OUTPUTS


@pytest.fixture(scope="module")
def study(tmp_path_factory) -> Path:
    return small_study(tmp_path_factory.mktemp("study"))


@pytest.fixture(scope="module")
def finished(study):
    return run_study(study, study.parent / "run")


def rewrite(study: Path, old: str, new: str) -> Path:
    assert old in STUDY
    path = study.with_name("changed.yaml")
    path.write_text(STUDY.replace(old, new), encoding="utf-8")
    return path


def test_a_run_leaves_everything(finished):
    left = {p.name for p in finished.folder.iterdir() if not p.name.startswith(".")}
    not_asked = {"panel.parquet", "panel.lock.json", "encoder", "salience"}
    wanted = {name for name in OUTPUTS if not name.endswith(".partial")} - not_asked
    assert left == {*wanted, "provenance.json"}
    check_cube(open_cube(finished.folder / "cube.zarr"))
    places = gpd.read_parquet(finished.folder / "effects.parquet")
    assert len(check_effects(places)) == WORLD.n_neighborhoods
    assert len(gpd.read_file(finished.folder / "effects.gpkg")) == WORLD.n_neighborhoods
    with rasterio.open(finished.folder / "effects.tif") as raster:
        assert raster.descriptions[0] == "estimate"
    assert {p.name for p in (finished.folder / "figures").iterdir()} == {
        "effects_map.png", "coefficients.png", "rate.png", "auc.png", "truth.png",
    }  # fmt: skip
    assert "<html" in (finished.folder / "report.html").read_text(encoding="utf-8")
    assert "stage" in pd.read_parquet(finished.folder / "failures.parquet")


def test_records_follow_the_schema_and_the_first_is_the_headline(finished):
    records = json.loads((finished.folder / "estimates.json").read_text(encoding="utf-8"))
    for record in records:
        EstimateRecord.model_validate(record)
    assert [r.get("primary", False) for r in records] == [True] + [False] * (len(records) - 1)
    assert records[0]["vcov"] == "Clustered(by='neighborhood')"
    estimands = {r["estimand"] for r in records}
    assert {"ATE", "minimum detectable effect", "AUTOC", "Qini"} <= estimands
    assert len(pd.read_csv(finished.folder / "estimates.csv")) == len(records)


def test_the_headline_is_the_difference_in_means_of_the_table(study, finished):
    units = pd.read_csv(study.parent / "world" / "units.csv")
    one, none = (units.loc[units["arm"] == a, "income"] for a in (1, 0))
    assert finished.records[0]["estimate"] == pytest.approx(one.mean() - none.mean(), rel=1e-12)
    neyman = np.sqrt(one.var() / len(one) + none.var() / len(none))
    assert finished.records[1]["vcov"] == "HC2()"
    assert finished.records[1]["std_error"] == pytest.approx(neyman, rel=1e-12)


def test_a_second_run_does_nothing(study, finished):
    before = {p: p.stat().st_mtime_ns for p in finished.folder.rglob("*")}
    again = run_study(study, finished.folder)
    assert again.ran == ()
    assert again.records == finished.records
    assert again.claim == finished.claim
    assert before == {p: p.stat().st_mtime_ns for p in before}
    said = eocausal("run", study, "--out", finished.folder)
    assert said.returncode == 0, said.stderr
    assert said.stdout.startswith("Nothing to do")


def test_another_folder_and_more_threads_give_the_same_bytes(study, finished, tmp_path):
    run_study(study, tmp_path / "other", scheduler=Threads(4))
    assert output_hashes(tmp_path / "other") == output_hashes(finished.folder)


def test_the_resolved_study_runs_to_the_same_numbers(study, finished):
    assert load_study(finished.folder / "study.yaml") == load_study(study)


@pytest.mark.parametrize(
    ("old", "new", "reruns", "keeps"),
    [
        ("study: A small trial", "study: Renamed", {"Report"}, {"Cut chips", "Encode chips"}),
        ("covariates: [age, female]", "covariates: [age]",
         {"Average effect", "Effects by place", "Report"}, {"Cut chips", "Encode chips"}),
        ("features: 16", "features: 24", {"Encode chips", "Effects by place"}, {"Cut chips"}),
        ("seed: 5", "seed: 6", {"Encode chips", "Who gains more"}, {"Cut chips", "Average effect"}),
    ],
)  # fmt: skip
def test_a_change_reruns_what_depends_on_it(study, finished, old, new, reruns, keeps):
    try:
        changed = run_study(rewrite(study, old, new), finished.folder)
        assert reruns <= set(changed.ran)
        assert not keeps & set(changed.ran)
    finally:
        assert run_study(study, finished.folder).records == finished.records


def test_an_output_that_was_tampered_with_is_made_again(study, finished):
    before = output_hashes(finished.folder)
    (finished.folder / "estimates.json").write_text("[]", encoding="utf-8")
    (finished.folder / "effects.tif").unlink()
    assert set(run_study(study, finished.folder).ran) == {"Effects by place", "Collect results"}
    assert output_hashes(finished.folder) == before


def test_without_heterogeneity_there_is_no_map(study, finished, tmp_path):
    plain = rewrite(study, "heterogeneity: {folds: 3, splits: 2}", "heterogeneity: false")
    result = run_study(plain, tmp_path / "run")
    assert not list((tmp_path / "run").glob("effects.*"))
    assert {r["method"] for r in result.records if r["estimand"] == "ATE"} == {
        "difference in means", "Lin regression",
    }  # fmt: skip


def test_a_folder_that_is_no_run_is_left_alone(study, tmp_path):
    (tmp_path / "thesis.tex").write_text("precious", encoding="utf-8")
    with pytest.raises(StudyError, match="not a run folder"):
        run_study(study, tmp_path)
    assert [p.name for p in tmp_path.iterdir()] == ["thesis.tex"]


def test_the_verdict_is_the_worst_of_the_checks(finished):
    failed = CheckResult("x", Verdict.FAIL, "no")
    assert replace(finished, checks=(*finished.checks, failed)).verdict == "fail"


@pytest.mark.slow
def test_the_demo_finds_the_truth(tmp_path):
    config = replace(WORLD, n_neighborhoods=200, n_trial=140, chip_px=32, seed=1)
    result = run_demo(tmp_path / "demo", config)
    record = result.run.records[0]
    assert abs(record["estimate"] - result.truth) < 4 * record["std_error"]
    assert result.correlation > 0.3
    assert min(result.coverage.values()) > 0.7
    assert "True average effect" in result.summary()
    assert run_demo(tmp_path / "demo", config).run.ran == ()


@pytest.mark.realdata
@pytest.mark.slow
def test_uganda(real_data, tmp_path, monkeypatch):
    folder = real_data("uganda_yop")
    monkeypatch.setenv("EOCAUSAL_DATA", str(folder.parent))
    pipeline = Path(__file__).resolve().parents[2] / "pipelines" / "uganda_rct.yaml"
    result = run_study(pipeline, tmp_path / "run")
    by = {(r["method"], r.get("vcov")): r for r in result.records}
    clustered = by["difference in means", "Clustered(by='image_key')"]
    assert clustered["primary"]
    assert round(clustered["estimate"], 4) == 0.7415
    assert round(clustered["std_error"], 4) == 0.0755
    assert round(by["difference in means", "HC2()"]["std_error"], 4) == 0.0615
    auc = {r["used"]: r["estimate"] for r in result.records if "used" in r}
    assert auc[True] < auc[False]


def test_what_the_study_no_longer_asks_for_leaves_the_results(study, finished, tmp_path):
    plain = rewrite(study, "heterogeneity: {folds: 3, splits: 2}", "heterogeneity: false")
    shutil.copytree(finished.folder, tmp_path / "changed")
    run_study(plain, tmp_path / "changed")
    run_study(plain, tmp_path / "fresh")
    assert output_hashes(tmp_path / "changed") == output_hashes(tmp_path / "fresh")


def test_a_run_in_the_folder_of_images_is_no_image(study, finished, tmp_path):
    shutil.copytree(study.parent / "world", tmp_path / "my world")
    inside = tmp_path / "study.yaml"
    text = STUDY.replace("root: world", "root: my world").replace("files: scenes", "files: .")
    inside.write_text(text, encoding="utf-8")
    run_study(inside, tmp_path / "my world" / "run")
    assert (tmp_path / "my world" / "run" / "effects.tif").exists()
    assert run_study(inside, tmp_path / "my world" / "run").ran == ()


def test_a_new_sidecar_is_in_the_report_too(study, tmp_path):
    shutil.copytree(study.parent / "world", tmp_path / "world")
    own = Path(shutil.copy(study, tmp_path / "study.yaml"))
    run_study(own, tmp_path / "run")
    scene = next((tmp_path / "world" / "scenes").glob("*.tif"))
    scene.with_suffix(".txt").write_text("a note", encoding="utf-8")
    run_study(own, tmp_path / "run")
    run_study(own, tmp_path / "fresh")
    assert output_hashes(tmp_path / "run") == output_hashes(tmp_path / "fresh")


def test_new_outcomes_cut_no_chips(study, finished, tmp_path):
    shutil.copytree(study.parent / "world", tmp_path / "world")
    shutil.copytree(finished.folder, tmp_path / "run")
    own = Path(shutil.copy(study, tmp_path / "study.yaml"))
    path = tmp_path / "world" / "units.csv"
    units = pd.read_csv(path)
    units.assign(income=units["income"] + 1).to_csv(path, index=False)
    ran = run_study(own, tmp_path / "run").ran
    assert "Average effect" in ran
    assert not {"Cut chips", "Encode chips"} & set(ran)


def test_ids_of_different_types_are_joined_and_points_make_no_raster(study, tmp_path):
    world = tmp_path / "world"
    shutil.copytree(study.parent / "world", world)
    places = gpd.read_file(world / "neighborhoods.gpkg")
    centre = places.to_crs("EPSG:4326").representative_point()
    label = places["neighborhood"].str[1:]
    frame = pd.DataFrame({"neighborhood": label, "lon": centre.x, "lat": centre.y})
    frame.to_parquet(world / "points.parquet")
    units = pd.read_csv(world / "units.csv")
    units["neighborhood"] = units["neighborhood"].str[1:].astype(float)
    units.loc[3, "lon"] = np.nan
    units.to_parquet(world / "units.parquet")
    own = tmp_path / "study.yaml"
    text = STUDY.replace("units.csv", "units.parquet").replace(
        "neighborhoods.gpkg", "points.parquet"
    )
    own.write_text(text.replace("report: {truth: truth.json}\n", ""), encoding="utf-8")
    result = run_study(own, tmp_path / "run")
    assert sorted(gpd.read_parquet(tmp_path / "run" / "effects.parquet").index) == sorted(label)
    assert result.records[0]["n"] == len(units)
    assert not (tmp_path / "run" / "effects.tif").exists()
    report = (tmp_path / "run" / "report.html").read_text(encoding="utf-8")
    assert "there is no effects.tif" in report
