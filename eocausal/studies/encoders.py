"""From the words of a study file on encoders to the decision objects they stand for."""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from eocausal.errors import EncoderError
from eocausal.folds import FoldRule, GroupFolds, SpatialBlocks
from eocausal.provenance import hash_json
from eocausal.studies.schema_base import Section
from eocausal.studies.schema_encoder import (
    CardSection,
    EncoderChoice,
    FrameChoice,
    HeadChoice,
    ImageNetworkChoice,
    NetworkChoice,
    SalienceSection,
    TrainedSection,
)

if TYPE_CHECKING:
    from eocausal.encoders.core import Architecture, Encoder, ImageSpec, SequenceEncoder
    from eocausal.encoders.objectives import Objective
    from eocausal.encoders.salience_methods import Method
    from eocausal.encoders.schedule import TrainingSchedule
    from eocausal.encoders.temporal import Head
    from eocausal.studies.schema import PlacesData
    from eocausal.studies.schema_imagery import ImagerySection

__all__ = [
    "card_hashes",
    "cards_of",
    "check_encoder",
    "encoder_of",
    "image_spec_of",
    "network_of",
    "objective_of",
    "reads_sequences",
    "salience_method_of",
    "schedule_of",
    "training_folds",
]


def cards_of(section: Section) -> Iterator[CardSection]:
    """Find every model card that a section names, however deep."""
    if isinstance(section, CardSection):
        yield section
    for name in type(section).model_fields:
        value = getattr(section, name)
        if isinstance(value, Section):
            yield from cards_of(value)


def card_path(card: str, root: Path) -> str | Path:
    """Return a shipped card's name as it is; a card with a ``/`` lies under ``root``."""
    return root / card if "/" in card else card


def card_hashes(choice: EncoderChoice | None, root: Path) -> str:
    """Hash the model cards of an encoder; what a study says of it otherwise is in its keys.

    Raises
    ------
    ModelCardError
    """
    from eocausal.encoders.cards import load_card

    if choice is None:
        return ""
    cards = [load_card(card_path(c.card, root)).model_dump(mode="json") for c in cards_of(choice)]
    return hash_json(cards) if cards else ""


def check_encoder(data: PlacesData, root: Path, periods: int | None = None) -> None:
    """Refuse an encoder that cannot be made, or that the imagery of the study does not suit.

    Parameters
    ----------
    data
        What the study reads.
    root
        Where cards and weights are looked for.
    periods
        How many periods the chips will have; None if that is not known.

    Raises
    ------
    EncoderError, ModelCardError, WeightsError
    """
    image, choice = data.imagery, data.encoder
    if choice is None or image is None:
        return
    found = choice.trained
    encoder = network_of(found.network, root) if found is not None else encoder_of(choice, root)
    side = image.size or math.ceil((data.neighborhoods.size_m or 0) / image.resolution - 1e-6)
    if side > 0:
        encoder.check(image_spec_of(image, side))
    if reads_sequences(choice) and periods == 1:
        raise EncoderError(
            f"The study has one period; {encoder.name} reads sequences.",
            cause="There is no change to see in a single image.",
            next_step="Name several periods in data.imagery.periods, or choose an encoder of "
            "single images.",
        )


def image_spec_of(image: ImagerySection, side: int) -> ImageSpec:
    """Say what the chips of a study will look like."""
    from eocausal.encoders.core import ImageSpec

    bands = [band.partition("=")[0].strip() for band in image.bands]
    if image.count_band is not None:
        bands.append(image.count_band)
    return ImageSpec(tuple(bands), image.units, image.resolution, side, side)


def reads_sequences(choice: EncoderChoice) -> bool:
    """Whether an encoder makes one vector of all periods."""
    own = choice.trained
    return choice.sequence is not None or (own is not None and own.network.sequence is not None)


def encoder_of(choice: EncoderChoice, root: Path) -> Encoder | SequenceEncoder:
    """Return an encoder that is not trained; cards and weights are looked for under ``root``.

    Raises
    ------
    EncoderError, ModelCardError, WeightsError
    """
    if choice.multi_scale is not None:
        from eocausal.encoders.multiscale import MultiScale

        section = choice.multi_scale
        return MultiScale(_frame_of(section.encoder, root), sizes=section.sizes)
    if choice.sequence is not None:
        from eocausal.encoders.sequence import FrameSequence

        head = _head_of(HeadChoice.model_validate(choice.sequence.head))
        return FrameSequence(_frame_of(choice.sequence.frames, root), head)
    return _frame_of(choice, root)


