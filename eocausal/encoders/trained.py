"""Networks trained by cross-fitting: embeddings, predictions, and what salience asks for."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray

from eocausal.contracts import check_cube, some
from eocausal.encoders.base import encode, image_spec
from eocausal.encoders.core import Architecture, FittedEncoder, Float32, Progress
from eocausal.encoders.devices import resolve_device
from eocausal.encoders.objectives import Objective, TrainingHead
from eocausal.encoders.routed import Routed
from eocausal.encoders.training_chips import ChipReader, encode_cells
from eocausal.errors import AlignmentError, EncoderError

if TYPE_CHECKING:
    import pandas as pd
    import xarray as xr

__all__ = ["Scored", "TrainedEncoder", "weights_hash"]

Int64 = NDArray[np.int64]

_SAME_PLACE_DEGREES = 1e-4


def weights_hash(*modules: torch.nn.Module) -> str:
    """Hash the names, types, shapes and bytes of all tensors of some modules (sha256)."""
    digest = hashlib.sha256()
    for module in modules:
        for name, tensor in sorted(module.state_dict().items()):
            values = tensor.detach().cpu().contiguous().numpy()
            digest.update(f"{name}:{values.dtype}:{values.shape};".encode())
            digest.update(values.tobytes())
    return digest.hexdigest()


class Scored(torch.nn.Module):
    """A network and a head: ``(values, valid[, years]) -> (n, outputs)``."""

    def __init__(self, network: torch.nn.Module, head: TrainingHead) -> None:
        super().__init__()
        self.network = network
        self.head = head

    def forward(self, *inputs: torch.Tensor) -> torch.Tensor:
        """Return what the head says of the network's features."""
        scores: torch.Tensor = self.head(self.network(*inputs))
        return scores


class _Scores(torch.nn.Module):
    """What a head says on the scale of its loss: ``(values, valid[, years]) -> (n, outputs)``."""

    def __init__(self, scored: Scored) -> None:
        super().__init__()
        self.scored = scored

    def forward(self, *inputs: torch.Tensor) -> torch.Tensor:
        return self.scored.head.scores(self.scored.network(*inputs))


class _Combination(torch.nn.Module):
    """A weighted sum of outputs: ``(values, valid[, years]) -> (n,)``."""

    weight: torch.Tensor

    def __init__(self, scored: Scored, weight: torch.Tensor) -> None:
        super().__init__()
        self.scored = scored
        self.register_buffer("weight", weight)

    def forward(self, *inputs: torch.Tensor) -> torch.Tensor:
        total: torch.Tensor = self.scored(*inputs) @ self.weight
        return total


