"""Water clarity off Morowali: the study that ships, with fewer draws."""

from pathlib import Path

import pandas as pd
import pytest
import yaml

from eocausal.studies.run import run_study

ROOT = Path(__file__).resolve().parents[2]

pytestmark = [pytest.mark.realdata, pytest.mark.slow]


@pytest.fixture(scope="module")
def run(real_data, tmp_path_factory):
    folder = tmp_path_factory.mktemp("morowali")
    text = (ROOT / "pipelines" / "morowali_coast.yaml").read_text(encoding="utf-8")
    study = yaml.safe_load(text)
    study["data"]["root"] = str(real_data("morowali"))
    study["model"]["draws"] = 1000
    study["breaks"]["draws"] = 199
    study["checks"] = {"leave_out_years": False, "in_space": False}
    path = folder / "morowali_coast.yaml"
    path.write_text(yaml.safe_dump(study, sort_keys=False, allow_unicode=True), encoding="utf-8")
    return run_study(path, folder / "run")


@pytest.fixture(scope="module")
def averages(run):
    table = pd.DataFrame(list(run.records))
    return table[table["estimand"] == "average effect"].set_index("variant")


@pytest.fixture(scope="module")
def page(run):
    return (run.folder / "report.html").read_text(encoding="utf-8")


def test_ours_has_the_sign_of_the_paper_and_a_wider_interval(run, averages):
    own = averages.loc["own"]
    assert 0.6 < own["estimate"] < 1.0
    assert own["ci_low"] > 0.2
    paper = averages.loc["maximum likelihood, where the paper's search stopped"]
    assert own["std_error"] > 1.4 * paper["std_error"]
    assert own["n"] == 68
    assert run.claim.startswith("From May 2019 on, Kd490 of the impact zone was ")


def test_the_papers_numbers_come_out_again_and_their_p_is_taken_apart(averages, page):
    paper = averages.loc["maximum likelihood, where the paper's search stopped"]
    assert paper["estimate"] == pytest.approx(0.676485, abs=5e-6)
    assert paper["relative"] == pytest.approx(0.143803, abs=2e-6)
    assert paper["cumulative"] == pytest.approx(46.001, abs=1e-3)
    assert paper["p_value_of_one"] == pytest.approx(0.0117, abs=1e-4)
    assert paper["std_error_of_one"] > 3 * paper["std_error"]
    best = averages.loc["maximum likelihood"]
    assert best["log_likelihood"] > paper["log_likelihood"] + 0.6
    for words in (
        "their number comes out again", "their search had not ended", "1/41 = 0.024",
        "not the p-value of the mean", "from 3.98 in 1998 to 4.66",
        "not the euphotic depth", "MODIS-Aqua enters (2002-07)",
    ):  # fmt: skip
        assert words in page, words


def test_r_is_beside_it(averages):
    """METHODS.md section 5: 0.8948 without a season, 0.8602 with one, at 20,000 draws."""
    assert averages.loc["R's CausalImpact", "estimate"] == pytest.approx(0.8948, abs=0.01)
    assert averages.loc["R's CausalImpact, season", "estimate"] == pytest.approx(0.8602, abs=0.01)


def test_land_cover_is_as_published_and_does_not_date_the_break(run, page):
    table = pd.read_csv(run.folder / "land_cover.csv")
    built = table[table["class"] == "Built Area"].set_index("year")["km2"]
    assert built[2017] == pytest.approx(12.26, rel=0.02)
    assert built[2024] == pytest.approx(46.18, rel=0.02)
    assert "Built Area beside the break of 2019-05" in page
    assert "it cannot tell which month came first" in page


def test_the_break_is_at_the_event_and_checks_are_said(run, page):
    assert "breaks at the event itself: from May 2019 on" in page
    verdicts = {c.name: str(c.verdict) for c in run.checks}
    assert verdicts["Placebo events before the real one"] == "warn"
    assert "events that did not happen" in run.claim
    drift = next(c for c in run.checks if c.name == "A trend that goes on")
    assert 0 < drift.values["explained"] < 0.3
