"""A coast seen from space: monthly Kd490 with one event in the impact zone."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import xarray as xr
from numpy.typing import NDArray

from eocausal.simulate.config import CoastModel
from eocausal.simulate.landscape import gaussian_field

__all__ = ["simulate_coast", "write_coast"]

LATITUDE = (1.98, 0.04, 24)
LONGITUDE = (28.42, 0.04, 30)
IMPACT, CONTROL = 1, 2
FILL = -9999.0

Float64 = NDArray[np.float64]


def simulate_coast(model: CoastModel, rng: np.random.Generator) -> xr.Dataset:
    """Simulate monthly Kd490 on a grid.

    Kd490 = base + pixel pattern + season + shared AR(1) + AR(1) of the zone + pixel noise, plus
    ``effect`` in every pixel of the impact zone from the month of the event on.

    Returns
    -------
    xarray.Dataset
        ``kd490(time, lat, lon)`` in m-1, NaN on land and under cloud; ``zone(lat, lon)``: 1
        impact, 2 control, 0 other water, -1 land. Latitudes descend.
    """
    time = pd.date_range(f"{model.first}-01", f"{model.last}-01", freq="MS")
    lat = LATITUDE[0] - LATITUDE[1] * np.arange(LATITUDE[2])
    lon = LONGITUDE[0] + LONGITUDE[1] * np.arange(LONGITUDE[2])
    zone = _zones(len(lat), len(lon))
    months, shape = len(time), zone.shape
    season = model.season * np.cos(2 * np.pi * (time.month.to_numpy() - 2) / 12.0)
    shared = _ar1(rng, months, model.ar, model.shared_sd)
    own = {z: _ar1(rng, months, model.ar, model.zone_sd) for z in (0, IMPACT, CONTROL)}
    pattern = 0.003 * gaussian_field(rng, shape, 6.0, smoothness=1.5)
    after = np.asarray(time >= pd.Timestamp(f"{model.event}-01"))
    kd = np.empty((months, *shape))
    for t in range(months):
        pixel = model.pixel_sd * gaussian_field(rng, shape, 2.0, smoothness=1.0)
        kd[t] = model.base + pattern + season[t] + shared[t] + pixel
        for z, series in own.items():
            kd[t][zone == z] += series[t]
        kd[t][zone == IMPACT] += model.effect * after[t]
        cloud = gaussian_field(rng, shape, 4.0, smoothness=1.0)
        share = model.cloud_share * rng.uniform(0.4, 1.6)
        kd[t][(cloud > np.quantile(cloud, 1.0 - share)) | (zone < 0)] = np.nan
    kd = np.clip(kd, 0.016, None)
    dataset = xr.Dataset(
        {"kd490": (("time", "lat", "lon"), kd.astype(np.float32)), "zone": (("lat", "lon"), zone)},
        coords={"time": time, "lat": lat, "lon": lon},
    )
    return _describe(dataset)


def write_coast(dataset: xr.Dataset, path: Path) -> None:
    """Write the grid as NetCDF-4 with gaps as ``_FillValue``."""
    path.parent.mkdir(parents=True, exist_ok=True)
    dataset.to_netcdf(
        path,
        engine="h5netcdf",
        encoding={
            "kd490": {"_FillValue": np.float32(FILL), "zlib": True, "complevel": 4},
            "time": {"units": "days since 1970-01-01", "dtype": "int32"},
            "lat": {"_FillValue": None},
            "lon": {"_FillValue": None},
        },
    )


def _zones(height: int, width: int) -> NDArray[np.int8]:
    """Land in the east behind a curved shore; two bays of the same size on it."""
    rows, columns = np.mgrid[:height, :width]
    shore = width - 5 + np.rint(2.0 * np.sin(rows / 3.5))
    zone = np.zeros((height, width), dtype=np.int8)
    near = (columns < shore) & (columns >= shore - 6)
    zone[near & (rows >= 4) & (rows < 10)] = IMPACT
    zone[near & (rows >= 15) & (rows < 21)] = CONTROL
    zone[columns >= shore] = -1
    return zone


def _ar1(rng: np.random.Generator, n: int, coefficient: float, sd: float) -> Float64:
    """Stationary AR(1) with marginal standard deviation ``sd``, ``(n,)``."""
    from scipy.signal import lfilter

    shocks = rng.normal(0.0, sd * np.sqrt(1.0 - coefficient**2), n)
    shocks[0] = rng.normal(0.0, sd)
    return np.asarray(lfilter([1.0], [1.0, -coefficient], shocks))


def _describe(dataset: xr.Dataset) -> xr.Dataset:
    dataset["kd490"].attrs = {
        "standard_name": (
            "volume_attenuation_coefficient_of_downwelling_radiative_flux_in_sea_water"
        ),
        "long_name": "diffuse attenuation coefficient at 490 nm",
        "units": "m-1",
        "cell_methods": "time: mean",
    }
    dataset["zone"].attrs = {
        "long_name": "zone of the study",
        "flag_values": np.array([-1, 0, 1, 2], dtype=np.int8),
        "flag_meanings": "land other impact control",
    }
    dataset["lat"].attrs = {"standard_name": "latitude", "units": "degrees_north", "axis": "Y"}
    dataset["lon"].attrs = {"standard_name": "longitude", "units": "degrees_east", "axis": "X"}
    dataset["time"].attrs = {"standard_name": "time", "axis": "T"}
    dataset.attrs = {
        "Conventions": "CF-1.10",
        "title": "Simulated monthly Kd490 of a coast",
        "source": "eocausal.simulate",
    }
    return dataset
