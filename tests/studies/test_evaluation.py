"""An evaluation of placed projects end to end: what it leaves, resume, refusals, the truth."""

import json
import os
import shutil
import signal
import subprocess
import time
from pathlib import Path

import geopandas as gpd
import numpy as np
import pandas as pd
import pytest
from evaluation_helpers import EVALUATION, WORLD, small_evaluation
from study_helpers import command, environment, eocausal, output_hashes

from eocausal.contracts import check_effects
from eocausal.errors import OverlapError, StudyError
from eocausal.studies import evaluation_stages
from eocausal.studies.load import EvaluationFile, load_study, read_study
from eocausal.studies.records import EstimateRecord
from eocausal.studies.run import run_study


@pytest.fixture(scope="module")
def study(tmp_path_factory) -> Path:
    return small_evaluation(tmp_path_factory.mktemp("evaluation"))


@pytest.fixture(scope="module")
def finished(study):
    return run_study(study, study.parent / "run")


def changed(study: Path, *pairs: tuple[str, str], name: str = "changed.yaml") -> Path:
    text = EVALUATION
    for old, new in pairs:
        assert old in text
        text = text.replace(old, new)
    path = study.with_name(name)
    path.write_text(text, encoding="utf-8")
    return path


def table_of(run) -> pd.DataFrame:
    return pd.DataFrame(list(run.records))


def asked(run, sector: str, adjustment: str) -> pd.Series:
    table = table_of(run)
    return table[
        (table["sector"] == sector) & (table["adjustment"] == adjustment)
        & (table["population"] == "asked for")
    ].iloc[0]  # fmt: skip


def test_a_run_leaves_everything(finished):
    left = {p.name for p in finished.folder.iterdir() if not p.name.startswith(".")}
    assert left == {
        "cube.zarr", "embedding.zarr", "embedding", "scenes.lock.json", "study.yaml",
        "effects.parquet", "effects.gpkg", "effects.tif", "estimates.json", "estimates.csv",
        "checks.json", "figures", "report.html", "failures.parquet", "provenance.json",
    }  # fmt: skip
    places = gpd.read_parquet(finished.folder / "effects.parquet")
    assert len(check_effects(places)) == WORLD.n_neighborhoods
    assert {p.name for p in (finished.folder / "figures").iterdir()} == {
        "effects_map.png", "coefficients.png", "truth.png", "sectors.png", "stand_ins.png",
        "placement.png", "calibration.png", "balance.png", "sensitivity.png", "corrections.png",
    }  # fmt: skip
    failures = pd.read_parquet(finished.folder / "failures.parquet")
    unseen = failures[failures["reason"] == "no_image"]
    n = next(r["n"] for r in finished.records if r.get("sector") == "transport")
    assert n == WORLD.n_neighborhoods - len(unseen)


def test_records_follow_the_schema_and_the_first_is_the_headline(finished):
    for record in finished.records:
        EstimateRecord.model_validate(record)
    assert [r.get("primary", False) for r in finished.records] == [
        True, *[False] * (len(finished.records) - 1)
    ]  # fmt: skip
    first = finished.records[0]
    assert (first["funder"], first["sector"], first["adjustment"]) == ("Fund", "transport", "both")
    assert len(pd.read_csv(finished.folder / "estimates.csv")) == len(finished.records)


@pytest.mark.parametrize(
    ("sector", "truth"), [("transport", "ate_transport"), ("health", "ate_health")]
)
def test_the_image_removes_what_the_table_leaves(study, finished, sector, truth):
    world = json.loads((study.parent / "world" / "truth.json").read_text(encoding="utf-8"))
    true = world["aid"][truth]
    both, table = asked(finished, sector, "both"), asked(finished, sector, "table")
    assert both["ci_low"] <= true <= both["ci_high"]
    assert table["ci_low"] > true
    report = (finished.folder / "report.html").read_text(encoding="utf-8")
    assert "This world is simulated, so that the truth is known" in report


def test_differences_know_what_estimates_share(finished):
    table = table_of(finished)
    gaps = table[table["population"] == "difference"]
    assert set(gaps["sector"]) == {"transport", "health"}
    for gap in gaps.to_dict("records"):
        one, other = (asked(finished, gap["sector"], a) for a in ("both", "table"))
        assert gap["estimate"] == pytest.approx(one["estimate"] - other["estimate"])
        assert gap["std_error"] < np.hypot(one["std_error"], other["std_error"])


def test_intervals_that_hold_together_are_wider_and_q_values_larger(finished):
    table = table_of(finished)
    rows = table[table["simultaneous_low"].notna()]
    assert len(rows) == 12
    assert (rows["simultaneous_low"] <= rows["ci_low"] + 1e-12).all()
    assert (rows["q_value"] >= rows["p_value"] - 1e-12).all()