@dataclass(frozen=True, slots=True, eq=False)
class TrainedEncoder:
    """Networks of a cross-fitted training; make one with :func:`~.training.train_encoder`.

    Network k never saw the treatment or the outcome of fold k, neither for its weights nor to
    decide when to stop. So :meth:`predict` is cross-fitted as it is. A model that is fitted on the
    embedding of several folds is not quite: a unit's own features know nothing of its labels, but
    the networks of other folds learnt from them.

    The first features of an embedding are what the heads say (logit of treatment, outcomes in
    standard deviations), which means the same whatever the network. The others are each
    network's own, turned onto those of the common first weights, on chips alone, and agree only as
    far as that carries: **fit a model of the whole embedding on folds that mix places of all
    networks**. On the folds of the training it would meet a network it never saw; take
    :meth:`only_scores` there.

    Parameters
    ----------
    networks
        One fitted encoder per fold; one in all if training needed no labels.
    scored
        Per network the same weights with the head on top; empty if the objective predicts nothing.
    neighborhoods
        Table with index neighborhood and columns fold (-1: none), lon, lat (NaN if unknown).
    history
        Columns fold, epoch (0: before the first step), training, held_out (losses), rate, kept.
    architecture, objective
        The decisions.
    name
        Id string.
    """

    networks: tuple[FittedEncoder, ...]
    scored: tuple[Scored, ...]
    neighborhoods: pd.DataFrame
    history: pd.DataFrame
    architecture: Architecture
    objective: Objective
    name: str

    @property
    def fold(self) -> pd.Series:
        """Fold by neighborhood; -1 where a neighborhood had no unit."""
        return self.neighborhoods["fold"]

    @property
    def weights_sha256(self) -> str:
        """Hash over all networks."""
        joined = "".join(network.weights_sha256 for network in self.networks)
        return hashlib.sha256(joined.encode()).hexdigest()

    def logit(self, k: int) -> torch.nn.Module:
        """Return the treatment's logit by network k: ``(values, valid[, years]) -> (n,)``."""
        return self._combined(k, {"logit": 1.0})

    def outcome(self, k: int, arm: int | None = None) -> torch.nn.Module:
        """Return the outcome by network k, under an arm (0, 1) where the objective has arms."""
        return self._combined(k, {"outcome" if arm is None else f"outcome_{arm}": 1.0})

    def effect(self, k: int) -> torch.nn.Module:
        """Return the effect by network k, outcome under treatment less outcome without."""
        return self._combined(k, {"outcome_1": 1.0, "outcome_0": -1.0})

    def only_scores(self) -> TrainedEncoder:
        """Return the same networks with what the heads say as their only features.

        One (:class:`Propensity`, :class:`Outcome`) or three (:class:`Dragonnet`): the logit of
        treatment, which balances whatever confounds through the image, and outcomes in sd.
        """
        outputs = self._outputs()
        networks = [
            replace(encoder, network=_Scores(scored).eval(), n_features=len(outputs))
            for encoder, scored in zip(self.networks, self.scored, strict=True)
        ]
        return replace(self, networks=tuple(networks), name=f"scores of {self.name}")

    def _combined(self, k: int, terms: dict[str, float]) -> torch.nn.Module:
        outputs = self._outputs()
        if not set(terms) <= set(outputs) or not 0 <= k < len(self.scored):
            raise EncoderError(
                f"{' and '.join(terms)} of network {k} was asked for; {self.objective.name} "
                f"gives {', '.join(outputs)} by networks 0 to {len(self.scored) - 1}.",
                cause="A network gives what it was trained for.",
                next_step="Ask for one of these, or train for Propensity(), Outcome() or "
                "Dragonnet().",
            )
        weight = torch.tensor([terms.get(name, 0.0) for name in outputs])
        return _Combination(self.scored[k], weight).eval()

    def _outputs(self) -> tuple[str, ...]:
        if not self.scored:
            raise EncoderError(
                f"{self.objective.name} predicts nothing.",
                cause="It was trained without labels.",
                next_step="Use encode(), and fit a model on the embedding.",
            )
        return self.scored[0].head.outputs

    def _groups(self, cube: xr.Dataset) -> Iterator[tuple[Int64, tuple[int, ...]]]:
        """Yield positions of neighborhoods, and the networks that speak for them."""
        fold = self._fold_of(cube)
        for k in range(len(self.networks)):
            if (fold == k).any():
                yield np.flatnonzero(fold == k), (k,)
        if (fold < 0).any():
            yield np.flatnonzero(fold < 0), tuple(range(len(self.networks)))

    def _fold_of(self, cube: xr.Dataset) -> Int64:
        labels = cube.indexes["neighborhood"]
        known = self.neighborhoods.reindex(labels)
        fold = known["fold"].fillna(-1).to_numpy(dtype=np.int64)
        if self.objective.columns and {"lon", "lat"} <= set(cube.coords):
            self._check_places(cube, known, labels)
        return fold

    def _check_places(self, cube: xr.Dataset, known: pd.DataFrame, labels: pd.Index) -> None:
        """Refuse other places under known names, and known places under other names."""
        from scipy.spatial import KDTree

        here = np.stack([cube[name].to_numpy().astype(float) for name in ("lon", "lat")], axis=1)
        theirs = known[["lon", "lat"]].to_numpy(dtype=float)
        away = (np.abs(theirs - here) > _SAME_PLACE_DEGREES).any(axis=1)
        if away.any():
            raise AlignmentError(
                f"{int(away.sum())} neighborhoods of this cube lie elsewhere than those of "
                f"the same name that were trained on: {some(labels[away])}.",
                cause="A neighborhood's network is chosen by its name.",
                next_step="Give other places other names, e.g. with a prefix.",
            )
        learnt = self.neighborhoods.query("fold >= 0")[["lon", "lat"]].dropna().to_numpy()
        other = ~labels.isin(self.neighborhoods.index) & np.isfinite(here).all(axis=1)
        if len(learnt) == 0 or not other.any():
            return
        distance = np.full(len(labels), np.inf)
        distance[other] = KDTree(learnt).query(here[other])[0]
        renamed = distance <= _SAME_PLACE_DEGREES
        if renamed.any():
            raise AlignmentError(
                f"{int(renamed.sum())} neighborhoods of this cube lie where others lie that were "
                f"trained on, under names that training did not know: {some(labels[renamed])}.",
                cause="A neighborhood's network is chosen by its name; without its fold it would "
                "be encoded by networks that learnt from its own labels.",
                next_step="Name places as in training (numbers stay numbers, text stays text).",
            )

    def encode(
        self,
        cube: xr.Dataset,
        *,
        out: Path | str | None = None,
        batch_size: int = 64,
        device: str = "auto",
        progress: Progress | None = None,
    ) -> xr.DataArray:
        """Encode each neighborhood by the network of its fold.

        Neighborhoods that have none, e.g. of another region, get the mean over all networks.

        Parameters
        ----------
        cube, out, batch_size, device, progress
            As for :func:`eocausal.encoders.base.encode`.

        Returns
        -------
        xarray.DataArray
            As :func:`~eocausal.encoders.base.encode` returns, with the coordinate ``fold`` and the
            attributes ``objective`` and ``cross_fitted``.

        Raises
        ------
        CubeError, EncoderError, DeviceError
        AlignmentError
            If neighborhoods of this cube have the names of others that were trained on, or lie
            where others lie that were.
        """
        check_cube(cube)
        fold = self._fold_of(cube)
        reads = (fold == np.arange(len(self.networks))[:, None]) | (fold < 0)
        attrs = {
            "objective": self.objective.name,
            "leading_features": ", ".join(self.scored[0].head.outputs) if self.scored else "",
            "cross_fitted": "by fold" if self.objective.columns else "no label was used",
        }
        routed = Routed(self.name, self.networks, reads, self.weights_sha256, {"fold": fold}, attrs)
        return encode(
            cube, routed, out=out, batch_size=batch_size, device=device, progress=progress
        )

    def predict(
        self,
        cube: xr.Dataset,
        *,
        batch_size: int = 64,
        device: str = "auto",
        memory: int = 0,
    ) -> pd.DataFrame:
        """Predict what the objective has heads for, each neighborhood by the network of its fold.

        Parameters
        ----------
        cube
            As :func:`eocausal.contracts.check_cube` says.
        batch_size, device
            As for :func:`eocausal.encoders.base.encode`.
        memory
            Bytes of pixels that may be kept; 0 reads each chip when its turn comes.

        Returns
        -------
        pandas.DataFrame
            Index neighborhood; columns propensity (:class:`Propensity`), outcome
            (:class:`Outcome`), or propensity, outcome_0, outcome_1, effect (:class:`Dragonnet`).
            Of a network of single images logit and outcomes are averaged over the periods that are
            seen, and where a neighborhood has no fold over the networks. NaN where nothing is seen.

        Raises
        ------
        CubeError, EncoderError, DeviceError, AlignmentError
        """
        import pandas as pd

        outputs = self._outputs()
        check_cube(cube)
        self.networks[0].check(image_spec(cube))
        raw = np.full((cube.sizes["neighborhood"], len(outputs)), np.nan)
        reader = ChipReader(cube, sequence=self.architecture.sequence, memory=memory)
        for rows, networks in self._groups(cube):
            cells = np.flatnonzero(np.isin(reader.row, rows))
            found = [self._scores(k, reader, cells, batch_size, device) for k in networks]
            scores = np.mean(found, axis=0)
            told = np.isfinite(scores).all(axis=1)
            row, scores = reader.row[cells][told], scores[told]
            sums = np.stack([np.bincount(row, c, len(raw)) for c in scores.T], axis=1)
            count = np.bincount(row, minlength=len(raw))[:, None]
            raw = np.where(count > 0, sums / np.maximum(count, 1), raw)
        return pd.DataFrame(
            self.scored[0].head.table(raw),
            index=cube.indexes["neighborhood"].rename("neighborhood"),
        )

    def _scores(
        self, k: int, reader: ChipReader, cells: Int64, batch_size: int, device: str
    ) -> NDArray[np.float64]:
        own = self.networks[k]
        whole = FittedEncoder(
            name=own.name,
            spec=own.spec,
            scaling=own.scaling,
            network=self.scored[k],
            n_features=len(self._outputs()),
            minimum_pixels=own.minimum_pixels,
            sequence=own.sequence,
        )
        scores: Float32 = encode_cells(
            whole, reader, cells, device=resolve_device(device),
            batch_size=batch_size, readers=1,
        )  # fmt: skip
        return scores.astype(np.float64)

    def save(self, path: Path | str) -> None:
        """Write safetensors and JSON to a folder, whole or not at all; see :func:`load_trained`."""
        from eocausal.encoders.trained_files import save_trained

        save_trained(self, Path(path))
