"""Runs that are killed, interrupted, doubled, or given bad files."""

import json
import os
import shutil
import signal
import subprocess
import time
from pathlib import Path

import pandas as pd
import pytest
from study_helpers import STUDY, command, environment, eocausal, output_hashes, small_study

from eocausal.errors import (
    AlignmentError,
    BandError,
    CRSError,
    DuplicateIdError,
    LeakageError,
    MissingColumnError,
    OneArmError,
    OneClusterError,
    OutcomeError,
    SceneError,
    StudyError,
    TooManyFailuresError,
)
from eocausal.studies.run import run_study
from eocausal.studies.validate import validate_study


@pytest.fixture(scope="module")
def study(tmp_path_factory) -> Path:
    return small_study(tmp_path_factory.mktemp("faults"))


@pytest.fixture
def own_study(study, tmp_path) -> Path:
    """Return a copy of the study and its world that a test may spoil."""
    shutil.copytree(study.parent / "world", tmp_path / "world")
    return Path(shutil.copy(study, tmp_path / "study.yaml"))


def start(study: Path, run: Path) -> subprocess.Popen[str]:
    return subprocess.Popen(
        command("run", study, "--out", run), env=environment(), text=True,
        stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    )  # fmt: skip


def stop_when(process: subprocess.Popen[str], path: Path, sign: signal.Signals) -> int:
    """Send a signal as soon as a file is there; returns the exit code."""
    limit = time.monotonic() + 240
    while not path.exists():
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < limit
        time.sleep(0.001)
    process.send_signal(sign)
    process.communicate(timeout=60)
    return process.returncode


@pytest.mark.slow
def test_killed_in_every_stage_a_run_resumes_to_the_same_bytes(study, tmp_path):
    run_study(study, tmp_path / "whole")
    run = tmp_path / "killed"
    died = 0
    for stage in ("scenes", "inputs", "cube", "embedding", "average", "effects", "ranking",
                  "checks", "results"):  # fmt: skip
        if (run / ".stages" / f"{stage}.json").exists():
            continue
        died += stop_when(start(study, run), run / ".stages" / f"{stage}.json", signal.SIGKILL) < 0
        assert not (run / "provenance.json").exists()
    assert died >= 4
    done = eocausal("run", study, "--out", run)
    assert done.returncode == 0, done.stderr
    assert output_hashes(run) == output_hashes(tmp_path / "whole")
    assert not list(run.glob(".*.tmp"))


@pytest.mark.skipif(os.name == "nt", reason="SIGINT cannot be sent to one process on Windows")
def test_an_interrupted_run_says_how_to_go_on(study, tmp_path):
    process = start(study, tmp_path / "run")
    limit = time.monotonic() + 240
    while not (tmp_path / "run" / ".stages" / "inputs.json").exists():
        assert time.monotonic() < limit
        time.sleep(0.001)
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=60)
    assert process.returncode == 130, (out, err)
    assert "Rerun" in err
    assert "Traceback" not in err


def test_two_runs_do_not_share_a_folder(study, tmp_path):
    first = start(study, tmp_path / "run")
    limit = time.monotonic() + 240
    while not (tmp_path / "run" / ".stages").exists():
        assert time.monotonic() < limit
        time.sleep(0.001)
    try:
        with pytest.raises(StudyError, match="Another run"):
            run_study(study, tmp_path / "run")
    finally:
        first.kill()
        first.communicate()


def change(study: Path, old: str, new: str) -> Path:
    assert old in STUDY
    study.write_text(STUDY.replace(old, new), encoding="utf-8")
    return study


def edit_units(study: Path, **columns: object) -> Path:
    path = study.parent / "world" / "units.csv"
    pd.read_csv(path).assign(**columns).to_csv(path, index=False)
    return study


def test_a_leaking_covariate_stops_the_run_before_any_chip_is_cut(own_study, tmp_path):
    units = pd.read_csv(own_study.parent / "world" / "units.csv")
    edit_units(own_study, age=units["age"] * units["arm"])
    with pytest.raises(LeakageError, match="age"):
        run_study(own_study, tmp_path / "run")
    assert not (tmp_path / "run" / "cube.zarr").exists()
    refused = eocausal("run", own_study, "--out", tmp_path / "run")
    assert refused.returncode == 2
    assert "[EO600]" in refused.stderr
    assert "Traceback" not in refused.stderr
    with pytest.raises(StudyError, match="carries the treatment"):
        validate_study(own_study)


def test_images_after_the_start_stop_the_run_before_any_chip_is_cut(own_study, tmp_path):
    change(own_study, "start: 2018-01-01", "start: 2017-02-01")
    with pytest.raises(LeakageError, match="not older than the trial"):
        run_study(own_study, tmp_path / "run")
    assert not (tmp_path / "run" / "cube.zarr").exists()


