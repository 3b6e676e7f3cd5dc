"""Networks made for video, for sequences without a missing period.

They take no mask and read the order of the frames, not their dates: frames should be about evenly
spaced in time. Where periods are missing, :class:`~eocausal.encoders.sequence.FrameSequence` with a
head that reads dates and masks is the encoder to use.
"""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from eocausal.encoders.cards import Weights
from eocausal.encoders.core import (
    Backbone,
    FittedEncoder,
    Float32,
    ImageSpec,
    Scaling,
    check_size,
)
from eocausal.encoders.initial_weights import draw_weights, untouched_seeds
from eocausal.encoders.sequence import seen_frames
from eocausal.encoders.stems import inflate_stem, replace_module
from eocausal.encoders.torchvision_import import import_torchvision
from eocausal.encoders.weights import State, read_weights
from eocausal.errors import EncoderError, WeightsError

__all__ = ["MViT", "R2Plus1D"]

_COLOURS = ("red", "green", "blue")
_SHA256 = re.compile(r"[0-9a-f]{8,64}")


@dataclass(frozen=True, slots=True)
class _VideoNetwork(ABC):
    """What video networks share: weights by path or seed, bands by name, gaps refused."""

    weights: Path | None = None
    sha256: str = ""

    def __post_init__(self) -> None:
        if (self.weights is None) != (not self.sha256) or (
            self.sha256 and not _SHA256.fullmatch(self.sha256)
        ):
            raise EncoderError(
                f"weights={self.weights}, sha256={self.sha256!r}.",
                cause="A weights file goes with its checksum, so that another file is noticed.",
                next_step="Give both (sha256 in full, or its first 8 or more digits), or neither "
                "for random weights.",
            )

    @property
    def name(self) -> str:
        """Id string."""
        weights = f"weights={self.weights.name!r}" if self.weights is not None else "random weights"
        return f"{type(self).__name__}({weights})"

    @property
    def sequence(self) -> bool:
        """True: it reads all periods at once."""
        return True

    @property
    @abstractmethod
    def n_features(self) -> int:
        """Number of features."""

    @property
    @abstractmethod
    def minimum_pixels(self) -> int:
        """Smallest chip side."""

    @property
    def periods(self) -> int | None:
        """Number of periods that it takes; None for any."""
        return None

    @abstractmethod
    def _network(self, spec: ImageSpec) -> torch.nn.Module:
        """Build torchvision's network for three bands, with its head replaced by nothing."""

    def check(self, spec: ImageSpec) -> None:
        """Refuse chips that are too small (``EncoderError``)."""
        check_size(self.name, spec, self.minimum_pixels)

    def fit_sequence(
        self, images: Float32, years: Float32, spec: ImageSpec, *, seed: int
    ) -> FittedEncoder:
        """Take mean and sd per band from the sample and build the network.

        Parameters
        ----------
        images
            ``(n, period, band, y, x)``, NaN where invalid.
        years
            ``(n, period)`` decimal years since 2000, NaN where missing.
        spec
            What the chips look like.
        seed
            Of the weights, if no file is given.

        Raises
        ------
        EncoderError
            If a sequence of the sample misses a period, or has another number of periods.
        WeightsError
            If the file has another checksum or other tensors.
        """
        self.check(spec)
        seen = seen_frames(images, years)
        _refuse_gaps(seen, self.name, self.periods)
        network, sha256 = self._filled(spec, seed)
        return FittedEncoder(
            name=self.name if self.weights is not None else f"{self.name}, seed={seed}",
            spec=spec,
            scaling=Scaling.from_images(images[seen], spec.bands),
            network=network.eval().requires_grad_(False),
            n_features=self.n_features,
            weights_sha256=sha256,
            minimum_pixels=self.minimum_pixels,
            sequence=True,
        )

    def build(self, spec: ImageSpec, *, seed: int) -> Backbone:
        """Build the network to be trained, from the weights file or by the seed.

        Raises
        ------
        EncoderError
            If the chips are too small.
        WeightsError
            If the file has another checksum or other tensors.
        """
        self.check(spec)
        return Backbone(self._filled(spec, seed)[0], self.n_features, self.minimum_pixels)

    def _filled(self, spec: ImageSpec, seed: int) -> tuple[torch.nn.Module, str]:
        network = untouched_seeds(partial(self._network, spec))
        sha256 = ""
        if self.weights is None:
            _replace_stem(network, _COLOURS, spec.bands)
            draw_weights(network, seed)
        else:
            expected = Weights(
                file=self.weights.name,
                sha256_prefix=self.sha256,
                licence="as its source states",
                source="where the checksum was published",
            )
            state, sha256 = read_weights(self.weights, expected)
            _load(network, state, self.name)
            _replace_stem(network, _COLOURS, spec.bands)
        return _Dense(network, self.name, self.n_features, self.periods), sha256


