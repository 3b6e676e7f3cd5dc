"""Streaming: chips straight from the store, folded networks, sequences and their dates."""

import json
import threading
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import torch
import xarray as xr

from eocausal.encoders import stream
from eocausal.encoders.base import encode, fit_encoder, open_embedding
from eocausal.encoders.chips import Chips, chips_of
from eocausal.encoders.core import FittedEncoder, ImageSpec, Scaling
from eocausal.encoders.dates import sequence_years
from eocausal.encoders.prepared import prepared
from eocausal.encoders.random_conv import RandomConv
from eocausal.encoders.registry import load_encoder
from eocausal.encoders.sequence import FrameSequence
from eocausal.encoders.stream import Cut
from eocausal.encoders.temporal import MeanTrend
from eocausal.errors import CubeError, EncoderError
from eocausal.ingest.packing import FLOAT, Packing
from eocausal.ingest.store import Parts, open_cube

INT16 = Packing("int16", -32768)
SCALED = Packing("uint16", 0, 0.0001, -0.1)


def write_store(
    path: Path, stored: np.ndarray, packing: Packing, *, shard: int = 16, chunk: int = 2
) -> xr.Dataset:
    """A finished store in the layout of ingestion, with what was stored as it is."""
    import zarr

    n, periods, bands = stored.shape[:3]
    parts = Parts(path, "key")
    parts.prepare(stored.shape, chunk, shard, packing)
    zarr.open_group(parts.store, mode="r+")["image"][...] = stored
    place, both = ("neighborhood",), ("neighborhood", "period")
    missing = np.isnan(stored) if packing is FLOAT else stored == packing.fill
    valid = (~missing).all(axis=2).mean(axis=(2, 3)).astype(np.float32)
    day = np.where(valid > 0, 17000.0 + 40 * np.arange(periods), np.nan)
    start = np.datetime64("2016-01-01") + 40 * np.arange(periods)
    arrays = {
        "valid": (both, valid),
        "status": (both, np.zeros((n, periods), np.int8)),
        "looks": (both, (valid > 0).astype(np.int32)),
        "date": (both, day),
        "neighborhood": (place, np.array([f"n{i:03d}" for i in range(n)])),
        "period": (("period",), np.array([f"p{p}" for p in range(periods)])),
        "band": (("band",), np.array([f"b{b}" for b in range(bands)])),
        "crs": (place, np.array(["EPSG:32636"] * n)),
        "transform": ((*place, "affine"), np.zeros((n, 6))),
        "lon": (place, np.zeros(n)),
        "lat": (place, np.zeros(n)),
        "period_start": (("period",), start.astype(str)),
        "period_end": (("period",), (start + 39).astype(str)),
    }
    attrs = {
        "resolution": 30.0,
        "units": "DN",
        "coordinates": "crs transform lon lat period_start period_end",
    }
    parts.finish(arrays, attrs, [])
    return open_cube(path)


def whole_numbers(*shape: int, low: int = -300, high: int = 3000) -> np.ndarray:
    return np.random.default_rng(0).integers(low, high, shape)


def read(chips: Chips, start: int, stop: int) -> np.ndarray:
    out = np.full((stop - start, *chips.shape[1:]), 7.0, np.float32)
    chips.read(start, out)
    return out


def quick(chips: Chips) -> bool:
    return type(chips._reader).__name__ == "_Shards"


