"""Ocean colour: diffuse attenuation from reflectance, merging of sensors, light in the water."""

from eocausal._lazy import lazily

_PUBLIC: dict[str, str] = {
    "Adjustment": "adjustment",
    "Attenuation": "kd490",
    "AttenuationOfChlorophyll": "light",
    "AttenuationUnits": "units",
    "BandRatio": "kd490",
    "Box": "zones",
    "DepthEffect": "depth_effect",
    "DepthOf490": "light",
    "DepthOfPar": "light",
    "DepthRelation": "light",
    "EuphoticFromChlorophyll": "light",
    "Kind": "adjustment",
    "Layer": "light",
    "Merged": "merging",
    "RELATIONS": "depth_effect",
    "RetrievalFlag": "kd490",
    "Sensor": "kd490",
    "Statistic": "composites",
    "ZoneSeries": "zones",
    "attenuation_of_par": "light",
    "cell_areas": "zones",
    "compare_relations": "depth_effect",
    "euphotic_depth_effect": "depth_effect",
    "kd490_from_reflectance": "kd490",
    "merge_sensors": "merging",
    "monthly_composites": "composites",
    "per_metre": "units",
    "photic_depth_lee": "light",
    "zone_means": "zones",
}

__all__ = sorted(_PUBLIC)

__getattr__ = lazily(__name__, _PUBLIC, globals())


def __dir__() -> list[str]:
    return __all__
