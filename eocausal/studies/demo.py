"""The demonstration: a simulated country, its trial, and the estimates beside the truth."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from eocausal.errors import StudyError
from eocausal.provenance import atomic_path
from eocausal.studies.progress import Quiet, Reporter
from eocausal.studies.run import RunResult, run_study

if TYPE_CHECKING:
    import pandas as pd

    from eocausal.ingest.schedule import Scheduler
    from eocausal.simulate.world import WorldConfig

__all__ = ["DemoResult", "run_demo", "shipped_study"]


@dataclass(frozen=True, slots=True, eq=False)
class DemoResult:
    """What the demonstration found, against the truth.

    Attributes
    ----------
    run
        The run.
    truth
        The average effect over the trial's units.
    correlation
        Of the map with the true effects, over all neighborhoods with an estimate.
    coverage
        Share of intervals that hold the true effect, in places of the trial and elsewhere.
    """

    run: RunResult
    truth: float
    correlation: float
    coverage: dict[str, float]

    def summary(self) -> str:
        """Say it in words."""
        lines = [f"True average effect: {self.truth:.3f}."]
        lines += [
            f"{r['method']}: {r['estimate']:.3f} ({r['ci_low']:.3f} to {r['ci_high']:.3f}); the "
            f"interval {'holds' if r['ci_low'] <= self.truth <= r['ci_high'] else 'misses'} it."
            for r in self._averages()
        ]
        lines.append(f"Correlation of the map with the true effects: {self.correlation:.2f}.")
        shares = " and ".join(f"{share:.1%} {where}" for where, share in self.coverage.items())
        lines.append(f"95 % intervals that hold the true effect: {shares}.")
        return "\n".join(lines)

    def record(self) -> dict[str, Any]:
        """Return it as JSON values."""
        return {
            "truth": self.truth,
            "average": self._averages(),
            "correlation": self.correlation,
            "coverage": self.coverage,
        }

    def _averages(self) -> list[dict[str, Any]]:
        seen: dict[str, dict[str, Any]] = {}
        for record in self.run.records:
            if record["estimand"] == "ATE":
                seen.setdefault(str(record["method"]), dict(record))
        return list(seen.values())


def shipped_study(name: str) -> str:
    """Return the text of a study that comes with the package.

    Raises
    ------
    StudyError
        If it is not there.
    """
    package = Path(str(files("eocausal")))
    for folder in (package / "_resources" / "pipelines", package.parent / "pipelines"):
        if (folder / name).is_file():
            return (folder / name).read_text(encoding="utf-8")
    raise StudyError(
        f"The study {name} did not come with this installation.",
        cause="Neither the package nor its repository has a folder pipelines with it.",
        next_step="Install the package again.",
    )


def run_demo(
    out: Path | str,
    config: WorldConfig,
    *,
    scheduler: Scheduler | None = None,
    reporter: Reporter | None = None,
) -> DemoResult:
    """Render a world into ``out/world``, run its study into ``out/run``, compare with the truth.

    A world that is there for the same configuration is not rendered again.

    Parameters
    ----------
    out
        Folder for everything.
    config
        The world.
    scheduler
        Who reads images; the results do not depend on it.
    reporter
        Told of every stage.
    """
    from eocausal.simulate.world import render_world

    out, reporter = Path(out), reporter or Quiet()
    world = out / "world"
    if _config_of(world) == json.loads(json.dumps(asdict(config))):
        reporter.done("Render the world")
    else:
        if world.exists() and not (world / "truth.json").exists():
            raise StudyError(
                f"{world} exists and is not a simulated world.",
                cause="Rendering there would replace it.",
                next_step="Give another --out.",
            )
        with reporter.stage("Render the world") as advance:
            render_world(config, world, progress=advance)
    study = out / "world_rct.yaml"
    with atomic_path(study) as temporary:
        temporary.write_text(shipped_study("world_rct.yaml"), encoding="utf-8")
    result = run_study(study, out / "run", scheduler=scheduler, reporter=reporter)
    return _compare(result, world)


def _config_of(world: Path) -> Any:
    try:
        return json.loads((world / "truth.json").read_text(encoding="utf-8"))["config"]
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _compare(result: RunResult, world: Path) -> DemoResult:
    import geopandas as gpd

    truth = json.loads((world / "truth.json").read_text(encoding="utf-8"))
    table = gpd.read_parquet(result.folder / "effects.parquet")
    effect = np.array([truth["neighborhoods"][str(label)]["effect"] for label in table.index])
    known = table["estimate"].notna().to_numpy()
    held = ((table["ci_low"] <= effect) & (effect <= table["ci_high"])).to_numpy()
    trial = _in_trial(table)
    coverage = {
        where: float(held[known & mask].mean())
        for where, mask in (("in places of the trial", trial), ("elsewhere", ~trial))
        if (known & mask).any()
    }
    correlation = float(np.corrcoef(table["estimate"].to_numpy(float)[known], effect[known])[0, 1])
    return DemoResult(result, float(truth["trial"]["ate_trial"]), correlation, coverage)


def _in_trial(table: pd.DataFrame) -> np.ndarray[Any, np.dtype[np.bool_]]:
    return table["in_trial"].to_numpy(bool)
