"""A study of an event end to end: what it leaves, resume, refusals, the truth, its report."""

import json
import shutil

import numpy as np
import pandas as pd
import pytest
import rasterio
import yaml
from impact_helpers import COAST, GRID_STUDY, TABLE_STUDY, small_coast, written
from study_helpers import eocausal, output_hashes

from eocausal.errors import StudyError
from eocausal.studies import impact_stages
from eocausal.studies.engine import resolved
from eocausal.studies.load import ImpactFile, load_study, read_ingestion, read_study
from eocausal.studies.plan import plan_study
from eocausal.studies.records import EstimateRecord
from eocausal.studies.run import run_study
from eocausal.studies.template import write_template
from eocausal.studies.validate import validate_study


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("impact")
    small_coast(folder)
    return folder


@pytest.fixture(scope="module")
def finished(folder):
    return run_study(written(folder, GRID_STUDY), folder / "run")


@pytest.fixture(scope="module")
def table_run(folder):
    return run_study(written(folder, TABLE_STUDY, name="table.yaml"), folder / "table")


def page_of(run) -> str:
    return (run.folder / "report.html").read_text(encoding="utf-8")


@pytest.mark.slow
def test_a_run_leaves_everything(finished):
    left = {p.name for p in finished.folder.iterdir() if not p.name.startswith(".")}
    assert left == {
        "series.csv", "effect.csv", "estimates.json", "estimates.csv", "checks.json", "study.yaml",
        "effects.tif", "effects.nc", "figures", "report.html", "failures.parquet",
        "provenance.json",
    }  # fmt: skip
    drawn = {p.stem for p in (finished.folder / "figures").iterdir()}
    assert drawn == {
        "series", "variants", "breaks", "in_time", "in_space", "controls_left_out",
        "years_left_out", "depths",
    }  # fmt: skip
    again = load_study(finished.folder / "study.yaml")
    assert again.model.season == 12
    assert again.event.when == "2012-06"


@pytest.mark.slow
def test_the_interval_holds_the_true_effect(finished):
    records = [EstimateRecord.model_validate(r) for r in finished.records]
    first = records[0]
    assert first.primary
    assert (first.estimand, first.n) == ("average effect", 43)
    assert first.ci_low <= COAST.effect <= first.ci_high
    assert first.p_value < 0.05
    total, share = (r for r in records[1:3])
    assert total.estimate == pytest.approx(43 * first.estimate, rel=1e-9)
    assert (total.estimand, share.estimand) == ("cumulative effect", "relative effect")
    page = page_of(finished)
    assert "The answer beside the truth" in page
    assert "holds it" in page


@pytest.mark.slow
def test_variants_answer_the_same_question(finished):
    rows = {r["variant"]: r for r in finished.records if r["estimand"] == "average effect"}
    assert set(rows) == {"own", "without controls", "with a line", "maximum likelihood"}
    assert rows["without controls"]["inclusion"] == {}
    likely = rows["maximum likelihood"]
    assert likely["std_error"] < likely["std_error_of_one"]
    assert abs(likely["estimate"] - rows["own"]["estimate"]) < 4 * likely["std_error"]


@pytest.mark.slow
def test_the_series_is_the_mean_of_the_zone(finished):
    table = pd.read_csv(finished.folder / "series.csv", parse_dates=["time"], index_col="time")
    assert list(table) == ["outcome", "seen", "other bay"]
    assert len(table) == 144
    assert table["outcome"].between(0.05, 0.15).all()
    assert table["seen"].between(0.1, 1.001).all()


@pytest.mark.slow
def test_the_map_marks_the_bay_and_leaves_the_control_out(finished):
    with rasterio.open(finished.folder / "effects.tif") as raster:
        bands = dict(zip(raster.descriptions, raster.read(), strict=True))
        assert raster.crs.to_epsg() == 4326
    kept = json.loads((finished.folder / ".stages/parts/map.json").read_text())
    zones = {z["zone"]: z for z in kept["zones"]}
    assert set(zones) == {"bay", "no zone"}
    assert zones["bay"]["estimate"] == pytest.approx(COAST.effect, abs=0.006)
    assert np.isfinite(bands["estimate"]).sum() == kept["estimated"]


@pytest.mark.slow
def test_checks_are_named_and_their_numbers_kept(finished):
    names = [c.name for c in finished.checks]
    assert names == [
        "A trend that goes on", "Placebo events before the real one", "Placebo places",
        "Controls that break themselves", "The effect without each control",
        "The effect without each year", "The model against the series before the event",
    ]  # fmt: skip
    places = next(c for c in finished.checks if c.name == "Placebo places")
    assert places.values["placebos"] > 80
    assert finished.claim.startswith("From June 2012 on, Kd490 of the bay was ")


