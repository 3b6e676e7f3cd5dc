"""Model cards: what an encoder takes, what it was trained on, and how to tell it is intact.

A card is ``models/<name>/config.yaml`` with ``card.md`` beside it. Reading cards needs no torch.
"""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Annotated, Any, Literal, Self

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from eocausal.errors import ModelCardError

__all__ = [
    "FixedScaling",
    "Golden",
    "ModelCard",
    "Resolution",
    "Training",
    "Weights",
    "card_folders",
    "list_cards",
    "load_card",
]

_NAME = re.compile(r"[a-z0-9][a-z0-9_-]*")
_CONFIG = "config.yaml"


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Weights(_Strict):
    """A weights file that the user brings; the name has no folder.

    A card without a checksum is a form to be copied and completed: its weights are never read.
    ``state_key`` names the entry of a training checkpoint that holds the tensors. Of these, those
    whose name begins with ``prefix`` are taken and the prefix cut off. ``key_map: timm_vit``
    renames the tensors of a vision transformer as timm, DINO and MAE name them.
    """

    file: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*\.(pth|pt|safetensors)$")]
    sha256: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")] | None = None
    sha256_prefix: Annotated[str, Field(pattern=r"^[0-9a-f]{8,64}$")] | None = None
    licence: str
    source: str
    state_key: Annotated[str, Field(min_length=1)] | None = None
    prefix: str = ""
    key_map: Literal["timm_vit"] | None = None

    @model_validator(mode="after")
    def _one_checksum(self) -> Self:
        if self.sha256 is not None and self.sha256_prefix is not None:
            raise ValueError("give sha256, or sha256_prefix where only that is published")
        return self

    @property
    def checksum(self) -> str:
        """What a file's sha256 has to begin with; empty if the card does not say."""
        return self.sha256 or self.sha256_prefix or ""

    def matches(self, sha256: str) -> bool:
        """Tell whether a file's checksum is the one the card states."""
        return bool(self.checksum) and sha256.startswith(self.checksum)


class FixedScaling(_Strict):
    """Mean and sd per band, in the card's units and order of bands."""

    mean: tuple[Annotated[float, Field(allow_inf_nan=False)], ...]
    sd: tuple[Annotated[float, Field(gt=0, allow_inf_nan=False)], ...]


class Resolution(_Strict):
    """Pixel sizes for which the network was made, in metres on the ground."""

    min: Annotated[float, Field(gt=0)]
    max: Annotated[float, Field(gt=0)]

    @model_validator(mode="after")
    def _in_order(self) -> Self:
        if not self.min <= self.max:
            raise ValueError("min may not be larger than max")
        return self


class Training(_Strict):
    """What the weights learnt from; ``input`` says in which sizes, units and scaling."""

    data: str
    regions: str
    input: str = ""


class Golden(_Strict):
    """Seeded input and the first eight features it must give.

    The input is described in :func:`eocausal.encoders.golden.golden_features`.
    """

    seed: Annotated[int, Field(ge=0)]
    size: Annotated[int, Field(gt=0)] = 64
    first8: Annotated[
        tuple[Annotated[float, Field(allow_inf_nan=False)], ...],
        Field(min_length=8, max_length=8),
    ]
    tolerance: Annotated[float, Field(gt=0)]

    @model_validator(mode="after")
    def _not_flat(self) -> Self:
        if not any(self.first8):
            raise ValueError("first8 are all 0, so they tell no network from another")
        return self


