"""Studies that ingest: what they leave, that nothing is done twice, locks, real archives."""

import io
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
import yaml
from ingest_helpers import centred, write_tif
from rich.console import Console
from stac_server import StacServer, make_item
from study_helpers import STUDY, command, environment, eocausal, small_study

from eocausal.errors import BandError, IngestError, StudyError, TooManyFailuresError
from eocausal.ingest import schedule
from eocausal.ingest.panels import read_panel
from eocausal.ingest.schedule import Threads, read_scheduler
from eocausal.ingest.store import open_cube
from eocausal.provenance import hash_tree
from eocausal.studies.ingest import plan_ingestion, run_ingestion
from eocausal.studies.load import read_any, read_ingestion, read_study
from eocausal.studies.progress import Live
from eocausal.studies.run import run_study
from eocausal.studies.validate import validate_study

PIPELINES = Path(__file__).resolve().parents[2] / "pipelines"

ONLY = """\
study: Only images
data:
  root: world
  neighborhoods: {file: neighborhoods.gpkg, id: neighborhood}
  imagery:
    files: scenes
    bands: [red, nir, "ndvi = (nir - red) / (nir + red)"]
    mask: {nonzero: {band: clear}}
    composite: medoid
    count_band: clear_looks
    resolution: 30
    size: 12
    periods: {every: year, from: 2016, to: 2017}
  panel:
    bands: [nir]
    mask: {nonzero: {band: clear}}
    statistics: [mean, {quantile: {q: 0.25}}]
    periods: [2016/2017]
"""


@pytest.fixture(scope="module")
def world(tmp_path_factory) -> Path:
    return small_study(tmp_path_factory.mktemp("ingest")).parent


def written(folder: Path, text: str, name: str = "only.yaml") -> Path:
    path = folder / name
    path.write_text(text, encoding="utf-8")
    return path


@pytest.fixture(scope="module")
def only(world) -> Path:
    return written(world, ONLY)


@pytest.fixture(scope="module")
def finished(only, tmp_path_factory):
    return run_ingestion(only, tmp_path_factory.mktemp("out") / "run")


def test_it_leaves_cube_panel_lock_failures_and_provenance(only, finished):
    left = {p.name for p in finished.folder.iterdir() if not p.name.startswith(".")}
    assert left == {
        "cube.zarr", "panel.parquet", "scenes.lock.json", "failures.parquet", "provenance.json",
        "study.yaml",
    }  # fmt: skip
    cube = open_cube(finished.folder / "cube.zarr")
    assert list(cube["band"].values) == ["red", "nir", "ndvi", "clear_looks"]
    assert list(cube["period"].values) == ["2016", "2017"]
    red, nir, ndvi, looks = (cube["image"].sel(band=b).values for b in cube["band"].values)
    seen = np.isfinite(ndvi)
    assert seen.mean() > 0.5
    np.testing.assert_allclose(ndvi[seen], ((nir - red) / (nir + red))[seen], rtol=1e-4)
    assert set(np.unique(looks[seen])) <= {1, 2}
    panel = read_panel(finished.folder / "panel.parquet")
    assert {"nir_mean", "nir_q25", "nir_coverage"} <= set(panel.data_vars)
    assert panel.sizes["neighborhood"] == 44
    inputs = json.loads((finished.folder / "provenance.json").read_text())["inputs"]
    assert set(inputs) == {"neighborhoods", "imagery"}
    assert all(name.startswith("scenes/") for name in inputs["imagery"])


def test_a_second_ingestion_does_nothing_and_threads_change_no_byte(only, finished, tmp_path):
    assert finished.ran == ("Find scenes", "Cut chips", "Summarize", "Collect failures")
    assert run_ingestion(only, finished.folder).ran == ()
    other = run_ingestion(only, tmp_path / "run", scheduler=Threads(1))
    for name in ("cube.zarr", "panel.parquet", "failures.parquet", "study.yaml"):
        assert hash_tree(other.folder / name) == hash_tree(finished.folder / name), name


def test_the_resolved_study_is_the_study(only, finished):
    again = read_ingestion(finished.folder / "study.yaml").study
    assert again == read_ingestion(only).study


def test_a_study_that_was_moved_cuts_no_chip_again_but_new_ones_from_where_it_is(
    world, finished, tmp_path
):
    shutil.copytree(world / "world", tmp_path / "moved" / "world")
    shutil.copytree(finished.folder, tmp_path / "run")
    own = written(tmp_path / "moved", ONLY)
    assert run_ingestion(own, tmp_path / "run").ran == ("Collect failures",)
    anew = run_ingestion(own, tmp_path / "anew").folder
    for name in ("cube.zarr", "panel.parquet"):
        assert hash_tree(anew / name) == hash_tree(finished.folder / name)
    changed = written(tmp_path / "moved", ONLY.replace("size: 12", "size: 10"))
    assert "Find scenes" not in run_ingestion(changed, tmp_path / "run").ran
    assert open_cube(tmp_path / "run" / "cube.zarr").sizes["x"] == 10


