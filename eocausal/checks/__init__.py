"""Checks that could sink an estimate; ``eo.checks.NAME()`` is run by :func:`eocausal.check`."""

from eocausal._lazy import lazily

_PUBLIC = {
    "Leakage": "leakage",
    "Balance": "balance",
    "Attrition": "overlap",
    "TrialData": "leakage",
    "Representation": "representation",
    "EmbeddingData": "representation",
    "WeightedBalance": "weighted_balance",
    "Support": "support",
    "DerivedColumns": "derived_columns",
    "LateImages": "late_images",
    "repaired_embedding": "image_changes",
    "PredictionError": "measurement_error",
    "Placebo": "placebo",
    "Spillover": "spillover",
    "LeaveOneOut": "leave_out",
    "EValue": "sensitivity.evalue",
    "MarginalSensitivity": "sensitivity.marginal_sensitivity",
    "OmittedVariable": "sensitivity.omitted_variable",
    "LinearOmittedVariable": "sensitivity.linear_omitted_variable",
    "InformationBounds": "sensitivity.information_bounds",
    "ImageConfounders": "sensitivity.image_confounders",
    "PlaceboInTime": "impact_time",
    "PlaceboInSpace": "impact_space",
    "LeaveOneControlOut": "impact_leave_out",
    "LeaveOneYearOut": "impact_leave_out",
    "Drift": "impact_drift",
    "ControlBreaks": "impact_controls",
    "ControlReach": "impact_controls",
}

__all__ = sorted(_PUBLIC)

__getattr__ = lazily(__name__, _PUBLIC, globals())


def __dir__() -> list[str]:
    return __all__