class ModelCard(_Strict):
    """A model card, as in ``config.yaml``.

    ``bands`` are those of the network's first layer, in its order; cubes are matched to them by
    name. ``other_bands`` says what happens to a cube whose bands are not the same set: refuse, or
    inflate the first layer. ``features`` is the number of features; where it depends on the bands,
    that for the bands of the golden vector. Chips are resized to ``input_size`` pixels, if given.
    ``output`` says what a network of the family ``torchscript`` gives: a ``vector`` for each chip,
    ``tokens`` (their mean is taken), ``patch_tokens`` (the mean of all but the first), a
    ``class_token`` (the first of the tokens), or a ``map`` (the mean over its places).
    ``golden`` may be null only where the weights are the user's to bring.
    """

    name: str
    family: Literal["random_conv", "spectral_stats", "torchvision", "torchscript"]
    architecture: str
    parameters: dict[str, Any] = {}
    features: Annotated[int, Field(gt=0)]
    bands: Literal["any"] | Annotated[tuple[str, ...], Field(min_length=1)]
    other_bands: Literal["refuse", "inflate"] = "refuse"
    units: str
    scaling: Literal["from_data"] | FixedScaling
    input_size: Annotated[int, Field(gt=0)] | None = None
    minimum_pixels: Annotated[int, Field(gt=0)] = 1
    ground_sampling_distance_m: Literal["any"] | Resolution
    output: Literal["vector", "class_token", "tokens", "patch_tokens", "map"] | None = None
    weights: Weights | None
    training: Training | None
    known_bias: str
    golden: Golden | None

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if not _NAME.fullmatch(self.name):
            raise ValueError(f"name {self.name!r} may hold a-z, 0-9, '-' and '_' only")
        if isinstance(self.scaling, FixedScaling):
            if self.bands == "any" or self.other_bands == "inflate" or self.units == "any":
                raise ValueError("a fixed scaling needs named bands and units, and no inflation")
            if not len(self.scaling.mean) == len(self.scaling.sd) == len(self.bands):
                raise ValueError("scaling needs one mean and one sd for each band")
        if self.weights is not None and (self.bands == "any" or self.training is None):
            raise ValueError("a model with weights names its bands and its training data")
        if self.weights is None and self.golden is None:
            raise ValueError("a model without a weights file needs a golden vector")
        if self.golden is not None and self.features < len(self.golden.first8):
            raise ValueError("a golden vector is the first eight features: state at least 8")
        if self.bands != "any" and len(set(self.bands)) < len(self.bands):
            raise ValueError("bands are matched by name: none may be named twice")
        return self

    @model_validator(mode="after")
    def _of_parameters(self) -> Self:
        if self.family not in ("random_conv", "spectral_stats"):
            if self.parameters:
                raise ValueError(f"a {self.family} network takes no parameters")
            return self
        places = (self.bands, self.units, self.ground_sampling_distance_m)
        if places != ("any",) * 3 or self.scaling != "from_data":
            raise ValueError(
                f"{self.family} takes chips as they come: write any for bands, units and "
                "ground_sampling_distance_m, and scaling: from_data"
            )
        if self.weights is not None or self.input_size is not None:
            raise ValueError(f"{self.family} has no weights file and resizes nothing")
        return self

    @model_validator(mode="after")
    def _whole_network(self) -> Self:
        if (self.family == "torchscript") != (self.output is not None):
            raise ValueError("output is for the family torchscript, which needs it")
        if self.family != "torchscript":
            return self
        weights = self.weights
        if weights is None or weights.sha256_prefix is not None:
            raise ValueError("a torchscript file is a program: give its whole sha256")
        if weights.state_key or weights.prefix or weights.key_map:
            raise ValueError("a torchscript file holds a whole network: there is nothing to rename")
        if self.other_bands == "inflate":
            raise ValueError("the first layer of a torchscript network cannot be inflated")
        return self

    def check(
        self,
        *,
        bands: tuple[str, ...],
        units: str,
        resolution: float,
        height: int,
        width: int,
    ) -> None:
        """Refuse a cube that does not fit, naming everything to change.

        Parameters
        ----------
        bands, units, resolution
            Of the cube; resolution in metres.
        height, width
            Of its chips, in pixels.

        Raises
        ------
        ModelCardError
        """
        problems = list(self._band_problems(bands))
        if self.units not in ("any", units):
            problems.append(
                f"its units are {units!r}, the card's {self.units!r}: "
                "rescale the imagery and build the cube with these units"
            )
        size = self.ground_sampling_distance_m
        if size != "any" and not size.min <= resolution <= size.max:
            problems.append(
                f"its pixels are {resolution:g} of the units of its coordinates, the card's "
                f"{size.min:g} to {size.max:g} m: build the cube at such a resolution, in "
                "coordinates in metres"
            )
        if min(height, width) < self.minimum_pixels:
            problems.append(
                f"its chips are {min(height, width)} pixels, the network takes "
                f"{self.minimum_pixels} or more: build larger chips"
            )
        if self.input_size is not None and height != width:
            problems.append(
                f"its chips are {height} by {width} pixels, and the card resizes them to a square: "
                "build square chips"
            )
        if problems:
            raise ModelCardError(
                f"The cube does not fit the model {self.name}: {'; '.join(problems)}.",
                cause="The features would not be what the card says; nothing is scaled in silence.",
                next_step="Change what is named above, or choose another model "
                f"({', '.join(list_cards())}).",
            )

    def _band_problems(self, bands: tuple[str, ...]) -> list[str]:
        if self.bands == "any" or set(bands) == set(self.bands):
            return []
        wanted, given = ", ".join(self.bands), ", ".join(bands)
        if self.other_bands == "refuse":
            missing = [b for b in self.bands if b not in bands]
            how = f"add {', '.join(missing)}" if missing else f"select band=[{wanted}] of the cube"
            return [f"its bands are {given}, the card's {wanted}: {how}"]
        if set(bands).isdisjoint(self.bands):
            return [
                f"none of its bands ({given}) is one of the card's ({wanted}): "
                "name the bands for what they are"
            ]
        return []


