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

    from eocausal.reports.content import ReportContent

__all__ = ["report_figures", "save_figures"]


def report_figures(content: ReportContent) -> dict[str, Figure]:
    """Draw the figures that the content has numbers for, by name.

    Returns
    -------
    dict of str to Figure
        Some of ``effects_map``, ``coefficients``, ``rate``, ``auc`` and ``truth``.
    """
    outcome, unit = content.outcome, content.unit
    figures: dict[str, Figure] = {}
    if content.effect_map is not None and len(content.effect_map):
        figures["effects_map"] = map_figure(content.effect_map, outcome=outcome, unit=unit)
    if effect_records(content.estimates):
        figures["coefficients"] = coefficients_figure(content.estimates, outcome=outcome, unit=unit)
    if content.heterogeneity is not None and len(content.heterogeneity):
        figures["rate"] = rate_figure(content.heterogeneity)
    if content.treatment_auc is not None and len(content.treatment_auc):
        figures["auc"] = auc_figure(content.treatment_auc)
    if content.truth is not None and len(content.truth):
        figures["truth"] = truth_figure(content.truth, unit=unit)
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
