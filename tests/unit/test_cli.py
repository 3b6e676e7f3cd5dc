"""The command line: fast help, table commands, exit codes, JSON that follows the schema."""

import json
import shutil
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import typer
from study_helpers import STUDY, environment, eocausal, small_study
from typer.testing import CliRunner

from eocausal import __version__
from eocausal.checks.base import CheckResult, Verdict
from eocausal.cli import _exit_by, app
from eocausal.designs import Trial
from eocausal.studies.power import intraclass, minimum_detectable_effect
from eocausal.studies.records import EstimateRecord
from eocausal.studies.run import RunResult

HEAVY = ("torch", "rasterio", "xarray", "geopandas", "pandas", "bokeh", "matplotlib", "sklearn")


def call(*arguments: object):
    return CliRunner().invoke(app, [str(a) for a in arguments])


@pytest.fixture(scope="module")
def table(tmp_path_factory) -> Path:
    rng = np.random.default_rng(0)
    village = np.repeat(np.arange(40), 6)
    arm = rng.permutation(np.arange(40) % 2)[village]
    age = rng.normal(40, 10, 240)
    frame = pd.DataFrame({
        "village": village, "arm": arm, "age": np.where(rng.random(240) < 0.05, np.nan, age),
        "sex": rng.choice(["f", "m"], 240), "dose": arm * rng.random(240),
        "y": 0.5 * arm + 0.02 * age + rng.normal(0, 0.3, 40)[village] + rng.normal(0, 1, 240),
        "lon": 30 + village / 50, "lat": 1 + village / 90, "score": rng.normal(0, 1, 240),
    })  # fmt: skip
    path = tmp_path_factory.mktemp("table") / "table.csv"
    frame.to_csv(path, index=False)
    return path


def test_help_is_fast_and_imports_nothing_heavy():
    code = (
        "import sys\nfrom eocausal.cli import app\n"
        "try: app(['--help'])\nexcept SystemExit: pass\n"
        f"heavy = [m for m in {HEAVY} if m in sys.modules]\n"
        "assert not heavy, heavy\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True, env=environment())
    times = []
    for _ in range(3):
        begin = time.perf_counter()
        shown = eocausal("--help")
        times.append(time.perf_counter() - begin)
    assert shown.returncode == 0
    assert "demo" in shown.stdout
    assert min(times) < 1.0


def test_version():
    assert call("--version").output.strip() == f"eocausal {__version__}"


def test_trial_prints_records_that_follow_the_schema(table):
    shown = call("trial", table, "--arm", "arm", "--outcome", "y", "--cluster", "village",
                 "--covariates", "age, sex", "--vcov", "clustered", "--vcov", "hc2",
                 "--vcov", "conley:30km", "--json")  # fmt: skip
    assert shown.exit_code == 0, shown.output
    records = json.loads(shown.stdout)
    for record in records:
        EstimateRecord.model_validate(record)
    assert [r["method"] for r in records] == ["difference in means"] * 3 + ["Lin regression"] * 3
    assert [r["vcov"].partition("(")[0] for r in records[:3]] == ["Clustered", "HC2", "Conley"]
    frame = pd.read_csv(table)
    difference = frame.groupby("arm")["y"].mean().diff().iloc[-1]
    assert records[0]["estimate"] == pytest.approx(difference, rel=1e-12)
    assert records[3]["covariates"] == ["age", "age missing", "sex=m"]


def test_trial_uses_the_variance_of_the_design_and_speaks_in_words(table):
    shown = call("trial", table, "--arm", "arm", "--outcome", "y", "--cluster", "village")
    assert shown.exit_code == 0
    assert "clustered by village" in shown.stdout
    shown = call("trial", table, "--arm", "arm", "--outcome", "y", "--prob", "0.5", "--json")
    assert json.loads(shown.stdout)[0]["vcov"] == "HC2()"


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["--covariates", "age,dose"], "dose"),
        (["--covariates", "agee"], "closest: 'age'"),
        (["--vcov", "hc3"], "closest: hc2"),
        (["--vcov", "clustered"], "'clustered' is not a variance. Known"),
        (["--covariates", "age,y"], "the arm or a covariate too"),
        (["--vcov", "conley:far"], "not a variance"),
        (["--prob", "1.5"], "not a probability"),
        (["--cluster", "arm2"], "arm2"),
    ],
)
def test_what_is_wrong_is_said_in_a_sentence_with_exit_code_two(table, arguments, says):
    shown = call("trial", table, "--arm", "arm", "--outcome", "y", *arguments)
    assert shown.exit_code == 2
    assert says in shown.stderr
    assert "Next:" in shown.stderr
    assert not shown.stdout


