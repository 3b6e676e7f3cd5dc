"""Parts of an evaluation: tables, regions in words, the table of sectors, decisions."""

import math

import numpy as np
import pandas as pd
import pytest
import yaml

from eocausal.errors import AlignmentError, DuplicateIdError, StudyError
from eocausal.estimators.trimming import Clip, Crump, Drop
from eocausal.folds import Buffered, SpatialBlocks
from eocausal.placements import Kind
from eocausal.studies.evaluation_decisions import benchmarks_of, folds_of, weighting_of
from eocausal.studies.evaluation_gaps import gaps_of
from eocausal.studies.evaluation_printing import main_records, sector_grid
from eocausal.studies.evaluation_tables import HISTORY, assemble_evaluation, units_of_kind
from eocausal.studies.load import load_study

KM = 1 / 111.19492664455873

STUDY = {
    "study": "Parts",
    "data": {
        "root": ".",
        "neighborhoods": {"file": "places.csv", "id": "place"},
        "projects": {"file": "projects.csv", "funder": "funder", "sector": "sector"},
        "imagery": {"files": "x.tif", "bands": ["red"], "resolution": 10, "time": "2004"},
    },
    "design": {"placement": {"year": "year", "first": "2005", "within_km": 25, "within": "land"}},
    "estimate": {"outcome": "wealth", "covariates": ["land", "urban"]},
}


@pytest.fixture
def study(tmp_path):
    rng = np.random.default_rng(0)
    n = 300
    places = pd.DataFrame({
        "place": [f"p{i}" for i in range(n)], "lon": rng.uniform(0, 10, n),
        "lat": rng.uniform(0, 10, n), "year": 2012, "wealth": rng.normal(size=n),
        "urban": rng.random(n) < 0.3,
    })  # fmt: skip
    places["land"] = np.where(places["lon"] < 5, "west", "east")
    places.loc[:2, "wealth"] = np.nan
    near = places[places["lon"] < 4.5].sample(60, random_state=1)
    projects = pd.DataFrame({
        "lon": near["lon"].to_numpy(), "lat": near["lat"].to_numpy(), "start": 2008,
        "funder": "F", "sector": "roads",
    })  # fmt: skip
    old = projects.iloc[:20].assign(start=2001)
    places.to_csv(tmp_path / "places.csv", index=False)
    pd.concat([projects, old]).to_csv(tmp_path / "projects.csv", index=False)

    def load(**changes):
        text = yaml.safe_load(yaml.safe_dump(STUDY))
        for key, value in changes.items():
            section, _, name = key.partition("__")
            text.setdefault(section, {})[name] = value
        (tmp_path / "study.yaml").write_text(yaml.safe_dump(text), encoding="utf-8")
        return load_study(tmp_path / "study.yaml")

    load.folder = tmp_path
    return load


def test_places_without_a_value_are_left_out_and_listed(study):
    tables = assemble_evaluation(study())
    assert len(tables.units) == 297
    assert [row.subject for row in tables.ledger.rows] == ["p0", "p1", "p2"]
    assert tables.ledger.rows[0].detail == "wealth"
    assert "3 places lack a value (wealth 3)" in tables.notes[0]


def test_units_of_a_kind_are_those_compared_with_their_history(study):
    tables = assemble_evaluation(study())
    exposure = tables.exposure(Kind("F", "roads"))
    units, history = units_of_kind(tables, exposure, history=True)
    assert set(units["land"]) == {"west"}
    assert history == [HISTORY[0]]
    assert units[HISTORY[0]].max() >= math.log(2)
    assert (units["project"] == "treated").sum() == exposure.treated.sum()
    assert units_of_kind(tables, exposure, history=False)[1] == []
    with pytest.raises(StudyError, match="no projects of F, rods"):
        tables.exposure(Kind("F", "rods"))


