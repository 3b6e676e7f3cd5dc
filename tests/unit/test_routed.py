"""Several fitted encoders that read one cube together: whose rows, resume, sequences."""

from pathlib import Path

import numpy as np
import pytest
import torch
import xarray as xr

from eocausal.encoders import stream
from eocausal.encoders.base import encode, fit_encoder, open_embedding
from eocausal.encoders.embedding_store import PartialStore
from eocausal.encoders.random_conv import RandomConv
from eocausal.encoders.routed import Routed
from eocausal.encoders.sequence import FrameSequence
from eocausal.encoders.temporal import MeanTrend
from eocausal.errors import EncoderError
from eocausal.provenance import hash_tree

ENCODERS = {"images": RandomConv(8), "sequences": FrameSequence(RandomConv(8), MeanTrend())}


def make_cube(n: int = 60, periods: int = 3, size: int = 8) -> xr.Dataset:
    """One place is never seen, one half."""
    rng = np.random.default_rng(1)
    image = rng.normal(1000, 200, (n, periods, 2, size, size)).astype(np.float32)
    image[5] = np.nan
    image[7, :, :, : size // 2] = np.nan
    both = ("neighborhood", "period")
    return xr.Dataset(
        {
            "image": ((*both, "band", "y", "x"), image),
            "valid": (both, np.isfinite(image).all(axis=2).mean(axis=(2, 3))),
            "status": (both, np.zeros((n, periods), np.int8)),
        },
        coords={
            "neighborhood": [f"n{i:02d}" for i in range(n)],
            "period": [f"p{p}" for p in range(periods)],
            "band": ["a", "b"],
            "period_start": ("period", [f"{2010 + p}-01-01" for p in range(periods)]),
            "period_end": ("period", [f"{2010 + p}-12-31" for p in range(periods)]),
        },
        attrs={"resolution": 30.0, "units": "DN"},
    )


def routed(cube: xr.Dataset, kind: str = "images") -> Routed:
    """Three encoders; rows in turn, and every tenth read by all."""
    fitted = tuple(fit_encoder(cube, ENCODERS[kind], seed=k) for k in range(3))
    fold = np.arange(cube.sizes["neighborhood"]) % 3
    fold[::10] = -1
    reads = (fold == np.arange(3)[:, None]) | (fold < 0)
    return Routed("three", fitted, reads, "abc", {"fold": fold}, {"objective": "none"})


@pytest.mark.parametrize("threads", [1, 3])
@pytest.mark.parametrize("kind", list(ENCODERS))
def test_each_neighborhood_gets_the_mean_of_those_that_read_it(
    monkeypatch, tmp_path: Path, kind: str, threads: int
):
    monkeypatch.setattr(stream, "_PIECE_ROWS", 16)
    cube = make_cube()
    three = routed(cube, kind)
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        found = encode(cube, three, device="cpu", batch_size=7)
        stored = encode(cube, three, out=tmp_path / "e.zarr", device="cpu", batch_size=7)
    finally:
        torch.set_num_threads(before)
    alone = np.stack([encode(cube, e, device="cpu") for e in three.encoders])
    weight = three.reads.reshape(3, 60, *(1,) * (alone.ndim - 2))
    expected = np.where(weight, alone, 0).sum(axis=0) / weight.sum(axis=0)
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-5 * np.nanmax(expected))
    assert np.isnan(found[5]).all()
    assert np.isfinite(np.delete(found.values, 5, axis=0)).all()
    assert {k: found.attrs[k] for k in ("encoder", "weights_sha256", "objective")} == {
        "encoder": "three", "weights_sha256": "abc", "objective": "none",
    }  # fmt: skip
    np.testing.assert_array_equal(found["fold"], three.coords["fold"])
    assert found["fold"].dims == ("neighborhood",)
    xr.testing.assert_identical(open_embedding(tmp_path / "e.zarr"), stored.load())
    np.testing.assert_array_equal(stored, found)


def test_a_run_that_was_cut_off_goes_on(monkeypatch, tmp_path: Path):
    monkeypatch.setattr(stream, "_PIECE_ROWS", 8)
    monkeypatch.setattr(stream, "_CHUNK_BYTES", 1)
    cube = make_cube()
    three, out = routed(cube), tmp_path / "e.zarr"

    def stop(done: int, total: int) -> None:
        if done == 40:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        encode(cube, three, out=out, progress=stop)
    told: list[int] = []
    encode(cube, three, out=out, progress=lambda done, _: told.append(done))
    assert told[0] == 32
    encode(cube, three, out=tmp_path / "whole.zarr")
    assert hash_tree(out) == hash_tree(tmp_path / "whole.zarr")


@pytest.mark.parametrize("what", ["reads", "coords", "attrs"])
def test_another_routing_starts_anew(monkeypatch, tmp_path: Path, what: str):
    cube, out = make_cube(), tmp_path / "e.zarr"
    three = routed(cube)
    other = {"reads": three.reads, "coords": three.coords, "attrs": three.attrs}
    other[what] = {
        "reads": np.roll(three.reads, 1, axis=0),
        "coords": {"fold": three.coords["fold"] + 1},
        "attrs": {"objective": "other"},
    }[what]
    changed = Routed(three.name, three.encoders, weights_sha256="abc", **other)
    with monkeypatch.context() as patch:
        patch.setattr(PartialStore, "finish", lambda self: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            encode(cube, three, out=out)
    xr.testing.assert_identical(encode(cube, changed, out=out).load(), encode(cube, changed))


def test_wrong_routings_are_refused():
    cube = make_cube()
    three = routed(cube)
    with pytest.raises(EncoderError, match="3 neighborhoods, from row 1 on, are read by no"):
        Routed("x", three.encoders, three.reads & ~np.isin(np.arange(60), [1, 2, 4]))
    with pytest.raises(EncoderError, match=r"reads has shape \(2, 60\) for 3 encoders"):
        Routed("x", three.encoders, three.reads[:2])
    more = fit_encoder(cube, RandomConv(10))
    with pytest.raises(EncoderError, match="2 kinds"):
        Routed("x", (*three.encoders[:2], more), three.reads)
    with pytest.raises(EncoderError, match="0 encoders"):
        Routed("x", (), three.reads[:0])
    with pytest.raises(EncoderError, match="has 59 neighborhoods; three is to read 60"):
        encode(cube.isel(neighborhood=slice(59)), three)
    with pytest.raises(EncoderError, match="bands"):
        encode(cube.isel(band=[1, 0]), three)
