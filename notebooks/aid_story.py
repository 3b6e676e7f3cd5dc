# ---
# jupyter:
#   jupytext:
#     text_representation:
#       extension: .py
#       format_name: percent
# ---

# %% [markdown]
# # Did the projects help, or did they go where things went well anyway?
#
# A donor builds roads and clinics. Nobody drew lots: projects go where maps show towns. Towns are
# richer with or without projects, so that a plain comparison flatters the donor. Here the country
# is simulated, and the true effects are known: roads add to wealth, clinics add nothing to it.

# %%
import json
import tempfile
from pathlib import Path

import numpy as np
import pandas as pd

import eocausal as eo
from eocausal.checks.sensitivity.marginal_sensitivity import MarginalBounds, marginal_table
from eocausal.checks.weighted_balance import weighted_balance
from eocausal.estimators.multiplicity import simultaneous
from eocausal.reports.evaluation_forest import forest_figure
from eocausal.reports.evaluation_plots import love_figure, sensitivity_figure
from eocausal.reports.evaluation_text import evaluation_claim
from eocausal.simulate.world import WorldConfig, render_world

DONOR = "Development Fund"
folder = Path(tempfile.mkdtemp())
config = WorldConfig(seed=3, n_neighborhoods=800, n_trial=4, scenes_per_year=2)
world = render_world(config, folder / "world")
truth = json.loads(world.truth.read_text())

# %% [markdown]
# ## What was there before: images of 2015 to 2017

# %%
places = eo.read_neighborhoods(world.neighborhoods, id="neighborhood")
cube = eo.build_cube(
    places, eo.scan(folder / "world" / "scenes"), bands=["blue", "green", "red", "nir", "swir1"],
    resolution=30, size=32, periods=["2015/2017"], mask=eo.NonZero("clear"),
    out=folder / "cube.zarr",
)  # fmt: skip
image = eo.encode(cube, eo.SpectralStats(), seed=3)
print(f"{image.sizes['feature']} features per place; last image {image.attrs['last_image_date']}")

# %% [markdown]
# ## Who got a project, and when
# Projects that began in 2018 or later, and at least a year before wealth was measured in 2021,
# count as treatment of a place they lie in.

# %%
wealth = pd.read_csv(world.wealth).pivot(index="neighborhood", columns="year", values="wealth")
units = places.drop(columns="geometry").join(wealth.add_prefix("wealth_")).assign(year=2021)
seen = image.dropna("neighborhood").indexes["neighborhood"]
print(f"{len(units) - len(seen)} of {len(units)} places were always under cloud and are left out")
units = units.loc[units.index.isin(seen)]

projects = eo.Projects.of(
    pd.read_csv(world.projects).assign(funder=DONOR), start="start_year"
)  # fmt: skip
placement = eo.Placement(year="year", first="2018-01-01", within_km=0.6, years_before=1)
for exposure in placement.exposures(units, projects):
    units[exposure.kind.sector] = exposure.treated.astype(int)
    print(f"{exposure.kind}: {exposure.treated.sum()} of {len(units)} places treated")
known = {"transport": truth["aid"]["ate_transport"], "health": truth["aid"]["att_health"]}

# %% [markdown]
# ## The plain comparison
# Treated places are richer in 2021. So were they before there was any project.

# %%
for sector, effect in known.items():
    means = units.groupby(sector)[["wealth_2014", "wealth_2021"]].mean().diff().iloc[-1]
    print(f"{sector}: {means['wealth_2021']:+.2f} in 2021, {means['wealth_2014']:+.2f} in 2014 "
          f"already; true effect {effect:+.2f}")  # fmt: skip

# %% [markdown]
# ## Compare places that were alike
# What is adjusted for: a table (region, and whether an early survey called the place poor), the
# image, or both.
# Blocks of 5 km are held out whole, so that no place is judged by a model that saw its neighbours;
# standard errors allow for what neighbours share.