def test_outcomes_by_year_become_columns(study):
    wide = pd.DataFrame({
        "place": ["p5", "p5", "p6"], "year": [2010, 2011, 2011], "roof": [1.0, 2.0, 3.0],
    })  # fmt: skip
    path = study.folder / "roofs.csv"
    wide.to_csv(path, index=False)
    data = {**STUDY["data"], "outcomes": {"file": "roofs.csv", "neighborhood": "place"}}
    tables = assemble_evaluation(study(data__outcomes=data["outcomes"]))
    assert tables.units.loc["p5", ["roof_2010", "roof_2011"]].tolist() == [1.0, 2.0]
    assert math.isnan(tables.units.loc["p6", "roof_2010"])
    wide.assign(place=["a", "b", "c"]).to_csv(path, index=False)
    with pytest.raises(AlignmentError, match="No neighborhood of the table of outcomes"):
        assemble_evaluation(study(data__outcomes=data["outcomes"]))
    wide.assign(year=2010).to_csv(path, index=False)
    with pytest.raises(DuplicateIdError, match="several rows in one year: 'p5'"):
        assemble_evaluation(study(data__outcomes=data["outcomes"]))


def test_a_region_without_projects_is_said_in_counts_and_columns(study):
    whole = study(design__placement={"year": "2012", "first": "2005"}, estimate__conley_km=1.0)
    tables = assemble_evaluation(whole)
    units, history = units_of_kind(tables, tables.exposure(Kind("F", "roads")), history=True)
    gaps = gaps_of(whole, Kind("F", "roads"), units, history)
    assert [g["lacking"] for g in gaps] == ["treated"]
    assert "land east" in gaps[0]["words"]
    assert "no place has one" in gaps[0]["words"]
    assert gaps[0]["n_inside"] == (units["land"] == "east").sum()


def test_decisions_are_those_of_the_words(study):
    plain = study()
    assert repr(folds_of(plain)) == repr(SpatialBlocks(100.0, k=5))
    assert weighting_of(plain).score.name == "AIPW"
    assert weighting_of(plain, "ATO").score.name == "residual-on-residual regression"
    other = study(
        estimate__folds={"blocks_km": 50, "k": 4, "buffer_km": 20}, estimate__score="hajek",
        estimate__trim="crump", estimate__propensity="boost",
    )  # fmt: skip
    assert folds_of(other) == Buffered(SpatialBlocks(50.0, k=4), 20.0)
    assert weighting_of(other).trim == Crump()
    assert weighting_of(study(estimate__trim={"drop": {"below": 0.1}})).trim == Drop(0.1)
    assert weighting_of(study(estimate__trim={"clip": {"at": 0.02}})).trim == Clip(0.02)


def test_something_hidden_is_not_compared_with_all_countries_together(study):
    assert benchmarks_of(study(), ["land", "urban", "x"]) == ("urban", "x")
    assert benchmarks_of(study(), ["land"]) == ("land",)
    assert benchmarks_of(study(checks__benchmarks="land"), ["land", "urban"]) == ("land",)
    with pytest.raises(StudyError) as caught:
        study(checks__benchmarks=["wealth"])
    assert "'wealth' is no covariate" in caught.value.problems[0]


def record(sector, adjustment, population, estimate, **more):
    return {
        "funder": "F", "sector": sector, "adjustment": adjustment, "population": population,
        "estimate": estimate, "estimand": "ATE", "n": 100, "n_treated": 20, "std_error": 0.1,
        "ci_low": -0.1, "ci_high": 0.3, "status": "ok", **more,
    }  # fmt: skip


def test_the_terminal_shows_a_row_per_kind():
    records = [
        record("roads", "both", "asked for", 0.1, primary=True),
        record("roads", "table", "asked for", 0.2),
        record("roads", "both", "population with overlap", 0.3, estimand="ATO"),
        record("water", "both", None, None, status="refused"),
        record("water", "both", "population with overlap", 0.4, estimand="ATO", q_value=0.6),
        record("water", "both", "stands in", 0.4, estimand="ATO", q_value=0.5),
        record("debt", "both", None, None, status="few"),
        record("roads", "both - table", "difference", -0.1),
        record("roads", "both", "predicted outcome", 0.05, prediction="p"),
        {"estimand": "average effect over mapped neighborhoods", "estimate": 0.1},
    ]
    rows = main_records(records)
    assert [(r["sector"], r["estimate"]) for r in rows] == [
        ("debt", None), ("roads", 0.1), ("water", 0.4),
    ]  # fmt: skip
    assert rows[2]["q_value"] == 0.5
    assert sector_grid(records).row_count == 3
