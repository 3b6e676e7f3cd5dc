"""How often the leak check names an honest covariate, and how often it finds a planted one."""

import numpy as np
import pandas as pd
import pytest

from eocausal.checks.leakage import covariate_leaks
from eocausal.designs import Trial

pytestmark = pytest.mark.slow


def draw_trial(rng, n):
    """Draw one of four designs; returns units, trial and the cluster of each unit."""
    kind = rng.choice(["unit", "cluster", "block", "prob"])
    each = np.arange(n)
    if kind == "unit":
        arm = np.zeros(n, dtype=int)
        arm[rng.permutation(n)[: max(2, int(n * rng.choice([0.1, 0.3, 0.5, 0.9])))]] = 1
        return pd.DataFrame({"arm": arm}), Trial("arm"), each
    if kind == "cluster":
        size = int(rng.choice([4, 6, 10, 20, 40, 100]))
        arm = np.zeros(size, dtype=int)
        arm[rng.permutation(size)[: size // 2]] = 1
        cluster = np.concatenate([np.arange(size), rng.integers(0, size, max(n - size, 0))])
        return pd.DataFrame({"arm": arm[cluster], "c": cluster}), Trial("arm", "c"), cluster
    if kind == "block":
        block = each % (n // int(rng.choice([2, 4, 20])))
        arm = np.zeros(n, dtype=int)
        for b in np.unique(block):
            inside = rng.permutation(np.flatnonzero(block == b))
            arm[inside[: len(inside) // 2]] = 1
        return pd.DataFrame({"arm": arm, "c": block}), Trial("arm", block="c"), block
    score = rng.normal(size=n)
    prob = np.clip(1 / (1 + np.exp(-2 * score)), 0.05, 0.95)
    arm = (rng.random(n) < prob).astype(int)
    return pd.DataFrame({"arm": arm, "p": prob, "score": score}), Trial("arm", prob="p"), each


def honest(rng, n, cluster):
    """Covariates that know nothing of the arm, many of them functions of each other."""
    groups = int(cluster.max()) + 1
    z = rng.normal(size=n) + rng.normal(size=groups)[cluster]
    age = rng.integers(18, 60, n)
    region = rng.choice(list("abcd"), n)
    half, few = rng.random(n) < 0.5, rng.random(n) < 0.05
    return {
        "z": z,
        "z2": z**2,
        "feet": 3 * z - 1,
        "relu": np.maximum(z, 0),
        "noisy": z + rng.normal(size=n) / 100,
        "rounded": z.round(1),
        "age": age,
        "age2": age**2,
        "log_age": np.log(age),
        "rare": (rng.random(n) < 0.01).astype(int),
        "few": few,
        "half": half,
        "both": half & few,
        "z_half": z * half,
        "count": rng.poisson(0.3, n),
        "skewed": rng.negative_binomial(0.3, 0.02, n),
        "zeros": np.where(rng.random(n) < 0.9, 0, rng.lognormal(8, 2, n)),
        "heavy": rng.lognormal(0, 3, n),
        "region": region,
        "region_a": region == "a",
        "region_b": region == "b",
        "id": np.arange(n),
        "name": [f"n{i}" for i in range(n)],
        "gaps": np.where(rng.random(n) < 0.2, np.nan, z),
        "mostly_gaps": np.where(rng.random(n) < 0.98, np.nan, 1.0),
        "day": pd.Timestamp("2000-01-01") + pd.to_timedelta(rng.integers(0, 3000, n), "D"),
        "village": [f"v{c}" for c in cluster],
        "distance": rng.normal(size=groups)[cluster],
        "school": (rng.random(groups) < 0.3)[cluster],
        "zone": rng.integers(0, 5, groups)[cluster],
        "village_gaps": np.where((rng.random(groups) < 0.2)[cluster], np.nan, age),
    }


def test_false_alarms():
    """500 trials with about 30 honest covariates each: none is named.

    With four or six clusters a covariate of clusters can equal the arm by luck; such a column is
    named, since nothing can be estimated with it, and is counted apart.
    """
    rng = np.random.default_rng(20_260_401)
    alarms, equal, looked = [], 0, 0
    for _ in range(500):
        n = int(rng.choice([60, 100, 300, 1000], p=[0.3, 0.3, 0.3, 0.1]))
        units, trial, cluster = draw_trial(rng, n)
        units = units.assign(**honest(rng, len(units), cluster))
        covariates = [c for c in units.columns if c != "arm"]
        looked += len(covariates)
        for leak in covariate_leaks(units, trial, covariates):
            column = units[leak.column]
            same = pd.crosstab(column.fillna(-1) if column.isna().any() else column, units["arm"])
            one_to_one = column.nunique() == 2 and ((same > 0).sum(axis=1) == 1).all()
            if one_to_one or (units["arm"] == column.isna()).nunique() == 1:
                assert cluster.max() < 6
                equal += 1
            else:
                alarms.append((trial, n, leak))
    print(f"{len(alarms)} of {looked} honest covariates named; {equal} equal the arm by luck")
    assert alarms == []
    assert looked > 14_000


def planted(rng, t):
    """Leaks by kind: the column, and its partner if it needs one."""
    n = len(t)
    z, u, w = rng.normal(size=n), rng.uniform(0, 10, n), rng.lognormal(size=n)
    steps, poor = rng.integers(0, 8, n), (rng.random(n) < 0.35).astype(float)
    nan = np.nan
    return {
        "equal": (t, None),
        "text": (np.where(t == 1, "T", "C"), None),
        "affine": (3 - 2.5 * t, None),
        "noise": (10 * t + z, None),
        "some noise": (t + 0.2 * z, None),
        "codes": (np.where(t == 1, rng.choice([1, 3], n), rng.choice([2, 4], n)), None),
        "dose": (t * rng.integers(1, 5, n), None),
        "loan": (t * w, None),
        "take-up": (t * (u < 6), None),
        "t*z": (t * z, None),
        "t*poor": (t * poor, None),
        "(1-t)*poor": ((1 - t) * poor, None),
        "t*z^2": (t * z**2, None),
        "exp": (np.exp(t * z), None),
        "missing": (np.where(t == 1, z, nan), None),
        "some missing": (np.where((t == 0) & (u < 5), nan, z), None),
        "z+2t": (z + 2 * t, z),
        "z-t": (z - t, z),
        "z(1+t)": (z * (1 + t), z),
        "u/(1+t)": (u / (1 + t), u),
        "gain": (z + t * w, z),
        "log(u+2t)": (np.log(u + 2 * t), u),
        "(z+2t)^2": ((z + 2 * t) ** 2, z),
        "z^2+t": (z**2 + t, z),
        "xor": (np.abs(t - poor), poor),
        "steps+2t": (steps + 2 * t, steps),
        "steps(1+t)": (steps * (1 + t), steps),
        "sqrt": (np.sqrt(steps + 4 * t), steps),
        "rounded": ((u + 2 * t).round(1), u),
        "float32": ((z + 2 * t).astype("float32"), z),
        "nearly": (z + 2 * t + 0.05 * rng.normal(size=n), z),
        "gaps": (np.where(rng.random(n) < 0.1, nan, np.log(u + 2 * t)), u),
    }


@pytest.mark.parametrize("level", ["unit", "cluster"])
def test_detection(level):
    """At least 99 % of planted leaks are named, and their honest partners are not."""
    rng = np.random.default_rng(77 if level == "unit" else 78)
    missed, accused, looked = [], [], 0
    for repeat in range(24):
        n = (300, 600, 2000)[repeat % 3]
        groups = n if level == "unit" else int(rng.choice([80, 100, 150]))
        arm = np.zeros(groups, dtype=int)
        arm[rng.permutation(groups)[: int(groups * rng.choice([0.4, 0.5, 0.6]))]] = 1
        cluster = np.arange(n) % groups
        base = pd.DataFrame({"arm": arm[cluster], "cluster": cluster})
        base["age"], base["y"] = rng.integers(18, 60, n), rng.normal(size=n)
        base["place"] = rng.normal(size=groups)[cluster]
        trial = Trial("arm", None if level == "unit" else "cluster")
        for kind, (leak, partner) in planted(rng, base["arm"].to_numpy()).items():
            columns = {} if partner is None else {"partner": partner}
            units = base.assign(**columns, leak=leak)
            found = covariate_leaks(units, trial, ["age", "y", "place", *columns, "leak"])
            named = [f.column for f in found]
            looked += 1
            missed += [] if "leak" in named else [(kind, n)]
            accused += [(kind, n, name) for name in named if name != "leak"]
    print(f"{level}: missed {len(missed)} of {looked} {missed}; accused {accused}")
    assert len(missed) <= 0.01 * looked
    assert len(accused) <= 0.01 * looked
