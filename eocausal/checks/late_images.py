"""Whether images that a study adjusts for show the treatment: compared with earlier images.

An image taken after treatment, or of unknown date, may show what treatment built. It then tells
the arms apart better than an image from before, its features changed apart, and the estimate moves
with its date (METHODS D16). A date on or after the start of treatment is refused when data are
read (:func:`~eocausal.estimators.observational.observe`); this check is for dates that are unknown,
in doubt, or later than plans that were carried out before they were signed.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from scipy import stats

from eocausal.checks.base import CheckResult, Verdict
from eocausal.checks.image_changes import (
    ChangeTest,
    check_same_encoder,
    project_out,
    scale_of,
    trace_test,
    traces,
)
from eocausal.contracts import some
from eocausal.effects import Influence
from eocausal.errors import EmbeddingError, EocausalError, EstimationError, OverlapError
from eocausal.estimators.confounders import TABLE, Confounders, confounders_of
from eocausal.estimators.held_out import auc_over_folds
from eocausal.estimators.learners import feature_frame
from eocausal.estimators.observational import Observed
from eocausal.estimators.refusal import dependent_groups
from eocausal.estimators.weighting import Weighting
from eocausal.folds import RandomFolds, split

if TYPE_CHECKING:
    import xarray as xr
    from numpy.typing import NDArray

    from eocausal.effects import EffectEstimate
    from eocausal.estimators.weighting import Weighted

__all__ = ["LateImages", "repair"]

NAME = "Images that show the treatment"
EXTREME = 0.05
RISE = 0.01


@dataclass(frozen=True, slots=True, eq=False)
class LateImages:
    """Check that the study's images do not show the treatment, by images that cannot.

    Fails if the image tells the arms apart better than the earlier one by more than ``jump``;
    warns if more units are hardly ever in one arm, or if features of treated units changed apart.
    The last of the earlier images decides: older ones may tell less because places changed.

    Parameters
    ----------
    earlier
        Embeddings by the same encoder of images from before treatment, the oldest first, by a
        name such as the year. Units whose place has none of the last image are left out.
    image
        Name of the study's image; None if it has one.
    jump
        Gain of AUC that counts.
    alpha
        A rise of extreme probabilities, or a difference of changes, counts if its p-value is
        smaller.
    draws, seed
        Of the test of changes; the seed also deals folds and models.
    estimates
        Whether to estimate the effect with each image as well, for the table: how it moves with
        the image's date.
    decisions
        How a study is analysed that was given as data, because its effect is refused.
    """

    earlier: Mapping[str, pd.DataFrame | xr.DataArray]
    image: str | None = None
    jump: float = 0.1
    alpha: float = 0.01
    draws: int = 999
    seed: int = 0
    estimates: bool = True
    decisions: Weighting = field(default_factory=Weighting)

    def __post_init__(self) -> None:
        if not self.earlier:
            raise EstimationError(
                "No earlier image is given.",
                cause="What an image shows of treatment is told by one that shows nothing of it.",
                next_step="Give an embedding of images from before treatment.",
            )

    def run(self, subject: Weighted | Observed) -> CheckResult:
        """Compare the study's image with the earlier ones.

        Raises
        ------
        EmbeddingError
            If the study has no such image, or features are not of the same encoder.
        EstimationError, FoldError
        """
        data, decided = self._study(subject)
        image = image_of(data, self.image)
        last = list(self.earlier)[-1]
        data = _seen(data, {last: self.earlier[last]})
        swapped = {
            name: _swapped(data, image, features)
            for name, features in self.earlier.items()
            if name == last or _covers(data, features)
        }
        told = _tell(data, swapped, decided, self.seed)
        change = _change_test(self, data, swapped[last], image, decided)
        rows = [_row(data, name, swapped.get(name), told, decided, self) for name in (*swapped, "")]
        table = pd.DataFrame(rows).replace({"image": {"": image}})
        return self._judge(table, told, change, last, image)

    def _study(self, subject: Weighted | Observed) -> tuple[Observed, Weighting]:
        if isinstance(subject, Observed):
            return subject, self.decisions
        return subject.data, replace(subject.decisions, trim=None)

    def _judge(
        self, table: pd.DataFrame, told: _Told, change: ChangeTest, last: str, image: str
    ) -> CheckResult:
        gain = told.auc[""] - told.auc[last]
        more, p_more = told.rise(last)
        alarms = []
        if gain > self.jump:
            alarms.append(
                f"It tells arms apart better than the image {last!r} does, by {gain:.2f} of AUC."
            )
        if more > RISE and p_more < self.alpha:
            alarms.append(
                f"With it {more:.1%} more units have a probability below {EXTREME:g} of some arm."
            )
        if change.p_value < self.alpha:
            alarms.append(
                f"Since {last!r} images of treated and untreated units with the same table changed "
                f"apart (p = {change.p_value:.2g})."
            )
        verdict = Verdict.FAIL if gain > self.jump else Verdict.WARN if alarms else Verdict.PASS
        claim = (
            f"AUC of treatment {told.auc['']:.3f} with the image {image!r} and "
            f"{told.auc[last]:.3f} with {last!r}; difference of their changes: "
            f"p = {change.p_value:.2g}."
        )
        values: dict[str, Any] = {
            "auc": told.auc[""], "auc_earlier": told.auc[last], "auc_jump": gain,
            "auc_jump_std_error": told.error[last], "rise_extreme": more,
            "rise_extreme_p": p_more, "change_p": change.p_value, "alarm": bool(alarms),
        }  # fmt: skip
        detail = " ".join([*alarms, *_advice(alarms)])
        return CheckResult(NAME, verdict, claim, detail, table, values)


def _advice(alarms: list[str]) -> list[str]:
    if not alarms:
        return []
    return [
        "Either treatment shows in the image, or places bound for treatment changed otherwise "
        "anyway. Adjust for the earlier image; where some places have none, take the trace of "
        "treatment out of the later one (repair)."
    ]


def image_of(data: Observed, image: str | None) -> str:
    """Return the name of the study's image.

    Raises
    ------
    EmbeddingError
        If there is none of that name, or several and none is named.
    """
    names = [name for name in data.confounders.blocks if name != TABLE]
    if (image is None and len(names) != 1) or (image is not None and image not in names):
        raise EmbeddingError(
            f"The study's images are {some(names) if names else 'none'}"
            + (f"; {image!r} is not among them." if image is not None else "."),
            cause="One of them is compared with its earlier self.",
            next_step="Name it: LateImages(image=...).",
        )
    return image or names[0]


def repair(
    data: Observed,
    earlier: pd.DataFrame | xr.DataArray,
    *,
    image: str | None = None,
    keep_earlier: bool = True,
) -> Observed:
    """Take the trace of treatment out of the features of a study's image.

    In the directions of the trace only the earlier image speaks; in all others features are the
    mean of both, so that noise of the single exposure is halved and nothing is lost. Where some
    places have no earlier image (``keep_earlier=False``) those directions are left out, and with
    them what they say of confounders: in the world of ``benchmarks/late_images.py`` intervals then
    hold in 0.84 of runs, with the earlier image in 0.95. Changes are compared given the table's
    columns, as the check does; see :func:`~eocausal.checks.image_changes.repaired_embedding` for
    what this can do.

    Parameters
    ----------
    data
        The study; its confounders hold the late image.
    earlier
        Embedding by the same encoder of images before treatment.
    image
        Name of the study's image; None if it has one.
    keep_earlier
        Whether to use the earlier image beside the later one; every unit must have it then.

    Raises
    ------
    EmbeddingError
        If units have no earlier image (at least ten of each arm must have one), or features are
        not of one encoder.
    EstimationError
    """
    name = image_of(data, image)
    seen = _seen(data, {"earlier": earlier})
    if keep_earlier and seen.n < data.n:
        raise EmbeddingError(
            f"{data.n - seen.n:,} of {data.n:,} units have no earlier image.",
            cause="It is to speak where the later one cannot.",
            next_step="Leave these units out, or use keep_earlier=False.",
        )
    old, new = _features(seen, name, earlier), data.confounders.only(name).x
    scale = scale_of(old)
    found = traces(seen.confounders.only(name).x - old, seen.arm, _table(seen.confounders))
    out = project_out(new, found, scale)
    if keep_earlier:
        out = old + (out - project_out(old, found, scale)) / 2
    return replace(data, confounders=_with(data.confounders, name, out))


def _place(data: Observed) -> pd.Index:
    units = data.units
    return pd.Index(units["neighborhood"]) if "neighborhood" in units else units.index


def _covers(data: Observed, features: pd.DataFrame | xr.DataArray) -> bool:
    return bool(_place(data).isin(feature_frame(features).index).all())


def _seen(data: Observed, earlier: Mapping[str, pd.DataFrame | xr.DataArray]) -> Observed:
    """Keep the units whose place is in the earlier image.

    Raises
    ------
    EmbeddingError
        If fewer than ten of some arm are left.
    """
    ((name, features),) = earlier.items()
    kept = data.subset(np.asarray(_place(data).isin(feature_frame(features).index)))
    few = kept.counts().min()
    if few < 10:
        raise EmbeddingError(
            f"{few} units of arm {kept.arms[int(kept.counts().argmin())]!r} have a place in the "
            f"earlier image ({name}).",
            cause="What arms show cannot be compared for so few.",
            next_step="Check that labels of places agree, or use an image that covers more.",
        )
    return kept


def _features(
    data: Observed, image: str, earlier: pd.DataFrame | xr.DataArray
) -> NDArray[np.float64]:
    own = data.confounders.only(image).x
    check_same_encoder(pd.DataFrame(own), feature_frame(earlier))
    return confounders_of(data.units, (), {image: earlier}).x


def _with(confounders: Confounders, image: str, x: NDArray[np.float64]) -> Confounders:
    out = confounders.x.copy()
    out[:, confounders.block == confounders.blocks.index(image)] = x
    return replace(confounders, x=out)


def _swapped(data: Observed, image: str, earlier: pd.DataFrame | xr.DataArray) -> Observed:
    x = _features(data, image, earlier)
    return replace(data, confounders=_with(data.confounders, image, x))


def _table(confounders: Confounders) -> NDArray[np.float64] | None:
    return confounders.only(TABLE).x if TABLE in confounders.blocks else None


@dataclass(frozen=True, slots=True, eq=False)
class _Told:
    """How well the arms are told with each image; the study's own has the name ``''``."""

    auc: dict[str, float]
    error: dict[str, float]
    extreme: dict[str, NDArray[np.bool_]]

    def rise(self, name: str) -> tuple[float, float]:
        """Return the rise of the share of extreme units, and its one-sided p (McNemar 1947)."""
        new, old = self.extreme[""], self.extreme[name]
        more, less = int((new & ~old).sum()), int((old & ~new).sum())
        p = float(stats.binom.sf(more - 1, more + less, 0.5)) if more + less else 1.0
        return (more - less) / len(new), p


