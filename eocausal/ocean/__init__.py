"""Ocean colour: diffuse attenuation from reflectance, merging of sensors, light in the water."""

from eocausal._lazy import lazily

_PUBLIC: dict[str, str] = {}

__all__ = sorted(_PUBLIC)

__getattr__ = lazily(__name__, _PUBLIC, globals())


def __dir__() -> list[str]:
    return __all__
