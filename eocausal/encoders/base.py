"""From a cube to an embedding: read ahead, encode, label, write.

The array core (:mod:`eocausal.encoders.core`) needs numpy and torch only and is offered here
too; xarray is imported when a cube is encoded.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from eocausal.contracts import check_cube, check_embedding, check_feature_rows
from eocausal.encoders.chips import Chips, chips_of
from eocausal.encoders.core import (
    Encoder,
    FittedEncoder,
    Float32,
    ImageSpec,
    Progress,
    Scaling,
    SequenceEncoder,
)
from eocausal.encoders.dates import check_periods, check_sequences, sequence_years, unseen_periods
from eocausal.encoders.devices import resolve_device
from eocausal.encoders.embedding_store import (
    PartialStore,
    Skeleton,
    check_free,
    lazy_embedding,
    open_embedding,
)
from eocausal.encoders.routed import Routed, RoutedRunner
from eocausal.encoders.runner import embed_array
from eocausal.encoders.stream import Cut, encode_chunks, stream_key
from eocausal.errors import EncoderError

if TYPE_CHECKING:
    import xarray as xr

__all__ = [
    "Encoder",
    "FittedEncoder",
    "ImageSpec",
    "Scaling",
    "SequenceEncoder",
    "embed_array",
    "encode",
    "fit_encoder",
    "image_spec",
    "open_embedding",
    "resolve_device",
]

_SAMPLE_STREAM = 1
_FIT_CHIPS = 1_000
_FIT_BYTES = 256 << 20
_FIT_AT_LEAST = 16
_OF_PERIODS = ("period_start", "period_end", "last_date")


def image_spec(cube: xr.Dataset) -> ImageSpec:
    """Say what the chips of a cube look like."""
    return ImageSpec(
        bands=tuple(str(b) for b in cube.indexes["band"]),
        units=str(cube.attrs["units"]),
        resolution=float(cube.attrs["resolution"]),
        height=int(cube.sizes["y"]),
        width=int(cube.sizes["x"]),
    )


def fit_encoder(
    cube: xr.Dataset, encoder: Encoder | SequenceEncoder, *, seed: int = 0
) -> FittedEncoder:
    """Fit an encoder on a seeded sample of a cube's chips.

    At most 1,000 chips or 256 MiB, drawn without replacement among the chips (of all periods)
    that have a valid pixel; for an encoder of sequences as much of whole sequences with a valid
    pixel. Sixteen are drawn in any case. Fit once and pass the result to :func:`encode` where two
    cubes need the same features, e.g. the places of a trial and a whole country.

    Parameters
    ----------
    cube
        As :func:`eocausal.contracts.check_cube` says.
    encoder
        What to fit.
    seed
        Of the sample, and of the encoder's own draws.

    Raises
    ------
    CubeError
        If the cube breaks its contract, or cannot be read.
    EncoderError
        If ``encoder`` is not one, the cube does not suit it, no chip has a valid pixel, or an
        encoder of sequences finds no place with images of two periods.
    """
    _check_encoder(encoder)
    spec = image_spec(check_cube(cube))
    encoder.check(spec)
    seen = np.asarray(cube["valid"].transpose("neighborhood", "period")) > 0
    rng = np.random.default_rng((seed, _SAMPLE_STREAM))
    chips = chips_of(cube)
    if isinstance(encoder, SequenceEncoder):
        check_sequences(cube, encoder.name)
        rows = _draw(np.argwhere(seen.any(axis=1)), chips.bytes_each, rng)[:, 0]
        years = sequence_years(cube.isel(neighborhood=rows))
        sequences = _read_rows(chips, rows)
        sequences[np.isnan(years)] = np.nan
        return encoder.fit_sequence(sequences, years, spec, seed=seed)
    cells = _draw(np.argwhere(seen), chips.bytes_each // chips.shape[1], rng)
    return encoder.fit(_read_cells(chips, cells), spec, seed=seed)


def _check_encoder(encoder: object) -> None:
    if isinstance(encoder, type) or not isinstance(encoder, Encoder | SequenceEncoder):
        what = f"the class {encoder.__name__}" if isinstance(encoder, type) else repr(encoder)[:80]
        raise EncoderError(
            f"{what} cannot be fitted as an encoder.",
            cause="An encoder is an object with name, check, and fit or fit_sequence; it is "
            "neither a name, nor a class, nor a network to be trained.",
            next_step="Give e.g. RandomConv() or load_encoder('resnet18'); train a network with "
            "train_encoder, and call encode of the result.",
        )


def _draw(
    usable: NDArray[np.int64], bytes_each: int, rng: np.random.Generator
) -> NDArray[np.int64]:
    """Draw rows of ``usable``, in order, within the bounds of a fitting sample."""
    if len(usable) == 0:
        raise EncoderError(
            "No chip of the cube has a valid pixel.",
            cause="Every chip's share of valid pixels is 0.",
            next_step="Look at cube['status'] and the failure ledger of the ingestion.",
        )
    count = min(len(usable), _FIT_CHIPS, max(_FIT_AT_LEAST, _FIT_BYTES // bytes_each))
    return usable[np.sort(rng.choice(len(usable), size=count, replace=False))]


def _read_rows(chips: Chips, rows: NDArray[np.int64]) -> Float32:
    out = np.empty((len(rows), *chips.shape[1:]), np.float32)
    for i, row in enumerate(rows.tolist()):
        chips.read(row, out[i : i + 1])
    return out


def _read_cells(chips: Chips, cells: NDArray[np.int64]) -> Float32:
    """Read chips of one period each, holding one neighborhood at a time."""
    out = np.empty((len(cells), *chips.shape[2:]), np.float32)
    one = np.empty((1, *chips.shape[1:]), np.float32)
    last = -1
    for i, (row, period) in enumerate(cells.tolist()):
        if row != last:
            chips.read(row, one)
            last = row
        out[i] = one[0, period]
    return out


def encode(
    cube: xr.Dataset,
    encoder: Encoder | SequenceEncoder | FittedEncoder | Routed,
    *,
    out: Path | str | None = None,
    batch_size: int = 64,
    device: str = "auto",
    seed: int = 0,
    progress: Progress | None = None,
) -> xr.DataArray:
    """Turn every chip of a cube, or every sequence of chips, into a vector of features.

    The cube is read in the order of its store, ahead of the computation, in pieces of about 32 MiB,
    no more of them than keep all threads busy; it is never in memory whole. Bands are standardised
    with mean and sd of the fitting sample. A pixel counts as valid where every band is finite;
    missing pixels of a chip are set to 0, the band mean, and
    :class:`~eocausal.encoders.random_conv.RandomConv` leaves them out of its averages, while a CNN
    sees them as average ground. **The share of valid pixels therefore matters**: it is kept as the
    coordinate ``valid`` of the embedding, so that chips which were hardly seen can be dropped or
    down-weighted.

    An encoder of sequences sees all periods of a neighborhood at once, with the date of each image
    (:func:`~eocausal.encoders.dates.sequence_years`); periods that are missing stay missing.

    Parameters
    ----------
    cube
        As :func:`eocausal.contracts.check_cube` says, in memory or on disk.
    encoder
        An encoder, which is fitted on a sample of this cube (:func:`fit_encoder`), a fitted one,
        which is applied as it is, or several of which each reads its own neighborhoods
        (:class:`~eocausal.encoders.routed.Routed`).
    out
        Zarr store to write, a chunk at a time; it appears whole or not at all, and features are
        not held in memory. A run that was cut off leaves ``<out>.partial``; the same call goes on
        there and ends with the same bytes. An older embedding at ``out`` is replaced, anything
        else refused.
    batch_size
        Chips at a time, at most (of sequences every period counts); changes memory and speed, not
        results (to 1e-5). On a CPU each thread has its own batch, on a GPU there are two.
    device
        ``'auto'``, ``'cpu'``, ``'cuda[:i]'`` or ``'mps'``; results agree to 1e-3, relative.
    seed
        Of the fitting sample and the encoder's draws; not used with a fitted encoder.
    progress
        Called with (neighborhoods done, neighborhoods in all).

    Returns
    -------
    xarray.DataArray
        ``(neighborhood, feature)`` if the cube has one period or the encoder reads sequences, else
        ``(neighborhood, period, feature)``; float32; NaN rows where too few pixels are valid. With
        ``out`` features are read from there when asked for. Coordinates: ``valid`` (of a sequence
        the mean over its periods), ``date`` where the cube has it (of a sequence the latest),
        ``lon``, ``lat``. Attributes: ``encoder``, ``weights_sha256``, ``bands``,
        ``last_image_date``, ``periods_unseen`` (those of which no place has an image).

    Raises
    ------
    CubeError
        If the cube breaks its contract, or pixels cannot be read.
    EncoderError
        If the cube does not suit the encoder, or ``out`` cannot be written.
    DeviceError
        If the device is not there, or too small for a single chip.
    EmbeddingError
        If a feature of a chip that was seen is not finite.
    """
    spec = image_spec(check_cube(cube))
    target = None if out is None else Path(out)
    if target is not None:
        check_free(target)
    where = resolve_device(device)
    if not isinstance(encoder, FittedEncoder | Routed):
        encoder = fit_encoder(cube, encoder, seed=seed)
    total = cube.sizes["neighborhood"]
    routed = encoder if isinstance(encoder, Routed) else Routed.alone(encoder, total)
    routed.check(spec, total)
    if routed.sequence:
        check_periods(cube, routed.name)
    with RoutedRunner(routed, batch_size=batch_size, device=where) as runner:
        work = _Work(cube, routed, runner)
        return work.in_memory(progress) if target is None else work.on_disk(target, progress)


class _Work:
    """One cube and what reads it: what is to be computed, and where it goes."""

    def __init__(self, cube: xr.Dataset, routed: Routed, runner: RoutedRunner) -> None:
        self.cube, self.routed, self.runner = cube, routed, runner
        self.chips, self.skeleton = chips_of(cube), _skeleton(cube, routed)
        self.seen = cube["valid"].transpose("neighborhood", "period").to_numpy() > 0
        self.years = sequence_years(cube) if routed.sequence else None
        self.cut = Cut.of(self.chips, 4 * int(np.prod(self.skeleton.shape[1:])))

    def in_memory(self, progress: Progress | None) -> xr.DataArray:
        features = np.empty(self.skeleton.shape, np.float32)
        self._run(list(self.cut.chunks()), features.__setitem__, progress)
        return check_embedding(self.skeleton.filled(features))

    def on_disk(self, out: Path, progress: Progress | None) -> xr.DataArray:
        key = stream_key(self.cube, self.chips, self.routed, self.runner, self.cut)
        store = PartialStore(out, key, self.cut.chunk)
        with store.claimed():
            store.prepare(self.skeleton)
            left = [chunk for chunk in self.cut.chunks() if not store.done(chunk[0])]
            self._run(left, lambda rows, features: store.write(rows.start, features), progress)
            store.finish()
        return lazy_embedding(out)

    def _run(
        self,
        chunks: list[tuple[int, int]],
        keep: Callable[[slice, Float32], Any],
        progress: Progress | None,
    ) -> None:
        done = self.cut.total - sum(stop - start for start, stop in chunks)

        def advance(rows: int) -> None:
            nonlocal done
            done += rows
            if progress is not None:
                progress(done, self.cut.total)

        if done:
            advance(0)
        labels = self.cube.indexes["neighborhood"]
        stream = encode_chunks(self.runner, self.chips, self.years, self.cut, chunks, advance)
        for start, features in stream:
            rows = slice(start, start + len(features))
            if self.years is None:
                features[~self.seen[rows]] = np.nan
            check_feature_rows(features, labels[rows])
            keep(rows, features.reshape(len(features), *self.skeleton.shape[1:]))


def _skeleton(cube: xr.Dataset, routed: Routed) -> Skeleton:
    """Say what the embedding of a cube looks like."""
    both = ("neighborhood", "period")
    valid = cube["valid"].transpose(*both).astype(np.float32)
    table = cube[["neighborhood"]].reset_coords(drop=True)
    table = table.assign_coords({n: cube[n] for n in ("lon", "lat") if n in cube.coords})
    date = cube["date"].transpose(*both) if "date" in cube.variables else None
    if routed.sequence:
        table = table.assign_coords(valid=valid.mean("period"))
        if date is not None:
            latest = np.fmax.reduce(date.to_numpy(), axis=1)  # max would be NaT where one is
            table = table.assign_coords(date=("neighborhood", latest))
    else:
        kept = ("period", *_OF_PERIODS)
        table = table.assign_coords({n: cube[n] for n in kept if n in cube.coords})
        table = table.assign_coords(valid=valid)
        if date is not None:
            table = table.assign_coords(date=date)
        if cube.sizes["period"] == 1:
            table = table.isel(period=0)
    table = table.assign_coords({n: (both[0], values) for n, values in routed.coords.items()})
    dims = tuple(d for d in both if d in table.dims)
    coords = {str(n): c.variable for n, c in table.coords.items()}
    return Skeleton(
        dims=(*dims, "feature"),
        shape=(*(table.sizes[d] for d in dims), routed.n_features),
        coords={**coords, "feature": np.arange(routed.n_features)},
        attrs={
            "encoder": routed.name,
            "weights_sha256": routed.weights_sha256,
            "bands": json.dumps(routed.bands),
            "last_image_date": _last_image_date(cube),
            "periods_unseen": json.dumps([str(p) for p in unseen_periods(cube)]),
            **routed.attrs,
        },
    )


def _last_image_date(cube: xr.Dataset) -> str:
    """Latest date over the periods in use; empty if it is unknown for one of them."""
    if "last_date" not in cube.coords:
        return ""
    in_use = np.asarray((cube["valid"] > 0).any("neighborhood"))
    dates = [str(d) for d in np.atleast_1d(cube["last_date"].values)[in_use]]
    return max(dates) if dates and all(dates) else ""
