"""Study files: everything wrong is said at once, with its line; published schemas are current."""

import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from eocausal.errors import StudyError
from eocausal.estimators.bases import ForestBasis, RidgeBasis
from eocausal.ingest import statistics
from eocausal.ingest.composites import (
    BestPixel,
    Mean,
    Median,
    Medoid,
    NearestDay,
    Percentile,
)
from eocausal.ingest.masks import CloudProbability, NonZero, QAPixel, SceneClassification, Values
from eocausal.studies.decisions import basis_of, composite_of, masks_of, statistics_of
from eocausal.studies.engine import resolved
from eocausal.studies.load import load_study, read_any, read_ingestion, read_study
from eocausal.studies.records import (
    estimates_schema,
    plain_records,
    study_schema,
    write_estimates,
)
from eocausal.studies.schema import BasisChoice, Opening
from eocausal.studies.schema_evaluation import Evaluation
from eocausal.studies.schema_imagery import CompositeChoice, MaskChoice, StatisticChoice
from eocausal.studies.template import write_template

ROOT = Path(__file__).resolve().parents[2]

GOOD = """\
study: Test
seed: 3
data:
  units: {file: units.csv, id: person, neighborhood: village}
  neighborhoods: {file: places.csv, id: village, size_m: 500}
  imagery:
    files: tif
    bands: [red, nir]
    resolution: 10
    time: 2005
design:
  trial: {arm: treated, cluster: village, start: 2008-01-01}
estimate:
  outcome: y
  covariates: [age]
  vcov: [hc2, clustered, {conley: {km: 50}}]
"""


def write(folder: Path, text: str) -> Path:
    path = folder / "study.yaml"
    path.write_text(text, encoding="utf-8")
    return path


def problems(folder: Path, text: str) -> list[str]:
    with pytest.raises(StudyError) as caught:
        read_study(write(folder, text))
    return list(caught.value.problems)


def test_a_good_study_has_defaults_and_text_dates(tmp_path):
    study = load_study(write(tmp_path, GOOD))
    assert study.design.trial.start == "2008-01-01"
    assert study.data.imagery.time == "2005"
    assert study.data.imagery.files == ("tif",)
    assert study.data.encoder.name == "random_conv"
    assert study.estimate.methods == ("difference_in_means", "lin", "aipw")
    assert [v.name for v in study.estimate.vcov] == ["hc2", "clustered", "conley"]
    assert study.data.root == str(tmp_path.resolve())


def test_all_problems_are_listed_at_once_with_line_closest_and_allowed(tmp_path):
    text = GOOD.replace("seed: 3", "sede: 3")
    text = text.replace("resolution: 10", "resolution: -10")
    text = text.replace("covariates: [age]", "covariate: [age]")
    text = text.replace("outcome: y", "missing_covariates: imputed")
    text = text.replace("[hc2, clustered", "[hc3, clustered")
    found = problems(tmp_path, text)
    assert found == [
        "line 2: sede: unknown key; closest: seed; allowed: study, seed, data, embedding, design, "
        "estimate, checks, report",
        "line 9: data.imagery.resolution: -10: must be greater than 0",
        "line 13: estimate.outcome: missing; this key is required",
        "line 14: estimate.missing_covariates: 'imputed' is not allowed; closest: impute; "
        "allowed: impute, drop, refuse",
        "line 15: estimate.covariate: unknown key; closest: covariates; allowed: outcome, "
        "covariates, missing_covariates, missing_outcome, average, vcov, level, heterogeneity, "
        "map, salience",
        "line 16: estimate.vcov[0].hc3: unknown key; closest: hc2; allowed: hc2, clustered, conley",
    ]


