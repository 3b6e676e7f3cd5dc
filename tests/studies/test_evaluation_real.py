"""Aid projects in Africa, on a third of the survey clusters and a few kinds of projects."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import yaml

from eocausal.studies.run import run_study

ROOT = Path(__file__).resolve().parents[2]
FEW = "420"

pytestmark = [pytest.mark.realdata, pytest.mark.slow]


@pytest.fixture(scope="module")
def run(real_data, tmp_path_factory):
    folder = tmp_path_factory.mktemp("africa")
    wealth, aid = real_data("africa_wealth"), real_data("aiddata")
    places = pd.read_csv(wealth / "dhs_preds_incountry.csv").iloc[::3]
    places.to_csv(folder / "places.csv", index=False)
    projects = pd.read_csv(aid / "interventions_africa_2002_2014.csv")
    wanted = projects["ad_sector_codes"].astype(str).isin(["120", "210", FEW])
    projects[wanted].to_csv(folder / "projects.csv", index=False)
    text = (ROOT / "pipelines" / "africa_aid.yaml").read_text(encoding="utf-8")
    study = yaml.safe_load(text)
    study["data"]["root"] = str(folder)
    study["data"]["neighborhoods"]["file"] = "places.csv"
    study["data"]["projects"]["file"] = "projects.csv"
    study["data"]["imagery"]["files"] = str(real_data("bluemarble") / "bluemarble_2004_africa.tif")
    study["data"]["encoder"] = {"random_conv": {"features": 48, "patch": 3}}
    study["embedding"] = {}
    study["estimate"]["correct"]["predictions"] = ["Resnet-18 MS+NL concat"]
    study["estimate"]["headline"] = {"funder": "World Bank", "sector": "transport"}
    study["estimate"]["map"] = False
    study["checks"] = {"spillover_km": [50]}
    path = folder / "africa_aid.yaml"
    path.write_text(yaml.safe_dump(study, sort_keys=False), encoding="utf-8")
    return run_study(path, folder / "run")


@pytest.fixture(scope="module")
def table(run):
    return pd.DataFrame(list(run.records))


def test_both_funders_have_effects_or_a_reason(table):
    kinds = table[table["adjustment"].isin(["table", "image", "both"])]
    for _, rows in kinds.groupby(["funder", "sector", "adjustment"]):
        given = rows["estimate"].notna()
        assert (given | (rows["note"].str.len() > 20)).all()
        assert given.any() or set(rows["status"]) <= {"few", "refused"}
    assert {"World Bank", "China"} <= set(kinds["funder"])
    few = kinds[kinds["status"] == "few"]
    assert set(few["sector"]) == {"women in development"}
    assert (few["n_treated"] < 100).all()


def test_effects_are_those_of_places_compared(table):
    first = table.iloc[0]
    assert first["primary"]
    assert (first["funder"], first["sector"], first["adjustment"]) == (
        "World Bank", "transport", "both",
    )  # fmt: skip
    assert 4500 < first["n"] < 6557
    assert 2000 < first["n_treated"] < 4000
    assert first["vcov"].startswith("Conley(km=100")
    assert abs(first["estimate"]) < 0.6


def test_images_of_ten_kilometres_leave_what_the_table_removes(table):
    """Rich places got projects: the less is adjusted for, the larger the effect looks."""
    overlap = table[table["population"] == "population with overlap"]
    by = overlap[overlap["sector"] == "health"].set_index(["funder", "adjustment"])["estimate"]
    for funder in ("World Bank", "China"):
        assert by[funder, "image"] > by[funder, "table"]


def test_funders_are_compared_with_joint_influence(table):
    gaps = table[table["funder"] == "World Bank minus China"]
    assert set(gaps["sector"]) == {"health", "transport"}
    assert np.isfinite(gaps["std_error"]).all()
    assert (gaps["estimate"] - (gaps["of"] - gaps["minus"])).abs().max() < 1e-9


def test_image_words_and_corrections(run, table):
    seen = table[table["adjustment"].isin(["image", "both"]) & table["estimate"].notna()]
    seen = seen[seen["population"].isin(["asked for", "stands in", "population with overlap"])]
    assert seen["image_words"].str.contains("R²").all()
    corrected = table[table["population"] == "predicted outcome"]
    assert len(corrected) == 4
    assert "transport" in run.claim
    report = (run.folder / "report.html").read_text(encoding="utf-8")
    assert "The last image is of 2004-12-31" in report
    assert "How predictable is placement?" in report
