"""What a report of an evaluation says about its data."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from eocausal.contracts import ChipStatus

if TYPE_CHECKING:
    from eocausal.studies.evaluation_space import EvaluationSpace

__all__ = ["facts"]


def facts(space: EvaluationSpace) -> list[tuple[str, str]]:
    """Return pairs of label and value."""
    study, tables, cube = space.study, space.tables, space.cube
    p, e = study.design.placement, study.estimate
    sizes, status = cube.sizes, cube["status"].to_numpy()
    usable = np.isin(status, [ChipStatus.OK, ChipStatus.PARTIAL]).mean()
    donut = f"; those with one within {p.donut_km:g} km are left out" if p.donut_km else ""
    within = f", in a {p.within} where the funder has such a project" if p.within else ""
    kinds = space.kept("kinds.json")
    history = ", and the numbers of earlier projects near" if e.history else ""
    return [
        ("Places", f"{len(tables.places):,}, of them {len(tables.units):,} with all values"),
        ("Projects", f"{len(tables.projects.lon):,} locations of {len(kinds)} kinds; "
         f"{sum(k['estimated'] for k in kinds)} kinds reached {p.fewest:,} places or more"),
        ("Treated", f"a project within {p.within_km:g} km that began on {p.first} or later and "
         f"{p.years_before} years or more before the outcome was measured"),
        ("Compared with", f"places without one within {p.within_km:g} km{within}{donut}"),
        ("Outcome", study.report.outcome or e.outcome),
        ("Covariates", ", ".join(e.covariates) + history),
        ("Estimator", f"{e.score.upper() if e.score == 'aipw' else 'Hájek IPW'}, {e.estimand}; "
         f"models on blocks of {e.folds.blocks_km:g} km held out in {e.folds.k} folds; "
         f"spatial variance (Conley, {e.conley_km:g} km)"),
        ("Images", f"{space.kept('inputs.json')['scenes']:,} scenes; bands "
         f"{', '.join(map(str, cube.indexes['band']))}; periods "
         f"{', '.join(map(str, cube.indexes['period']))}"),
        ("Chips", f"{sizes['y']} × {sizes['x']} pixels of {cube.attrs['resolution']:g} m; "
         f"{usable:.1%} usable, mean share of valid pixels {float(cube['valid'].mean()):.1%}"),
        ("Last image", str(space.embedding.attrs["last_image_date"]) or "unknown"),
        ("Encoder", str(space.embedding.attrs["encoder"])),
    ]  # fmt: skip
