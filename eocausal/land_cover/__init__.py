"""Land cover by class and year: areas, transitions, intensity analysis, accuracy of areas."""

from eocausal._lazy import lazily

_PUBLIC: dict[str, str] = {
    "AdjustedAreas": "accuracy",
    "ClassAreas": "areas",
    "ESRI": "legend",
    "GridPixels": "pixels",
    "IntensityAnalysis": "intensity",
    "Legend": "legend",
    "NominalPixels": "pixels",
    "PixelArea": "pixels",
    "Timing": "timing",
    "Transitions": "transitions",
    "cross_years": "transitions",
    "adjusted_areas": "accuracy",
    "class_areas": "areas",
    "intensity_analysis": "intensity",
    "timing_beside_break": "timing",
}

__all__ = sorted(_PUBLIC)

__getattr__ = lazily(__name__, _PUBLIC, globals())


def __dir__() -> list[str]:
    return __all__
