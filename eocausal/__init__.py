"""Satellite imagery in, causal effects per neighborhood out.

Names are loaded on first use, so that ``import eocausal`` imports neither torch nor rasterio.
"""

from importlib import import_module
from typing import Any

__version__ = "0.1.0"

_PUBLIC = {
    "read_neighborhoods": "ingest.places",
    "scan": "ingest.sources",
    "scan_grids": "ingest.grids",
    "search_stac": "ingest.stac",
    "read_catalog": "ingest.stac",
    "write_lock": "ingest.lock",
    "read_lock": "ingest.lock",
    "period_range": "ingest.periods",
    "dates_of": "ingest.periods",
    "build_cube": "ingest.cube",
    "open_cube": "ingest.store",
    "zonal_series": "ingest.zonal",
    "read_panel": "ingest.panels",
    "Bilinear": "ingest.resample",
    "Nearest": "ingest.resample",
    "QAPixel": "ingest.masks",
    "SceneClassification": "ingest.masks",
    "CloudProbability": "ingest.masks",
    "NonZero": "ingest.masks",
    "Median": "ingest.composites",
    "Medoid": "ingest.composites",
    "BestPixel": "ingest.composites",
    "Threads": "ingest.schedule",
    "Processes": "ingest.schedule",
    "Distributed": "ingest.schedule",
    "encode": "encoders.base",
    "open_embedding": "encoders.base",
    "fit_encoder": "encoders.base",
    "load_encoder": "encoders.registry",
    "RandomConv": "encoders.random_conv",
    "SampledPatches": "encoders.random_conv",
    "GaussianPatches": "encoders.random_conv",
    "TorchvisionCNN": "encoders.image",
    "SpectralStats": "encoders.spectral",
    "MultiScale": "encoders.multiscale",
    "FrameSequence": "encoders.sequence",
    "MeanTrend": "encoders.temporal",
    "MeanDifference": "encoders.temporal",
    "TemporalAttention": "encoders.temporal_networks",
    "SmallCNN": "encoders.small_cnn",
    "train_encoder": "encoders.training",
    "load_trained": "encoders.trained_files",
    "TrainingSchedule": "encoders.schedule",
    "Propensity": "encoders.objectives",
    "Outcome": "encoders.objectives",
    "Dragonnet": "encoders.dragonnet",
    "SimCLR": "encoders.self_supervised",
    "salience": "encoders.salience",
    "Target": "encoders.salience",
    "Occlusion": "encoders.salience_methods",
    "write_salience": "encoders.salience_files",
    "Trial": "designs",
    "Adoption": "designs",
    "Event": "designs",
    "RandomFolds": "folds",
    "GroupFolds": "folds",
    "SpatialBlocks": "folds",
    "HC0": "estimators.inference",
    "HC2": "estimators.inference",
    "Clustered": "estimators.inference",
    "Conley": "estimators.inference",
    "difference_in_means": "estimators.randomized",
    "lin_adjusted": "estimators.randomized",
    "EffectLearner": "estimators.learners",
    "RidgeBasis": "estimators.bases",
    "ForestBasis": "estimators.bases",
    "rate": "estimators.ranking",
    "rate_over_splits": "estimators.ranking",
    "AUTOC": "estimators.ranking",
    "Qini": "estimators.ranking",
    "transport": "estimators.transport",
    "EffectEstimate": "effects",
    "EffectPath": "effects",
    "EffectMap": "effect_map",
    "pool": "effects",
    "Status": "effects",
    "nearest_neighbors": "checks.embedding_space",
    "Representation": "checks.representation",
    "EmbeddingData": "checks.representation",
    "check": "checks.base",
    "Leakage": "checks.leakage",
    "Balance": "checks.balance",
    "Attrition": "checks.overlap",
    "TrialData": "checks.leakage",
}

__all__ = ["__version__", *_PUBLIC]


def __getattr__(name: str) -> Any:
    if name not in _PUBLIC:
        raise AttributeError(f"module 'eocausal' has no attribute {name!r}")
    value = getattr(import_module(f"eocausal.{_PUBLIC[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
