"""Land cover by class and year: areas, transitions, intensity analysis, accuracy of areas."""

from eocausal._lazy import lazily

_PUBLIC: dict[str, str] = {}

__all__ = sorted(_PUBLIC)

__getattr__ = lazily(__name__, _PUBLIC, globals())


def __dir__() -> list[str]:
    return __all__