def _frame_of(choice: FrameChoice, root: Path) -> Encoder:
    if choice.model is not None:
        from eocausal.encoders.registry import load_encoder

        weights = choice.model.weights
        return load_encoder(card_path(choice.model.card, root), root / weights if weights else None)
    if choice.spectral_stats is not None:
        from eocausal.encoders.spectral import SpectralStats

        return SpectralStats() if choice.spectral_stats.texture else SpectralStats(texture=None)
    from eocausal.encoders.random_conv import GaussianPatches, RandomConv, SampledPatches

    section = choice.random_conv
    assert section is not None
    return RandomConv(
        features=section.features,
        patch=section.patch[0] if len(section.patch) == 1 else section.patch,
        scales=section.scales,
        patches=SampledPatches() if section.patches == "sampled" else GaussianPatches(),
        pool=section.pool[0] if len(section.pool) == 1 else section.pool,
    )


def _head_of(choice: HeadChoice) -> Head:
    from eocausal.encoders import temporal, temporal_networks

    if choice.gru is not None:
        return temporal_networks.GRU(**choice.gru.model_dump())
    if choice.transformer is not None:
        return temporal_networks.Transformer(**choice.transformer.model_dump())
    plain: dict[str, type[Head]] = {
        "mean": temporal.MeanPool,
        "mean_difference": temporal.MeanDifference,
        "mean_trend": temporal.MeanTrend,
        "mean_variance": temporal.MeanVariance,
        "attention": temporal_networks.TemporalAttention,
    }
    return plain[choice.name]()


def network_of(choice: NetworkChoice, root: Path) -> Architecture:
    """Return the network that a study trains.

    Raises
    ------
    EncoderError, ModelCardError, WeightsError
    """
    if choice.sequence is not None:
        from eocausal.encoders.sequence import FrameSequence
        from eocausal.encoders.temporal import Deviations

        frames = _image_network_of(choice.sequence.frames, root)
        head = _head_of(choice.sequence.head)
        return FrameSequence(frames, Deviations(head) if choice.sequence.deviations else head)
    return _image_network_of(choice, root)


def _image_network_of(choice: ImageNetworkChoice, root: Path) -> Architecture:
    if choice.model is not None:
        from eocausal.encoders.image import TorchvisionCNN

        weights = choice.model.weights
        return TorchvisionCNN.from_card(
            card_path(choice.model.card, root), root / weights if weights else None
        )
    from eocausal.encoders.small_cnn import SmallCNN

    assert choice.small_cnn is not None
    return SmallCNN(widths=choice.small_cnn.widths)


def objective_of(section: TrainedSection, treatment: str, outcome: str) -> Objective:
    """Return what the network is trained for; the names of columns are those of the study."""
    from eocausal.encoders.dragonnet import Dragonnet
    from eocausal.encoders.objectives import Outcome, Propensity
    from eocausal.encoders.self_supervised import SimCLR

    chosen = section.objective
    if chosen.propensity is not None:
        return Propensity(treatment=treatment)
    if chosen.outcome is not None:
        return Outcome(outcome=outcome)
    if chosen.dragonnet is not None:
        return Dragonnet(
            treatment=treatment,
            outcome=outcome,
            targeted_regularisation=chosen.dragonnet.targeted_regularisation,
        )
    assert chosen.simclr is not None
    return SimCLR(temperature=chosen.simclr.temperature)


def schedule_of(section: TrainedSection) -> TrainingSchedule:
    """Return how long and how fast the network is trained."""
    from eocausal.encoders.schedule import TrainingSchedule

    return TrainingSchedule(
        epochs=section.epochs,
        batch_size=section.batch_size,
        learning_rate=section.learning_rate,
        patience=section.patience,
        mixed_precision=section.mixed_precision,
    )


def training_folds(section: TrainedSection, group: str) -> FoldRule:
    """Return how places are held out in training: blocks, or groups by a column of units."""
    if section.blocks_km is not None:
        return SpatialBlocks(section.blocks_km, k=section.folds)
    return GroupFolds(group, section.folds)


def salience_method_of(section: SalienceSection) -> Method:
    """Return the method of that name."""
    from eocausal.encoders import salience_methods

    kinds: dict[str, type[Method]] = {
        "gradient": salience_methods.Gradient,
        "integrated_gradients": salience_methods.IntegratedGradients,
        "occlusion": salience_methods.Occlusion,
    }
    return kinds[section.method]()
