"""A small world with projects and a study that evaluates them."""

from pathlib import Path

from eocausal.simulate.world import WorldConfig, render_world

WORLD = WorldConfig(
    seed=5, n_neighborhoods=320, n_trial=4, chip_px=14, years=(2017,), scenes_per_year=2
)

EVALUATION = """\
study: Projects in a small country
seed: 5
data:
  root: world
  neighborhoods: {file: neighborhoods.gpkg, id: neighborhood}
  outcomes: {file: wealth.csv}
  projects:
    file: projects.csv
    start: start_year
    sector: sector
    names: {all funders: Fund}
  imagery:
    files: scenes
    bands: [blue, green, red, nir, swir1]
    mask: {nonzero: {band: clear}}
    resolution: 30
    size: 14
    periods: [2017]
  encoder: {spectral_stats: {texture: false}}
design:
  placement:
    year: 2021
    first: 2018-01-01
    within_km: 0.3
    fewest: 50
estimate:
  outcome: wealth_2021
  covariates: [stratum, lon, lat]
  history: false
  folds: {blocks_km: 1.5, k: 4}
  conley_km: 0.8
  headline: {funder: Fund, sector: transport}
  correct: {predictions: [wealth_2020], labelled: 0.4}
checks:
  placebo: [wealth_2017]
  leave_out: stratum
  spillover_km: [1]
report: {outcome: wealth, unit: standard deviations, truth: truth.json}
"""


def small_evaluation(folder: Path) -> Path:
    """Render the world and write its study; returns the study's path."""
    render_world(WORLD, folder / "world")
    path = folder / "study.yaml"
    path.write_text(EVALUATION, encoding="utf-8")
    return path
