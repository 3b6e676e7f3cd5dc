"""How far an effect on attenuation moves the depth that light reaches, draw by draw.

Depth is a curved function of attenuation: that of a mean is not the mean of depths, and the spread
of one says little about that of the other. So every draw is turned into a depth first.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from eocausal.effects import EffectPath
from eocausal.errors import OutcomeError
from eocausal.ocean.light import (
    AttenuationOfChlorophyll,
    DepthOf490,
    DepthOfPar,
    DepthRelation,
    EuphoticFromChlorophyll,
    Layer,
)
from eocausal.ocean.units import AttenuationUnits, per_metre

__all__ = ["RELATIONS", "DepthEffect", "compare_relations", "euphotic_depth_effect"]

Float64 = NDArray[np.float64]

RELATIONS: tuple[DepthRelation, ...] = (
    DepthOf490(),
    DepthOfPar(Layer.ONE),
    DepthOfPar(Layer.TWO),
    EuphoticFromChlorophyll(),
    EuphoticFromChlorophyll(AttenuationOfChlorophyll(0.077746, 0.672846)),
)


@dataclass(frozen=True, slots=True, eq=False)
class DepthEffect:
    """Change of a depth after an event.

    Attributes
    ----------
    relation
        How depth follows from Kd490.
    time
        (H,) times after the event with a value and a prediction.
    observed
        (H,) depth in m of the observed water.
    expected
        (draws, H) depth of the water that would have been.
    at_mean_observed, at_mean_expected
        Depth at the mean Kd490 over these times: a number, and (draws,).
    outside
        Share of observed and drawn values outside the range the relation was made for.
    left_out
        Times after the event without a value, or with some draw that has no depth.
    level
        Probability of intervals.
    """

    relation: DepthRelation
    time: pd.Index
    observed: Float64
    expected: Float64
    at_mean_observed: float
    at_mean_expected: Float64
    outside: float
    left_out: int
    level: float

    @property
    def change(self) -> Float64:
        """(draws, H) change in m; below zero where light reaches less deep."""
        return np.asarray(self.observed - self.expected)

    @property
    def average(self) -> Float64:
        """(draws,) mean change over the times."""
        return np.asarray(self.change.mean(1))

    @property
    def at_mean(self) -> Float64:
        """(draws,) change of the depth at the mean Kd490."""
        return np.asarray(self.at_mean_observed - self.at_mean_expected)

    def _ends(self, draws: Float64, axis: int = 0) -> tuple[Float64, Float64]:
        low, high = np.quantile(draws, [0.5 - self.level / 2, 0.5 + self.level / 2], axis=axis)
        return low, high

    def record(self) -> dict[str, object]:
        """Return one row: depths, mean change and change at the mean, with intervals."""
        low, high = self._ends(self.average)
        row: dict[str, object] = {
            "relation": self.relation.name, "expected": float(self.expected.mean()),
            "observed": float(self.observed.mean()), "change": float(self.average.mean()),
            "change_low": float(low), "change_high": float(high),
            "expected_at_mean": float(self.at_mean_expected.mean()),
            "observed_at_mean": self.at_mean_observed, "change_at_mean": float(self.at_mean.mean()),
        }  # fmt: skip
        low, high = self._ends(self.at_mean)
        return row | {
            "change_at_mean_low": float(low), "change_at_mean_high": float(high),
            "outside": self.outside, "left_out": self.left_out, "meaning": self.relation.meaning,
            "source": self.relation.source,
        }  # fmt: skip

    def to_frame(self) -> pd.DataFrame:
        """Return one row per time: observed and expected depth, change and its interval."""
        low, high = self._ends(self.change)
        return pd.DataFrame(
            {
                "observed": self.observed, "expected": self.expected.mean(0),
                "change": self.change.mean(0), "change_low": low, "change_high": high,
            },
            index=pd.Index(self.time, name="time"),
        )  # fmt: skip

    def summary(self) -> str:
        """Say in words how far light reaches, and what that depth is."""
        low, high = self._ends(self.average)
        words = (
            f"By {self.relation.name} ({self.relation.source}), the {self.relation.meaning}: "
            f"{self.expected.mean():.1f} m would have been {self.observed.mean():.1f} m, a change "
            f"of {self.average.mean():+.1f} m ({self.level:.0%} interval {low:+.1f} to "
            f"{high:+.1f}) on average over {len(self.time)} times; at the mean attenuation "
            f"{self.at_mean.mean():+.1f} m."
        )
        if self.outside > 0.01:
            words += (
                f" {self.outside:.0%} of values lie outside the range the relation was made for."
            )
        if self.left_out:
            words += f" {self.left_out} times without a value or a depth are left out."
        return words

    def __repr__(self) -> str:
        return (
            f"DepthEffect({self.relation.name}: {self.expected.mean():.1f} -> "
            f"{self.observed.mean():.1f} m, change {self.average.mean():+.2f} m)"
        )


def euphotic_depth_effect(
    path: EffectPath,
    relation: DepthRelation,
    *,
    units: AttenuationUnits = AttenuationUnits.PER_METRE,
    turbid: bool = False,
) -> DepthEffect:
    """Turn an effect on Kd490 into one on a depth.

    Parameters
    ----------
    path
        Observed Kd490 and draws of what would have been, e.g. ``bsts(...).path``.
    relation
        How depth follows; none is *the* right one, see :func:`compare_relations`.
    units
        Of the path.
    turbid
        Whether typical values above 1 m-1 are to be believed.

    Raises
    ------
    OutcomeError
        If the values seem to be in other units, or no time after the event has a depth.
    """
    scaled = per_metre(np.vstack([path.observed, path.counterfactual]), units, turbid=turbid)
    observed, drawn = scaled[0], scaled[1:]
    use = path.counted
    observed, drawn = observed[use], drawn[:, use]
    deep, expected = relation.depth(observed), relation.depth(drawn)
    known = np.isfinite(deep) & np.isfinite(expected).all(0) if use.any() else np.zeros(0, bool)
    if not known.any():
        raise OutcomeError(
            "No time after the event has a depth in every draw.",
            cause=f"{relation.name} has none at or below the attenuation of pure water, or the "
            "path is empty there.",
            next_step="Estimate the effect on the logarithm of Kd490, whose draws stay positive.",
        )
    observed, drawn = observed[known], drawn[:, known]
    low, high = relation.valid
    values = np.vstack([observed, drawn])
    return DepthEffect(
        relation, path.time[use][known], deep[known], expected[:, known],
        float(relation.depth(observed.mean(keepdims=True))[0]), relation.depth(drawn.mean(1)),
        float(((values < low) | (values > high)).mean()),
        int(path.post.sum() - known.sum()), path.level,
    )  # fmt: skip


def compare_relations(
    path: EffectPath,
    relations: Sequence[DepthRelation] = RELATIONS,
    *,
    units: AttenuationUnits = AttenuationUnits.PER_METRE,
) -> pd.DataFrame:
    """Return a row per relation: the same effect on Kd490 as depths of different meaning.

    Raises
    ------
    OutcomeError
        As :func:`euphotic_depth_effect`.
    """
    rows = [euphotic_depth_effect(path, relation, units=units).record() for relation in relations]
    return pd.DataFrame(rows).set_index("relation")