@pytest.mark.parametrize(
    ("name", "content", "says"),
    [
        ("none.csv", None, "no table"),
        ("empty.csv", "", "cannot be read"),
        ("header.csv", "arm,y\n", "no rows"),
        ("broken.parquet", "not parquet", "cannot be read"),
        ("table.xlsx", "x", "of the kind '.xlsx'"),
    ],
)
def test_bad_tables(tmp_path, name, content, says):
    path = tmp_path / name
    if content is not None:
        path.write_text(content)
    shown = call("trial", path, "--arm", "arm", "--outcome", "y")
    assert shown.exit_code == 2
    assert says in " ".join(shown.stderr.split())


def test_tables_of_every_kind_agree(table, tmp_path):
    frame = pd.read_csv(table)
    frame.to_csv(tmp_path / "t.tsv", sep="\t", index=False)
    frame.to_parquet(tmp_path / "t.parquet")
    frame.to_stata(tmp_path / "t.dta", write_index=False)
    answers = {
        call("trial", path, "--arm", "arm", "--outcome", "y", "--json").stdout
        for path in (table, *tmp_path.iterdir())
    }
    assert len(answers) == 1


def test_rank_prints_both_targets_and_depends_on_the_seed_alone(table):
    arguments = ("rank", table, "--score", "score", "--priority", "age2", "--cluster", "village",
                 "--target", "autoc", "--target", "qini", "--json")  # fmt: skip
    assert call(*arguments).exit_code == 2
    right = [*arguments[:5], "lon", *arguments[6:]]
    first = call(*right)
    assert first.exit_code == 0, first.output
    assert [r["estimand"] for r in json.loads(first.stdout)] == ["AUTOC", "Qini"]
    assert call(*right).stdout == first.stdout
    assert call(*right, "--seed", "2").stdout != first.stdout
    assert call(*right, "--target", "auc").exit_code == 2