@pytest.mark.parametrize(
    ("columns", "error"),
    [
        ({"arm": 1}, OneArmError),
        ({"income": float("nan")}, OutcomeError),
        ({"income": 1.0}, OutcomeError),
        ({"unit": "same"}, DuplicateIdError),
        ({"neighborhood": "nowhere"}, AlignmentError),
    ],
)
def test_bad_tables_are_typed_errors_and_validate_finds_them(own_study, tmp_path, columns, error):
    edit_units(own_study, **columns)
    with pytest.raises(error):
        run_study(own_study, tmp_path / "run")
    with pytest.raises(StudyError) as caught:
        validate_study(own_study)
    assert caught.value.problems


@pytest.mark.parametrize(
    ("old", "new", "error"),
    [
        ("outcome: income", "outcome: incomes", MissingColumnError),
        ("bands: [green, red, nir]", "bands: [green, red, nirr]", BandError),
        ("cluster: neighborhood", "cluster: stratum2", MissingColumnError),
        ("file: units.csv", "file: unit.csv", StudyError),
        ("files: scenes", "files: scene", SceneError),
        ("    size: 12\n", "    size: 12\n    crs: nonsense\n", CRSError),
    ],
)
def test_bad_names_are_typed_errors_and_validate_finds_them(own_study, tmp_path, old, new, error):
    change(own_study, old, new)
    with pytest.raises(error):
        run_study(own_study, tmp_path / "run")
    with pytest.raises(StudyError) as caught:
        validate_study(own_study)
    assert all(problem.startswith("line ") for problem in caught.value.problems)


def test_one_cluster_is_refused(own_study, tmp_path):
    edit_units(own_study, one=1)
    change(own_study, "cluster: neighborhood", "cluster: one")
    with pytest.raises(OneClusterError):
        run_study(own_study, tmp_path / "run")


def test_a_single_missing_outcome_is_refused_or_recorded(own_study, tmp_path):
    path = own_study.parent / "world" / "units.csv"
    units = pd.read_csv(path)
    units.loc[4, "income"] = float("nan")
    units.to_csv(path, index=False)
    with pytest.raises(OutcomeError):
        run_study(own_study, tmp_path / "run")
    change(own_study, "outcome: income\n", "outcome: income\n  missing_outcome: drop\n")
    result = run_study(own_study, tmp_path / "run")
    assert result.records[0]["n"] == len(units) - 1
    failures = pd.read_parquet(tmp_path / "run" / "failures.parquet")
    assert failures.query("reason == 'outcome_missing'")["subject"].tolist() == [
        units.loc[4, "unit"]
    ]


def test_a_truncated_image_is_recorded_and_the_run_goes_on(own_study, tmp_path):
    broken = sorted((own_study.parent / "world" / "scenes").glob("*.tif"))[0]
    broken.write_bytes(broken.read_bytes()[:200])
    result = run_study(own_study, tmp_path / "run")
    failures = pd.read_parquet(tmp_path / "run" / "failures.parquet")
    assert broken.name in " ".join(failures["subject"])
    assert result.records[0]["n"] > 0


def test_no_usable_chip_stops_the_run_and_leaves_the_failures(own_study, tmp_path):
    import rasterio

    for path in (own_study.parent / "world" / "scenes").glob("*.tif"):
        with rasterio.open(path, "r+") as raster:
            raster.write(raster.read() * 0)
    with pytest.raises(TooManyFailuresError):
        run_study(own_study, tmp_path / "run")
    assert len(pd.read_parquet(tmp_path / "run" / "failures.parquet"))


def test_broken_truth_is_a_typed_error(own_study, tmp_path):
    (own_study.parent / "world" / "truth.json").write_text(json.dumps({"neighborhoods": [1]}))
    with pytest.raises(StudyError, match="no true effects"):
        run_study(own_study, tmp_path / "run")


def test_a_column_that_the_join_would_replace_is_refused(own_study, tmp_path):
    path = own_study.parent / "world" / "units.csv"
    units = pd.read_csv(path).rename(columns={"neighborhood": "village"})
    units.assign(neighborhood=units["stratum"]).to_csv(path, index=False)
    linked = STUDY.replace("id: unit}", "id: unit, neighborhood: village}")
    own_study.write_text(linked, encoding="utf-8")
    with pytest.raises(StudyError, match="uses the column 'neighborhood'"):
        run_study(own_study, tmp_path / "run")
    linked = linked.replace("cluster: neighborhood", "cluster: village")
    own_study.write_text(linked, encoding="utf-8")
    assert validate_study(own_study).problems == []


def test_a_bad_arm_is_one_problem(own_study):
    change(own_study, "arm: arm", "arm: stratum")
    with pytest.raises(StudyError) as caught:
        validate_study(own_study)
    assert len(caught.value.problems) == 1


def test_damaged_notes_of_a_run_are_made_again(own_study, tmp_path):
    before = run_study(own_study, tmp_path / "run")
    for name in ("files", "timings", "average"):
        (tmp_path / "run" / ".stages" / f"{name}.json").write_text("[1", encoding="utf-8")
    assert run_study(own_study, tmp_path / "run").records == before.records


def test_an_impossible_run_folder_is_a_typed_error(own_study):
    with pytest.raises(StudyError, match="cannot be made"):
        run_study(own_study, own_study / "run")
