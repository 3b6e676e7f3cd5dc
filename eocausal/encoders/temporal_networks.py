"""Temporal heads with weights: recurrent, attention, transformer.

All read the dates on which images were taken, never positions in the array, and a mask of what is
missing. None has dropout or batch normalisation: the features of a sequence depend on that
sequence alone. Features should come with mean 0 and sd 1 or nearly so.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as functional
from torch import nn

from eocausal.encoders.initial_weights import draw_weights, untouched_seeds
from eocausal.encoders.temporal import clear_missing
from eocausal.errors import EncoderError

__all__ = ["GRU", "TemporalAttention", "Transformer", "encode_dates"]

_LONGEST_YEARS = 100.0


def encode_dates(years: torch.Tensor, width: int) -> torch.Tensor:
    """Encode dates as sines and cosines of real time.

    Channels ``2 j`` and ``2 j + 1`` are ``sin`` and ``cos`` of ``2 pi t / P_j`` with the periods
    ``P_j`` spaced evenly on a log scale from 1 year, the cycle of the day of the year, to 100
    years, which orders all dates since 1975. The form is that of Vaswani et al. 2017 and Garnot &
    Landrieu 2020, eq. 2, with calendar time for the position.

    Parameters
    ----------
    years
        Decimal years since 2000, any shape, finite.
    width
        Number of channels, even.

    Returns
    -------
    torch.Tensor
        ``(*years.shape, width)``.
    """
    periods = torch.logspace(0.0, math.log10(_LONGEST_YEARS), width // 2, device=years.device)
    angle = 2.0 * math.pi * years[..., None] / periods.to(years.dtype)
    return torch.stack([angle.sin(), angle.cos()], dim=-1).flatten(-2)


def _masked_softmax(scores: torch.Tensor, present: torch.Tensor) -> torch.Tensor:
    """Softmax over the last axis and the present periods; over all where none is present."""
    attended = present | ~present.any(dim=-1, keepdim=True)
    return scores.masked_fill(~attended, -torch.inf).softmax(dim=-1)


def _draw(network: nn.Module, seed: int) -> nn.Module:
    draw_weights(network, seed)
    return network


@dataclass(frozen=True, slots=True)
class _Weighted:
    """What the heads with weights share."""

    @property
    def name(self) -> str:
        """Id string."""
        return repr(self)

    @property
    def trained(self) -> bool:
        """Whether it has weights: yes."""
        return True


@dataclass(frozen=True, slots=True)
class GRU(_Weighted):
    """Gated recurrent unit over the present images by date; its last state.

    Cho et al. 2014. Beside the features a step sees the years since the last image present (0 at
    the first) and the sine and cosine of the day of the year. Missing periods are skipped: the
    state passes them unchanged and the next gap is longer. Moving all dates by whole years
    changes nothing. Images of one day are read in the order in which they come.

    Parameters
    ----------
    hidden
        Size of the state, which is the number of outputs.
    """

    hidden: int = 64

    def __post_init__(self) -> None:
        _check_positive(self, hidden=self.hidden)

    def n_outputs(self, n_features: int) -> int:
        """Size of the state."""
        return self.hidden

    def build(self, n_features: int, *, seed: int) -> nn.Module:
        """Build the module; weights are drawn by the seed."""
        return _draw(untouched_seeds(lambda: _GRU(n_features, self.hidden)), seed)


class _GRU(nn.Module):
    def __init__(self, n_features: int, hidden: int) -> None:
        super().__init__()
        self.read = nn.Linear(n_features + 3, 3 * hidden)
        self.recall = nn.Linear(hidden, 3 * hidden)

    def forward(
        self, features: torch.Tensor, present: torch.Tensor, years: torch.Tensor
    ) -> torch.Tensor:
        """``(n, t, f), (n, t), (n, t) -> (n, hidden)``."""
        features, years = clear_missing(features, present, years)
        order = torch.where(present, years, torch.inf).argsort(dim=1, stable=True)
        years, present = years.gather(1, order), present.gather(1, order)
        features = features.gather(1, order[..., None].expand_as(features))
        gap = functional.pad(years.diff(dim=1), (1, 0))
        season = 2.0 * math.pi * years
        steps = torch.stack([gap, season.sin(), season.cos()], dim=-1)
        read = self.read(torch.cat([features, steps], dim=-1))
        state: torch.Tensor = read.new_zeros(len(read), self.recall.in_features)
        for step, seen in zip(read.unbind(1), present.unbind(1), strict=True):
            state = torch.where(seen[:, None], self._step(step, state), state)
        return state

    def _step(self, read: torch.Tensor, state: torch.Tensor) -> torch.Tensor:
        reset, update, new = read.chunk(3, dim=1)
        reset_h, update_h, new_h = self.recall(state).chunk(3, dim=1)
        candidate = torch.tanh(new + torch.sigmoid(reset + reset_h) * new_h)
        kept = torch.sigmoid(update + update_h)
        return (1.0 - kept) * candidate + kept * state


@dataclass(frozen=True, slots=True)
class TemporalAttention(_Weighted):
    """Lightweight temporal attention encoder, L-TAE (Garnot & Landrieu 2020, arXiv 2007.00586).

    Features are projected to ``width`` channels, which fall into ``heads`` groups; the encoded
    date is added to each group (eq. 2). Each head has one master query, learned, and its own
    keys; its softmax over the present periods averages its group of channels (eq. 5-7). The
    groups are joined and pass a layer with a ReLU. The paper's normalisations are left out: what
    counts may be how strong a feature is. A change of all dates changes the outputs: it reads the
    calendar.

    Parameters
    ----------
    heads
        Number of heads (and of groups of channels).
    keys
        Size of a key and a query.
    width
        Channels of the projection, a multiple of ``2 * heads``.
    features
        Number of outputs.
    """

    heads: int = 16
    keys: int = 8
    width: int = 256
    features: int = 128

    def __post_init__(self) -> None:
        _check_positive(
            self, heads=self.heads, keys=self.keys, width=self.width, features=self.features
        )
        _check_heads(self, self.width, 2 * self.heads)

    def n_outputs(self, n_features: int) -> int:
        """As set by ``features``."""
        return self.features

    def build(self, n_features: int, *, seed: int) -> nn.Module:
        """Build the module; weights are drawn by the seed."""
        return _draw(untouched_seeds(lambda: _LTAE(n_features, self)), seed)


class _AttentionPool(nn.Module):
    """Master queries: each head averages its group of channels over the present periods."""

    def __init__(self, width: int, heads: int, keys: int) -> None:
        super().__init__()
        self.heads = heads
        self.keys = nn.Linear(width, heads * keys)
        self.queries = nn.Linear(keys, heads, bias=False)

    def forward(self, tokens: torch.Tensor, present: torch.Tensor) -> torch.Tensor:
        """``(n, t, width), (n, t) -> (n, width)``."""
        keys = self.keys(tokens).reshape(*tokens.shape[:2], self.heads, -1)
        queries = self.queries.weight / math.sqrt(keys.shape[-1])
        scores = torch.einsum("nthk,hk->nht", keys, queries)
        weights = _masked_softmax(scores, present[:, None])
        groups = tokens.reshape(*tokens.shape[:2], self.heads, -1)
        return torch.einsum("nht,nthc->nhc", weights, groups).flatten(1)


class _LTAE(nn.Module):
    def __init__(self, n_features: int, head: TemporalAttention) -> None:
        super().__init__()
        self.heads = head.heads
        self.project = nn.Linear(n_features, head.width)
        self.pool = _AttentionPool(head.width, head.heads, head.keys)
        self.out = nn.Linear(head.width, head.features)

    def forward(
        self, features: torch.Tensor, present: torch.Tensor, years: torch.Tensor
    ) -> torch.Tensor:
        """``(n, t, f), (n, t), (n, t) -> (n, features)``."""
        features, years = clear_missing(features, present, years)
        tokens = self.project(features)
        dates = encode_dates(years, tokens.shape[-1] // self.heads)
        tokens = tokens + dates.repeat(1, 1, self.heads)
        return functional.relu(self.out(self.pool(tokens, present)))


@dataclass(frozen=True, slots=True)
class Transformer(_Weighted):
    """A small transformer with encoded dates, a mask of missing periods and attention pooling.

    Vaswani et al. 2017, normalisation before each branch (Xiong et al. 2020); pooled by one
    learned query a head, as in :class:`TemporalAttention`. A change of all dates changes the
    outputs: it reads the calendar.

    Parameters
    ----------
    layers
        Number of layers.
    heads
        Number of heads.
    width
        Channels, a multiple of ``heads`` and even; the number of outputs.
    """

    layers: int = 2
    heads: int = 4
    width: int = 64

    def __post_init__(self) -> None:
        _check_positive(self, layers=self.layers, heads=self.heads, width=self.width)
        _check_heads(self, self.width, math.lcm(self.heads, 2))

    def n_outputs(self, n_features: int) -> int:
        """As set by ``width``."""
        return self.width

    def build(self, n_features: int, *, seed: int) -> nn.Module:
        """Build the module; weights are drawn by the seed."""
        return _draw(untouched_seeds(lambda: _Transformer(n_features, self)), seed)


class _Layer(nn.Module):
    """Self-attention, then two dense layers, each added to what comes in."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.norm1 = nn.LayerNorm(width)
        self.mix = nn.Linear(width, 3 * width)
        self.join = nn.Linear(width, width)
        self.norm2 = nn.LayerNorm(width)
        self.widen = nn.Linear(width, 2 * width)
        self.narrow = nn.Linear(2 * width, width)

    def forward(self, tokens: torch.Tensor, present: torch.Tensor) -> torch.Tensor:
        """``(n, t, width), (n, t) -> (n, t, width)``."""
        parts = self.mix(self.norm1(tokens)).chunk(3, dim=-1)
        query, key, value = (p.unflatten(-1, (self.heads, -1)).transpose(1, 2) for p in parts)
        scores = query @ key.transpose(-1, -2) / math.sqrt(query.shape[-1])
        mixed = _masked_softmax(scores, present[:, None, None]) @ value
        tokens = tokens + self.join(mixed.transpose(1, 2).flatten(2))
        branch: torch.Tensor = self.narrow(functional.gelu(self.widen(self.norm2(tokens))))
        return tokens + branch