@pytest.mark.slow
def test_a_second_run_does_nothing_and_a_failed_one_goes_on(folder, finished, monkeypatch):
    before = output_hashes(finished.folder)
    assert run_study(folder / "study.yaml", finished.folder).ran == ()
    assert output_hashes(finished.folder) == before

    def fail(space, progress):
        raise StudyError("Stopped.", cause="A test.", next_step="None.")

    monkeypatch.setattr(impact_stages, "collect", fail)
    path = written(folder, TABLE_STUDY, ("seed: 5", "seed: 6"), name="half.yaml")
    with pytest.raises(StudyError, match="Stopped"):
        run_study(path, folder / "half")
    monkeypatch.undo()
    resumed = run_study(path, folder / "half")
    assert resumed.ran == ("Collect results", "Report")
    whole = run_study(path, folder / "whole")
    assert output_hashes(whole.folder) == output_hashes(resumed.folder)


@pytest.mark.slow
def test_what_changes_decides_what_runs(folder, table_run):
    path = written(folder, TABLE_STUDY, ("study: A table", "study: Another name"), name="b.yaml")
    assert run_study(path, table_run.folder).ran == ("Collect results", "Report")
    path = written(folder, TABLE_STUDY, ("R: {prior: compatible, season: 0}", "R: {season: 0}"),
                   name="b.yaml")  # fmt: skip
    assert run_study(path, table_run.folder).ran == ("Ask otherwise", "Collect results", "Report")
    back = run_study(folder / "table.yaml", table_run.folder)
    assert "Estimate the effect" not in back.ran


@pytest.mark.slow
def test_a_table_gives_the_effect_of_its_zone_means(table_run):
    own = table_run.records[0]
    assert own["ci_low"] <= 100 * COAST.effect <= own["ci_high"]
    page = page_of(table_run)
    for words in (
        "× 0.01 m-1", "What differs from the paper, and why", "1/21 = 0.048",
        "What happened on land", "built area beside the break of 2012-06",
    ):  # fmt: skip
        assert words in page
    areas = pd.read_csv(table_run.folder / "land_cover.csv")
    built = areas[areas["class"] == "built area"].set_index("year")["km2"]
    assert built.is_monotonic_increasing


@pytest.mark.slow
def test_a_dead_months_row_is_put_in_and_listed(folder):
    table = pd.read_csv(folder / "coast" / "bays.csv")
    table.drop(index=[20, 21]).to_csv(folder / "coast" / "gaps.csv", index=False)
    path = written(folder, TABLE_STUDY, ("bays.csv", "gaps.csv"), ("land_cover", "# land_cover"),
                   name="gaps.yaml")  # fmt: skip
    run = run_study(path, folder / "gaps")
    failures = pd.read_parquet(run.folder / "failures.parquet")
    assert set(failures["subject"]) == {"2005-09-01", "2005-10-01"}
    assert set(failures["reason"]) == {"no_value", "no_control"}
    assert "2 without" in page_of(run)


def test_the_kind_is_known_by_its_event_and_reads_back(folder):
    path = written(folder, GRID_STUDY)
    file = read_study(path)
    assert isinstance(file, ImpactFile)
    again = written(folder, yaml.safe_dump(resolved(file.study)), name="again.yaml")
    assert load_study(again) == file.study.model_copy(
        update={"data": load_study(again).data}
    )  # fmt: skip
    with pytest.raises(StudyError, match="no imagery to ingest"):
        read_ingestion(path)
    none = written(folder, TABLE_STUDY, name="none.yaml")
    plain = resolved(load_study(none))
    assert plain["breaks"] is False
    assert plain["checks"]["in_space"] is False


def test_the_template_is_a_valid_study(tmp_path):
    study = load_study(write_template(tmp_path / "port.yaml", "impact"))
    assert study.controls[0].distance_km == 60
    assert study.model.prior.learned is not None


def test_validation_and_plan_say_what_is_there(folder):
    path = written(folder, GRID_STUDY)
    facts = " ".join(validate_study(path).facts)
    assert "144 times from 2004-01-01 to 2015-12-01" in facts
    plan = plan_study(path)
    assert not plan.problems
    words = plan.summary()
    assert "the effect in each pixel of water" in words
    assert plan.record()["seconds"] > 1


