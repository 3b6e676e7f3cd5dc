"""From a cube to an embedding: read batch by batch, encode, label, write.

The array core (:mod:`eocausal.encoders.core`) needs numpy and torch only and is offered here
too; xarray is imported when a cube is encoded.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from eocausal.contracts import check_cube, check_embedding
from eocausal.encoders.core import (
    BatchRunner,
    Encoder,
    FittedEncoder,
    Float32,
    ImageSpec,
    Progress,
    Scaling,
    embed_array,
    resolve_device,
)
from eocausal.errors import EncoderError
from eocausal.provenance import atomic_path

if TYPE_CHECKING:
    import xarray as xr

__all__ = [
    "Encoder",
    "FittedEncoder",
    "ImageSpec",
    "Scaling",
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
_READ_BYTES = 64 << 20
_KEPT_COORDS = ("lon", "lat", "period_start", "period_end", "last_date")


def image_spec(cube: xr.Dataset) -> ImageSpec:
    """Say what the chips of a cube look like."""
    return ImageSpec(
        bands=tuple(str(b) for b in cube.indexes["band"]),
        units=str(cube.attrs["units"]),
        resolution=float(cube.attrs["resolution"]),
        height=int(cube.sizes["y"]),
        width=int(cube.sizes["x"]),
    )


def fit_encoder(cube: xr.Dataset, encoder: Encoder, *, seed: int = 0) -> FittedEncoder:
    """Fit an encoder on a seeded sample of a cube's chips.

    At most 1,000 chips or 256 MiB, drawn without replacement among the chips (of all periods)
    that have a valid pixel. Fit once and pass the result to :func:`encode` where two cubes need
    the same features, e.g. the places of a trial and a whole country.

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
        If the cube breaks its contract.
    EncoderError
        If the cube does not suit the encoder, or no chip has a valid pixel.
    """
    spec = image_spec(check_cube(cube))
    encoder.check(spec)
    usable = np.argwhere(np.asarray(cube["valid"].transpose("neighborhood", "period")) > 0)
    if len(usable) == 0:
        raise EncoderError(
            "No chip of the cube has a valid pixel.",
            cause="Every chip's share of valid pixels is 0.",
            next_step="Look at cube['status'] and the failure ledger of the ingestion.",
        )
    chip_bytes = 4 * len(spec.bands) * spec.height * spec.width
    count = min(len(usable), _FIT_CHIPS, max(16, _FIT_BYTES // chip_bytes))
    rng = np.random.default_rng((seed, _SAMPLE_STREAM))
    chosen = np.sort(rng.choice(len(usable), size=count, replace=False))
    return encoder.fit(_read_chips(cube, usable[chosen]), spec, seed=seed)


def _read_chips(cube: xr.Dataset, cells: NDArray[np.int64]) -> Float32:
    import xarray as xr

    image = cube["image"].isel(
        neighborhood=xr.DataArray(cells[:, 0], dims="chip"),
        period=xr.DataArray(cells[:, 1], dims="chip"),
    )
    return image.transpose("chip", "band", "y", "x").to_numpy().astype(np.float32, copy=False)


def encode(
    cube: xr.Dataset,
    encoder: Encoder | FittedEncoder,
    *,
    out: Path | str | None = None,
    batch_size: int = 64,
    device: str = "auto",
    seed: int = 0,
    progress: Progress | None = None,
) -> xr.DataArray:
    """Turn every chip of a cube into a vector of features.

    The cube is read in the order of its neighborhoods, a block at a time, one block ahead of the
    computation; it is never in memory whole. Bands are standardised with mean and sd of the
    fitting sample. A pixel counts as valid where every band is finite; missing pixels of a chip
    are set to 0, the band mean, and :class:`~eocausal.encoders.random_conv.RandomConv` leaves
    them out of its averages, while a CNN sees them as average ground. **The share of valid pixels
    therefore matters**: it is kept as the coordinate ``valid`` of the embedding, so that chips
    which were hardly seen can be dropped or down-weighted.

    Parameters
    ----------
    cube
        As :func:`eocausal.contracts.check_cube` says, in memory or on disk.
    encoder
        An encoder, which is fitted on a sample of this cube (:func:`fit_encoder`), or a fitted
        one, which is applied as it is.
    out
        Zarr store to write; it appears whole or not at all. An older embedding there is replaced,
        anything else refused.
    batch_size
        Chips at a time; changes memory and speed, not results (to 1e-5).
    device
        ``'auto'``, ``'cpu'``, ``'cuda[:i]'`` or ``'mps'``; results agree to 1e-3, relative.
    seed
        Of the fitting sample and the encoder's draws; not used with a fitted encoder.
    progress
        Called with (neighborhoods done, neighborhoods in all).

    Returns
    -------
    xarray.DataArray
        ``(neighborhood, feature)`` if the cube has one period, else ``(neighborhood, period,
        feature)``; float32; NaN rows where a chip has no valid pixel. Attributes: ``encoder``,
        ``weights_sha256``, ``bands``, ``last_image_date``.

    Raises
    ------
    CubeError, EncoderError, DeviceError
    """
    import xarray as xr

    spec = image_spec(check_cube(cube))
    if out is not None:
        _check_free(Path(out))
    where = resolve_device(device)
    if isinstance(encoder, FittedEncoder):
        fitted = encoder
    else:
        fitted = fit_encoder(cube, encoder, seed=seed)
    fitted.check(spec)
    runner = BatchRunner(fitted, batch_size=batch_size, device=where)
    image = cube["image"].transpose("neighborhood", "period", "band", "y", "x")
    total, periods = image.shape[:2]
    features = np.full((total, periods, fitted.n_features), np.nan, np.float32)
    for start, block in _read_ahead(image, _block_length(image, batch_size)):
        chips = block.reshape(-1, *block.shape[2:])
        stop = start + len(block)
        features[start:stop] = runner(chips).reshape(len(block), periods, -1)
        if progress is not None:
            progress(stop, total)
    valid = cube["valid"].transpose("neighborhood", "period").to_numpy()
    features[~(valid > 0)] = np.nan
    coords = {name: cube[name] for name in ("neighborhood", "period")}
    coords |= {name: cube[name] for name in _KEPT_COORDS if name in cube.coords}
    embedding = xr.DataArray(
        features,
        dims=("neighborhood", "period", "feature"),
        coords={
            **coords,
            "feature": np.arange(fitted.n_features),
            "valid": (("neighborhood", "period"), valid.astype(np.float32)),
        },
        name="embedding",
        attrs={
            "encoder": fitted.name,
            "weights_sha256": fitted.weights_sha256,
            "bands": json.dumps(spec.bands),
            "last_image_date": _last_image_date(cube),
        },
    )
    if periods == 1:
        embedding = embedding.isel(period=0)
    check_embedding(embedding)
    if out is not None:
        _write(embedding, Path(out))
    return embedding


def _check_free(out: Path) -> None:
    if out.exists() and not (out / "embedding" / "zarr.json").is_file():
        raise EncoderError(
            f"{out} exists and is not an embedding.",
            cause="Writing there would delete it.",
            next_step="Give another out=..., or remove it yourself.",
        )


def _block_length(image: xr.DataArray, batch_size: int) -> int:
    """Neighborhoods to read at a time: about 64 MiB, at least a batch or as little as one."""
    _, periods, bands, height, width = image.shape
    one = 4 * periods * bands * height * width
    return max(1, min(_READ_BYTES // one, max(batch_size // periods, 1) * 8))


def _read_ahead(image: xr.DataArray, length: int) -> Iterator[tuple[int, Float32]]:
    """Yield blocks of neighborhoods in order, reading the next while this one is used."""

    def read(start: int) -> Float32:
        block = image.isel(neighborhood=slice(start, start + length)).to_numpy()
        return block.astype(np.float32, copy=False)

    starts = range(0, image.shape[0], length)
    with ThreadPoolExecutor(1, thread_name_prefix="read-ahead") as pool:
        pending = pool.submit(read, 0) if starts else None
        for start in starts:
            assert pending is not None
            block = pending.result()
            following = start + length
            pending = pool.submit(read, following) if following < image.shape[0] else None
            yield start, block


def _last_image_date(cube: xr.Dataset) -> str:
    """Latest date over the periods in use; empty if it is unknown for one of them."""
    if "last_date" not in cube.coords:
        return ""
    in_use = np.asarray((cube["valid"] > 0).any("neighborhood"))
    dates = [str(d) for d in np.atleast_1d(cube["last_date"].values)[in_use]]
    return max(dates) if dates and all(dates) else ""


def _write(embedding: xr.DataArray, out: Path) -> None:
    """Write a Zarr store, whole or not at all; labels as variable-length strings."""
    labels = {n: c.astype(object) for n, c in embedding.coords.items() if c.dtype.kind == "U"}
    with atomic_path(out) as temporary:
        store = embedding.assign_coords(labels).to_dataset(name="embedding")
        store.to_zarr(temporary, mode="w", consolidated=False, zarr_format=3)


def open_embedding(path: Path | str) -> xr.DataArray:
    """Read an embedding that :func:`encode` wrote.

    Raises
    ------
    EncoderError
        If there is no store, or it holds no embedding.
    EmbeddingError
        If the embedding breaks its contract.
    """
    import xarray as xr

    path = Path(path)
    if not path.is_dir():
        raise EncoderError(
            f"There is no embedding at {path}.",
            cause="The folder does not exist.",
            next_step="Make one with encode(cube, encoder, out=...).",
        )
    with xr.open_zarr(path, consolidated=False, chunks=None) as store:
        if "embedding" not in store:
            raise EncoderError(
                f"The store {path} holds no variable 'embedding'.",
                cause=f"It holds {', '.join(map(str, store.variables)) or 'nothing'}.",
                next_step="Open the store that encode wrote; for a cube use open_cube.",
            )
        return check_embedding(store["embedding"].load())
