"""A small simulated coast, tables of its zones, and studies of its event."""

import json
from pathlib import Path

import numpy as np
import pandas as pd
import xarray as xr

from eocausal.simulate.coast import simulate_coast, write_coast
from eocausal.simulate.config import CoastModel

COAST = CoastModel(first="2004-01", last="2015-12", event="2012-06", cloud_share=0.1)

GRID_STUDY = """\
study: A small coast
seed: 5
data:
  root: coast
  grids:
    water:
      file: kd490.nc
      variable: kd490
      zones:
        bay: {mask: {variable: zone, values: 1}}
        other: {mask: {variable: zone, values: 2}}
outcome: {series: water.bay, units: m-1}
event: {name: the port, when: 2012-06}
controls: [{series: water.other, name: other bay}]
model: {season: 12, draws: 500}
variants:
  without controls: {controls: []}
  with a line: {trend: line}
  maximum likelihood: {method: maximum_likelihood}
breaks: {draws: 99, sensors: [{date: 2008-01, what: a sensor enters}]}
checks:
  in_time: {horizon: 24}
  in_space: {series: water.*}
optics: true
map: {grid: water}
report: {outcome: Kd490 of the bay, truth: truth.json}
"""

TABLE_STUDY = """\
study: A table
seed: 5
data:
  root: coast
  tables:
    bays: {file: bays.csv, time: month}
outcome: {series: bays.bay, units: 0.01 m-1}
event: {name: the port, when: 2012-06}
controls: [{series: bays.other, name: other bay}]
model: {season: 12, draws: 500}
variants:
  R: {prior: compatible, season: 0}
breaks: false
checks: {in_space: false, control_breaks: false}
land_cover: {file: land.nc, variable: lulc, exclude: [water]}
published: {source: A paper, average: 1.2, p_value: 0.01, placebo_p_value: 0, placebos: 20}
"""


def small_coast(folder: Path) -> Path:
    """Render the coast, its tables and land cover; returns the folder of the files."""
    coast = folder / "coast"
    whole = simulate_coast(COAST, np.random.default_rng(3))
    data = whole.isel(lat=slice(3, 22), lon=slice(14, None))
    write_coast(data, coast / "kd490.nc")
    truth = {"event": "2012-06-01", "effect": COAST.effect, "units": "m-1"}
    (coast / "truth.json").write_text(json.dumps({"coast": truth}), encoding="utf-8")
    zone = data["zone"].to_numpy()
    kd = data["kd490"].to_numpy()
    means = {n: np.nanmean(kd[:, zone == z], axis=1) for n, z in (("bay", 1), ("other", 2))}
    table = pd.DataFrame({"month": data["time"].to_numpy(), **means})
    table[["bay", "other"]] *= 100.0
    table.to_csv(coast / "bays.csv", index=False)
    _land(coast / "land.nc")
    return coast


def _land(path: Path) -> None:
    """Trees become built area, faster from 2012 on."""
    rng = np.random.default_rng(1)
    years = np.arange(2009, 2016)
    shares = np.array([0.05, 0.07, 0.09, 0.16, 0.24, 0.3, 0.34])
    place = rng.random((30, 40))
    codes = np.where(place[None] < shares[:, None, None], 7, 2)
    codes[:, :, :10] = 1
    dims = ("time", "lat", "lon")
    cover = xr.DataArray(codes.astype("float32"), dims=dims, attrs={
        "flag_values": np.array([1, 2, 7]), "flag_meanings": "water trees built_area",
    })  # fmt: skip
    coords = {
        "time": pd.to_datetime([f"{y}-01-01" for y in years]),
        "lat": 1.5 - 0.001 * np.arange(30), "lon": 29.0 + 0.001 * np.arange(40),
    }  # fmt: skip
    xr.Dataset({"lulc": cover}, coords=coords).to_netcdf(path, engine="h5netcdf")


def written(folder: Path, text: str, *pairs: tuple[str, str], name: str = "study.yaml") -> Path:
    """Write a study with some parts replaced; returns its path."""
    for old, new in pairs:
        assert old in text, old
        text = text.replace(old, new)
    path = folder / name
    path.write_text(text, encoding="utf-8")
    return path
