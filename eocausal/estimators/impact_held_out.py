"""The last part of the past predicted from the part before it, where nothing happened."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    import pandas as pd

    from eocausal.estimators.impact import Impact

__all__ = ["HeldOut"]

FAR = 0.1


@dataclass(frozen=True, slots=True, eq=False)
class HeldOut:
    """An impact of nothing.

    Attributes
    ----------
    impact
        Estimated as if an event began at the first held-out time.
    """

    impact: Impact

    @property
    def n(self) -> int:
        """Values held out."""
        return self.impact.effects.n

    @property
    def inside(self) -> float:
        """Share of them within the interval of their time."""
        frame = self.to_frame()
        low, high = frame["counterfactual_low"], frame["counterfactual_high"]
        return float(((frame["observed"] >= low) & (frame["observed"] <= high)).mean())

    @property
    def holds_zero(self) -> bool:
        """Whether the interval of the average difference holds zero, as it should."""
        row = self.impact.effects.row()
        return row["effect_low"] <= 0.0 <= row["effect_high"]

    @property
    def doubts(self) -> tuple[str, ...]:
        """What this casts doubt on, in sentences."""
        found = []
        if not self.holds_zero:
            found.append(
                "The model finds an effect where there was none: its interval is too narrow, or "
                "something else happened then."
            )
        if self.inside < self.impact.path.level - FAR:
            found.append("Too few single values are within their intervals.")
        return tuple(found)

    def to_frame(self) -> pd.DataFrame:
        """Return a row per held-out value, as :meth:`EffectPath.to_frame`."""
        return self.impact.to_frame()[self.impact.path.counted]

    def summary(self) -> str:
        """Say it in words."""
        impact, row = self.impact, self.impact.effects.row()
        learned = int((impact.before & np.isfinite(impact.path.observed)).sum())
        low, high = (f"{row[f'effect_{end}']:+.4g}" for end in ("low", "high"))
        said = [
            f"Held out: the last {self.n} values before the event, predicted from the {learned} "
            f"before them. The average difference is {row['effect']:+.4g} ({low} to {high}), "
            f"{'which holds' if self.holds_zero else 'without'} zero; {self.inside:.0%} of single "
            f"values are within their {100 * impact.path.level:g}% interval."
        ]
        return " ".join([*said, *self.doubts])

    def record(self) -> dict[str, float | int | bool]:
        """Return the numbers."""
        row = self.impact.effects.row()
        names = ("effect", "effect_sd", "effect_low", "effect_high")
        return {
            **{name: row[name] for name in names},
            "p_value": self.impact.effects.p_value,
            "n": self.n,
            "inside": self.inside,
            "holds_zero": self.holds_zero,
        }

    def __repr__(self) -> str:
        return f"HeldOut({self.n} values, {self.inside:.0%} inside, {self.impact.effects!r})"
