"""What a check says: a verdict, the claim in words, the numbers behind it."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, Protocol

import pandas as pd

__all__ = ["Check", "CheckResult", "Verdict", "check", "worst"]


class Verdict(StrEnum):
    """How a check came out, from best to worst."""

    PASS = "pass"
    WARN = "warn"
    FAIL = "fail"


@dataclass(frozen=True, slots=True, eq=False)
class CheckResult:
    """The outcome of one check.

    Attributes
    ----------
    name
        Short title, e.g. ``'Leakage of treatment into covariates'``.
    verdict
        Pass, warn or fail.
    claim
        One sentence with the number that decided.
    detail
        What it means and what to do about it.
    table
        Numbers behind the claim, one row per item; may be empty.
    values
        The deciding numbers by name, for ``estimates.json``.
    """

    name: str
    verdict: Verdict
    claim: str
    detail: str = ""
    table: pd.DataFrame = field(default_factory=pd.DataFrame)
    values: dict[str, Any] = field(default_factory=dict)

    def __repr__(self) -> str:
        return f"CheckResult({self.verdict.upper()} {self.name}: {self.claim})"

    def record(self) -> dict[str, Any]:
        """Return the result as JSON values."""
        return {
            "name": self.name,
            "verdict": str(self.verdict),
            "claim": self.claim,
            "detail": self.detail,
            "values": dict(self.values),
        }


class Check(Protocol):
    """A check is a decision object that looks at something and returns a result."""

    def run(self, subject: Any) -> CheckResult:
        """Look at the subject."""
        ...


def check(subject: Any, *checks: Check) -> list[CheckResult]:
    """Run checks on a subject (a :class:`~eocausal.checks.base.Check` says which it takes)."""
    return [item.run(subject) for item in checks]


def worst(results: Iterable[CheckResult]) -> Verdict:
    """Return the worst verdict; pass if there are none."""
    order: Sequence[Verdict] = list(Verdict)
    return max((r.verdict for r in results), key=order.index, default=Verdict.PASS)