def test_init_writes_once_and_validate_lists_what_is_missing(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert call("init", "mine").exit_code == 0
    assert call("init", "mine").exit_code == 2
    shown = call("validate", "mine.yaml", "--json")
    assert shown.exit_code == 2
    problems = json.loads(shown.stdout)["problems"]
    assert [p.partition(": ")[2].partition(": ")[0] for p in problems] == [
        "data.units", "data.neighborhoods", "data.imagery",
    ]  # fmt: skip


@pytest.fixture(scope="module")
def study(tmp_path_factory) -> Path:
    return small_study(tmp_path_factory.mktemp("cli"))


def test_validate_and_plan_a_good_study(study):
    shown = call("validate", study)
    assert shown.exit_code == 0, shown.stderr
    assert "44 neighborhoods, 30 with units of the trial." in shown.stdout
    shown = call("plan", study)
    assert shown.exit_code == 0, shown.stderr
    assert "80% probability" in shown.stdout
    record = json.loads(call("plan", study, "--json").stdout)
    assert record["power"]["estimand"] == "minimum detectable effect"
    assert record["problems"] == []
    assert record["cube"] is not None


def test_plan_without_the_outcome_is_in_standard_deviations(study):
    path = study.with_name("before.yaml")
    path.write_text(STUDY.replace("outcome: income", "outcome: later"), encoding="utf-8")
    shown = call("plan", path)
    assert shown.exit_code == 0, shown.stderr
    assert "standard deviations of the outcome" in shown.stdout
    assert "(assumed)" in shown.stdout
    assert "no column 'later'" in shown.stdout


@pytest.mark.slow
def test_doctor_finds_this_machine_ready():
    shown = eocausal("doctor", "--json")
    assert shown.returncode == 0, shown.stderr
    findings = {f["what"]: f for f in json.loads(shown.stdout)}
    assert findings["GDAL"]["ok"]
    assert findings["torchvision"]["ok"]


@pytest.mark.parametrize(("verdict", "code"), [(Verdict.FAIL, 3), (Verdict.WARN, 0)])
def test_a_failed_check_exits_three(verdict, code):
    result = RunResult(Path(), (), (), (CheckResult("x", verdict, ""),), "")
    if code == 0:
        _exit_by(result)
        return
    with pytest.raises(typer.Exit) as caught:
        _exit_by(result)
    assert caught.value.exit_code == code


def test_intraclass_correlation_finds_what_was_planted():
    rng = np.random.default_rng(1)
    size = rng.integers(2, 20, 4000)
    cluster = np.repeat(np.arange(4000), size)
    y = rng.normal(0, np.sqrt(0.3), 4000)[cluster] + rng.normal(0, np.sqrt(0.7), len(cluster))
    assert intraclass(y, cluster) == pytest.approx(0.3, abs=0.02)
    assert intraclass(rng.normal(size=len(cluster)), cluster) < 0.01
    assert intraclass(y, np.arange(len(y))) == 0.0


@pytest.mark.parametrize("clustered", [True, False])
def test_the_minimum_detectable_effect_is_found_four_times_in_five(clustered):
    from eocausal.estimators.randomized import difference_in_means

    rng = np.random.default_rng(2)
    size = rng.integers(4, 12, 60)
    village = np.repeat(np.arange(60), size)
    n = len(village)

    def draw() -> pd.DataFrame:
        treated = rng.permutation(np.arange(60) % 2)[village]
        arm = treated if clustered else rng.permutation(np.arange(n) % 2)
        y = rng.normal(0, 0.4, 60)[village] + rng.normal(0, 0.9, n)
        return pd.DataFrame({"village": village, "arm": arm, "y": y})

    trial = Trial("arm", cluster="village" if clustered else None)
    frames = [draw() for _ in range(300)]
    mde = np.mean([
        minimum_detectable_effect(trial.assignment(f), f["y"].to_numpy()).value for f in frames
    ])  # fmt: skip
    found = [
        difference_in_means(f.assign(y=f["y"] + mde * f["arm"]), trial, "y").p_value < 0.05
        for f in frames
    ]
    assert np.mean(found) == pytest.approx(0.8, abs=0.07)


def test_a_covariate_named_twice_counts_once(table):
    arguments = ["trial", table, "--arm", "arm", "--outcome", "y", "--json", "--covariates"]
    assert call(*arguments, "age,age").stdout == call(*arguments, "age").stdout


def test_plan_is_made_where_outcomes_of_one_arm_alone_are_known(study, tmp_path):
    shutil.copytree(study.parent, tmp_path / "copy")
    path = tmp_path / "copy" / "world" / "units.csv"
    units = pd.read_csv(path)
    units.assign(income=units["income"].where(units["arm"] == 1)).to_csv(path, index=False)
    shown = call("plan", tmp_path / "copy" / study.name)
    assert shown.exit_code == 0, shown.stderr
    assert "Power:\n  Not known" in shown.stdout


def test_power_says_a_narrow_level_in_full():
    table = pd.DataFrame({"arm": [0, 1] * 20})
    found = minimum_detectable_effect(Trial("arm").assignment(table), None, level=0.999)
    assert found.summary().endswith("at the 0.1% level.")