@pytest.mark.parametrize(
    ("old", "new", "line", "says"),
    [
        ("seed: 3", "seed: three", 2, "'three': must be a valid integer"),
        ("seed: 3", "seed: -1", 2, "greater than or equal to 0"),
        ("seed: 3", "seed: 4294967296", 2, "less than 4294967296"),
        ("seed: 3", "checks: {balance: {draws: 99}}", 2, "equal to 199"),
        ("files: tif", "files: []", 7, "the list is empty"),
        ("bands: [red, nir]", "bands: {red: 1}", 8, "must be a valid string"),
        ("time: 2005", "time: 2005-13-01", 10, "is not a date"),
        ("time: 2005", "time: soon", 10, "is not a date"),
        ("time: 2005", "time: 2008", 10, "not all older than the trial"),
        ("start: 2008-01-01", "prob: 1.5", 12, "not strictly between 0 and 1"),
        ("cluster: village, ", "", 15, "the design has no cluster"),
        ("{conley: {km: 50}}", "{conley: {km: 50}, hc2: }", 16, "exactly one of"),
        ("{conley: {km: 50}}", "{conley: }", 16, "km: missing"),
        ("covariates: [age]", "covariates: [age, age]", 15, "named twice"),
        ("covariates: [age]", "covariates: [y]", 15, "'y' is the outcome"),
        ("outcome: y", "outcome: treated", 14, "is the arm"),
        ("  covariates: [age]", "  average: lin", 15, "lin needs covariates"),
        ("  covariates: [age]", "  heterogeneity: false\n  map: true", 15, "a map needs"),
        ("  covariates: [age]", "  level: .nan", 15, "finite number"),
    ],
)
def test_wrong_values_say_what_is_allowed(tmp_path, old, new, line, says):
    text = GOOD.replace(old, new)
    assert text != GOOD
    found = problems(tmp_path, text)
    where = [p for p in found if says in p]
    assert where, found
    assert where[0].startswith((f"line {line}:", f"line {line + 1}:"))


IMAGERY = """\
study: Test
data:
  neighborhoods: {file: places.csv, id: village, size_m: 500}
  imagery:
    files: tif
    bands: [red, nir]
    resolution: 10
"""


@pytest.mark.parametrize(
    ("old", "new", "where", "says"),
    [
        ("    files: tif\n", "", "data.imagery", "no source of scenes"),
        ("files: tif", "files: tif\n    grids: {files: nc}", "data.imagery.grids", "one source"),
        ("files: tif", "files: tif\n    lock: a.json", "data.imagery.lock", "what a search found"),
        ("files: tif", "grids: {files: nc}\n    time: 2005", "data.imagery.time",
         "write grids.time"),
        ("files: tif", "grids: {files: nc}\n    band_names: [a]", "data.imagery.band_names",
         "write grids.variables"),
        ("files: tif", "stac: {url: u, collections: c, bands: [a]}\n    files_crs: EPSG:4326",
         "data.imagery.files_crs", "for files and grids"),
        ("files: tif", "stac: {url: u, collection: c, bands: [a]}", "data.imagery.stac.collection",
         "closest: collections"),
        ("resolution: 10", "resolution: 10\n    mask_band: clear", "data.imagery.mask_band",
         "unknown key; closest: mask"),
        ("resolution: 10", "resolution: 10\n    mask: {nonzero: {}}", "band", "missing"),
        ("resolution: 10", "resolution: 10\n    mask: [{qa_pixel: {dilate: -1}}]", "dilate",
         "greater than or equal to 0"),
        ("resolution: 10", "resolution: 10\n    composite: {percentile: {q: 101}}", "percentile.q",
         "less than or equal to 100"),
        ("resolution: 10", "resolution: 10\n    composite: modal", "data.imagery.composite.modal",
         "closest: median"),
        ("resolution: 10", "resolution: 10\n    harmonize: landsat", "data.imagery.harmonize",
         "closest: landsat_to_oli"),
        ("resolution: 10", "resolution: 10\n    periods: {every: month, from: 2015}",
         "data.imagery.periods", "every needs from and to"),
        ("resolution: 10", "resolution: 10\n    periods: {from: 2015, to: 2016}",
         "data.imagery.periods", "give labels, or every"),
        ("resolution: 10", "resolution: 10\n    periods: {every: month, form: 2015}",
         "data.imagery.periods.form", "closest: from"),
        ("  imagery:\n    files: tif\n    bands: [red, nir]\n    resolution: 10\n", "", "",
         "missing"),
        ("resolution: 10", "resolution: 10\n  panel: {bands: [a], statistics: [modus]}",
         "data.panel.statistics[0].modus", "unknown key"),
    ],
)  # fmt: skip
def test_wrong_sources_and_choices_say_what_to_write(tmp_path, old, new, where, says):
    assert old in IMAGERY
    with pytest.raises(StudyError) as caught:
        read_ingestion(write(tmp_path, IMAGERY.replace(old, new)))
    assert any(where in p and says in p for p in caught.value.problems), caught.value.problems