@pytest.mark.parametrize("packing", [INT16, SCALED, FLOAT])
def test_chips_from_the_shards_are_those_of_xarray(tmp_path: Path, packing: Packing):
    stored = whole_numbers(45, 5, 3, 8, 8, low=1).astype(packing.dtype)
    stored[4] = packing.fill
    stored[16:32] = packing.fill  # a shard of its own, which is not written
    stored[7, 3, 1, 2:4] = packing.fill
    cube = write_store(tmp_path / "c.zarr", stored, packing)
    chips = chips_of(cube)
    assert quick(chips)
    assert (chips.shape, chips.align, chips.in_memory) == (stored.shape, 16, False)
    expected = cube["image"].to_numpy()
    assert np.isnan(expected[4]).all()
    assert np.isnan(expected[20]).all()
    for start, stop in ((0, 45), (3, 4), (10, 37), (44, 45)):
        np.testing.assert_array_equal(read(chips, start, stop), expected[start:stop])
    kept = chips_of(cube)  # xarray has the values now
    assert not quick(kept)
    assert kept.in_memory
    part = open_cube(tmp_path / "c.zarr").isel(neighborhood=slice(5, 40))
    assert quick(chips_of(part))
    np.testing.assert_array_equal(read(chips_of(part), 2, 30), expected[7:35])


@pytest.mark.parametrize(
    "change",
    [
        lambda c: c.isel(neighborhood=[3, 1, 2]),
        lambda c: c.isel(neighborhood=slice(0, 20, 2)),
        lambda c: c.isel(band=[1, 0, 2]),
        lambda c: c.isel(period=slice(1, 4)),
        lambda c: c.isel(x=slice(0, 4)),
        lambda c: c.assign(image=c["image"] * 2),
        lambda c: c.load(),
        lambda c: c.chunk(),
    ],
)
def test_any_other_cube_is_read_through_xarray(tmp_path: Path, change):
    cube = write_store(tmp_path / "c.zarr", whole_numbers(30, 5, 3, 8, 8).astype("int16"), INT16)
    other = change(cube)
    chips = chips_of(other)
    assert not quick(chips)
    stop = other.sizes["neighborhood"]
    np.testing.assert_array_equal(read(chips, 1, stop), other["image"][1:stop].to_numpy())