@pytest.mark.parametrize(
    ("pairs", "expected"),
    [
        ([("series: water.bay", "series: water.bai")], "line 12: outcome.series: there is no zone"),
        ([("series: water.bay", "series: watr.bay")], "closest: water"),
        ([("series: water.other", "series: water.bay")], "is the outcome"),
        ([("when: 2012-06", "when: 2012-06, end: 2011")], "ends (2011) before it begins"),
        ([("when: 2012-06", "when: 2012-06, learn_until: 2013-01")], "is not before the event"),
        ([("when: 2012-06", "when: 2012-06, reach_km: 20"),
          ("name: other bay", "name: other bay, distance_km: 5")], "hides the effect"),
        ([("units: m-1", "units: clarity")], "optics.per_metre"),
        ([("{grid: water}", "{grid: wader}")], "map.grid"),
        ([("season: 12", "saison: 12")], "unknown key; closest: season"),
        ([("with a line: {trend: line}", "R: {prior: compatible, trend: line}")],
         "has no straight line"),
        ([("controls: []", "controls: [sky]")], "there is no control 'sky'"),
    ],
)  # fmt: skip
def test_contradictions_are_named_with_their_line(folder, pairs, expected):
    with pytest.raises(StudyError) as error:
        load_study(written(folder, GRID_STUDY, *pairs, name="wrong.yaml"))
    assert any(expected in problem for problem in error.value.problems), error.value.problems


@pytest.mark.parametrize(
    ("pairs", "expected"),
    [
        ([("bays.csv", "bay.csv")], "There is no file"),
        ([("time: month", "time: date")], "has no column 'date'"),
        ([("series: bays.other", "series: bays.others")], "has no column 'others'"),
        ([("when: 2012-06", "when: 2031-06")], "leaves no post-period"),
        ([("units: 0.01 m-1", "units: m-1"), ("\nbreaks: false", "\noptics: true\nbreaks: false")],
         "factor of 100"),
        ([("exclude: [water]", "exclude: [sea]")], "there is no class 'sea'"),
        ([("variable: lulc", "variable: cover")], "has no variable 'cover'"),
    ],
)  # fmt: skip
def test_files_and_units_are_checked_beforehand(folder, pairs, expected):
    with pytest.raises(StudyError) as error:
        validate_study(written(folder, TABLE_STUDY, *pairs, name="wrong.yaml"))
    assert any(expected in problem for problem in error.value.problems), error.value.problems


def test_dates_that_occur_twice_are_refused(folder):
    table = pd.read_csv(folder / "coast" / "bays.csv")
    pd.concat([table, table.iloc[:2]]).to_csv(folder / "coast" / "twice.csv", index=False)
    path = written(folder, TABLE_STUDY, ("bays.csv", "twice.csv"), name="twice.yaml")
    with pytest.raises(StudyError) as error:
        validate_study(path)
    assert any("2 dates of twice.csv occur twice" in p for p in error.value.problems)


@pytest.mark.slow
def test_the_command_line_runs_it(folder):
    path = written(folder, TABLE_STUDY, ("draws: 500", "draws: 200"), name="line.yaml")
    done = eocausal("run", path, "--out", folder / "line", "--json")
    assert done.returncode in (0, 3), done.stderr
    record = json.loads(done.stdout)
    assert "average effect" in json.dumps(record)


@pytest.mark.slow
@pytest.mark.browser
@pytest.mark.parametrize("width", [360, 1100])
def test_the_report_opens_offline_and_fits_a_phone(finished, width):
    program = shutil.which("chromium") or shutil.which("google-chrome")
    if program is None:
        pytest.skip("there is no chromium on the PATH: the report was NOT opened in a browser")
    api = pytest.importorskip("playwright.sync_api", reason="playwright is missing: NOT opened")
    asked: list[str] = []
    complaints: list[str] = []
    with api.sync_playwright() as play:
        chromium = play.chromium.launch(executable_path=program, args=["--no-sandbox"])
        page = chromium.new_context(
            offline=True, viewport={"width": width, "height": 900}
        ).new_page()
        page.on("request", lambda r: asked.append(r.url))
        page.on("console", lambda m: complaints.append(m.text))
        page.goto((finished.folder / "report.html").as_uri())
        assert page.evaluate("document.documentElement.scrollWidth") <= width
        shown = page.evaluate("[...document.images].map(i => i.complete && i.naturalWidth > 0)")
        chromium.close()
    assert all(shown)
    assert len(shown) == 9
    assert [u.split(":")[0] for u in asked if not u.startswith("data:")] == ["file"]
    assert complaints == []
