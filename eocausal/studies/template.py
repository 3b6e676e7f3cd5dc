"""The studies that ``eocausal init`` writes to start from."""

from __future__ import annotations

from pathlib import Path

from eocausal.errors import StudyError

__all__ = ["EVALUATION", "IMPACT", "TEMPLATE", "write_template"]

TEMPLATE = """\
# A study: data, design, estimates, checks, report. Check it with `eocausal validate FILE`,
# see what it would do with `eocausal plan FILE`, run it with `eocausal run FILE --out run`.
study: {name}
seed: 1 # the same seed gives the same numbers

data:
  root: . # folder of the files below, relative to this file; ${{NAME:-default}} is allowed
  units: # one row per person, household or village: CSV, TSV, Parquet or Stata
    file: units.csv
    id: unit_id # unique; leave out to number the rows
    neighborhood: village # links a unit to its place
  neighborhoods: # every place to be mapped, in the trial or not
    file: villages.csv # or GeoPackage, GeoJSON, Shapefile, (Geo)Parquet
    id: village
    x: lon # for tables of points
    y: lat
    size_m: 1000 # side of the square around a point, in metres
  imagery:
    files: landsat # a folder, a pattern (landsat/*.tif) or a list of GeoTIFFs; or instead of it:
    # stac:
    #   url: https://earth-search.aws.element84.com/v1
    #   collections: sentinel-2-l2a
    #   bands: [blue, green, red, nir, scl]
    # lock: scenes.lock.json # what the search found; while it is there, nothing is searched
    bands: [blue, green, red, nir] # as the files name them; or "ndvi = (nir - red) / (nir + red)"
    # band_names: [blue, green, red, nir, swir1] # all bands in order, if the files have no names
    # time: "2015-06" # date of all files, if they carry none
    # mask: {{qa_pixel: {{dilate: 2}}}} # or scl, cloud_probability, nonzero, values
    # composite: median # of the clear looks of a period; or mean, medoid, percentile, best_pixel
    resolution: 30 # metres per pixel
    periods: [all] # or e.g. [2013/2015]; must end before the trial began
    units: DN
  encoder:
    random_conv: # random convolutional features; or model: {{card: resnet18}}
      features: 512
      patch: 3

design:
  trial:
    arm: treated # 1 treated, 0 control
    cluster: village # what was assigned; leave out if each unit was assigned by itself
    # prob: 0.5 # known probability of treatment, a number or a column
    # block: district # arms were drawn within these
    start: 2016-01-01 # images must be older

estimate:
  outcome: income
  covariates: [age, female] # fixed before treatment
  missing_covariates: impute # impute (mean and indicator), drop or refuse
  missing_outcome: refuse # refuse or drop
  average: [difference_in_means, lin, aipw]
  vcov: [hc2, {{conley: {{km: 50}}}}] # besides the one that the design implies
  heterogeneity: {{basis: ridge, folds: 5, splits: 20}} # basis: ridge or forest
  map: {{to: neighborhoods}}

checks: [leakage, balance, attrition]

report:
  title: {name}
  outcome: household income
  # unit: standard deviations
  # notes: [What a reader must know about the data.]
"""

EVALUATION = """\
# An evaluation of projects that were placed, by funder and sector. Check it with
# `eocausal validate FILE`, see what it would do with `eocausal plan FILE`, run it with
# `eocausal run FILE --out run`.
study: {name}
seed: 1 # the same seed gives the same numbers

data:
  root: . # folder of the files below, relative to this file; ${{NAME:-default}} is allowed
  neighborhoods: # every place: CSV, GeoPackage, GeoJSON, Shapefile, (Geo)Parquet
    file: places.csv
    id: place
    x: lon # for tables of points
    y: lat
    size_m: 5000 # side of the square around a point, in metres
  # outcomes: # where the outcome is not a column of the places: one row per place and year;
  #   file: wealth.csv # its columns become wealth_2014, wealth_2021, ...
  #   neighborhood: place
  #   year: year
  projects: # one row per location of a project
    file: projects.csv
    lon: longitude
    lat: latitude
    start: start_date # a date, or a year
    funder: funder # leave out if there is one funder
    sector: sector # leave out if there is one sector
    # names: {{"110": education, WB: World Bank}} # readable names
  imagery: # taken before the first project that counts
    files: landsat # a folder, a pattern (landsat/*.tif) or a list of GeoTIFFs
    bands: [blue, green, red, nir]
    # band_names: [blue, green, red, nir] # all bands in order, if the files have no names
    # time: "2004" # date of all files, if they carry none
    resolution: 30 # metres per pixel
    size: 64 # pixels per side of a chip
    periods: [all]
    units: DN
  encoder: {{random_conv: {{features: 256, patch: 3}}}}

design:
  placement:
    year: year # column of the places: when the outcome was measured; or the year itself
    first: 2005-01-01 # projects that began before are history, not treatment
    within_km: 25 # treated: a project this near
    years_before: 1 # that began so many years before the outcome
    donut_km: 40 # places with one this near, but not near, are left out
    within: country # compare only where the funder works in the sector
    fewest: 100 # kinds with fewer treated places are only listed

estimate:
  outcome: wealth
  covariates: [country, urban, year, lon, lat] # fixed before the projects
  history: true # and the numbers of earlier projects near
  adjust: [table, image, both]
  score: aipw # or hajek
  estimand: ATE # or ATT, ATO
  otherwise: ATO # what stands in where that is refused for lack of overlap; or none
  folds: {{blocks_km: 100, k: 5}} # held out whole
  conley_km: 100 # places nearer than this depend on each other
  # headline: {{funder: World Bank, sector: education}} # looked at closely
  # correct: # effects on predictions of the outcome, naive and corrected
  #   predictions: [predicted_wealth]
  #   labelled: 0.2
  map: true

checks:
  # placebo: [wealth_2000] # columns that projects cannot have changed
  leave_out: country
  spillover_km: [10, 25, 50, 100]
  sensitivity: [1.25, 1.5, 2, 3]

report:
  title: {name}
  outcome: asset wealth
  # unit: standard deviations
  # notes: [What a reader must know about the data.]
"""

