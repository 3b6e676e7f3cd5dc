"""The study that ``eocausal init`` writes to start from."""

from __future__ import annotations

from pathlib import Path

from eocausal.errors import StudyError

__all__ = ["TEMPLATE", "write_template"]

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


def write_template(path: Path) -> Path:
    """Write a commented study; never over an existing file.

    Raises
    ------
    StudyError
        If there is such a file, or it cannot be written.
    """
    title = path.stem.replace("_", " ").replace("-", " ").strip() or "My study"
    quoted = '"' + title.replace("\\", "\\\\").replace('"', '\\"') + '"'
    try:
        with path.open("x", encoding="utf-8") as stream:
            stream.write(TEMPLATE.format(name=quoted))
    except OSError as error:
        raise StudyError(
            f"{path} cannot be written.",
            cause=f"{error.strerror}.",
            next_step="Give another NAME.",
        ) from error
    return path
