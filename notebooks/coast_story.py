# ---
# jupyter:
#   jupytext:
#     text_representation:
#       extension: .py
#       format_name: percent
# ---

# %% [markdown]
# # Did the port make the water murkier?
#
# A port opens on a coast. From then on the water of its bay looks murkier from space. Kd490 says
# how fast light of 490 nm fades with depth: the larger, the murkier. But water changes by itself:
# with seasons, from one month to the next, and along the whole coast. Here the coast is
# simulated, so that the true effect is known.

# %%
import numpy as np
import pandas as pd
import xarray as xr

import eocausal as eo
from eocausal.checks.impact_drift import Drift
from eocausal.checks.impact_leave_out import LeaveOneYearOut
from eocausal.checks.impact_space import PlaceboInSpace
from eocausal.checks.impact_time import PlaceboInTime
from eocausal.estimators.breaks_number import Sequential
from eocausal.estimators.breaks_sieve import ArSieve
from eocausal.estimators.impact_map import bsts_map
from eocausal.ocean.depth_effect import compare_relations
from eocausal.ocean.zones import zone_means
from eocausal.simulate.coast import simulate_coast
from eocausal.simulate.config import CoastModel

model = CoastModel(first="2000-01", last="2018-12", event="2014-06")
coast = simulate_coast(model, np.random.default_rng(3))
print(f"{coast.sizes['time']} months of {coast.sizes['lat']} × {coast.sizes['lon']} pixels, "
      f"{float(coast['kd490'].isnull().mean()):.0%} land or cloud; "
      f"true effect {model.effect} m⁻¹ in the bay from {model.event} on")  # fmt: skip

# %% [markdown]
# ## From pixels to series
# The mean of each bay, weighted by area; months of which little was seen have none.

# %%
bay, other = (
    zone_means(coast["kd490"], coast["zone"] == code, minimum_coverage=0.2) for code in (1, 2)
)
print(bay.summary())
y = bay.mean.rename("Kd490 of the bay")
y.attrs["units"] = "m⁻¹"
control = other.mean.rename("Kd490 of the other bay").to_frame()

# %% [markdown]
# ## Before and after
# A plain difference of means takes everything for the port: the month, the weather, the coast.

# %%
after = y.index >= model.event
print(f"after minus before: {y[after].mean() - y[~after].mean():+.4f} m⁻¹")

# %% [markdown]
# ## What would it have been?
# A structural time series learns from the months before: level, season, how strongly a month
# depends on the last one, and how the bay moves with the other bay, which the port did not reach.

# %%
event = eo.Event(model.event)
impact = eo.bsts(y, event, control, model=eo.StructuralModel(season=12), draws=4000, seed=3)
print(impact.summary("report"))
row = impact.effects.row()
holds = row["effect_low"] <= model.effect <= row["effect_high"]
print(f"\ntrue effect {model.effect}: the interval {'holds' if holds else 'MISSES'} it")

# %%
impact.plot()

# %% [markdown]
# ## When did it change?
# Without being told the date. Red noise makes steps, too; a break has to be more than that.

# %%
found = eo.breakpoints(
    y, model=eo.BreakModel(harmonics=2), choice=Sequential(sieve=ArSieve(draws=199)), seed=3
)
print(found.summary())

# %% [markdown]
# ## Checks that could sink it
# Is it a drift that was under way? Do events that did not happen look like effects? Do pixels
# elsewhere? Does it hang on one year?

# %%
elsewhere = coast["kd490"].where(coast["zone"] == 0).stack(pixel=("lat", "lon"))
seen = elsewhere.notnull().mean("time") > 0.5
pixels = elsewhere[:, seen.to_numpy()][:, ::8]
names = [f"{lat:.2f}, {lon:.2f}" for lat, lon in pixels["pixel"].to_numpy()]
candidates = pd.DataFrame(pixels.to_numpy(), index=y.index, columns=names)
for result in eo.check(
    impact, Drift(), PlaceboInTime(horizon=36), PlaceboInSpace(candidates), LeaveOneYearOut()
):
    print(f"{result.verdict}: {result.name}. {result.claim}")

# %% [markdown]
# ## What it means for light
# Depth is a curved function of Kd490, so every draw is turned into a depth. The relations mean
# different things, and 4.6/Kd490 is not the euphotic depth.

# %%
depths = compare_relations(impact.path)
columns = ["expected", "observed", "change", "change_low", "change_high"]
print(depths[columns].round(1).to_string())

# %% [markdown]
# ## Where?
# The same model in every pixel, with a bound on the share of marked pixels that are false.

# %%
cube = coast["kd490"].where(coast["zone"] != 2)  # the other bay is the control
effects = bsts_map(cube, event, control, model=eo.StructuralModel(season=12), crs="EPSG:4326")
print(effects.summary())
true = xr.where(coast["zone"] == 1, model.effect, 0.0)
known = effects.data["estimate"].notnull()
covered = (effects.data["ci_low"] <= true) & (true <= effects.data["ci_high"])
estimate = effects.data["estimate"].where(known).to_numpy()
marked = (effects.data["q_value"] < 0.05) & known
mine = marked & (coast["zone"] == 1)
at = np.isfinite(estimate)
print(
    f"correlation with truth {np.corrcoef(estimate[at], true.to_numpy()[at])[0, 1]:.2f}, "
    f"intervals that hold it {float(covered.where(known).mean()):.1%}, "
    f"{int(marked.sum())} pixels marked, {int(mine.sum())} of them in the bay"
)

# %% [markdown]
# ## As a study
# The same as a YAML file, with a report in one page: `pipelines/world_coast.yaml` for a simulated
# coast, `pipelines/morowali_coast.yaml` for a real one.