def test_image_adjusted_estimates_say_what_the_image_could_carry(finished):
    table = table_of(finished)
    seen = table[table["population"].isin(["asked for", "population with overlap"])]
    words = seen[seen["adjustment"] != "table"]["image_words"]
    assert words.str.contains("In places held out the image tells measured confounders").all()
    assert seen[seen["adjustment"] == "table"]["image_words"].isna().all()
    assert asked(finished, "transport", "both")["image_words"] in (
        finished.folder / "report.html"
    ).read_text(encoding="utf-8").replace("&#39;", "'")


def test_predictions_are_corrected(finished):
    table = table_of(finished)
    rows = table[table["prediction"].notna()] if "prediction" in table else table.iloc[:0]
    assert set(rows["method"].str.partition(", ")[2]) == {
        "naive", "linear calibration", "Tweedie correction", "prediction-powered inference",
    }  # fmt: skip
    assert rows["estimate"].notna().all()


def test_checks_are_there_and_the_claim_is_in_words(finished):
    names = {c.name for c in finished.checks}
    assert {
        "Images older than the projects", "Overlap of the arms", "Balance after weighting",
        "Another standard error", "Effects on placebo outcomes", "Estimates without each stratum",
        "Spillovers from treated neighbours", "E-value", "Omitted variable",
        "Odds of treatment that are off by a factor", "Bounds if anything may be hidden",
        "What the image can carry of known confounders", "Confounders made from the treatment",
    } <= names  # fmt: skip
    assert not any(c.claim.startswith("Not done") for c in finished.checks)
    assert "“transport” raised wealth" in finished.claim


def test_a_second_run_does_nothing(study, finished):
    again = run_study(study, finished.folder)
    assert again.ran == ()
    assert again.records == finished.records
    said = eocausal("run", study, "--out", finished.folder)
    assert said.returncode == 0, said.stderr
    assert said.stdout.startswith("Nothing to do")
    assert "transport" in said.stdout


def test_the_resolved_study_reads_back_as_itself(study, finished):
    assert load_study(finished.folder / "study.yaml") == load_study(study)


def test_a_run_stopped_between_stages_ends_with_the_same_bytes(
    study, finished, tmp_path, monkeypatch
):
    def stop(space, progress):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(evaluation_stages, "look_at_placement", stop)
        with pytest.raises(KeyboardInterrupt):
            run_study(study, tmp_path / "run")
    assert not (tmp_path / "run" / "report.html").exists()
    resumed = run_study(study, tmp_path / "run")
    assert "Effects by sector" not in resumed.ran
    assert "Predict placement" in resumed.ran
    assert output_hashes(tmp_path / "run") == output_hashes(finished.folder)


@pytest.mark.slow
def test_a_killed_run_goes_on_and_ends_with_the_same_bytes(study, finished, tmp_path):
    out = tmp_path / "run"
    arguments = command("run", study, "--out", out)
    with subprocess.Popen(arguments, env=environment(), stdout=subprocess.DEVNULL) as process:
        deadline = time.monotonic() + 300
        while not (out / ".stages" / "sectors.json").exists() and time.monotonic() < deadline:
            assert process.poll() is None
            time.sleep(0.02)
        os.kill(process.pid, signal.SIGKILL)
    run_study(study, out)
    assert output_hashes(out) == output_hashes(finished.folder)


def test_encode_and_run_share_their_work(study, tmp_path):
    said = eocausal("encode", study, "--out", tmp_path / "run", "--json")
    assert said.returncode == 0, said.stderr
    ran = run_study(study, tmp_path / "run").ran
    assert not {"Cut chips", "Encode chips", "Describe embedding"} & set(ran)


def test_everything_wrong_is_said_at_once_with_lines(study, tmp_path):
    path = changed(
        study, ("covariates: [stratum, lon, lat]", "covariates: [strata, lon, lat]"),
        ("outcome: wealth_2021", "outcome: wealth_2022"), ("sector: transport", "sector: transprt"),
    )  # fmt: skip
    said = eocausal("validate", path)
    assert said.returncode == 2
    at = line_of(path, "covariates: [strata")
    assert f"line {at}: estimate.covariates[0]" in said.stderr
    assert "closest: stratum" in said.stderr
    assert f"line {line_of(path, 'outcome: wealth_2022')}: estimate.outcome" in said.stderr
    path = changed(study, ("sector: transport}", "sector: transprt}"))
    said = eocausal("validate", path)
    assert "closest: Fund, transport" in said.stderr


def line_of(path: Path, text: str) -> int:
    lines = path.read_text(encoding="utf-8").splitlines()
    return next(n for n, line in enumerate(lines, start=1) if text in line)


@pytest.mark.parametrize(
    ("old", "new", "where", "words"),
    [
        ("within_km: 0.3", "{}\n    donut_km: 0.2", "placement.donut_km", "donut ends"),
        ("fewest: 50", "fewst: 50", "design.placement.fewst", "closest: fewest"),
        ("history: false", "{}\n  otherwise: ATE", "estimate.otherwise", "ATE"),
        ("[wealth_2020]", "[wealth_2021]", "predictions[0]", "the outcome already"),
        ("periods: [2017]", "{}\n    time: 2019", "data.imagery.time", "not all older"),
        ("[stratum, lon, lat]", "[stratum, lon, lon]", "covariates[2]", "named twice"),
    ],
)  # fmt: skip
def test_contradictions_are_named(study, old, new, where, words):
    with pytest.raises(StudyError) as caught:
        read_study(changed(study, (old, new.format(old))))
    assert any(where in p and words in p for p in caught.value.problems), caught.value.problems