def test_a_run_of_the_whole_study_uses_what_was_ingested(world, tmp_path):
    whole = written(world, STUDY, "whole.yaml")
    first = run_ingestion(whole, tmp_path / "run")
    assert first.ran == ("Find scenes", "Cut chips", "Collect failures")
    ran = run_study(whole, tmp_path / "run").ran
    assert "Average effect" in ran
    assert not {"Find scenes", "Cut chips"} & set(ran)


def test_a_run_makes_the_panel_that_a_study_asks_for(world, tmp_path):
    panel = "  panel: {bands: [nir], periods: [2016/2017]}\n  encoder:"
    whole = written(world, STUDY.replace("  encoder:", panel), "panel.yaml")
    run_study(whole, tmp_path / "run")
    assert read_panel(tmp_path / "run" / "panel.parquet").sizes["time"] == 1
    run_study(written(world, STUDY, "panel.yaml"), tmp_path / "run")
    assert not (tmp_path / "run" / "panel.parquet").exists()


def test_a_run_of_a_study_without_a_design_says_what_is_missing(only, tmp_path):
    with pytest.raises(StudyError, match="only ingests: it has no design and no estimate"):
        run_study(only, tmp_path / "run")
    shown = eocausal("run", only, "--out", tmp_path / "run")
    assert shown.returncode == 2
    assert f"eocausal ingest {only} --out FOLDER" in shown.stderr
    assert not (tmp_path / "run").exists()
    with pytest.raises(StudyError, match="problem") as caught:
        read_study(written(tmp_path, ONLY + "design:\n  trial: {arm: a}\n"))
    assert any("data.units: missing" in p for p in caught.value.problems)


def test_the_plan_counts_what_would_be_read_and_reads_nothing(only, tmp_path):
    plan = plan_ingestion(only)
    assert (plan.cube.neighborhoods, plan.cube.periods) == (44, ("2016", "2017"))
    assert plan.cube.bands == ("red", "nir", "ndvi", "clear_looks")
    assert 0 < plan.cube.blocks <= plan.cube.block_uses
    shown = eocausal("ingest", only, "--plan", cwd=tmp_path)
    assert shown.returncode == 0, shown.stderr
    assert "blocks are decoded" in shown.stdout
    assert "12 x 12 pixels of 30 m, 4 bands" in shown.stdout
    assert "Rough estimate" in shown.stdout
    assert "44 neighborhoods x 1 times; bands nir; statistics mean, quantile." in shown.stdout
    record = json.loads(eocausal("ingest", only, "--plan", "--json", cwd=tmp_path).stdout)
    assert record["cube"]["read_bytes"] == plan.cube.read_bytes
    assert not list(tmp_path.iterdir())


def test_the_command_says_what_it_left_and_exits_two_if_too_much_failed(only, world, tmp_path):
    shown = eocausal("ingest", only, "--out", tmp_path / "run", "--scheduler", "threads:1")
    assert shown.returncode == 0, shown.stderr
    assert "cube.zarr: 44 neighborhoods x 2 periods, 12 x 12 pixels" in shown.stdout
    again = eocausal("ingest", only, "--out", tmp_path / "run", "--json")
    assert json.loads(again.stdout)["ran"] == []
    dark = written(world, ONLY.replace("from: 2016, to: 2017", "from: 1990, to: 1991"), "dark.yaml")
    refused = eocausal("ingest", dark, "--out", tmp_path / "dark")
    assert refused.returncode == 2
    assert "have no valid pixel" in refused.stderr
    assert len(pd.read_parquet(tmp_path / "dark" / "failures.parquet"))
    wrong = eocausal("ingest", only, "--out", tmp_path / "run", "--scheduler", "thread:1")
    assert wrong.returncode == 2
    assert "is not a scheduler" in wrong.stderr


def test_max_failed_is_the_line_between_failing_and_going_on(world, tmp_path):
    third = ONLY.replace("from: 2016, to: 2017", "from: 2016, to: 2018")
    run_ingestion(written(world, third, "third.yaml"), tmp_path / "third")
    text = third.replace("    size: 12", "    size: 12\n    max_failed: 0.3")
    strict = written(world, text, "strict.yaml")
    with pytest.raises(TooManyFailuresError):
        run_ingestion(strict, tmp_path / "strict")
    assert (tmp_path / "strict" / "cube.zarr").exists()


