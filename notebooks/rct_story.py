# ---
# jupyter:
#   jupytext:
#     text_representation:
#       extension: .py
#       format_name: percent
# ---

# %% [markdown]
# # Carry the effects of a trial over to a map
#
# A small country with known effects is rendered to GeoTIFFs in two UTM zones. We read chips around
# its neighborhoods, encode them, estimate the trial, and compare the map with the truth.

# %%
import json
import tempfile
from pathlib import Path

import numpy as np
import pandas as pd

import eocausal as eo
from eocausal.simulate.world import WorldConfig, render_world

folder = Path(tempfile.mkdtemp())
config = WorldConfig(seed=3, n_neighborhoods=200, n_trial=120, scenes_per_year=2)
world = render_world(config, folder / "world")

# %% [markdown]
# ## From scenes to chips
# `scan` lists the scenes with their CRS and time; `build_cube` cuts a chip around each place, on
# its own UTM grid, from the median of the clear looks.

# %%
places = eo.read_neighborhoods(folder / "world" / "neighborhoods.gpkg", id="neighborhood")
scenes = eo.scan(folder / "world" / "scenes")
cube = eo.build_cube(
    places, scenes, bands=["blue", "green", "red", "nir", "swir1"], resolution=30, size=32,
    periods=["2015/2017"], mask=eo.NonZero("clear"), out=folder / "cube.zarr",
)  # fmt: skip
print(cube)

# %% [markdown]
# ## From chips to features

# %%
image = eo.encode(cube, eo.RandomConv(features=256), seed=3)

# %% [markdown]
# ## The trial
# Arms were given to whole neighborhoods, so the variance is clustered; another one needs no refit.

# %%
people = pd.read_csv(folder / "world" / "units.csv", index_col="unit")
trial = eo.Trial(arm="arm", cluster="neighborhood", prob=0.5, start=config.trial_start)
average = eo.difference_in_means(people, trial, "income")
print(average)
print(average.with_vcov(eo.HC2()))
print(eo.lin_adjusted(people, trial, "income", ["age", "female", "educ"]))

# %% [markdown]
# ## The map against the truth

# %%
learner = eo.EffectLearner(eo.RidgeBasis(), seed=3)
fitted = learner.fit(trial, people, image, outcome="income", covariates=["age", "female", "educ"])
effects = eo.transport(fitted, image, places)
print(effects.summary())
known = json.loads((folder / "world" / "truth.json").read_text())["neighborhoods"]
truth = pd.Series({label: place["effect"] for label, place in known.items()})
table = effects.table[effects.table["estimate"].notna()]
truth = truth.loc[table.index]
covered = (table["ci_low"] <= truth) & (truth <= table["ci_high"])
print(
    f"correlation with truth {np.corrcoef(table['estimate'], truth)[0, 1]:.2f}, "
    f"intervals that hold it {covered.mean():.1%}"
)

# %% [markdown]
# ## Does a ranking by image find those who gain more?

# %%
print(eo.rate_over_splits(trial, people, image, outcome="income", splits=20, seed=3).summary())
