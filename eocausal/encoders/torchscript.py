"""Whole networks from TorchScript archives, so that any architecture can be used.

A TorchScript archive is a program. It is read by torch's own interpreter, which makes no Python
objects, after four checks: its sha256 is the one that the card states; it names no class
that is compiled into torch; it has no method that would run while it is being read; and its
``forward`` uses no operators but those of tensors and of plain control flow: none that reads or
writes files, seeds a generator, sets an attribute or starts another task. torch gives no
guarantee for archives that were made to do harm: use files from people you trust. A network whose
features depend on chance, on earlier calls or on the other chips of a batch is refused when it is
fitted, by trying it out on noise.

Archives of ``torch.export`` (``.pt2``) are not read: torch unpickles parts of them without limits.
"""

from __future__ import annotations

import warnings
import zipfile
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import torch

from eocausal.encoders.card_input import check_chips, resize, scaling_of
from eocausal.encoders.cards import ModelCard, load_card
from eocausal.encoders.core import FittedEncoder, Float32, ImageSpec
from eocausal.encoders.golden import check_golden
from eocausal.encoders.weights import find_weights, verify_weights
from eocausal.errors import ModelCardError, WeightsError

__all__ = ["ScriptedNetwork", "read_program"]

_SAME, _ALIKE = 1e-5, 1e-3  # half precision rounds batches of different lengths differently
_READ_FIRST = (".py", ".pkl")
_FORBIDDEN_WORDS = (b"__setstate__", b"torch.classes")
_REFUSED_TENSOR_OPERATORS = frozenset(
    ("aten::from_file", "aten::manual_seed", "aten::save", "aten::wait")
)
_LANGUAGE = frozenset((
    "prim::Constant", "prim::DictConstruct", "prim::GetAttr", "prim::If",
    "prim::ImplicitTensorToNum", "prim::ListConstruct", "prim::ListUnpack", "prim::Loop",
    "prim::NumToTensor", "prim::RaiseException", "prim::StringIndex", "prim::TupleConstruct",
    "prim::TupleIndex", "prim::TupleSlice", "prim::TupleUnpack", "prim::Uninitialized",
    "prim::abs", "prim::data", "prim::device", "prim::dtype", "prim::is_cuda",
    "prim::is_nested", "prim::isinstance", "prim::layout", "prim::max", "prim::min",
    "prim::requires_grad", "prim::type", "prim::unchecked_cast",
    "prim::unchecked_unwrap_optional",
))  # fmt: skip


@dataclass(frozen=True, slots=True)
class _Output:
    """How many axes a network's output has, and how it becomes a vector for each chip."""

    axes: int
    reduce: Callable[[torch.Tensor], torch.Tensor]


_OUTPUTS: Mapping[str, _Output] = {
    "vector": _Output(2, lambda out: out),
    "class_token": _Output(3, lambda out: out[:, 0]),
    "tokens": _Output(3, lambda out: out.mean(dim=1)),
    "patch_tokens": _Output(3, lambda out: out[:, 1:].mean(dim=1)),
    "map": _Output(4, lambda out: out.mean(dim=(2, 3))),
}