@pytest.mark.skipif(os.name == "nt", reason="SIGINT cannot be sent to one process on Windows")
def test_an_interrupted_ingestion_exits_130_and_a_rerun_ends_with_the_same_bytes(
    only, finished, tmp_path
):
    run = tmp_path / "run"
    process = subprocess.Popen(
        command("ingest", only, "--out", run), env=environment(), text=True,
        stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    )  # fmt: skip
    limit = time.monotonic() + 120
    while not (run / ".stages" / "scenes.json").exists():
        assert time.monotonic() < limit
        time.sleep(0.001)
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=60)
    assert process.returncode == 130, (out, err)
    assert "Rerun the same command to resume" in err
    assert "Traceback" not in err
    run_ingestion(only, run)
    for name in ("cube.zarr", "panel.parquet"):
        assert hash_tree(run / name) == hash_tree(finished.folder / name)


@pytest.mark.skipif(os.name == "nt", reason="Windows has no limit on the size of files")
def test_a_disk_that_is_full_is_said_in_a_sentence_and_a_rerun_goes_on(only, finished, tmp_path):
    def limited() -> None:
        import resource

        resource.setrlimit(resource.RLIMIT_FSIZE, (30_000, 30_000))

    done = subprocess.run(
        command("ingest", only, "--out", tmp_path / "run"), env=environment(), text=True,
        capture_output=True, check=False, preexec_fn=limited,
    )  # fmt: skip
    assert done.returncode == 2, done.stderr
    assert "File too large" in done.stderr
    assert "Rerun the same command" in done.stderr
    assert "Traceback" not in done.stderr
    again = run_ingestion(only, tmp_path / "run")
    assert hash_tree(again.folder / "cube.zarr") == hash_tree(finished.folder / "cube.zarr")


def test_a_cluster_without_workers_is_said(only, tmp_path, monkeypatch):
    from distributed import LocalCluster

    monkeypatch.setattr(schedule, "_PATIENCE", 0.5)
    with (
        LocalCluster(
            n_workers=0, processes=False, protocol="tcp", host="127.0.0.1",
            dashboard_address="127.0.0.1:0", scheduler_kwargs={"dashboard": False},
        ) as cluster,
        pytest.raises(IngestError, match="has no worker"),
    ):  # fmt: skip
        run_ingestion(only, tmp_path, scheduler=read_scheduler(cluster.scheduler_address))


def test_a_stage_that_is_up_to_date_takes_no_time():
    console = Console(file=io.StringIO(), force_terminal=True, width=100)
    with Live.on(console) as live:
        live.done("Find scenes")
        time.sleep(1.1)
    last = console.file.getvalue().rsplit("Find scenes", 1)[1]
    assert "0:00:00" in last
    assert "0:00:01" not in last


@pytest.mark.parametrize(
    ("old", "new", "error", "where"),
    [
        ("bands: [red, nir,", "bands: [red, nirr,", BandError, "data.imagery.bands[1]: no image"),
        ("/ (nir + red)", "/ (nir + )", IngestError, "data.imagery.bands[2]"),
        ("{nonzero: {band: clear}}\n    comp", "{scl: {drop: cloudy}}\n    comp", IngestError,
         "data.imagery.mask"),
        ("every: year", "every: fortnight", IngestError, "data.imagery.periods"),
        ("panel:\n    bands: [nir]", "panel:\n    bands: [nil]", BandError, "data.panel.bands[0]"),
        ("statistics: [mean,", "harmonize: sentinel2_offset\n    statistics: [mean,", None,
         "data.panel.harmonize"),
    ],
)  # fmt: skip
def test_what_is_wrong_is_found_before_a_pixel_is_read(world, tmp_path, old, new, error, where):
    assert old in ONLY
    path = written(world, ONLY.replace(old, new), "wrong.yaml")
    for check in (validate_study, plan_ingestion):
        with pytest.raises(StudyError) as caught:
            check(path)
        assert any(where in p for p in caught.value.problems), caught.value.problems
    if error is not None:
        with pytest.raises(error):
            run_ingestion(path, tmp_path / "run")


STAC = """\
study: From a catalog
data:
  neighborhoods: {file: places.csv, id: place, size_m: 300}
  imagery:
    stac: {url: "URL", collections: c, bands: {red: red, near: nir}, query: {"eo:cloud_cover": {lt: 50}}}
    lock: scenes.lock.json
    bands: [red, near]
    resolution: 30
    size: 10
    periods: {dates: {within: 1}}
"""  # noqa: E501