@dataclass(frozen=True, slots=True)
class R2Plus1D(_VideoNetwork):
    """R(2+1)D with 18 layers (Tran et al. 2018, arXiv 1711.11248): 512 features.

    Convolutions in space and in time by turns; any number of periods, chips of 16 pixels or more.

    Parameters
    ----------
    weights
        State dictionary of torchvision's ``r2plus1d_18`` (``.pth`` or ``.safetensors``), red,
        green, blue; None for random weights (He et al. 2015, eq. 10). Filters go to the bands of
        the cube by name, as :func:`~eocausal.encoders.stems.inflate_stem` says. Bands are
        standardised with mean and sd of the fitting sample, not those of the videos.
    sha256
        Checksum of the file, or its first digits.
    """

    @property
    def n_features(self) -> int:
        """512."""
        return 512

    @property
    def minimum_pixels(self) -> int:
        """16, of which one place is left."""
        return 16

    def _network(self, spec: ImageSpec) -> torch.nn.Module:
        network: torch.nn.Module = import_torchvision().models.video.r2plus1d_18(weights=None)
        network.fc = torch.nn.Identity()
        return network


@dataclass(frozen=True, slots=True)
class MViT(_VideoNetwork):
    """Multiscale vision transformer, MViTv2-S (Li et al. 2022, arXiv 2112.01526): 768 features.

    Tables of relative positions fix the number of periods and the size of the chips. With random
    weights any even number of periods and chips of any multiple of 32 pixels will do; weights
    fit 16 periods of 224 pixels. Nothing is resized or interpolated.

    Parameters
    ----------
    weights
        State dictionary of torchvision's ``mvit_v2_s``, as for :class:`R2Plus1D`.
    sha256
        Checksum of the file, or its first digits.
    length
        Number of periods.
    """

    length: int = 16

    def __post_init__(self) -> None:
        # Without arguments super() fails in a class that slots=True has made anew.
        _VideoNetwork.__post_init__(self)
        if self.length < 2 or self.length % 2 or (self.weights is not None and self.length != 16):
            raise EncoderError(
                f"length is {self.length}.",
                cause="Periods are read in pairs, and weights were trained on 16.",
                next_step="Use length=16, or another even number with random weights.",
            )

    @property
    def n_features(self) -> int:
        """768."""
        return 768

    @property
    def minimum_pixels(self) -> int:
        """32, of which one place is left; with weights 224."""
        return 32 if self.weights is None else 224

    @property
    def periods(self) -> int | None:
        """Number of periods that it takes."""
        return self.length

    def check(self, spec: ImageSpec) -> None:
        """Refuse chips of another size than the tables of positions (``EncoderError``)."""
        check_size(self.name, spec, self.minimum_pixels)
        sides = (spec.height, spec.width)
        if self.weights is None:
            fits, wanted = all(side % 32 == 0 for side in sides), "a multiple of 32"
        else:
            fits, wanted = sides == (224, 224), "224 by 224"
        if not fits:
            raise EncoderError(
                f"The chips are {spec.height} by {spec.width} pixels; {self.name} takes {wanted}.",
                cause="Its tables of relative positions are made for one size.",
                next_step=f"Build the cube with a size that is {wanted}, or use R2Plus1D().",
            )

    def _network(self, spec: ImageSpec) -> torch.nn.Module:
        mvit = import_torchvision().models.video.mvit
        heads = [1] * 1 + [2] * 2 + [4] * 11 + [8] * 2
        before = [1, *heads[:-1]]
        blocks = [
            mvit.MSBlockConfig(
                num_heads=now,
                input_channels=96 * last,
                output_channels=96 * now,
                kernel_q=[3, 3, 3],
                kernel_kv=[3, 3, 3],
                stride_q=[1, now // last, now // last],
                stride_kv=[1, 8 // now, 8 // now],
            )
            for last, now in zip(before, heads, strict=True)
        ]
        network: torch.nn.Module = mvit.MViT(
            spatial_size=(spec.height, spec.width),
            temporal_size=self.length,
            block_setting=blocks,
            residual_pool=True,
            residual_with_cls_embed=False,
            rel_pos_embed=True,
            proj_after_attn=True,
        )
        network.head = torch.nn.Identity()
        return network


class _Dense(torch.nn.Module):
    """Order the frames by date, refuse gaps, run the network on ``(n, band, period, y, x)``."""

    def __init__(
        self, network: torch.nn.Module, name: str, n_features: int, periods: int | None
    ) -> None:
        super().__init__()
        self.network = network
        self.name = name
        self.n_features = n_features
        self.periods = periods

    def forward(
        self, values: torch.Tensor, valid: torch.Tensor, years: torch.Tensor
    ) -> torch.Tensor:
        """``(n, t, band, y, x), (n, t, y, x), (n, t) -> (n, f)``; NaN rows where nothing is."""
        present = valid.flatten(2).any(dim=2) & years.isfinite()
        _refuse_gaps(present.cpu().numpy(), self.name, self.periods)
        whole = present.all(dim=1)
        rows = whole.nonzero()[:, 0]
        features = values.new_full((len(values), self.n_features), torch.nan)
        if len(rows) == 0:
            return features
        order = years[rows].argsort(dim=1, stable=True)
        frames = values[rows[:, None], order].transpose(1, 2)
        computed: torch.Tensor = self.network(frames)
        return features.to(computed.dtype).index_put((rows,), computed)


def _refuse_gaps(present: NDArray[np.bool_], name: str, periods: int | None) -> None:
    """Refuse sequences that have some periods and miss others; those with none are let through."""
    if periods is not None and present.shape[1] != periods:
        raise EncoderError(
            f"The sequences have {present.shape[1]} periods; {name} takes {periods}.",
            cause="Its tables of relative positions are made for one length.",
            next_step="Use MViT(length=...) with random weights, or R2Plus1D().",
        )
    gaps = present.any(axis=1) & ~present.all(axis=1)
    if gaps.any():
        where = np.flatnonzero((~present[gaps]).any(axis=0)).tolist()
        raise EncoderError(
            f"{int(gaps.sum())} of {len(present)} sequences miss an image, "
            f"in periods number {', '.join(str(i + 1) for i in where)}.",
            cause=f"{name} takes no mask, and a missing image is never filled in.",
            next_step="Use FrameSequence with MeanTrend() or TemporalAttention(), which read dates "
            "and masks, or leave these neighborhoods or periods out.",
        )


def _replace_stem(network: torch.nn.Module, own: tuple[str, ...], bands: tuple[str, ...]) -> None:
    """Give the first layer one filter a band; the weights follow those of ``own`` by name."""
    if bands == own:
        return
    stem = next(m for m in network.modules() if isinstance(m, torch.nn.Conv3d))
    new = untouched_seeds(
        lambda: torch.nn.Conv3d(
            len(bands),
            stem.out_channels,
            stem.kernel_size,  # type: ignore[arg-type]
            stride=stem.stride,  # type: ignore[arg-type]
            padding=stem.padding,  # type: ignore[arg-type]
            bias=stem.bias is not None,
        )
    )
    with torch.no_grad():
        new.weight.copy_(inflate_stem(stem.weight, own, bands))
        if stem.bias is not None and new.bias is not None:
            new.bias.copy_(stem.bias)
    replace_module(network, stem, new)


def _load(network: torch.nn.Module, state: State, name: str) -> None:
    """Fill in the weights; those of the head alone may be left over."""
    wanted = network.state_dict()
    wrong = [k for k, v in wanted.items() if k not in state or state[k].shape != v.shape]
    left = [k for k in state if k not in wanted and not k.startswith(("fc.", "head."))]
    if wrong or left:
        raise WeightsError(
            f"The weights file does not fit {name}: {len(wrong)} tensors are missing or of another "
            f"shape, {len(left)} left over.",
            cause=f"Among them {', '.join([*wrong[:3], *left[:3]])}.",
            next_step="Use the file of the same network of torchvision.",
        )
    network.load_state_dict({k: state[k] for k in wanted})