@dataclass(frozen=True, slots=True)
class ScriptedNetwork:
    """A network in a TorchScript archive, described by a model card.

    Parameters
    ----------
    card
        A model card of the family ``torchscript``.
    weights
        Path of the archive.
    """

    card: ModelCard
    weights: Path

    @classmethod
    def from_card(cls, card: str | Path, weights: Path | str | None = None) -> Self:
        """Read a card, check the archive and the golden vector, if the card has one.

        Parameters
        ----------
        card
            Name of a card (``str``) or its folder (``Path``).
        weights
            Path of the archive that the card names; without it the file is looked for beside the
            card.

        Raises
        ------
        ModelCardError
            If the card is wrong, or the golden vector differs.
        WeightsError
            If the file is missing, has another checksum, or is no program that may be run.
        """
        found = load_card(card)
        path = find_weights(found, weights, card if isinstance(card, Path) else None)
        if found.family != "torchscript" or path is None:
            raise ModelCardError(
                f"The model {found.name} is of the family {found.family!r}.",
                cause="Only TorchScript archives are read here.",
                next_step="Use eocausal.encoders.registry.load_encoder.",
            )
        encoder = cls(found, path)
        encoder._program()
        check_golden(encoder, found)
        return encoder

    @property
    def name(self) -> str:
        """Id string."""
        return self.card.name

    def check(self, spec: ImageSpec) -> None:
        """Refuse chips that do not fit the card (``ModelCardError``)."""
        check_chips(self.card, spec)

    def fit(self, images: Float32, spec: ImageSpec, *, seed: int) -> FittedEncoder:
        """Read the network; take mean and sd from the sample if the card says so.

        Bands are brought to the card's order. ``seed`` is not used.

        Raises
        ------
        ModelCardError
            If the chips do not fit the card, or the network gives something else than it says,
            or features of a chip that depend on chance, earlier calls or the rest of its batch.
        WeightsError
            If the archive changed, or is no program that may be run.
        """
        self.check(spec)
        program, sha256 = self._program()
        order = [spec.bands.index(b) for b in self.card.bands]
        network = _ScriptFeatures(program, order, self.card).eval().requires_grad_(False)
        _try_out(network, self.card, spec)
        return FittedEncoder(
            name=self.name,
            spec=spec,
            scaling=scaling_of(self.card, images, spec),
            network=network,
            n_features=self.card.features,
            weights_sha256=sha256,
            minimum_pixels=self.card.minimum_pixels,
        )

    def _program(self) -> tuple[torch.nn.Module, str]:
        assert self.card.weights is not None
        sha256 = verify_weights(self.weights, self.card.weights)
        return read_program(self.weights), sha256


class _ScriptFeatures(torch.nn.Module):
    """Bands in the card's order, resized if it says so, then the network, then a vector."""

    def __init__(self, program: torch.nn.Module, order: list[int], card: ModelCard) -> None:
        super().__init__()
        self.program = program
        self.order = None if order == sorted(order) else order
        self.input_size = card.input_size
        self.output = str(card.output)

    def forward(self, values: torch.Tensor, valid: torch.Tensor) -> torch.Tensor:
        """Encode ``(n, band, y, x)``; the mask is not used."""
        return _OUTPUTS[self.output].reduce(self.raw(values))

    def raw(self, values: torch.Tensor) -> torch.Tensor:
        """Return what the network itself gives."""
        if self.order is not None:
            values = values[:, self.order]
        out: torch.Tensor = self.program(resize(values, self.input_size))
        return out


def _try_out(network: _ScriptFeatures, card: ModelCard, spec: ImageSpec) -> None:
    """Run chips of noise together and alone, to refuse a network that does not fit its card."""
    generator = torch.Generator().manual_seed(0)
    chips = torch.randn(3, len(spec.bands), spec.height, spec.width, generator=generator)
    try:
        with torch.inference_mode():
            out = network.raw(chips.clone())
            alone = [network.raw(chip[None].clone()) for chip in chips]
            again = network.raw(chips.clone())
    except Exception as error:  # the interpreter raises what the program raises
        raise ModelCardError(
            f"The network of {card.name} does not take chips of {spec.height} by {spec.width} "
            f"pixels and {len(spec.bands)} bands.",
            cause=str(error).strip().split("\n")[-1],
            next_step="State its input_size and bands in the card; export it with an example of "
            "this shape and a batch of any length.",
        ) from error
    axes = _OUTPUTS[network.output].axes
    found = tuple(out.shape) if isinstance(out, torch.Tensor) else type(out).__name__
    fits = isinstance(out, torch.Tensor) and out.dim() == axes and len(out) == len(chips)
    if not fits or out.shape[1 if axes == 4 else -1] != card.features:
        raise ModelCardError(
            f"The network of {card.name} gives {found} for three chips.",
            cause=f"The card says output: {card.output} and features: {card.features}, that is "
            f"{_expected(axes, card.features)}.",
            next_step="Correct output and features in the card, or export a network that gives "
            "one tensor for a batch of any length.",
        )
    reduce = _OUTPUTS[network.output].reduce
    _check_features(card, reduce(out), reduce(again), torch.cat([reduce(each) for each in alone]))