IMPACT = """\
# What an event did to a series: a port, a spill, a mine off a coast. Check it with
# `eocausal validate FILE`, see what it would do with `eocausal plan FILE`, run it with
# `eocausal run FILE --out run`.
study: {name}
seed: 1 # the same seed gives the same numbers

data:
  root: . # folder of the files below, relative to this file; ${{NAME:-default}} is allowed
  tables: # a row for each time; a column is a series: impact.kd490
    impact: {{file: impact.csv, time: time}}
    control: {{file: control.csv, time: time}}
  # grids: # or a gridded variable; a zone is a series: coast.bay
  #   coast:
  #     file: kd490_monthly.nc # NetCDF, or Zarr
  #     variable: kd490
  #     zones:
  #       bay: {{box: [122.1, -2.9, 122.3, -2.7]}} # west, south, east, north
  #       other: {{polygons: {{file: zones.geojson, where: {{name: other}}}}}} # or {{mask: ...}}

outcome:
  series: impact.kd490
  factor: 1 # what numbers of the file are multiplied with to be in units
  units: m-1 # records of Kd490 come in m-1 and in 0.01 m-1
event:
  name: the port
  when: 2019-05 # the first time that counts as after
  # end: 2023-12 # the last that counts
  # learn_until: 2018-12 # leave out what came between
  # reach_km: 30 # controls nearer than this are refused
controls: # series that the event did not reach
  - {{series: control.kd490, name: Kd490 of the control zone, distance_km: 60}}

model:
  season: 12 # times in a cycle; 0: none
  trend: level # or line, local_linear, semi_local
  prior: learned # or compatible: the priors of R's CausalImpact
  transform: none # or log, logit
variants: # the same question asked otherwise
  without controls: {{controls: []}}
  with a straight line: {{trend: line}}
  "R's CausalImpact": {{prior: compatible, season: 0}}

breaks:
  harmonics: 2
  # sensors: # dates at which the record changed hands
  #   - {{date: 2002-07, what: MODIS-Aqua enters}}
checks: # false leaves one out
  in_time: true # events that did not happen
  # in_space: {{series: [control.kd490]}} # series that take the treated role; coast.*: pixels
  drift: true
  leave_out_controls: true
  leave_out_years: true
  control_breaks: true
  predictive: true

# optics: true # the outcome is Kd490: what the effect means for light
# land_cover: {{file: land_cover.nc, variable: lulc}}
# map: {{grid: coast}} # the effect in each pixel
report:
  title: {name}
  outcome: Kd490 of the bay
  # notes: [What a reader must know about the data.]
"""

_KINDS = {"trial": TEMPLATE, "evaluation": EVALUATION, "impact": IMPACT}


def write_template(path: Path, kind: str = "trial") -> Path:
    """Write a commented study; never over an existing file.

    Parameters
    ----------
    path
        Where to.
    kind
        ``trial``, ``evaluation`` or ``impact``.

    Raises
    ------
    StudyError
        If there is such a file, or it cannot be written, or there is no such kind.
    """
    if kind not in _KINDS:
        raise StudyError(
            f"There is no kind of study {kind!r}.",
            cause=f"Known are {', '.join(_KINDS)}.",
            next_step="Write one of these after --kind.",
        )
    title = path.stem.replace("_", " ").replace("-", " ").strip() or "My study"
    quoted = '"' + title.replace("\\", "\\\\").replace('"', '\\"') + '"'
    try:
        with path.open("x", encoding="utf-8") as stream:
            stream.write(_KINDS[kind].format(name=quoted))
    except OSError as error:
        raise StudyError(
            f"{path} cannot be written.",
            cause=f"{error.strerror}.",
            next_step="Give another NAME.",
        ) from error
    return path