def _tell(data: Observed, swapped: Mapping[str, Observed], decided: Weighting, seed: int) -> _Told:
    """Predict held-out arms with each image; of several treatments the one told best counts."""
    stratum = data.arm.astype(float)
    splits = split(decided.folds or RandomFolds(), data.units, seed=seed, stratum=stratum)
    values: dict[str, list[float]] = {}
    psi: dict[str, list[NDArray[np.float64]]] = {}
    extreme = {}
    for name, study in {"": data, **swapped}.items():
        e = decided.propensity.cross_fit(study.confounders, data.arm, splits, seed=seed)
        extreme[name] = e.min(axis=1) < EXTREME
        for k in range(1, len(data.arms)):
            keep = (data.arm == 0) | (data.arm == k)
            share = e[keep, k] / (e[keep, k] + e[keep, 0])
            treated = (data.arm[keep] == k).astype(float)
            value, own, _ = auc_over_folds(share, treated, splits.fold[keep])
            values.setdefault(name, []).append(value)
            whole = np.zeros(data.n)
            whole[keep] = own
            psi.setdefault(name, []).append(whole)
    last = list(swapped)[-1]
    k = int(np.nanargmax(np.array(values[""]) - np.array(values[last])))

    def error(influence: NDArray[np.float64]) -> float:
        found = decided.vcov.variance(Influence(data.units.index, influence, influence), data.units)
        return float(np.sqrt(max(found.value, 0.0)))

    return _Told(
        {name: v[k] for name, v in values.items()},
        {name: error(psi[""][k] - p[k]) for name, p in psi.items()},
        extreme,
    )