def _check_features(
    card: ModelCard, together: torch.Tensor, again: torch.Tensor, alone: torch.Tensor
) -> None:
    """Refuse features that are not finite, or depend on chance, earlier calls or the batch."""
    if not bool(together.isfinite().all()):
        raise ModelCardError(
            f"The network of {card.name} gives features of noise that are not finite.",
            cause="Its weights, or what it computes of them, hold NaN or infinite values.",
            next_step="Compare it with the network it was exported from, and export it again.",
        )
    largest = together.abs().max().clamp_min(1e-12)
    drift = float((together - again).abs().max() / largest)
    if drift > _SAME:
        raise ModelCardError(
            f"The network of {card.name} gives the same chips other features when it is called "
            f"again: they differ by {drift:.2g} of the largest.",
            cause="It draws random numbers, as dropout does in training mode, or changes its own "
            "tensors.",
            next_step="Call model.eval() before torch.jit.trace or torch.jit.script, and export "
            "a network that keeps nothing from call to call.",
        )
    difference = float((together - alone).abs().max() / largest)
    if difference > _ALIKE:
        raise ModelCardError(
            f"The network of {card.name} gives a chip other features alone than among others: "
            f"they differ by {difference:.2g} of the largest.",
            cause="It mixes the chips of a batch, as batch normalisation does where a network is "
            "exported in training mode.",
            next_step="Call model.eval() before torch.jit.trace or torch.jit.script, and export "
            "it again.",
        )


def _expected(axes: int, features: int) -> str:
    return {2: f"(3, {features})", 3: f"(3, token, {features})", 4: f"(3, {features}, y, x)"}[axes]


def read_program(path: Path) -> torch.nn.Module:
    """Read a TorchScript archive after looking at what it would do.

    Raises
    ------
    WeightsError
        If it is damaged, would run code while it is read, or uses operators other than those of
        tensors and plain control flow.
    """
    _check_members(path)
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", ".*torch.jit.load", DeprecationWarning)
            program = torch.jit.load(path, map_location="cpu")  # type: ignore[no-untyped-call]
        used = set(_operators(program.inlined_graph))
    except Exception as error:  # the reader raises many kinds on a damaged file
        raise WeightsError(
            f"The TorchScript archive {path} cannot be read.",
            cause=" ".join(str(error).split()),
            next_step="Save the network again with torch.jit.save.",
        ) from error
    refused = sorted(used - _LANGUAGE - {o for o in used if _is_of_tensors(o)})
    if refused:
        raise _refusal(path, f"It uses {', '.join(refused)}: more than tensors and control flow.")
    network: torch.nn.Module = program
    return network


def _is_of_tensors(operator: str) -> bool:
    return operator.startswith("aten::") and operator not in _REFUSED_TENSOR_OPERATORS


def _check_members(path: Path) -> None:
    """Look at the source and the pickles of an archive before torch reads them."""
    try:
        with zipfile.ZipFile(path) as archive:
            members = archive.infolist()
            texts = [archive.read(m) for m in members if m.filename.lower().endswith(_READ_FIRST)]
    except (zipfile.BadZipFile, OSError, NotImplementedError, RuntimeError) as error:
        raise WeightsError(
            f"The TorchScript archive {path} cannot be read.",
            cause=f"{type(error).__name__}: {error}.",
            next_step="Save the network again with torch.jit.save.",
        ) from error
    if not any("/code/" in m.filename for m in members):
        raise WeightsError(
            f"{path} is not a TorchScript archive.",
            cause="It holds no code; it may be a dictionary of tensors or a pickled network.",
            next_step="Use a card of the family torchvision for tensors, or save the network with "
            "torch.jit.save.",
        )
    for word in _FORBIDDEN_WORDS:
        if any(word in text for text in texts):
            raise _refusal(path, f"It holds {word.decode()}, which runs while it is being read.")


def _operators(graph: Any) -> Iterator[str]:
    for node in graph.nodes():
        yield node.kind()
        for block in node.blocks():
            yield from _operators(block)


def _refusal(path: Path, cause: str) -> WeightsError:
    return WeightsError(
        f"The TorchScript archive {path} is not run.",
        cause=cause,
        next_step="Export the network alone, without quantised or compiled parts.",
    )