def test_every_way_to_write_imagery_reads_back_as_itself(tmp_path):
    more = """\
    mask: [scl, {values: {band: lulc, keep: [2, 5]}}]
    composite: {best_pixel: {by: ndvi}}
    harmonize: [sentinel2_offset]
    periods: {every: 8D, from: "2015-01", to: "2015-12"}
  panel:
    catalog: {address: catalog.json, bands: {red: B04}}
    bands: red
    statistics: [mean, {class_share: {classes: {built: 7, green: [2, 5]}}}]
    periods: {dates: {within: 3}}
  scheduler: tcp://host:8786
  memory_gb: 4
"""
    study = read_ingestion(write(tmp_path, IMAGERY + more)).study
    assert study.data.imagery.periods.start == "2015-01"
    assert study.data.panel.periods.dates.within == 3
    again = read_ingestion(write(tmp_path, yaml.safe_dump(resolved(study)))).study
    assert again == study
    short = IMAGERY + "    periods: dates\n    mask: qa_pixel\n    composite: medoid\n"
    section = read_ingestion(write(tmp_path, short)).study.data.imagery
    assert section.periods.dates is not None
    assert (section.mask[0].name, section.composite.name) == ("qa_pixel", "medoid")


def test_repeated_keys_are_refused_with_both_lines(tmp_path):
    found = problems(tmp_path, GOOD + "seed: 4\n")
    assert found == ["line 17: seed: the key is given twice, first in line 2"]


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "empty"),
        ("- a\n- b\n", "not a mapping"),
        ("study: [1\n", "this is not YAML"),
        ("a: !!python/object/apply:os.system [ls]\n", "this is not YAML"),
        ("[" * 5000, "nested"),
        ("a: &a [x, x, x, x, x, x, x, x, x, x]\n"
         + "".join(f"{chr(98 + i)}: &{chr(98 + i)} [{', '.join(['*' + chr(97 + i)] * 10)}]\n"
                   for i in range(8)), "too many"),
        ("a: &a [*a]\n", "deeply nested"),
        ("study: " + "x" * 1_000_001, "larger than"),
    ],
    ids=["empty", "list", "broken", "object", "deep", "bomb", "cycle", "huge"],
)  # fmt: skip
def test_hostile_files_are_refused(tmp_path, text, says):
    assert any(says in p for p in problems(tmp_path, text))


def test_not_text_and_not_there(tmp_path):
    path = tmp_path / "study.yaml"
    path.write_bytes(b"\xff\xfe\x00study")
    with pytest.raises(StudyError, match="UTF-8"):
        read_study(path)
    with pytest.raises(StudyError, match="cannot be read"):
        read_study(tmp_path / "none.yaml")


def test_root_is_taken_from_the_environment(tmp_path, monkeypatch):
    text = GOOD.replace("data:\n", "data:\n  root: ${EO_TEST_ROOT:-data}/x\n")
    monkeypatch.delenv("EO_TEST_ROOT", raising=False)
    assert load_study(write(tmp_path, text)).data.root == str(tmp_path / "data" / "x")
    monkeypatch.setenv("EO_TEST_ROOT", "/somewhere")
    assert load_study(write(tmp_path, text)).data.root == "/somewhere/x"
    monkeypatch.delenv("EO_TEST_ROOT")
    found = problems(tmp_path, text.replace(":-data", "").replace("seed", "sede"))
    assert len(found) == 2
    assert "'EO_TEST_ROOT'" in found[1]


def test_a_resolved_study_reads_back_as_itself(tmp_path):
    for extra in ("", "  heterogeneity: false\n", "  map: false\n"):
        study = load_study(write(tmp_path, GOOD + extra))
        again = load_study(write(tmp_path, yaml.safe_dump(resolved(study))))
        assert again == study


def test_the_template_is_a_valid_study(tmp_path):
    path = write_template(tmp_path / 'a "quoted": name.yaml')
    assert load_study(path).study == 'a "quoted": name'
    with pytest.raises(StudyError, match="exists"):
        write_template(path)


@pytest.mark.parametrize("name", sorted(p.name for p in (ROOT / "pipelines").glob("*.yaml")))
def test_shipped_studies_are_valid(name, monkeypatch):
    monkeypatch.delenv("EOCAUSAL_DATA", raising=False)
    assert isinstance(read_any(ROOT / "pipelines" / name).study, Opening)