# %%
units["poor_2014"] = (units["wealth_2014"] < units["wealth_2014"].median()).astype(int)
table = ["stratum", "poor_2014"]
confounders = {
    "table": {"covariates": table},
    "image": {"images": {"landsat": image}},
    "both": {"covariates": table, "images": {"landsat": image}},
}
decisions = eo.Weighting(folds=eo.SpatialBlocks(km=5), vcov=eo.Conley(km=5))
fits = {
    (sector, name): eo.weight(
        units, treatment=sector, outcome="wealth_2021", decisions=decisions,
        start="2018-01-01", seed=3, **given,
    )
    for name, given in confounders.items()
    for sector in known
}  # fmt: skip
for (sector, name), fitted in fits.items():
    e = fitted.estimate
    holds = e.ci_low <= known[sector] <= e.ci_high
    print(f"{sector} given {name}: {e.estimate:.2f} ({e.ci_low:.2f} to {e.ci_high:.2f}), "
          f"truth {known[sector]:.2f} {'inside' if holds else 'OUTSIDE'}")  # fmt: skip

# %% [markdown]
# Poor or not is not all there is to know of a place: the table leaves part of the difference, with
# an interval that looks just as sure. The image shows the towns that drew the projects.
#
# Several effects were looked at, so the intervals below hold for all of one adjustment together.

# %%
rows = []
for name in confounders:
    kinds = [fits[sector, name] for sector in known]
    records = simultaneous([fitted.estimate for fitted in kinds], seed=3).records()
    for sector, record in zip(known, records, strict=True):
        rows.append({"funder": DONOR, "sector": sector, "adjustment": name, **record})
sectors = pd.DataFrame(rows).rename(
    columns={"joint_low": "simultaneous_low", "joint_high": "simultaneous_high"}
)
forest_figure(sectors, outcome="wealth in 2021", unit="index points")

# %% [markdown]
# ## How predictable placement is
# An AUC of 0.5 would be lots, near 1 no two places could be compared.

# %%
road = fits["transport", "both"]
mechanism = eo.AssignmentMechanism(folds=eo.SpatialBlocks(km=5), permutations=2)
print(mechanism.fit(road.data, seed=3).summary())

# %% [markdown]
# ## Checks that could sink it
# Are the arms alike after weighting? Do enough places speak for each arm? Is there an "effect" on
# wealth in 2016 and 2017, before any project began? Do projects reach the neighbours?

# %%
results = eo.check(
    road,
    eo.checks.WeightedBalance(),
    eo.checks.Support(),
    eo.checks.Placebo(("wealth_2016", "wealth_2017"), seed=3),
    eo.checks.Spillover(km=(2.0, 5.0), seed=3),
    eo.checks.ImageConfounders(seed=3),
)
for result in results:
    print(f"{result.verdict}: {result.name}. {result.claim}")
love_figure(weighted_balance(road))

# %% [markdown]
# The same placebo, adjusted for the table alone, shows what the image was needed for.

# %%
placebo = eo.checks.Placebo(("wealth_2016", "wealth_2017"), seed=3)
print(placebo.run(fits["transport", "table"]))

# %% [markdown]
# ## What if something else decided?
# No data can show that nothing was hidden. They can show how strong it would have to be.

# %%
hidden = eo.checks.MarginalSensitivity(seed=3).run(road)
print(hidden.claim)
print(hidden.detail)
bounds = marginal_table(MarginalBounds.of(road, seed=3), [1.0, 1.25, 1.5, 2.0, 3.0, 4.0])
sensitivity_figure(
    bounds, benchmarks=hidden.values["benchmarks"], outcome="wealth in 2021", unit="index points"
)

# %% [markdown]
# ## Where roads help more
# Scores of places, smoothed over what the image shows, against the truth. The interval of a single
# place is wide: the map is for comparing groups of places.

# %%
effects = eo.effect_surface(road, image, places)
print(effects.summary())
mapped = effects.table[effects.table["estimate"].notna()]
true = pd.Series({k: place["aid_effect"] for k, place in truth["neighborhoods"].items()})
true = true.loc[mapped.index]
covered = (mapped["ci_low"] <= true) & (true <= mapped["ci_high"])
print(
    f"correlation with truth {np.corrcoef(mapped['estimate'], true)[0, 1]:.2f}, "
    f"intervals that hold it {covered.mean():.1%}"
)

# %% [markdown]
# ## In words for the report

# %%
print(
    evaluation_claim(
        sectors, headline=(DONOR, "transport"), outcome="wealth in 2021",
        unit="index points", sensitivity=hidden.values, checks=results,
    )
)  # fmt: skip