class _Transformer(nn.Module):
    def __init__(self, n_features: int, head: Transformer) -> None:
        super().__init__()
        self.project = nn.Linear(n_features, head.width)
        self.layers = nn.ModuleList(_Layer(head.width, head.heads) for _ in range(head.layers))
        self.norm = nn.LayerNorm(head.width)
        self.pool = _AttentionPool(head.width, head.heads, head.width // head.heads)

    def forward(
        self, features: torch.Tensor, present: torch.Tensor, years: torch.Tensor
    ) -> torch.Tensor:
        """``(n, t, f), (n, t), (n, t) -> (n, width)``."""
        features, years = clear_missing(features, present, years)
        tokens = self.project(features)
        tokens = tokens + encode_dates(years, tokens.shape[-1])
        for layer in self.layers:
            tokens = layer(tokens, present)
        pooled: torch.Tensor = self.pool(self.norm(tokens), present)
        return pooled


def _check_positive(head: object, **numbers: int) -> None:
    wrong = [name for name, value in numbers.items() if value < 1]
    if wrong:
        raise EncoderError(
            f"{head!r} has {', '.join(wrong)} below 1.",
            cause="Sizes of a network are at least 1.",
            next_step=f"Use {type(head).__name__}() for sizes that work.",
        )


def _check_heads(head: object, width: int, multiple: int) -> None:
    if width % multiple:
        raise EncoderError(
            f"{head!r} has width {width}, which is not a multiple of {multiple}.",
            cause="Each head takes its share of the channels, and dates are encoded in pairs.",
            next_step=f"Use width={multiple * max(1, round(width / multiple))}.",
        )
