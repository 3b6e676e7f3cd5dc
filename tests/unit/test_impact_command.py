"""The command ``eocausal impact``: tables, times, events, models in words, strict JSON."""

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from typer.testing import CliRunner

from eocausal.cli import app
from eocausal.designs import Event
from eocausal.errors import AlignmentError, DesignError, EstimationError, MissingColumnError
from eocausal.estimators.impact import bsts
from eocausal.estimators.impact_windows import EventRow
from eocausal.estimators.structural_model import Engine, Season, StructuralModel, Trend
from eocausal.estimators.structural_priors import CompatiblePrior
from eocausal.studies.impact_answer import ImpactAnswer, impact_schema
from eocausal.studies.impact_command import (
    ImpactDraws,
    ModelWords,
    TableImpact,
    impact_table,
    read_model,
    read_transform,
)
from eocausal.studies.impact_times import read_events, timed

ROOT = Path(__file__).parents[2]
DATES = pd.date_range("2010-01-01", periods=96, freq="MS")
RNG = np.random.default_rng(3)


@pytest.fixture(scope="module")
def table(tmp_path_factory):
    sea = RNG.normal(size=96)
    frame = pd.DataFrame({
        "date": DATES.strftime("%Y-%m-%d"), "kd490": 5 + sea + 0.3 * RNG.normal(size=96),
        "control": sea, "flat": 1.0, "step": np.arange(96), "site": "Morowali",
    })  # fmt: skip
    frame.loc[72:, "kd490"] += 0.8
    path = tmp_path_factory.mktemp("impact") / "table.csv"
    frame.to_csv(path, index=False)
    return path


def call(table, *words, code=0):
    result = CliRunner().invoke(app, ["impact", str(table), "--outcome", "kd490", *words])
    assert result.exit_code == code, result.output
    return result


def test_json_is_strict_and_follows_its_schema(table):
    said = call(
        table, "--event", "2016-01", "--draws", "400", "--held-out", "0.25", "--json"
    ).stdout
    record = json.loads(said, parse_constant=lambda word: pytest.fail(word))
    ImpactAnswer.model_validate(record)
    average = record["average"]
    assert average["effect_low"] < 0.8 < average["effect_high"]
    assert average["effect"] == pytest.approx(average["actual"] - average["predicted"])
    assert record["cumulative"]["effect"] == pytest.approx(24 * average["effect"])
    assert set(record["relative"]) == {"effect", "effect_sd", "effect_low", "effect_high"}
    assert record["inclusion"] == {"control": pytest.approx(1.0)}
    assert record["p_value"] < 0.01
    assert record["held_out"]["n"] == 18
    assert (record["engine"], record["draws"], record["seed"]) == ("grid", 400, 1)
    assert record["learned_from"] == {"first": "2010-01", "last": "2015-12", "n": 72}
    assert record["notes"] == ["Not taken as controls: flat, step (constant, or counting rows)."]


def test_a_number_that_does_not_exist_is_null(table, tmp_path):
    frame = pd.read_csv(table)
    frame["kd490"] -= frame["kd490"].mean()
    frame.to_csv(tmp_path / "around.csv", index=False)
    said = call(tmp_path / "around.csv", "--event", "72", "--draws", "300", "--controls", "none",
                "--json").stdout  # fmt: skip
    record = json.loads(said)
    assert set(record["relative"].values()) == {None}
    assert any("may be zero" in note for note in record["notes"])
    assert record["inclusion"] == {}


def test_the_command_says_what_the_function_does(table):
    record = json.loads(
        call(table, "--event", "72", "--compat", "R", "--draws", "500", "--json").stdout
    )
    frame = pd.read_csv(table, parse_dates=["date"], index_col="date")
    found = bsts(
        frame["kd490"], Event("2016-01"), frame[["control"]],
        model=StructuralModel(prior=CompatiblePrior()), draws=500, seed=1,
    )  # fmt: skip
    assert record["average"]["effect"] == found.effects.row()["effect"]
    assert record["tail"] == "one-sided"
    assert record["event"] == "row 72"


def test_words_figure_and_series(table, tmp_path):
    files = ["--plot", str(tmp_path / "a.svg"), "--series", str(tmp_path / "a.csv")]
    said = call(table, "--event", "2016-01", "--end", "2016", "--draws", "200", *files).stdout
    assert "Effect (s.d.)" in said
    assert "From 2016-01 to 2016-12 (12 values), kd490" in said
    assert "only if nothing else" in said
    assert (tmp_path / "a.svg").read_bytes().startswith(b"<?xml")
    series = pd.read_csv(tmp_path / "a.csv")
    assert len(series) == 96
    assert series["post"].sum() == 12
    assert (
        "cannot be written as .bmp"
        in call(table, "--event", "2016-01", "--draws", "200", "--plot", "a.bmp", code=2).stderr
    )