@pytest.mark.parametrize("where", ["chunk", "index", "length"])
def test_damaged_shards_are_errors_with_their_rows(tmp_path: Path, where: str):
    cube = write_store(tmp_path / "c.zarr", whole_numbers(45, 2, 3, 8, 8).astype("int16"), INT16)
    path = tmp_path / "c.zarr" / "image" / "c" / "1" / "0" / "0" / "0" / "0"
    content = bytearray(path.read_bytes())
    if where == "length":
        del content[len(content) // 2 :]
    else:
        at = 5 if where == "chunk" else len(content) - 20
        content[at : at + 3] = bytes(255 - b for b in content[at : at + 3])
    path.write_bytes(content)
    chips = chips_of(cube)
    assert np.isfinite(read(chips, 0, 16)).all()
    with pytest.raises(CubeError, match="rows 12 to 39 of the cube cannot be read"):
        read(chips, 12, 40)
    out = tmp_path / "e.zarr"
    with pytest.raises(CubeError, match="cannot be read"):
        encode(cube, RandomConv(4), out=out)
    assert not out.exists()


def test_a_store_gives_the_embedding_that_memory_gives(tmp_path: Path):
    cube = write_store(tmp_path / "c.zarr", whole_numbers(45, 2, 3, 8, 8).astype("int16"), INT16)
    found = encode(cube, RandomConv(8), out=tmp_path / "e.zarr")
    np.testing.assert_allclose(found, encode(cube.load(), RandomConv(8)), rtol=1e-6)
    assert found["date"].dims == ("neighborhood", "period")
    np.testing.assert_array_equal(found["date"], cube["date"])
    xr.testing.assert_identical(found.load(), open_embedding(tmp_path / "e.zarr"))


def test_pieces_and_chunks_cover_a_cube_once():
    class Reader:
        align, in_memory = 48, False

    for total, periods, size, row_bytes in ((1, 1, 8, 4), (1000, 3, 64, 2048), (997, 12, 224, 8)):
        chips = Chips((total, periods, 6, size, size), Reader())
        cut = Cut.of(chips, row_bytes)
        chunks = list(cut.chunks())
        rows = [r for c in chunks for a, b in cut.pieces(*c) for r in range(a, b)]
        assert rows == list(range(total))
        assert cut.piece * chips.bytes_each <= max(32 << 20, chips.bytes_each)
        assert all(start % cut.chunk == 0 for start, _ in chunks)
        assert cut.chunk % cut.piece == 0


class Together(torch.nn.Module):
    """A network whose calls wait until four are under way."""

    def __init__(self) -> None:
        super().__init__()
        self.meeting = threading.Barrier(4, timeout=20)

    def forward(self, values: torch.Tensor, valid: torch.Tensor) -> torch.Tensor:
        self.meeting.wait()
        return values.mean(dim=(2, 3))


def test_every_thread_has_a_batch_where_a_piece_has_but_one(monkeypatch):
    monkeypatch.setattr(stream, "_PIECE_ROWS", 3)
    cube = sequence_cube(n=24).isel(period=[0]).drop_vars("date")
    cube["image"] = cube["image"].fillna(0.0) + cube["neighborhood"]
    cube["valid"][:] = 1.0
    spec = ImageSpec(("a", "b"), "DN", 30.0, 8, 8)
    fitted = FittedEncoder("together", spec, Scaling.identity(2), Together(), 2)
    before = torch.get_num_threads()
    torch.set_num_threads(4)
    try:
        found = encode(cube, fitted, device="cpu")
    finally:
        torch.set_num_threads(before)
    np.testing.assert_allclose(found, cube["image"][:, 0].mean(("y", "x")), rtol=1e-5)


def resnet(images: np.ndarray) -> FittedEncoder:
    """A network whose batch normalisation has something to do."""
    spec = ImageSpec(("red", "green", "blue"), "DN", 30.0, 32, 32)
    fitted = load_encoder("resnet18").fit(images, spec, seed=0)
    generator = torch.Generator().manual_seed(1)
    for module in fitted.network.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.running_mean.normal_(generator=generator).mul_(0.1)
            module.running_var.uniform_(0.5, 2.0, generator=generator)
    return fitted


@pytest.mark.parametrize("device", ["cpu", "cuda"])  # what is prepared for a GPU runs here too
def test_a_prepared_network_is_another_with_the_same_features(device: str):
    images = np.random.default_rng(0).normal(size=(8, 3, 32, 32)).astype(np.float32)
    fitted = resnet(images)
    before = {k: v.clone() for k, v in fitted.network.state_dict().items()}
    quick = prepared(fitted, torch.device(device))
    kinds = Counter(type(m).__name__ for m in quick.network.modules())
    assert kinds["BatchNorm2d"] == 0
    assert kinds["_BlockedConvolution"] == (20 if device == "cpu" else 0)
    assert kinds["Conv2d"] == (0 if device == "cpu" else 20)
    expected = fitted.transform(images)
    np.testing.assert_allclose(
        quick.transform(images), expected, rtol=1e-5, atol=1e-5 * np.abs(expected).max()
    )
    after = fitted.network.state_dict()
    assert all(torch.equal(before[k], after[k]) for k in before)


def test_the_network_of_frames_is_prepared_too():
    cube = sequence_cube(n=12, size=32)
    encoder = FrameSequence(load_encoder("resnet18"), MeanTrend())
    fitted = fit_encoder(cube, encoder)
    kinds = {type(m).__name__ for m in prepared(fitted, torch.device("cpu")).network.modules()}
    assert "_BlockedConvolution" in kinds
    expected = fitted.transform(cube["image"].values, sequence_years(cube))
    np.testing.assert_allclose(
        encode(cube, fitted), expected, rtol=1e-5, atol=1e-5 * np.nanmax(np.abs(expected))
    )


class TwiceUsed(torch.nn.Module):
    """A convolution whose result goes two ways, and one that is used twice."""

    def __init__(self) -> None:
        super().__init__()
        self.one, self.two = (torch.nn.Conv2d(2, 2, 1) for _ in range(2))
        self.norm = torch.nn.BatchNorm2d(2)
        self.norm.running_mean.fill_(3.0)

    def forward(self, values: torch.Tensor, valid: torch.Tensor) -> torch.Tensor:
        shared = self.one(values)
        once = self.norm(self.two(values)) + self.two(shared)
        return (self.norm(shared) + shared + once).mean(dim=(2, 3))


class Dilated(torch.nn.Module):
    """Layers that oneDNN's layout does not know, after enough convolutions to try it."""

    def __init__(self) -> None:
        super().__init__()
        convolutions = [torch.nn.Conv2d(2, 2, 1) for _ in range(9)]
        self.layers = torch.nn.Sequential(*convolutions, torch.nn.MaxPool2d(2, dilation=2))

    def forward(self, values: torch.Tensor, valid: torch.Tensor) -> torch.Tensor:
        return self.layers(values).mean(dim=(2, 3))


@pytest.mark.parametrize("kind", [TwiceUsed, Dilated])
def test_what_cannot_be_prepared_is_left(kind: type[torch.nn.Module]):
    spec = ImageSpec(("a", "b"), "DN", 30.0, 8, 8)
    network = kind().eval().requires_grad_(False)
    fitted = FittedEncoder("left", spec, Scaling.identity(2), network, 2)
    images = np.random.default_rng(0).normal(size=(4, 2, 8, 8)).astype(np.float32)
    quick = prepared(fitted, torch.device("cpu"))
    kinds = {type(m).__name__ for m in quick.network.modules()}
    assert "_BlockedConvolution" not in kinds
    np.testing.assert_allclose(quick.transform(images), fitted.transform(images), rtol=1e-5)
    plain = RandomConv(4).fit(images, spec, seed=0)
    assert prepared(plain, torch.device("cpu")) is plain


def sequence_cube(n: int = 30, periods: int = 4, size: int = 8) -> xr.Dataset:
    """Sequences with gaps: one place never seen, one period missing everywhere."""
    rng = np.random.default_rng(3)
    image = rng.normal(1000, 200, (n, periods, 2, size, size)).astype(np.float32)
    image[5] = np.nan
    image[:, 2] = np.nan
    image[7, :, :, : size // 2] = np.nan
    valid = np.isfinite(image).all(axis=2).mean(axis=(2, 3))
    start = np.datetime64("2012-01-01") + 200 * np.arange(periods)
    both = ("neighborhood", "period")
    date = (start + 10 * rng.integers(0, 9, (n, 1))).astype("M8[ns]")
    date[valid == 0] = "NaT"
    return xr.Dataset(
        {
            "image": ((*both, "band", "y", "x"), image),
            "valid": (both, valid),
            "status": (both, np.zeros((n, periods), np.int8)),
            "date": (both, date),
        },
        coords={
            "neighborhood": np.arange(n),
            "period": [f"p{p}" for p in range(periods)],
            "band": ["a", "b"],
            "period_start": ("period", start.astype(str)),
            "period_end": ("period", (start + 100).astype(str)),
        },
        attrs={"resolution": 30.0, "units": "DN"},
    )


TREND = FrameSequence(RandomConv(8), MeanTrend())


def test_years_are_those_of_the_images():
    cube = sequence_cube()
    years = sequence_years(cube)
    assert years.dtype == np.float32
    np.testing.assert_array_equal(np.isnan(years), cube["valid"].values == 0)
    days = (cube["date"].values[0, 0] - np.datetime64("2000-01-01")) / np.timedelta64(1, "D")
    assert years[0, 0] == pytest.approx(days / 365.25)
    undated = cube.drop_vars("date")
    middle = (np.datetime64("2012-02-20") - np.datetime64("2000-01-01")) / np.timedelta64(1, "D")
    np.testing.assert_allclose(sequence_years(undated)[[0, 1, 7], 0], middle / 365.25, rtol=1e-6)
    partly = cube.copy()
    partly["date"] = cube["date"].where(cube["neighborhood"] != 1)
    both = sequence_years(partly)
    np.testing.assert_array_equal(both[0], years[0])
    np.testing.assert_array_equal(both[1], sequence_years(undated)[1])
    with pytest.raises(EncoderError, match="Nothing says when the images of p0, p1, p3 were"):
        sequence_years(undated.drop_vars(["period_start"]))
    undated["period_end"] = ("period", ["", "2020-01-01", "2020-01-01", "2020-01-01"])
    with pytest.raises(EncoderError, match="images of p0 were"):
        sequence_years(undated)


@pytest.mark.parametrize("on_disk", [False, True])
def test_sequences_end_to_end(tmp_path: Path, on_disk: bool):
    cube = sequence_cube()
    out = tmp_path / "e.zarr" if on_disk else None
    fitted = fit_encoder(cube, TREND, seed=1)
    embedding = encode(cube, TREND, seed=1, out=out)
    assert embedding.dims == ("neighborhood", "feature")
    assert embedding.shape == (30, 16)
    rows = np.isnan(embedding.values).any(axis=1)
    assert np.flatnonzero(rows).tolist() == [5]
    years = sequence_years(cube)
    expected = fitted.transform(cube["image"].values, years)
    np.testing.assert_allclose(embedding, expected, rtol=1e-5, atol=1e-5 * np.nanmax(expected))
    latest = cube["date"].values[:, 3]
    assert np.isnat(latest).sum() == 1
    np.testing.assert_array_equal(embedding["date"].values, latest)
    np.testing.assert_allclose(embedding["valid"], cube["valid"].mean("period"))
    for batch_size in (1, 9):
        np.testing.assert_allclose(
            encode(cube, fitted, batch_size=batch_size), expected,
            rtol=1e-5, atol=1e-5 * np.nanmax(expected),
        )  # fmt: skip


def test_a_period_that_does_not_count_is_not_seen():
    cube = sequence_cube()
    fitted = fit_encoder(cube, TREND)
    expected = encode(cube, fitted)
    cube["image"][:, 2] = 5000.0  # pixels, but valid says none is good
    np.testing.assert_array_equal(encode(cube, fitted), expected)
    np.testing.assert_array_equal(encode(cube.isel(period=[0, 1, 3]), fitted), expected)


def test_one_period_is_no_sequence():
    cube = sequence_cube()
    fitted = fit_encoder(cube, TREND)
    for encoder in (TREND, fitted):
        with pytest.raises(EncoderError, match="has one period"):
            encode(cube.isel(period=[0]), encoder)


def test_places_with_one_image_each_are_no_sequences():
    cube = sequence_cube()
    cube["valid"][:, 1:] = 0.0
    cube["image"][:, 1:] = np.nan
    words = "No place has images of two periods.*without any image: p1, p2, p3"
    with pytest.raises(EncoderError, match=words):
        encode(cube, TREND)
    cube = sequence_cube()
    once = np.arange(cube.sizes["neighborhood"]) % 4 == np.arange(4)[:, None]
    cube["valid"] = cube["valid"].where(once.T, 0.0)
    with pytest.raises(EncoderError, match="No place has images of two periods"):
        encode(cube, TREND)


def test_periods_without_any_image_are_told():
    cube = sequence_cube()
    assert json.loads(encode(cube, TREND).attrs["periods_unseen"]) == ["p2"]
    assert json.loads(encode(cube, RandomConv(8)).attrs["periods_unseen"]) == ["p2"]
    whole = encode(cube.isel(period=[0, 1, 3]), TREND)
    assert json.loads(whole.attrs["periods_unseen"]) == []


def test_nothing_to_see_in_any_sequence():
    cube = sequence_cube()
    cube["image"][:] = np.nan
    cube["valid"][:] = 0.0
    with pytest.raises(EncoderError, match="No chip of the cube"):
        encode(cube, TREND)


def test_constant_sequences_say_nothing():
    cube = sequence_cube()
    cube["image"][:] = 3.0
    cube["valid"][:] = 1.0
    cube = cube.drop_vars("date")
    with pytest.raises(EncoderError, match="one constant value"):
        encode(cube, TREND)
