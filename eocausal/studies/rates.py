"""How long an encoder takes: timed on a few random chips of the study's shape."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from eocausal.studies.encoders import encoder_of, image_spec_of, network_of, reads_sequences
from eocausal.studies.schema_encoder import EncoderChoice, TrainedSection

if TYPE_CHECKING:
    from eocausal.encoders.core import FittedEncoder, ImageSpec
    from eocausal.ingest.plan import CubePlan
    from eocausal.studies.schema_imagery import ImagerySection

__all__ = ["time_encoder"]

Float32 = NDArray[np.float32]

CHIPS = 16
LONGEST = 8
STEP = 3.0
"""A step of training (forward, backward, update) takes about as long as this many encodings."""


def time_encoder(
    choice: EncoderChoice, image: ImagerySection, cube: CubePlan | None, root: Path
) -> tuple[float, float] | None:
    """Estimate the seconds on one core to encode a cube, and to train before, at most.

    The encoder is run on sixteen random chips, and what these take is scaled up. Training is taken
    to last for all its epochs.

    Returns
    -------
    tuple of float or None
        None if there is no plan of the cube.

    Raises
    ------
    EncoderError, ModelCardError, WeightsError
    """
    if cube is None:
        return None
    from threadpoolctl import threadpool_limits  # type: ignore[import-untyped]

    spec = image_spec_of(image, cube.size)
    length = (
        min(cube.chips // max(cube.neighborhoods, 1), LONGEST) if reads_sequences(choice) else 0
    )
    chips, years = _random_chips(spec, length)
    with threadpool_limits(1):
        encoder = _encoder(choice, root, spec, chips, years)
        encoder.transform(chips[:1], None if years is None else years[:1])
        begin = time.perf_counter()
        encoder.transform(chips, years)
        each = (time.perf_counter() - begin) / (len(chips) * max(length, 1))
    encoding = each * cube.chips
    return encoding, encoding * (0.0 if choice.trained is None else _passes(choice.trained))


def _random_chips(spec: ImageSpec, length: int) -> tuple[Float32, Float32 | None]:
    """Draw chips, or sequences of them with their years."""
    rng = np.random.default_rng(0)
    shape = (len(spec.bands), spec.height, spec.width)
    if not length:
        return rng.random((CHIPS, *shape), dtype=np.float32), None
    n = max(CHIPS // length, 1)
    years = np.tile(np.arange(length, dtype=np.float32), (n, 1))
    return rng.random((n, length, *shape), dtype=np.float32), years


def _encoder(
    choice: EncoderChoice, root: Path, spec: ImageSpec, chips: Float32, years: Float32 | None
) -> FittedEncoder:
    from eocausal.encoders.core import Encoder, FittedEncoder, Scaling

    if choice.trained is not None:
        network = network_of(choice.trained.network, root)
        built = network.build(spec, seed=0)
        return FittedEncoder(
            network.name, spec, Scaling.identity(len(spec.bands)), built.module.eval(),
            built.n_features, minimum_pixels=built.minimum_pixels, sequence=network.sequence,
        )  # fmt: skip
    found = encoder_of(choice, root)
    if isinstance(found, Encoder):
        return found.fit(chips, spec, seed=0)
    assert years is not None
    return found.fit_sequence(chips, years, spec, seed=0)


def _passes(section: TrainedSection) -> float:
    """How many encodings of all chips the training is worth."""
    if not section.objective.labels:
        return 2 * STEP * section.epochs  # two views of each chip
    share = (section.folds - 2) / section.folds  # one fold is encoded, another one stopped by
    return section.folds * section.epochs * (STEP * share + 1 / section.folds)