def test_models_in_words():
    assert read_model(ModelWords()) == StructuralModel()
    words = ModelWords("trend", "12", "R", 0.1, engine="gibbs")
    expected = StructuralModel(
        (Season(12),), Trend.LOCAL_LINEAR, prior=CompatiblePrior(0.1), engine=Engine.GIBBS
    )
    assert read_model(words) == expected
    assert read_model(ModelWords(season="7,52x7")).season == (Season(7), Season(52, 7))
    assert read_model(ModelWords(season="1")).season is None
    assert repr(read_transform(log=True, logit=False)) == "Log()"
    assert read_transform(log=False, logit=False) is None


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ({"trend": "linear"}, "not a model"),
        ({"compat": "python"}, "compatible"),
        ({"engine": "stan"}, "not an engine"),
        ({"prior_level_sd": 0.1}, "without --compat R"),
        ({"season": "monthly"}, "not a season"),
    ],
)
def test_unknown_words_are_refused(words, said):
    with pytest.raises(EstimationError, match=said):
        read_model(ModelWords(**words))


def test_two_scales_at_once_are_refused():
    with pytest.raises(EstimationError, match="together"):
        read_transform(log=True, logit=True)


@pytest.mark.parametrize(
    ("columns", "first", "last"),
    [
        ({"year": DATES.year, "month": DATES.month}, "2010-01-01", "2017-12-01"),
        ({"Date": DATES.strftime("%d/%m/%Y")}, "2010-01-01", "2017-12-01"),
        ({"time": DATES.year * 100 + DATES.month}, "2010-01-01", "2017-12-01"),
        ({"time": DATES.year * 10_000 + DATES.month * 100 + 15}, "2010-01-15", "2017-12-15"),
        ({"time": DATES.year + (DATES.month - 0.5) / 12}, "2010-01-01", "2017-12-01"),
        ({"when": DATES.strftime("%b %Y")}, "2010-01-01", "2017-12-01"),
        ({"year": np.arange(1920, 2016)}, "1920-01-01", "2015-01-01"),
    ],
)
def test_times_are_found(columns, first, last):
    found = timed(pd.DataFrame({**columns, "y": np.arange(96.0), "word": "a"}))
    assert found.dated
    assert set(found.columns) == set(columns)
    assert found.table.index[[0, -1]].tolist() == [pd.Timestamp(first), pd.Timestamp(last)]


def test_rows_are_times_where_there_are_no_dates():
    frame = pd.DataFrame({"y": np.arange(9.0), "word": list("abcdefghi")})
    found = timed(frame)
    assert isinstance(found.table.index, pd.RangeIndex)
    assert read_events(found, ["5"], "7", None) == (EventRow(5, 7), None)
    with pytest.raises(AlignmentError, match="not a row"):
        read_events(found, ["2019-05"], None, None)
    numbered = timed(frame.assign(time=range(1, 10)))
    assert read_events(numbered, ["6"], "8", "4") == (EventRow(5, 7), 3)
    with pytest.raises(AlignmentError, match="does not read as dates"):
        timed(frame, "word")
    with pytest.raises(MissingColumnError):
        timed(frame, "date")


def test_rows_out_of_order_are_sorted_and_said():
    found = timed(pd.DataFrame({"date": DATES[::-1].astype(str), "y": np.arange(96.0)}))
    assert found.table["y"].iloc[0] == 95
    assert found.notes == ("Rows were sorted by date.",)


def test_events_in_words():
    found = timed(pd.DataFrame({"date": DATES.astype(str), "y": np.arange(96.0)}))
    assert read_events(found, ["2016-01"], "2016", "2015") == (Event("2016-01", "2016"), "2015")
    assert read_events(found, ["2016"], None, "71") == (Event("2016"), 71)
    assert read_events(found, ["72"], None, None) == (EventRow(72), None)
    assert read_events(found, ["2031"], None, None) == (Event("2031"), None)
    several, _ = read_events(found, ["2012-01..2012-06", "2016"], None, None)
    assert several == [Event("2012-01", "2012-06"), Event("2016")]
    with pytest.raises(DesignError, match="several events"):
        read_events(found, ["2012", "2016"], "2017", None)
    with pytest.raises(AlignmentError, match="the other a row"):
        read_events(found, ["2012-03"], "90", None)


def test_controls_and_looks_by_name(table):
    frame = pd.read_csv(table).assign(n=[*range(1, 90), 0, *range(1, 7)])
    frame.loc[frame["n"] == 0, "kd490"] = np.nan
    path = table.parent / "looks.csv"
    frame.to_csv(path, index=False)
    asked = TableImpact("kd490", ("2016-01",), looks="n", controls="control")
    found, _ = impact_table(path, asked, StructuralModel(), ImpactDraws(200))
    assert found.inclusion.index.tolist() == ["control"]
    assert found.effects.n == 23
    with pytest.raises(MissingColumnError, match="closest: 'control'"):
        impact_table(path, TableImpact("kd490", ("72",), controls="contrl"), StructuralModel())


def test_the_published_schema_is_current():
    stored = json.loads((ROOT / "docs/schema/impact.schema.json").read_text(encoding="utf-8"))
    assert stored == json.loads(json.dumps(impact_schema()))