@pytest.fixture
def archive(tmp_path):
    """Serve two dates with a file for each band, and a cloudy one that the query leaves out."""
    with StacServer(tmp_path / "served") as server:
        for day, cloud in (("01", 5), ("09", 20), ("20", 90)):
            paths = {}
            for band, value in (("red", 100), ("nir", 300)):
                values = np.full((1, 20, 20), value + int(day), dtype=np.uint16)
                paths[band] = write_tif(
                    server.folder / f"{day}_{band}.tif", values, "EPSG:32636",
                    centred("EPSG:32636", 32.5, 0.3, 30.0, 20, 20),
                )  # fmt: skip
            server.add_item(
                f"item{day}", paths, when=f"2020-06-{day}", collection="c",
                properties={"eo:cloud_cover": cloud},
            )  # fmt: skip
        (tmp_path / "places.csv").write_text("place,lon,lat\na,32.5,0.3\n", encoding="utf-8")
        yield server


def test_a_search_is_locked_and_not_repeated(archive, tmp_path):
    study = written(tmp_path, STAC.replace("URL", archive.url))
    first = run_ingestion(study, tmp_path / "run")
    cube = open_cube(first.folder / "cube.zarr")
    assert list(cube["period"].values) == ["2020-06-01", "2020-06-09"]
    assert cube["image"].sel(period="2020-06-09", band="near").values.ravel()[50] == 309
    lock = tmp_path / "scenes.lock.json"
    assert lock.read_bytes() == (first.folder / "scenes.lock.json").read_bytes()
    searches = archive.count("/search")
    assert searches > 0
    archive.items.clear()
    for out in ("run", "fresh"):
        run_ingestion(study, tmp_path / out)
    assert archive.count("/search") == searches
    assert hash_tree(tmp_path / "fresh" / "cube.zarr") == hash_tree(first.folder / "cube.zarr")
    changed = written(tmp_path, STAC.replace("URL", archive.url).replace("lt: 50", "lt: 10"))
    with pytest.raises(StudyError, match="holds another search"):
        run_ingestion(changed, tmp_path / "run")


def test_without_a_lock_in_the_study_the_run_folder_keeps_the_search(archive, tmp_path):
    text = STAC.replace("URL", archive.url).replace("    lock: scenes.lock.json\n", "")
    study = written(tmp_path, text)
    run_ingestion(study, tmp_path / "run")
    searches = archive.count("/search")
    other = written(tmp_path, text.replace("size: 10", "size: 6"))
    assert "Find scenes" not in run_ingestion(other, tmp_path / "run").ran
    assert archive.count("/search") == searches
    run_ingestion(study, tmp_path / "locked", lock=str(tmp_path / "other.json"))
    assert (tmp_path / "other.json").exists()
    with pytest.raises(StudyError, match="A lock was given"):
        run_ingestion(written(tmp_path, ONLY), tmp_path / "no", lock="x.json")


def test_a_catalog_of_files_may_be_moved_and_a_changed_image_is_noticed(tmp_path):
    data = tmp_path / "one" / "data"
    image = write_tif(
        data / "red.tif", np.full((1, 20, 20), 7, dtype=np.uint8), "EPSG:32636",
        centred("EPSG:32636", 32.5, 0.3, 30.0, 20, 20),
    )  # fmt: skip
    item = make_item("a", {"red": ("./red.tif", image)}, when="2020-06-01", collection="c")
    catalog = {"type": "FeatureCollection", "features": [item]}
    (data / "items.json").write_text(json.dumps(catalog), encoding="utf-8")
    (tmp_path / "one" / "places.csv").write_text("place,lon,lat\na,32.5,0.3\n", encoding="utf-8")
    text = STAC.replace("size: 10", "size: 4")
    search = next(line for line in text.splitlines() if "stac:" in line)
    text = text.replace(search, "    catalog: {address: items.json, bands: {near: red}}")
    text = text.replace("imagery:", "imagery:\n    root: data").replace("[red, near]", "[near]")
    text = text.replace("    lock: scenes.lock.json\n", "")
    run_ingestion(written(tmp_path / "one", text), tmp_path / "run")
    (tmp_path / "one").rename(tmp_path / "two")
    study = tmp_path / "two" / "only.yaml"
    assert run_ingestion(study, tmp_path / "run").ran == ("Collect failures",)
    shutil.rmtree(tmp_path / "run" / "cube.zarr")
    assert run_ingestion(study, tmp_path / "run").ran == ("Cut chips",)
    write_tif(
        tmp_path / "two" / "data" / "red.tif", np.full((1, 20, 20), 9, dtype=np.uint8),
        "EPSG:32636", centred("EPSG:32636", 32.5, 0.3, 30.0, 20, 20),
    )  # fmt: skip
    run_ingestion(study, tmp_path / "run")
    assert (open_cube(tmp_path / "run" / "cube.zarr")["image"] == 9).all()


