"""What a study file may say of encoders: how images, or sequences of them, become features."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, PositiveFloat, PositiveInt

from eocausal.studies.schema_base import Choice, NoOptions, OneOrMore, Section, Sizes, Text, Texts

__all__ = [
    "EmbeddingSection",
    "EncoderChoice",
    "FrameChoice",
    "HeadChoice",
    "NetworkChoice",
    "ObjectiveChoice",
    "SalienceSection",
    "TrainedSection",
]


class RandomConvSection(Section):
    """Random convolutional features."""

    features: PositiveInt = 512
    patch: Sizes = (3,)
    scales: Sizes = Field(default=(1,), description="How many times coarser pixels are seen.")
    patches: Literal["sampled", "gaussian"] = "sampled"
    pool: Annotated[tuple[Literal["mean", "max"], ...], OneOrMore, Field(min_length=1)] = Field(
        default=("mean",), description="max keeps the largest response: for rare single things."
    )


class SpectralStatsSection(Section):
    """Statistics of bands, indices and texture: the baseline for every other encoder."""

    texture: bool = True


class CardSection(Section):
    """An encoder by its model card."""

    card: Text = Field(description="Name of a shipped card, or folder/ with one.")
    weights: Text | None = Field(default=None, description="File, where the card names one.")


class FrameChoice(Choice):
    """How one image becomes features, without training."""

    random_conv: RandomConvSection | None = None
    spectral_stats: SpectralStatsSection | None = None
    model: CardSection | None = None


_RANDOM = FrameChoice(random_conv=RandomConvSection())


class MultiScaleSection(Section):
    """Crops of several sizes around the middle of the chip, side by side."""

    sizes: Sizes = Field(description="Sides in pixels, none larger than the chip.")
    encoder: FrameChoice = _RANDOM


class SequenceSection(Section):
    """All periods of a place as one vector, by a formula over the frames' features."""

    frames: FrameChoice = _RANDOM
    head: Literal["mean", "mean_difference", "mean_trend", "mean_variance"] = "mean_trend"


class SmallCNNSection(Section):
    """A small residual network, for a few thousand chips."""

    widths: Sizes = (32, 64, 128, 128)


class GRUSection(Section):
    """A gated recurrent unit."""

    hidden: PositiveInt = 64


class TransformerSection(Section):
    """A small transformer with encodings of real dates."""

    layers: PositiveInt = 2
    heads: PositiveInt = 4
    width: PositiveInt = 64


class HeadChoice(Choice):
    """How frames become one vector, learned together with what the frames show."""

    mean: NoOptions | None = None
    mean_difference: NoOptions | None = None
    mean_trend: NoOptions | None = None
    mean_variance: NoOptions | None = None
    gru: GRUSection | None = None
    attention: NoOptions | None = None
    transformer: TransformerSection | None = None


class ImageNetworkChoice(Choice):
    """A network for one image."""

    small_cnn: SmallCNNSection | None = None
    model: CardSection | None = None


_SMALL = ImageNetworkChoice(small_cnn=SmallCNNSection())


class SequenceNetworkSection(Section):
    """A network for each frame and a head over the periods."""

    frames: ImageNetworkChoice = _SMALL
    head: HeadChoice = HeadChoice(attention=NoOptions())
    deviations: bool = Field(
        default=False,
        description="Show the head each frame less the mean of its sequence: change is found much "
        "sooner, and what stays the same is forgotten.",
    )


class NetworkChoice(ImageNetworkChoice):
    """What is trained."""

    sequence: SequenceNetworkSection | None = None


class SimCLRSection(Section):
    """Two changed views of a chip shall be alike; needs no labels."""

    temperature: PositiveFloat = 0.2


class DragonnetSection(Section):
    """Treatment and outcome together, with targeted regularisation."""

    targeted_regularisation: Annotated[float, Field(ge=0)] = 1.0


class ObjectiveChoice(Choice):
    """What the network is trained for; treatment and outcome are those of the study."""

    simclr: SimCLRSection | None = None
    propensity: NoOptions | None = None
    outcome: NoOptions | None = None
    dragonnet: DragonnetSection | None = None

    @property
    def labels(self) -> bool:
        """Whether it needs a treatment or an outcome."""
        return self.simclr is None


class TrainedSection(Section):
    """A network trained on the study's own chips, cross-fitted where it sees labels."""

    network: NetworkChoice = NetworkChoice(small_cnn=SmallCNNSection())
    objective: ObjectiveChoice = ObjectiveChoice(simclr=SimCLRSection())
    blocks_km: PositiveFloat | None = Field(
        default=None,
        description="Edge of the blocks held out; default: places that share a cluster together.",
    )
    folds: Annotated[int, Field(ge=3, le=20)] = 5
    epochs: PositiveInt = 30
    batch_size: Annotated[int, Field(ge=2)] = 64
    learning_rate: PositiveFloat = 2e-3
    patience: PositiveInt = 15
    mixed_precision: bool = Field(default=False, description="bfloat16; on CUDA GPUs only.")


class EncoderChoice(FrameChoice):
    """How chips become features."""

    multi_scale: MultiScaleSection | None = None
    sequence: SequenceSection | None = None
    trained: TrainedSection | None = None


class EmbeddingSection(Section):
    """What is shown and asked of the embedding."""

    covariates: Texts | None = Field(
        default=None,
        description="Columns of places or units (averaged by place): how far images tell them, in "
        "places held out, says how far images could carry confounders like these.",
    )
    blocks_km: PositiveFloat | None = Field(
        default=None,
        description="Edge of the blocks held out; default a tenth of the map's longer side.",
    )
    places: Annotated[int, Field(ge=1, le=20)] = Field(
        default=6, description="Rows of the contact sheet."
    )
    neighbors: Annotated[int, Field(ge=1, le=12)] = 5
    apart_km: Annotated[float, Field(ge=0)] = Field(
        default=0.0, description="Neighbors nearer on the ground than this are left out."
    )


class SalienceSection(Section):
    """Which pixels move the effect."""

    method: Literal["gradient", "integrated_gradients", "occlusion"] = "occlusion"
    places: Annotated[int, Field(ge=2, le=12)] = Field(
        default=6,
        description="Places drawn in the report, half with the largest and half with the "
        "smallest effects; each has a GeoTIFF in salience/.",
    )
