"""How far an image could have carried the confounders that are known.

What an embedding cannot express, adjusting for it cannot remove, and more units only make the wrong
answer surer (METHODS §10). How well it expresses what is hidden cannot be seen; how well it
expresses what was measured can.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from eocausal.checks.base import CheckResult, Verdict
from eocausal.checks.predictability import predictability
from eocausal.checks.sensitivity.benchmarks import Progress, leave_out_each, table_columns
from eocausal.checks.sensitivity.omitted_variable import OmittedVariableBounds, omitted_benchmarks
from eocausal.contracts import NEIGHBORHOOD
from eocausal.errors import EstimationError
from eocausal.estimators.confounders import TABLE
from eocausal.folds import Buffered, FoldRule, GroupFolds, RandomFolds, SpatialBlocks

if TYPE_CHECKING:
    import xarray as xr

    from eocausal.estimators.weighting import Weighted

__all__ = ["ImageConfounders", "image_confounders"]

NAME = "What the image can carry of known confounders"
HARDLY = 0.01
"""Share of an estimate that is not worth two numbers."""


def image_confounders(
    subject: Weighted,
    *,
    arm: str | None = None,
    seed: int = 0,
    progress: Progress | None = None,
) -> pd.DataFrame:
    """Say of each column how well the image tells it, and what a hidden one like it could do.

    Scores are of places that the model has not seen, over the folds of the analysis (random ones if
    it has none); units of one neighborhood are one place.

    Parameters
    ----------
    subject
        An analysis with at least one image and one column of a table.
    arm
        Treatment that is compared with none; default the first.
    seed
        Of folds and models.
    progress
        Called with the number of columns left out so far and their total.

    Returns
    -------
    DataFrame
        A row per column, or per value of a column of texts: ``covariate``, ``column``, ``measure``
        (``R2`` or ``AUC``), ``score``, ``ci_low``, ``ci_high``, ``note`` (why there is no score);
        ``bound_low``, ``bound_high`` (of the effect, were a confounder hidden that adds as much as
        the column), ``taken_away`` (that bias as a share of the estimate).

    Raises
    ------
    EstimationError
        If there is no image or no table.
    """
    confounders = subject.data.confounders
    images = [name for name in confounders.blocks if name != TABLE]
    columns = table_columns(confounders)
    if not images or not columns:
        missing = "image" if not images else "column of a table"
        raise EstimationError(
            f"The analysis has no {missing} among its confounders.",
            cause="What an image can carry is measured on known columns.",
            next_step="Give both, or use OmittedVariable alone.",
        )
    scores = _scores(subject, images, seed)
    bounds = OmittedVariableBounds.of(subject, arm, seed=seed)
    left_out = leave_out_each(subject, columns, seed=seed, progress=progress)
    found = omitted_benchmarks(bounds, left_out, (1.0,)).set_index("confounder")
    column = scores["covariate"].str.partition("=")[0]
    known = found.loc[column]
    scores.insert(1, "column", column)
    for new, old in (("bound_low", "low"), ("bound_high", "high"), ("taken_away", "taken_away")):
        scores[new] = known[old].to_numpy()
    return scores


def _scores(subject: Weighted, images: list[str], seed: int) -> pd.DataFrame:
    """Predict the columns of the table from the images, one row per place."""
    data = subject.data
    image, table = data.confounders.only(*images), data.confounders.only(TABLE)
    units = data.units
    place = units[NEIGHBORHOOD] if NEIGHBORHOOD in units else pd.Series(units.index)
    code, labels = pd.factorize(place.to_numpy())
    count = np.bincount(code).astype(float)
    first = np.unique(code, return_index=True)[1]
    mean = np.zeros((len(labels), table.p))
    np.add.at(mean, code, table.x)
    covariates = pd.DataFrame(mean / count[:, None], index=labels, columns=list(table.names))
    rule = _rule(subject.decisions.folds)
    embedding = _embedding(image.x[first], labels)
    if isinstance(rule, GroupFolds):
        covariates[rule.by] = units[rule.by].to_numpy()[first]
    if isinstance(rule, SpatialBlocks):
        embedding = embedding.assign_coords({
            name: (NEIGHBORHOOD, units[column].to_numpy(float)[first])
            for name, column in (("lon", rule.lon), ("lat", rule.lat))
        })  # fmt: skip
    scores = predictability(embedding, covariates, rule, seed=seed, beside=False)
    honest = scores[scores["honest"].to_numpy(bool)]
    kept = ["covariate", "measure", "score", "ci_low", "ci_high", "note"]
    return honest[kept].reset_index(drop=True)


def _rule(folds: FoldRule | None) -> FoldRule:
    """Take the rule that deals places; a buffer leaves fewer units to learn from, and flatters."""
    if isinstance(folds, Buffered):
        return _rule(folds.folds)
    return folds if folds is not None else RandomFolds()


def _embedding(values: Any, labels: Any) -> xr.DataArray:
    import xarray as xr

    return xr.DataArray(
        values,
        dims=(NEIGHBORHOOD, "feature"),
        coords={NEIGHBORHOOD: labels},
        attrs={"encoder": "", "last_image_date": ""},
    )


@dataclass(frozen=True, slots=True)
class ImageConfounders:
    """Check that the image tells the columns that matter, as a hint of what it tells of others.

    Parameters
    ----------
    arm
        Treatment that is compared with none; default the first.
    least_r2, least_auc
        The image carries a column if its held-out score is at least this. At an R² of 0.9 a tenth
        of the bias through such a confounder stays, at 0.6 almost half (METHODS §10).
    small, large
        Warn if the image does not carry a column, and a hidden one like it could take away the
        share ``small`` of the estimate; fail at ``large``.
    seed
        Of folds and models.
    progress
        Called with the number of columns left out so far and their total.
    """

    arm: str | None = None
    least_r2: float = 0.9
    least_auc: float = 0.9
    small: float = 0.1
    large: float = 0.5
    seed: int = 0
    progress: Progress | None = field(default=None, compare=False, repr=False)

    def run(self, subject: Weighted) -> CheckResult:
        """Score the columns, bound the effect, and say both in a sentence each."""
        table = image_confounders(subject, arm=self.arm, seed=self.seed, progress=self.progress)
        name = self.arm or subject.data.arms[1]
        effect = subject.effect(name)
        r2 = table[(table["measure"] == "R2") & table["score"].notna()]
        auc = table[(table["measure"] == "AUC") & table["score"].notna()]
        least = table["measure"].map({"R2": self.least_r2, "AUC": self.least_auc})
        poor = table[~(table["score"] >= least)]
        at = int(table["taken_away"].to_numpy().argmax())
        worst: dict[Any, Any] = table.iloc[at].to_dict()
        claim = f"{_told(r2, auc)} {_bound(worst, effect.estimate)}"
        values: dict[str, Any] = {
            "median_r2": float(r2["score"].median()) if len(r2) else math.nan,
            "least_r2": float(r2["score"].min()) if len(r2) else math.nan,
            "least_auc": float(auc["score"].min()) if len(auc) else math.nan,
            "largest_share_taken_away": float(worst["taken_away"]),
            "poorly_told": list(poor["covariate"].astype(str)),
        }
        share = poor["taken_away"]
        heavy = list(dict.fromkeys(poor.loc[share >= self.large, "column"]))
        if not (share >= self.small).any():
            verdict, detail = Verdict.PASS, ""
        elif heavy:
            verdict = Verdict.FAIL
            detail = (
                f"The image does not tell {', '.join(map(repr, heavy))}, and a hidden confounder "
                "like that could take away most of the effect. What is like it and was not "
                "measured is not adjusted for by this image, however many units there are."
            )
        else:
            verdict = Verdict.WARN
            detail = (
                "What the image does not tell, adjusting for it does not remove; placebo outcomes "
                "and the bounds speak for what is hidden."
            )
        return CheckResult(NAME, verdict, claim, detail, table, values)


def _told(r2: pd.DataFrame, auc: pd.DataFrame) -> str:
    parts = []
    for table, what in ((r2, "R²"), (auc, "AUC")):
        scores = table.set_index("covariate")["score"]
        if not len(scores):
            continue
        least = f"{what} {scores.min():.2f} for {scores.idxmin()!r}"
        if len(scores) > 1:
            least += f" up to {scores.max():.2f} for {scores.idxmax()!r}"
        parts.append(least)
    if not parts:
        return "No column could be predicted from the image."
    told = " and ".join(parts)
    return f"In places it has not seen, the image tells the measured confounders with {told}."


def _bound(worst: dict[Any, Any], estimate: float) -> str:
    if worst["taken_away"] < HARDLY:
        return f"One hidden like those measured would hardly move the estimate {estimate:.3g}."
    if not math.isfinite(worst["taken_away"]):
        return (
            f"With a hidden confounder that tells treatment as {worst['column']!r} does, the "
            f"effect could be anything (the estimate is {estimate:.3g})."
        )
    return (
        f"A hidden confounder that adds as much as {worst['column']!r} could move the estimate "
        f"{estimate:.3g} to anything between {worst['bound_low']:.3g} and "
        f"{worst['bound_high']:.3g}."
    )
