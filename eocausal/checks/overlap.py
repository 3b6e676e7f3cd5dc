"""Whether both arms of a trial reach the analysis alike."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from eocausal.checks.base import CheckResult, Verdict
from eocausal.checks.draw import Draw
from eocausal.contracts import check_columns
from eocausal.errors import AlignmentError

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from eocausal.checks.leakage import TrialData

__all__ = ["Attrition", "attrition_table"]

ANY = "any of these"


def attrition_table(subject: TrialData, *, draws: int = 1000, seed: int = 0) -> pd.DataFrame:
    """Count by arm the units that lack an image, the outcome or a covariate.

    Pass the units before any row is dropped.

    Returns
    -------
    DataFrame
        Indexed by ``lacking`` (``image``, ``outcome NAME``, ``covariate NAME``; ``any of these``
        where several are lacking somewhere): ``treated``, ``control`` (numbers of units),
        ``share_treated``, ``share_control``, ``difference`` of the shares, and ``p_value`` from
        redrawing the arms over units of assignment (1 where nothing is lacking).

    Raises
    ------
    MissingColumnError, AlignmentError, AssignmentError, OneArmError, OneClusterError
    """
    lacking = _lacking(subject)
    draw = Draw.of(subject.units, subject.trial)
    treated = draw.treated
    rows = {}
    for name, gone in lacking.items():
        one, zero = gone[treated], gone[~treated]
        p = 1.0
        if gone.any():
            p = draw.balance_test(gone[:, None].astype(float), draws=draws, seed=seed).p_value
        rows[name] = (
            int(one.sum()), int(zero.sum()), float(one.mean()), float(zero.mean()),
            float(one.mean() - zero.mean()), p,
        )  # fmt: skip
    names = ["treated", "control", "share_treated", "share_control", "difference", "p_value"]
    table = pd.DataFrame.from_dict(rows, orient="index", columns=names)
    table.index.name = "lacking"
    return table


def _lacking(subject: TrialData) -> dict[str, NDArray[np.bool_]]:
    units = subject.units
    named = [*subject.covariates] + ([subject.outcome] if subject.outcome is not None else [])
    check_columns(units, named, what="units table")
    lacking: dict[str, NDArray[np.bool_]] = {}
    if subject.has_image is not None:
        if len(subject.has_image) != len(units):
            raise AlignmentError(
                f"has_image has {len(subject.has_image)} entries for {len(units)} units.",
                cause="It says of each unit whether it has an image.",
                next_step="Make it from the same table, in the same order.",
            )
        lacking["image"] = ~np.asarray(subject.has_image, dtype=bool)
    if subject.outcome is not None:
        lacking[f"outcome {subject.outcome}"] = units[subject.outcome].isna().to_numpy()
    for name in dict.fromkeys(subject.covariates):
        lacking[f"covariate {name}"] = units[name].isna().to_numpy()
    if sum(bool(gone.any()) for gone in lacking.values()) > 1:
        lacking[ANY] = np.logical_or.reduce(list(lacking.values()))
    return lacking


@dataclass(frozen=True, slots=True)
class Attrition:
    """Check that missing images, outcomes and covariates do not depend on the arm.

    Parameters
    ----------
    draws, seed
        Redraws of the arms for the p-values, and their seed.
    alpha
        Warn if the smallest p-value times the number of things lacking is below this.
    gross
        Fail if, besides, the arms' shares lost differ by more than this.
    """

    draws: int = 1000
    seed: int = 0
    alpha: float = 0.01
    gross: float = 0.2

    def run(self, subject: TrialData) -> CheckResult:
        """Compare the arms' losses; warn or fail if they differ beyond chance."""
        table = attrition_table(subject, draws=self.draws, seed=self.seed)
        name = "Units without image, outcome or covariates"
        lost = table[table["treated"] + table["control"] > 0]
        if lost.empty:
            claim = "No unit lacks an image, the outcome or a covariate."
            return CheckResult(name, Verdict.PASS, claim, "", table, {"smallest_p": 1.0})
        at = int(lost["p_value"].to_numpy().argmin())
        row, worst = lost.iloc[at], str(lost.index[at])
        p = min(1.0, float(row["p_value"]) * len(lost))
        claim = (
            f"{row['share_treated']:.1%} of treated and {row['share_control']:.1%} of control "
            f"units lack {worst} (p = {p:.3g})."
        )
        values = {"smallest_p": p, "lacking": worst}
        if p >= self.alpha:
            return CheckResult(name, Verdict.PASS, claim, "", table, values)
        detail = (
            "The arms lose units at different rates, so that those that remain need not be alike. "
            "Find out why; report bounds, or weight by the probability of being observed."
        )
        apart = abs(float(row["share_treated"]) - float(row["share_control"]))
        verdict = Verdict.FAIL if apart > self.gross else Verdict.WARN
        return CheckResult(name, verdict, claim, detail, table, values)