def card_folders() -> list[Path]:
    """Folders searched for cards by name: the repository's, then the installed package's."""
    package = Path(__file__).resolve().parents[1]
    folders = [package / "_resources" / "models"]
    if (package.parent / "pyproject.toml").is_file():
        folders.insert(0, package.parent / "models")
    return [f for f in folders if f.is_dir()]


def list_cards() -> list[str]:
    """Names of the cards that come with eocausal."""
    found = {
        path.parent.name
        for folder in card_folders()
        for path in folder.glob(f"*/{_CONFIG}")
        if _NAME.fullmatch(path.parent.name)
    }
    return sorted(found)


def load_card(card: str | Path) -> ModelCard:
    """Read a model card.

    Parameters
    ----------
    card
        A name (``str``) of a card that comes with eocausal, or the ``Path`` of a card's folder or
        ``config.yaml``. A string is never taken for a path, so a name from a study file cannot
        lead out of the folder of cards.

    Raises
    ------
    ModelCardError
        If there is no such card, or it is wrong; every problem is named.
    """
    path = Path(os.path.abspath(_find(card) if isinstance(card, str) else card))
    if path.is_dir():
        path = path / _CONFIG
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
        found = ModelCard.model_validate(content)
    except (OSError, UnicodeDecodeError) as error:
        raise ModelCardError(
            f"The model card {path} cannot be read.",
            cause=f"{type(error).__name__}: {error}.",
            next_step="Give the folder that holds config.yaml, as a Path.",
        ) from error
    except (yaml.YAMLError, RecursionError) as error:
        raise ModelCardError(
            f"The model card {path} is not YAML, or lists in lists without end.",
            cause=" ".join(str(error).split()),
            next_step="Correct the file at that place.",
        ) from error
    except ValidationError as error:
        problems = "; ".join(
            f"{'.'.join(map(str, e['loc'])) or 'card'}: {e['msg']}" for e in error.errors()
        )
        raise ModelCardError(
            f"The model card {path} is wrong: {problems}.",
            cause="A card states everything a user has to know before trusting the features.",
            next_step="Correct these entries; models/resnet18/config.yaml is an example.",
        ) from error
    if found.name != path.parent.name:
        raise ModelCardError(
            f"The model card {path} has the name {found.name!r}.",
            cause=f"Its folder is named {path.parent.name!r}.",
            next_step="Make the two the same.",
        )
    return found


def _find(name: str) -> Path:
    if _NAME.fullmatch(name):
        for folder in card_folders():
            path = folder / name / _CONFIG
            if path.is_file():
                return path
    raise ModelCardError(
        f"There is no model named {name!r}.",
        cause=f"The models are {', '.join(list_cards())}.",
        next_step="Choose one of these, or give the folder of your own card as a pathlib.Path.",
    )
