"""A small report with everything in it, and hostile names where names can be."""

import geopandas as gpd
import numpy as np
import pandas as pd
from shapely.geometry import Point, Polygon, box

from eocausal.checks.base import CheckResult, Verdict
from eocausal.effect_map import EffectMap
from eocausal.reports.content import ReportContent
from eocausal.reports.text import claim_in_words

HOSTILE = (
    "<script>window.hacked=1</script>",
    "</script><script>window.hacked=2</script>",
    "\"'><img src=x onerror=window.hacked=3>",
    "{{ 7 * 7 }} $\\frac{1}{0}$ \u2028",
)


def effect_map(n: int = 9, *, points: bool = False, hostile: bool = False) -> EffectMap:
    """Squares (one with a hole) on a grid of n by n tenths of a degree, or their centers."""
    cells = [(i, j) for j in range(n) for i in range(n)]
    shapes: list[object] = [box(32 + i / 10, 1 + j / 10, 32.1 + i / 10, 1.1 + j / 10)
                            for i, j in cells]  # fmt: skip
    shapes[0] = Polygon(shapes[0].exterior, [box(32.03, 1.03, 32.07, 1.07).exterior.coords])
    if points:
        shapes = [Point(32.05 + i / 10, 1.05 + j / 10) for i, j in cells]
    rng = np.random.default_rng(3)
    estimate = rng.normal(0.3, 0.3, len(cells))
    error = rng.uniform(0.05, 0.2, len(cells))
    status = np.array(["ok"] * len(cells), dtype=object)
    status[1], status[2] = "extrapolated", "no_image"
    estimate[2] = error[2] = np.nan
    names = [f"place {i}" for i in range(len(cells))]
    if hostile:
        names[: len(HOSTILE)] = HOSTILE
    table = gpd.GeoDataFrame(
        {
            "estimand": "CATE", "method": "DR-learner", "estimate": estimate, "std_error": error,
            "ci_low": estimate - 2 * error, "ci_high": estimate + 2 * error,
            "support": rng.uniform(0.3, 1, len(cells)), "status": status,
        },
        geometry=shapes, crs="EPSG:4326", index=pd.Index(names, name="neighborhood"),
    )  # fmt: skip
    return EffectMap(table)


def record(estimate: float = 0.74, error: float = 0.08, **own: object) -> dict[str, object]:
    """A record as in estimates.json."""
    return {
        "estimand": "ATE", "method": "difference in means", "estimate": estimate,
        "std_error": error, "ci_low": estimate - 1.96 * error, "ci_high": estimate + 1.96 * error,
        "p_value": 0.01, "n": 2535, "level": 0.95, "vcov": "HC2()", "note": "", **own,
    }  # fmt: skip


def splits(ratio: float, n: int = 20) -> pd.DataFrame:
    """A distribution of RATE over splits around a ratio."""
    rng = np.random.default_rng(5)
    frames = []
    for target in ("AUTOC", "Qini"):
        ratios = ratio + 0.5 * rng.standard_normal(n)
        frames.append(pd.DataFrame({
            "target": target, "split": range(n), "estimate": 0.1 * ratios, "std_error": 0.1,
            "ratio": ratios,
        }))  # fmt: skip
    return pd.concat(frames, ignore_index=True)


def content(*, failed: bool = False, hostile: bool = False, points: bool = False) -> ReportContent:
    """Everything a report can show."""
    emap = effect_map(hostile=hostile, points=points)
    bad = HOSTILE[1] if hostile else "Balance"
    estimates = [record(), record(error=0.1, vcov="Clustered(by='village')", primary=True),
                 record(0.21, 0.09, estimand="AUTOC", method=bad)]  # fmt: skip
    checks = [CheckResult("Leakage", Verdict.PASS, "No covariate carries the treatment."),
              CheckResult(bad, Verdict.FAIL if failed else Verdict.WARN, "p = 0.0001.", "Look.",
                          pd.DataFrame({"covariate": [bad], "p": [0.0001]}))]  # fmt: skip
    table = emap.table
    truth = pd.DataFrame({
        "neighborhood": table.index, "estimate": table["estimate"].to_numpy(),
        "ci_low": table["ci_low"].to_numpy(), "ci_high": table["ci_high"].to_numpy(),
        "truth": table["estimate"].fillna(0).to_numpy() + 0.05,
    })  # fmt: skip
    auc = pd.DataFrame({
        "folds": ["random", f"grouped by {bad}"], "auc": [0.7, 0.52], "ci_low": [0.65, 0.48],
        "ci_high": [0.75, 0.56], "used": [False, True], "why": ["Inflated.", "Images are shared."],
    })  # fmt: skip
    failures = pd.DataFrame({
        "stage": "cube", "kind": "chip", "subject": ["a", bad], "reason": "nodata_only",
        "detail": "", "period": "2000",
    })  # fmt: skip
    shared = {"heterogeneity": splits(3.0), "outcome": bad if hostile else "income", "unit": "SD"}
    return ReportContent(
        title=bad if hostile else "A trial",
        claim=claim_in_words(estimates, emap, checks, **shared),
        summary=[bad], estimates=estimates, effect_map=emap, checks=checks, treatment_auc=auc,
        truth=truth, failures=failures, data=[("Units", "2,535"), (bad, bad)],
        provenance={"seed": 7, "versions": {"numpy": "2.4", bad: bad}}, **shared,
    )  # fmt: skip
