"""Whether outcomes depend on the treatment of neighbours, which weighting takes to be impossible.

Three looks at every distance: how many neighbours are treated, whether untreated units with a
larger share of treated neighbours fare differently than their confounders say, and how the effect
changes among units without a treated neighbour.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from eocausal.checks.base import CheckResult, Verdict
from eocausal.checks.leave_out import refit
from eocausal.effects import EffectEstimate, Influence
from eocausal.errors import EocausalError, EstimationError
from eocausal.estimators.conley import Conley, places_of
from eocausal.estimators.kernels import Uniform
from eocausal.estimators.neighbours import kernel_sums

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from eocausal.estimators.conley import Projected
    from eocausal.estimators.neighbours import Places
    from eocausal.estimators.weighting import Weighted

__all__ = ["Neighbours", "Spillover", "neighbour_effect", "spillover_table", "treated_neighbours"]

NAME = "Spillovers from treated neighbours"
FEWEST = 30
CUTOFF = 3


@dataclass(frozen=True, slots=True, eq=False)
class Neighbours:
    """Neighbours of each unit within a distance, itself not counted.

    Attributes
    ----------
    count
        (n,) all neighbours.
    treated
        (n,) treated ones.
    """

    count: NDArray[np.float64]
    treated: NDArray[np.float64]

    @property
    def share(self) -> NDArray[np.float64]:
        """(n,) share treated; 0 without neighbours."""
        return np.asarray(self.treated / np.maximum(self.count, 1.0))


def treated_neighbours(places: Places, treated: NDArray[np.bool_], km: float) -> Neighbours:
    """Count the units within ``km`` of each unit, by tree.

    Parameters
    ----------
    places
        Where the n units are.
    treated
        (n,) True for treated units.
    """
    values = np.stack([np.ones(len(treated)), treated.astype(float)], axis=1)
    near = kernel_sums(places, km, Uniform(), places.sums(values)).plain[places.at]
    count, other = np.rint(near - values).T
    return Neighbours(count, other)


def neighbour_effect(
    subject: Weighted, near: Neighbours, vcov: Conley, *, seed: int = 0
) -> EffectEstimate:
    """Regress outcomes of the untreated on the share of their neighbours that is treated.

    Outcome and share are first rid of what the confounders say of them, by the subject's outcome
    model on its folds (Robinson 1988, Econometrica 56:931), and of the logarithm of the number of
    neighbours: near towns there are more of either.

    Returns
    -------
    EffectEstimate
        Change of the outcome of an untreated unit if all neighbours were treated instead of none.

    Raises
    ------
    EstimationError
        If fewer than 30 untreated units have neighbours, or the share does not vary among them.
    """
    data = subject.data
    use = (data.arm == 0) & (near.count > 0)
    if use.sum() < FEWEST or np.ptp(near.share[use]) == 0:
        raise EstimationError(
            f"{int(use.sum())} untreated units have neighbours, "
            f"{int((use & (near.treated > 0)).sum())} of them a treated one.",
            cause="At least 30 untreated units, some with more treated neighbours than others, are "
            "needed.",
            next_step="Look at another distance.",
        )

    def left(values: NDArray[np.float64]) -> NDArray[np.float64]:
        predicted = subject.decisions.outcome_model.cross_fit(
            data.confounders, values, data.arm, subject.splits, seed=seed
        )
        return np.asarray((values - predicted[:, 0])[use])

    residual = np.stack([left(near.share), left(data.y)], axis=1)
    density = np.stack([np.ones(int(use.sum())), np.log(near.count[use])], axis=1)
    residual -= density @ np.linalg.lstsq(density, residual, rcond=None)[0]
    share, y = residual.T
    square = float(share @ share)
    value = float(share @ y) / square
    psi = share * (y - value * share) / square
    units = data.units[use]
    leverage = np.minimum(share**2 / square, 1 - 1e-8)
    influence = Influence(units.index, psi, psi / np.sqrt(1 - leverage))
    return EffectEstimate.of(
        value, influence, estimand="effect of treated neighbours on the untreated",
        method="residual-on-residual regression", units=units, vcov=vcov,
        level=subject.decisions.level,
    )  # fmt: skip


def spillover_table(
    subject: Weighted,
    km: Sequence[float],
    *,
    lon: str = "lon",
    lat: str = "lat",
    projected: Projected | None = None,
    seed: int = 0,
) -> pd.DataFrame:
    """Look for spillovers within each distance.

    Standard errors of the coefficient are Conley's with a cutoff of three times the distance, or
    that of the subject's own rule where it is larger: units twice the distance apart can share
    neighbours, and the kernel weighs far pairs down.

    Returns
    -------
    DataFrame
        One row per distance and treatment: ``km``, ``treatment``; ``exposed``, the share of all
        units with a treated neighbour; ``share_untreated`` and ``share_treated``, the mean share
        of neighbours treated around units of either kind; ``coefficient``, ``coefficient_se``,
        ``coefficient_p`` of :func:`neighbour_effect`; ``shift`` = coefficient times
        share_untreated, what neighbours add to the mean of the untreated; ``unexposed``, the number
        of units without a treated neighbour, with ``estimate``, ``std_error`` of the effect among
        them, models fitted anew, and ``difference``, ``difference_se``, ``difference_p`` to the
        effect among all; ``note``.

    Raises
    ------
    MissingColumnError, EstimationError
        If coordinates are missing.
    """
    data = subject.data
    places = places_of(data.units, lon, lat, projected)
    rows: list[dict[str, Any]] = []
    for reach in sorted(km):
        near = treated_neighbours(places, data.arm > 0, reach)
        rule = _rule(subject, reach, lon, lat, projected)
        common, note = _coefficient(subject, near, rule, seed)
        apart = near.treated == 0
        try:
            alone: Weighted | None = refit(subject, apart, seed=seed)
            why = ""
        except EocausalError as error:
            alone, why = None, f"Without them there is no estimate: {error.fact}"
        for arm in data.arms[1:]:
            row = {"km": float(reach), "treatment": arm, **common, "unexposed": int(apart.sum())}
            row |= _among_unexposed(subject, alone, arm)
            rows.append({**row, "note": " ".join(part for part in (note, why) if part)})
    return pd.DataFrame(rows)


def _rule(subject: Weighted, km: float, lon: str, lat: str, projected: Projected | None) -> Conley:
    own = subject.decisions.vcov
    if isinstance(own, Conley):
        return replace(own, km=max(own.km, CUTOFF * km))
    return Conley(CUTOFF * km, lon=lon, lat=lat, projected=projected)


def _coefficient(
    subject: Weighted, near: Neighbours, rule: Conley, seed: int
) -> tuple[dict[str, float], str]:
    untreated = subject.data.arm == 0
    row = {
        "exposed": float((near.treated > 0).mean()),
        "share_untreated": float(near.share[untreated].mean()),
        "share_treated": float(near.share[~untreated].mean()),
        "coefficient": math.nan,
        "coefficient_se": math.nan,
        "coefficient_p": math.nan,
        "shift": math.nan,
    }
    try:
        found = neighbour_effect(subject, near, rule, seed=seed)
    except EstimationError as error:
        return row, error.fact
    row |= {
        "coefficient": found.estimate,
        "coefficient_se": found.std_error,
        "coefficient_p": found.p_value,
        "shift": found.estimate * row["share_untreated"],
    }
    return row, found.note


def _among_unexposed(subject: Weighted, alone: Weighted | None, arm: str) -> dict[str, float]:
    names = ("estimate", "std_error", "difference", "difference_se", "difference_p")
    if alone is None or alone.data.n == subject.data.n:
        return dict.fromkeys(names, math.nan)
    some, whole = alone.effect(arm), subject.effect(arm)
    influence = some.influence.combine(whole.influence, -1.0)
    gap = EffectEstimate.of(
        some.estimate - whole.estimate, influence, estimand=whole.estimand, method=whole.method,
        units=subject.data.units.loc[influence.labels], vcov=whole.vcov, level=whole.level,
    )  # fmt: skip
    numbers = (some.estimate, some.std_error, gap.estimate, gap.std_error, gap.p_value)
    return dict(zip(names, numbers, strict=True))


@dataclass(frozen=True, slots=True)
class Spillover:
    """Check that the treatment of neighbours leaves no mark on a unit's outcome.

    Parameters
    ----------
    km
        Distances.
    lon, lat
        Columns in degrees.
    projected
        Columns in metres to be used instead.
    alpha
        Warn if the smallest p-value, times the number of tests (coefficients, and effects among
        units without a treated neighbour), is below this.
    large
        Fail if, besides, what treated neighbours add to the mean of the untreated is at least
        this share of an effect.
    seed
        Of models that are fitted anew.
    """

    km: tuple[float, ...] = (10.0, 25.0, 50.0, 100.0)
    lon: str = "lon"
    lat: str = "lat"
    projected: Projected | None = None
    alpha: float = 0.05
    large: float = 0.5
    seed: int = 0

    def __post_init__(self) -> None:
        object.__setattr__(self, "km", tuple(float(reach) for reach in self.km))
        if not self.km or not all(0 < reach < math.inf for reach in self.km):
            raise EstimationError(
                f"km={self.km} are no distances.",
                cause="Neighbours are units within a positive distance.",
                next_step="Give kilometres, e.g. Spillover(km=(10, 50)).",
            )

    def run(self, subject: Weighted) -> CheckResult:
        """Look for spillovers within each distance."""
        table = spillover_table(
            subject, self.km, lon=self.lon, lat=self.lat, projected=self.projected, seed=self.seed
        )
        once = table.drop_duplicates("km")
        tested = once.dropna(subset=["coefficient_p"])
        gaps = table.dropna(subset=["difference_p"])
        if tested.empty:
            claim = "Whether neighbours' treatment matters cannot be seen at any distance."
            return CheckResult(NAME, Verdict.WARN, claim, " ".join(once["note"]), table)
        least = int(tested["coefficient_p"].to_numpy().argmin())
        at: dict[Any, Any] = tested.iloc[least].to_dict()
        tests = len(tested) + len(gaps)
        p = min(1.0, float(at["coefficient_p"]) * tests)
        p_gap = min(1.0, float(gaps["difference_p"].min()) * tests) if len(gaps) else math.nan
        claim = (
            f"Within {at['km']:g} km, untreated units gain {at['coefficient']:.3g} (SE "
            f"{at['coefficient_se']:.2g}; p = {p:.3g} among {tests} tests) if all "
            f"neighbours are treated instead of none; {at['exposed']:.0%} of units have a treated "
            "neighbour there."
        )
        values = {"smallest_p": p, "smallest_p_unexposed": p_gap, "shift": float(at["shift"])}
        verdict, detail = self._judge(subject, float(at["shift"]), p, p_gap)
        return CheckResult(NAME, verdict, claim, detail, table, values)

    def _judge(
        self, subject: Weighted, shift: float, p: float, p_gap: float
    ) -> tuple[Verdict, str]:
        if p < self.alpha:
            least = min(abs(effect.estimate) for effect in subject.effects())
            fail = abs(shift) >= self.large * least
            return (Verdict.FAIL if fail else Verdict.WARN), (
                "Untreated units near treated ones differ from what their confounders say: "
                "treatment spills over, or neighbours share something that was not measured. "
                f"The mean of the untreated is off by about {shift:.3g}. Treat larger areas as "
                "units, leave out untreated units near treated ones, or report the effect as one "
                "net of spillovers."
            )
        if p_gap < self.alpha:
            return Verdict.WARN, (
                "The effect is another one among units without a treated neighbour: treatment "
                "spills over, or works differently where there is little of it."
            )
        return Verdict.PASS, ""