def _change_test(
    asked: LateImages, data: Observed, old: Observed, image: str, decided: Weighting
) -> ChangeTest:
    before, after = (d.confounders.only(image).x for d in (old, data))
    return trace_test(
        (after - before) / scale_of(before), data.arm, _table(data.confounders),
        groups=dependent_groups(decided.vcov, data.units), draws=asked.draws, seed=asked.seed,
    )  # fmt: skip


def _row(
    data: Observed,
    name: str,
    swapped: Observed | None,
    told: _Told,
    decided: Weighting,
    asked: LateImages,
) -> dict[str, Any]:
    """Estimate the first effect with an image in the place of the study's own."""
    date = ""
    if name:
        date = str(getattr(asked.earlier[name], "attrs", {}).get("last_image_date", ""))
    row: dict[str, Any] = {
        "image": name, "last_image_date": date, "auc": told.auc[name],
        "share_extreme": float(told.extreme[name].mean()),
    }  # fmt: skip
    if not asked.estimates:
        return row
    try:
        effect = decided.fit(swapped if swapped is not None else data, seed=asked.seed).estimate
    except OverlapError as error:
        return {**row, **_gap(), "note": f"{error.fact}"}
    except EocausalError as error:
        return {**row, **_gap(), "note": f"{error.fact} {error.cause}"}
    return {**row, **_numbers(effect), "note": effect.note}


def _numbers(effect: EffectEstimate) -> dict[str, Any]:
    return {
        "estimate": effect.estimate, "std_error": effect.std_error,
        "ci_low": effect.ci_low, "ci_high": effect.ci_high,
    }  # fmt: skip


def _gap() -> dict[str, Any]:
    return dict.fromkeys(("estimate", "std_error", "ci_low", "ci_high"), float("nan"))