def test_a_cluster_by_its_address_gives_the_same_bytes(only, finished, tmp_path):
    from distributed import LocalCluster

    with LocalCluster(
        n_workers=1, threads_per_worker=2, processes=False, protocol="tcp",
        dashboard_address="127.0.0.1:0", scheduler_kwargs={"dashboard": False},
    ) as cluster:  # fmt: skip
        scheduler = read_scheduler(cluster.scheduler_address)
        other = run_ingestion(only, tmp_path / "run", scheduler=scheduler)
    for name in ("cube.zarr", "panel.parquet"):
        assert hash_tree(other.folder / name) == hash_tree(finished.folder / name)


def pipeline(name: tuple[str, str], real_data, monkeypatch, tmp_path):
    monkeypatch.setenv("EOCAUSAL_DATA", str(real_data(name[1]).parent))
    return run_ingestion(PIPELINES / f"{name[0]}.yaml", tmp_path / "run").folder


@pytest.mark.realdata
def test_pucallpa_is_a_sequence_of_eight(real_data, monkeypatch, tmp_path):
    run = pipeline(("pucallpa_sequence", "landsat_pucallpa"), real_data, monkeypatch, tmp_path)
    cube = open_cube(run / "cube.zarr")
    assert cube["image"].shape == (60, 8, 5, 32, 32)
    assert (cube["status"] == 0).all()
    image = cube["image"]
    # The river at B04 has left its bed of 1985 by 2000 (its near infrared is dark) and is back.
    dark = (image.sel(neighborhood="B04", band="nir") < 60).mean(("y", "x")).values
    assert dark[0] > 0.2
    assert dark[3] < 0.05
    assert dark[7] > 0.2
    # Two ways to the same numbers: mean of a chip's pixels, and of the polygon's.
    panel = read_panel(run / "panel.parquet")
    chips = image.sel(band="red", neighborhood=panel["neighborhood"].values).mean(("y", "x"))
    np.testing.assert_allclose(panel["red_mean"].values, chips.values, atol=0.1)


@pytest.mark.realdata
def test_oahu_has_300_months_with_gaps(real_data, monkeypatch, tmp_path):
    import xarray as xr

    run = pipeline(("oahu_chlorophyll", "ocean"), real_data, monkeypatch, tmp_path)
    panel = read_panel(run / "panel.parquet")
    assert panel["chl_mean"].shape == (6, 300)
    assert str(panel["time"].values[-1])[:7] == "2022-12"
    assert 0 < panel["chl_mean"].isnull().mean() < 0.1
    file = real_data("ocean") / "esa_cci_monthly_chl-a_masked.nc"
    places = pd.read_csv(PIPELINES / "places" / "oahu.csv", index_col="place")
    with xr.open_dataset(file, decode_times=False) as grid:
        for label in panel["neighborhood"].values:
            lon, lat = places.loc[label, ["lon", "lat"]]
            near = grid["chlor_a"].where(
                (abs(grid["longitude"] - lon % 360) < 0.09) & (abs(grid["latitude"] - lat) < 0.09)
            )
            mine = panel["chl_mean"].sel(neighborhood=label).mean()
            assert float(mine) == pytest.approx(float(near.mean()), rel=0.25)


@pytest.mark.realdata
def test_morowali_has_the_built_area_of_the_paper(real_data, monkeypatch, tmp_path):
    run = pipeline(("morowali_landcover", "morowali"), real_data, monkeypatch, tmp_path)
    built = read_panel(run / "panel.parquet")["lulc_area_built"].sum("neighborhood") / 1e6
    # The paper counts every pixel as 100 square metres; on the ellipsoid they are 0.7 % smaller.
    assert float(built[0]) == pytest.approx(12.3, rel=0.015)
    assert float(built[-1]) == pytest.approx(46.2, rel=0.015)
    table = gpd.read_parquet(run / "panel.parquet")
    assert len(table) == 4 * 8


def test_what_the_shipped_studies_say_is_yaml_that_they_resolve_to(tmp_path, monkeypatch):
    from eocausal.studies.engine import resolved

    monkeypatch.delenv("EOCAUSAL_DATA", raising=False)
    for path in PIPELINES.glob("*.yaml"):
        study = read_any(path).study
        text = yaml.safe_dump(resolved(study), sort_keys=False)
        assert read_any(written(tmp_path, text)).study == study