def test_validate_and_plan_say_what_there_is(study):
    said = eocausal("validate", study)
    assert said.returncode == 0, said.stderr
    assert "projects of 2 kinds; 2 kinds reached 50" in said.stdout
    planned = eocausal("plan", study, "--json")
    assert planned.returncode == 0, planned.stderr
    kinds = json.loads(planned.stdout)["kinds"]
    assert {k["sector"] for k in kinds} == {"health", "transport"}
    assert all(0.2 < k["detectable"] < 0.6 for k in kinds)
    assert isinstance(read_study(study), EvaluationFile)


def test_late_images_are_refused(study):
    path = changed(study, ("first: 2018-01-01", "first: 2017-06-01"))
    said = eocausal("validate", path)
    assert said.returncode == 2
    assert "not older than" in said.stderr


def test_no_kind_with_enough_treated_is_an_error_with_the_number(study, tmp_path):
    path = changed(
        study,
        ("fewest: 50", "fewest: 5000"),
        ("  headline: {funder: Fund, sector: transport}\n", ""),
    )
    with pytest.raises(StudyError, match="no kind of project reached 5,000"):
        validate(path)
    with pytest.raises(OverlapError, match="No kind of project reached 5,000"):
        run_study(path, tmp_path / "run")


def validate(path):
    from eocausal.studies.validate import validate_study

    try:
        return validate_study(path)
    except StudyError as error:
        raise StudyError(str(error), cause="", next_step="") from error


@pytest.fixture(scope="module")
def divided(study, tmp_path_factory) -> Path:
    """The same country, but roads are built in the south only, clinics almost nowhere."""
    folder = tmp_path_factory.mktemp("divided")
    shutil.copytree(study.parent / "world", folder / "world")
    projects = pd.read_csv(folder / "world" / "projects.csv")
    middle = projects["lat"].median()
    roads = projects["sector"] == "transport"
    kept = pd.concat([projects[roads & (projects["lat"] < middle)], projects[~roads].head(5)])
    kept.to_csv(folder / "world" / "projects.csv", index=False)
    path = folder / "study.yaml"
    text = EVALUATION.replace("fewest: 50", "fewest: 20")
    text = text.replace("  headline: {funder: Fund, sector: transport}\n", "")
    path.write_text(text, encoding="utf-8")
    return path


def test_a_refusal_is_said_in_words_and_something_stands_in(divided):
    run = run_study(divided, divided.parent / "run")
    table = table_of(run)
    rows = table[(table["sector"] == "transport") & (table["adjustment"] == "both")]
    refused = rows[rows["status"] == "refused"].iloc[0]
    assert refused["estimand"] == "ATE"
    assert np.isnan(refused["estimate"])
    assert "no unit of arm 'treated' occurs among" in refused["note"]
    assert "lat above" in refused["reason"]
    stands_in = rows[rows["population"] == "stands in"].iloc[0]
    assert stands_in["estimand"] == "ATO"
    assert np.isfinite(stands_in["estimate"])
    assert run.records[0]["estimand"] == "ATO"
    again = rows[rows["population"] == "population with overlap"].iloc[0]
    assert again["estimate"] == stands_in["estimate"]
    few = table[table["sector"] == "health"]
    assert set(few["status"]) == {"few"}
    n = int(few["n_treated"].iloc[0])
    assert 0 < n <= 5
    report = (run.folder / "report.html").read_text(encoding="utf-8")
    assert "Where there is no overlap" in report
    assert "no place has one" in report
    assert f"Fund, health ({n})" in report
    assert "is refused for Fund projects in “transport”" in run.claim
    assert "are not mapped" in report
    skipped = [c.name for c in run.checks if c.claim.startswith("Not done")]
    assert skipped == [
        "Odds of treatment that are off by a factor", "Bounds if anything may be hidden",
    ]  # fmt: skip


def test_a_table_alone_needs_no_image_in_its_estimates(study, tmp_path):
    path = changed(
        study, ("history: false", "history: false\n  adjust: table\n  map: false"),
        ("  correct: {predictions: [wealth_2020], labelled: 0.4}\n", ""),
        ("within_km: 0.3", "within_km: 0.3\n    within: stratum"),
    )  # fmt: skip
    run = run_study(path, tmp_path / "run")
    table = table_of(run)
    assert set(table["adjustment"].dropna()) == {"table"}
    assert (table.loc[table["status"] == "ok", "n"] == WORLD.n_neighborhoods).all()
    assert not (run.folder / "effects.parquet").exists()
