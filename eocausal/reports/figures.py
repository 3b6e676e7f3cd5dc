"""Which figures a report has, and their files."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from eocausal.provenance import atomic_path
from eocausal.reports.plots import (
    auc_figure,
    coefficients_figure,
    effect_records,
    rate_figure,
    to_png,
    truth_figure,
)
from eocausal.reports.static_map import map_figure

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from eocausal.reports.content import PlacedContent, ReportContent

__all__ = ["report_figures", "save_figures"]


def report_figures(content: ReportContent) -> dict[str, Figure]:
    """Draw the figures that the content has numbers for, by name.

    Returns
    -------
    dict of str to Figure
        Some of ``effects_map``, ``coefficients``, ``rate``, ``auc`` and ``truth``; for placed
        projects of ``sectors``, ``stand_ins``, ``placement``, ``calibration``, ``balance``,
        ``sensitivity`` and ``corrections``, too; for an event on a series those of
        :func:`eocausal.reports.impact_figures.impact_figures`.
    """
    outcome, unit = content.outcome, content.unit
    figures: dict[str, Figure] = {}
    if content.effect_map is not None and len(content.effect_map):
        figures["effects_map"] = map_figure(content.effect_map, outcome=outcome, unit=unit)
    if effect_records(content.estimates) and content.impact is None:
        figures["coefficients"] = coefficients_figure(content.estimates, outcome=outcome, unit=unit)
    if content.heterogeneity is not None and len(content.heterogeneity):
        figures["rate"] = rate_figure(content.heterogeneity)
    if content.treatment_auc is not None and len(content.treatment_auc):
        figures["auc"] = auc_figure(content.treatment_auc)
    if content.truth is not None and len(content.truth):
        figures["truth"] = truth_figure(content.truth, unit=unit)
    if content.placed is not None:
        figures |= _placed_figures(content.placed, outcome, unit)
    if content.impact is not None:
        from eocausal.reports.impact_figures import impact_figures

        figures |= impact_figures(content.impact, outcome, unit)
    return figures


def _placed_figures(placed: PlacedContent, outcome: str, unit: str) -> dict[str, Figure]:
    from eocausal.reports.evaluation_forest import forest_figure, placement_figure
    from eocausal.reports.evaluation_plots import (
        calibration_figure,
        corrections_figure,
        love_figure,
        sensitivity_figure,
    )

    figures: dict[str, Figure] = {}
    if len(placed.sectors):
        figures["sectors"] = forest_figure(
            placed.sectors, outcome=outcome, unit=unit, estimand=placed.estimand
        )
    if len(placed.stand_ins):
        figures["stand_ins"] = forest_figure(
            placed.stand_ins, outcome=outcome, unit=unit, estimand=placed.stand_in
        )
    if len(placed.placement):
        figures["placement"] = placement_figure(placed.placement)
    if len(placed.curves):
        figures["calibration"] = calibration_figure(placed.curves)
    if len(placed.balance):
        figures["balance"] = love_figure(placed.balance)
    if len(placed.bounds):
        figures["sensitivity"] = sensitivity_figure(
            placed.bounds, benchmarks=placed.benchmarks, outcome=outcome, unit=unit
        )
    if len(placed.corrections):
        figures["corrections"] = corrections_figure(placed.corrections, outcome=outcome, unit=unit)
    return figures


def save_figures(folder: Path | str, content: ReportContent) -> list[Path]:
    """Write the figures of a report as ``<name>.png``, each whole or not at all.

    Returns
    -------
    list of Path
        One per figure of :func:`report_figures`.
    """
    paths = []
    for name, figure in report_figures(content).items():
        path = Path(folder) / f"{name}.png"
        with atomic_path(path) as temporary:
            temporary.write_bytes(to_png(figure))
        paths.append(path)
    return paths
