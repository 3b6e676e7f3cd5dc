"""A small world with a study, for tests that run one."""

import json
import os
import subprocess
import sys
from pathlib import Path

from eocausal.provenance import hash_tree
from eocausal.simulate.world import WorldConfig, render_world

WORLD = WorldConfig(
    seed=3, n_neighborhoods=44, n_trial=30, chip_px=12, years=(2016, 2017), scenes_per_year=1
)

STUDY = """\
study: A small trial
seed: 5
data:
  root: world
  units: {file: units.csv, id: unit}
  neighborhoods: {file: neighborhoods.gpkg, id: neighborhood}
  imagery:
    files: scenes
    bands: [green, red, nir]
    mask: {nonzero: {band: clear}}
    resolution: 30
    size: 12
    periods: [2016/2017]
  encoder: {random_conv: {features: 16}}
design:
  trial: {arm: arm, cluster: neighborhood, prob: prob, start: 2018-01-01}
estimate:
  outcome: income
  covariates: [age, female]
  vcov: [hc2, {conley: {km: 10}}]
  heterogeneity: {folds: 3, splits: 2}
checks: [leakage, {balance: {draws: 199}}, {attrition: {draws: 199}}]
report: {truth: truth.json}
"""


def small_study(folder: Path) -> Path:
    """Render the world and write its study; returns the study's path."""
    render_world(WORLD, folder / "world")
    path = folder / "study.yaml"
    path.write_text(STUDY, encoding="utf-8")
    return path


def command(*arguments: object) -> list[str]:
    """Return the command line of eocausal in this environment."""
    return [sys.executable, "-m", "eocausal", *map(str, arguments)]


def environment() -> dict[str, str]:
    """Return an environment in which warnings are errors and threads few."""
    return {**os.environ, "PYTHONWARNINGS": "error", "OMP_NUM_THREADS": "1", "COLUMNS": "200"}


def eocausal(*arguments: object, cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
    """Run the command line."""
    return subprocess.run(
        command(*arguments), capture_output=True, text=True, cwd=cwd, env=environment(),
        timeout=600, check=False,
    )  # fmt: skip


def output_hashes(run: Path) -> dict[str, str]:
    """Hash everything a run left, but for its own notes and the timings."""
    hashes = {
        p.name: hash_tree(p)
        for p in sorted(run.iterdir())
        if not p.name.startswith(".") and p.name != "provenance.json"
    }
    provenance = json.loads((run / "provenance.json").read_text(encoding="utf-8"))
    del provenance["timings"]
    hashes["provenance.json"] = json.dumps(provenance, sort_keys=True)
    return hashes