@pytest.mark.parametrize(
    ("name", "schema"), [("estimates", estimates_schema), ("study", study_schema)]
)
def test_published_schema_is_current(name, schema):
    path = ROOT / "docs" / "schema" / f"{name}.schema.json"
    stored = json.loads(path.read_text(encoding="utf-8"))
    assert stored == json.loads(json.dumps(schema())), f"run: eocausal schema {name} > {path}"


def test_records_need_the_common_fields_and_have_no_nan():
    record = dict.fromkeys(("estimate", "std_error", "ci_low", "ci_high", "p_value"), float("nan"))
    record |= {"estimand": "ATE", "method": "m", "n": 3, "own": [float("inf"), 1]}
    (plain,) = plain_records([record])
    assert plain["estimate"] is None
    assert plain["own"] == [None, 1]
    assert "vcov" not in plain
    json.dumps(plain, allow_nan=False)
    del record["p_value"]
    with pytest.raises(ValueError, match="p_value"):
        plain_records([record])


def test_defaults_are_those_of_the_library():
    assert basis_of(BasisChoice.model_validate("ridge")) == RidgeBasis()
    assert basis_of(BasisChoice.model_validate("forest")) == ForestBasis()


def test_words_become_the_decisions_of_the_library():
    def said(kind: Any, *values: Any) -> list[Any]:
        return [kind.model_validate(v) for v in values]

    assert masks_of(said(MaskChoice, "qa_pixel", "scl", "cloud_probability")) == (
        QAPixel(), SceneClassification(), CloudProbability(),
    )  # fmt: skip
    options = ({"qa_pixel": {"drop": "cloud", "dilate": 2}}, {"values": {"band": "l", "keep": 2}})
    assert masks_of(said(MaskChoice, *options, {"nonzero": {"band": "clear"}})) == (
        QAPixel(drop=("cloud",), dilate=2), Values("l", keep=(2.0,)), NonZero("clear"),
    )  # fmt: skip
    named = said(
        CompositeChoice, "median", "mean", "medoid", {"percentile": {"q": 25}}, "best_pixel",
        {"nearest_day": {"month": 7, "day": 1}},
    )  # fmt: skip
    assert [composite_of(c) for c in named] == [
        Median(), Mean(), Medoid(), Percentile(25), BestPixel("ndvi"), NearestDay(7, 1),
    ]  # fmt: skip
    assert composite_of(None) is None
    share = {"class_share": {"classes": {"built": 7, "green": [2, 5]}}}
    words = said(StatisticChoice, "mean", "std", {"quantile": {"q": 0.9}}, share)
    assert statistics_of(words) == (
        statistics.Mean(), statistics.StdDev(), statistics.Quantile(0.9),
        statistics.ClassShare({"built": 7, "green": [2, 5]}),
    )  # fmt: skip


def test_nested_fields_are_json_in_the_csv_and_absent_ones_empty(tmp_path):
    plain = {"estimand": "ATE", "method": "m", "estimate": 1.0, "std_error": 0.5, "ci_low": 0.0,
             "ci_high": 2.0, "p_value": 0.1, "n": 9}  # fmt: skip
    write_estimates(tmp_path, [plain, {**plain, "covariates": ["age"]}])
    lines = (tmp_path / "estimates.csv").read_text(encoding="utf-8").splitlines()
    assert lines[1].endswith("9,")
    assert lines[2].endswith('9,"[""age""]"')


def test_the_template_of_an_evaluation_is_a_valid_study(tmp_path):
    path = write_template(tmp_path / "aid.yaml", "evaluation")
    study = load_study(path)
    assert isinstance(study, Evaluation)
    assert study.study == "aid"
    with pytest.raises(StudyError, match="no kind of study 'rct'"):
        write_template(tmp_path / "other.yaml", "rct")


def test_an_evaluation_that_is_resolved_reads_back_as_itself(tmp_path):
    study = load_study(write_template(tmp_path / "aid.yaml", "evaluation"))
    again = load_study(write(tmp_path, yaml.safe_dump(resolved(study))))
    assert again == study


def test_an_evaluation_is_told_by_its_design_or_else_by_its_projects(tmp_path):
    text = (write_template(tmp_path / "aid.yaml", "evaluation")).read_text(encoding="utf-8")
    found = problems(tmp_path, text.replace("  placement:\n", "  placment:\n"))
    assert any("design.placment: unknown key; closest: placement" in p for p in found)
    assert any("design.placement: missing" in p for p in found)
