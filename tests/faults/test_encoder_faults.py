"""What goes wrong on the way to an embedding: files, memory, devices, broken data."""

import hashlib
import os
import resource
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
import xarray as xr
import yaml

from eocausal.encoders import base, embedding_store, stream
from eocausal.encoders.base import encode, open_embedding, resolve_device
from eocausal.encoders.cards import Weights, load_card
from eocausal.encoders.chips import chips_of
from eocausal.encoders.core import FittedEncoder, ImageSpec, Scaling
from eocausal.encoders.embedding_store import PartialStore
from eocausal.encoders.image import TorchvisionCNN
from eocausal.encoders.random_conv import GaussianPatches, RandomConv
from eocausal.encoders.runner import BatchRunner, embed_array
from eocausal.encoders.weights import read_weights
from eocausal.errors import (
    CubeError,
    DeviceError,
    EmbeddingError,
    EncoderError,
    ModelCardError,
    WeightsError,
)
from eocausal.provenance import hash_tree


def make_cube(image: np.ndarray) -> xr.Dataset:
    n, periods, bands, _, _ = image.shape
    dims = ("neighborhood", "period")
    return xr.Dataset(
        {
            "image": ((*dims, "band", "y", "x"), image.astype(np.float32)),
            "valid": (dims, np.isfinite(image).all(axis=2).mean(axis=(2, 3))),
            "status": (dims, np.zeros((n, periods), np.int8)),
        },
        coords={
            "neighborhood": np.arange(n),
            "period": [str(2000 + p) for p in range(periods)],
            "band": [f"b{b}" for b in range(bands)],
        },
        attrs={"resolution": 30.0, "units": "DN"},
    )


def noise(*shape: int) -> np.ndarray:
    return np.random.default_rng(0).normal(size=shape).astype(np.float32)


class Payload:
    """A pickle that writes a file when it is read without care."""

    def __init__(self, target: Path) -> None:
        self.target = target

    def __reduce__(self):
        return (Path.write_text, (self.target, "code ran"))


def entry(path: Path) -> Weights:
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    return Weights(file="w.pth", sha256=digest, licence="none", source="nowhere")


def test_a_pickle_with_code_does_not_run(tmp_path: Path):
    path, target = tmp_path / "w.pth", tmp_path / "target.txt"
    torch.save({"conv1.weight": Payload(target)}, path)
    with pytest.raises(WeightsError, match="would run code"):
        read_weights(path, entry(path))
    assert not target.exists()
    torch.load(path, weights_only=False)
    assert target.exists()  # the payload is live: only the reader kept it from running


def test_another_checksum_is_refused_before_reading(tmp_path: Path):
    path = tmp_path / "w.pth"
    torch.save({"a": torch.zeros(1)}, path)
    good = entry(path)
    read_weights(path, good)
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    with pytest.raises(WeightsError, match="has sha256"):
        read_weights(path, good)


def test_a_checksum_prefix_is_enough_and_a_wrong_one_is_not(tmp_path: Path):
    path = tmp_path / "w.pth"
    torch.save({"a": torch.zeros(1)}, path)
    digest = entry(path).sha256
    rest = {"file": "w.pth", "licence": "x", "source": "x"}
    assert read_weights(path, Weights(sha256_prefix=digest[:8], **rest))[1] == digest
    with pytest.raises(WeightsError, match=r"expects 00000000\.\.\."):
        read_weights(path, Weights(sha256_prefix="0" * 8, **rest))


@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
def test_a_damaged_file_is_an_error_with_its_name(tmp_path: Path, suffix: str):
    path = tmp_path / f"w{suffix}"
    path.write_bytes(b"not a weights file at all")
    with pytest.raises(WeightsError, match="w"):
        read_weights(path, entry(path))


def test_a_file_that_is_no_state_dict_is_refused(tmp_path: Path):
    path = tmp_path / "w.pth"
    torch.save({"epoch": 3, "state_dict": {"a": torch.zeros(1)}}, path)
    with pytest.raises(WeightsError, match="not a dictionary of tensors"):
        read_weights(path, entry(path))


def test_weights_of_another_network_are_refused(tmp_path: Path):
    folder = tmp_path / "mine"
    folder.mkdir()
    path = folder / "w.pth"
    torch.save({"conv1.weight": torch.zeros(64, 6, 7, 7)}, path)
    content = load_card("resnet18_imagenet").model_dump(mode="json")
    content |= {"name": "mine", "weights": entry(path).model_dump()}
    (folder / "config.yaml").write_text(yaml.safe_dump(content))
    encoder = TorchvisionCNN.from_card(folder)
    spec = ImageSpec(("red", "green", "blue"), "DN", 30.0, 32, 32)
    with pytest.raises(WeightsError, match="1 of another shape"):
        encoder.fit(noise(4, 3, 32, 32), spec, seed=0)


def test_weights_for_a_model_without_weights_are_refused(tmp_path: Path):
    with pytest.raises(WeightsError, match="takes no weights"):
        TorchvisionCNN.from_card("resnet18", tmp_path / "w.pth")


@pytest.mark.parametrize(
    "text", ["a: [", "- 1\n- 2\n", "", "name: !!python/object/apply:os.getcwd []"]
)
def test_cards_that_are_no_cards(tmp_path: Path, text: str):
    (tmp_path / "config.yaml").write_text(text)
    with pytest.raises(ModelCardError, match=r"config\.yaml"):
        load_card(tmp_path)


def test_a_missing_card_folder(tmp_path: Path):
    with pytest.raises(ModelCardError, match="cannot be read"):
        load_card(tmp_path / "nothing")


class Greedy(torch.nn.Module):
    """A network on a device with room for a few chips only."""

    def __init__(self, room: int) -> None:
        super().__init__()
        self.room = room
        self.seen: list[int] = []

    def forward(self, values: torch.Tensor, valid: torch.Tensor) -> torch.Tensor:
        self.seen.append(len(values))
        if len(values) > self.room:
            raise torch.OutOfMemoryError("out of memory. Tried to allocate a lot.")
        return values.mean(dim=(2, 3))


def greedy(room: int) -> tuple[FittedEncoder, Greedy]:
    network = Greedy(room)
    spec = ImageSpec(("b0", "b1"), "DN", 30.0, 8, 8)
    return FittedEncoder("greedy", spec, Scaling.identity(2), network, 2), network


@pytest.fixture
def one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.mark.usefixtures("one_thread")
def test_out_of_memory_halves_the_batch_and_goes_on():
    fitted, network = greedy(room=5)
    images = noise(40, 2, 8, 8)
    features = encode(make_cube(images[:, None]), fitted, batch_size=32, device="cpu")
    np.testing.assert_allclose(features, images.mean(axis=(2, 3)), atol=1e-6)
    assert network.seen[:4] == [32, 16, 8, 4]
    assert max(network.seen[4:]) == 4  # it learns: the large batch is not tried again


@pytest.mark.usefixtures("one_thread")
def test_out_of_memory_halves_sequences_too():
    class GreedyOfSequences(Greedy):
        def forward(self, values, valid, years):
            return super().forward(values.flatten(0, 1), valid).view(len(values), -1, 2).mean(dim=1)

    network = GreedyOfSequences(room=10)
    spec = ImageSpec(("b0", "b1"), "DN", 30.0, 8, 8)
    fitted = FittedEncoder("greedy", spec, Scaling.identity(2), network, 2, sequence=True)
    images = noise(40, 4, 2, 8, 8)
    years = np.tile(np.arange(4, dtype=np.float32), (40, 1))
    features = embed_array(fitted, images, years=years, batch_size=64, device="cpu")
    np.testing.assert_allclose(features, images.mean(axis=(1, 3, 4)), atol=1e-6)
    assert network.seen[:4] == [64, 32, 16, 8]
    assert max(network.seen[4:]) == 8


def test_out_of_memory_on_one_chip_is_an_error():
    fitted, _ = greedy(room=0)
    with pytest.raises(DeviceError, match="single chip"):
        embed_array(fitted, noise(4, 2, 8, 8), device="cpu")


@pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has a CUDA GPU")
def test_a_gpu_that_is_not_there(tmp_path: Path):
    with pytest.raises(DeviceError, match="0 CUDA devices"):
        resolve_device("cuda")
    with pytest.raises(DeviceError):
        encode(make_cube(noise(8, 1, 2, 8, 8)), RandomConv(4), out=tmp_path / "e", device="cuda:0")
    assert list(tmp_path.iterdir()) == []


def test_a_cube_without_any_valid_chip():
    with pytest.raises(EncoderError, match="No chip of the cube"):
        encode(make_cube(np.full((5, 1, 2, 8, 8), np.nan)), RandomConv(4))


def test_a_band_that_is_missing_everywhere():
    image = noise(5, 1, 2, 8, 8)
    image[:, :, 1] = np.nan
    cube = make_cube(image)
    cube["valid"][:] = 1.0
    with pytest.raises(EncoderError, match="No chip of the fitting sample"):
        encode(cube, RandomConv(4))


def test_scattered_pixels_leave_no_patch():
    image = np.full((5, 1, 2, 9, 9), np.nan, np.float32)
    image[..., ::3, ::3] = noise(5, 1, 2, 3, 3)
    cube = make_cube(image)
    with pytest.raises(EncoderError, match="patch of 3 by 3"):
        encode(cube, RandomConv(4))
    assert np.isnan(encode(cube, RandomConv(4, patches=GaussianPatches()))).all()
    assert np.isfinite(encode(cube, RandomConv(4, patch=1))).all()


class Failing(xr.backends.BackendArray):
    """Pixels whose rows from ``bad`` on cannot be read."""

    def __init__(self, image: np.ndarray, bad: int) -> None:
        self.image, self.bad, self.shape, self.dtype = image, bad, image.shape, image.dtype

    def __getitem__(self, key):
        if isinstance(rows := key.tuple[0], slice) and rows.stop - 1 > self.bad:
            raise OSError("the disk went away")
        return self.image[key.tuple]


def failing(cube: xr.Dataset, bad: int) -> xr.Dataset:
    lazy = cube.copy()
    reader = xr.core.indexing.LazilyIndexedArray(Failing(cube["image"].values, bad))
    lazy["image"] = (cube["image"].dims, reader)
    return lazy


def small_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Pieces of at most 16 neighborhoods, chunks of two pieces, so that small cubes have many."""
    monkeypatch.setattr(stream, "_PIECE_ROWS", 16)
    monkeypatch.setattr(stream, "_CHUNK_BYTES", 32 * 4 * 4)


def test_a_reader_that_fails_leaves_the_old_embedding(tmp_path: Path, monkeypatch):
    small_chunks(monkeypatch)
    image = noise(200, 1, 2, 8, 8)
    cube = make_cube(image)
    fitted = RandomConv(4).fit(image[:, 0], ImageSpec(("b0", "b1"), "DN", 30.0, 8, 8), seed=0)
    encode(cube, fitted, out=tmp_path / "e.zarr")
    before = open_embedding(tmp_path / "e.zarr")
    with pytest.raises(CubeError, match=r"rows \d+ to \d+ of the cube") as raised:
        encode(failing(cube, 100), fitted, out=tmp_path / "e.zarr")
    assert "OSError: the disk went away" in str(raised.value)
    xr.testing.assert_identical(open_embedding(tmp_path / "e.zarr"), before)


@pytest.mark.usefixtures("one_thread")
def test_what_was_encoded_before_a_failure_is_not_encoded_again(tmp_path: Path, monkeypatch):
    small_chunks(monkeypatch)
    fitted, network = greedy(room=99)
    cube = make_cube(noise(200, 1, 2, 8, 8))
    out, other = tmp_path / "e.zarr", tmp_path / "other.zarr"
    key = stream.stream_key
    monkeypatch.setattr(base, "stream_key", lambda lazy, chips, *rest: key(lazy, CHIPS, *rest))
    CHIPS = chips_of(cube)
    with pytest.raises(CubeError):
        encode(failing(cube, 100), fitted, out=out, device="cpu")
    network.seen.clear()
    told: list[tuple[int, int]] = []
    encode(cube, fitted, out=out, device="cpu", progress=lambda *c: told.append(c))
    assert told[0][0] in (64, 96)
    assert sum(network.seen) == 200 - told[0][0]
    assert told[-1] == (200, 200)
    encode(cube, fitted, out=other, device="cpu")
    assert hash_tree(out) == hash_tree(other)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["e.zarr", "other.zarr"]


CUT_OFF = """
import signal, sys
signal.signal(signal.SIGINT, signal.default_int_handler)  # a parent in the background ignores it
sys.path.insert(0, {tests!r})
import pytest, time
from test_encoder_faults import make_cube, noise, small_chunks
from eocausal.encoders.base import encode
from eocausal.encoders.random_conv import RandomConv
def tell(done, total):
    print(done, flush=True)
    time.sleep(0.2)
small_chunks(pytest.MonkeyPatch())
encode(make_cube(noise(400, 1, 2, 8, 8)), RandomConv(4), out={out!r}, progress=tell)
"""


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGINT])
def test_a_run_that_was_cut_off_ends_with_the_same_bytes(
    tmp_path: Path, monkeypatch, how: signal.Signals
):
    out = tmp_path / "e.zarr"
    code = CUT_OFF.format(tests=str(Path(__file__).parent), out=str(out))
    child = subprocess.Popen(
        [sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    assert child.stdout is not None
    for _ in range(6):
        child.stdout.readline()
    os.kill(child.pid, how)
    child.communicate()
    assert child.returncode != 0
    with pytest.raises(EncoderError, match="no embedding at"):
        open_embedding(out)
    done = len(list((tmp_path / "e.zarr.partial" / "done").iterdir()))
    assert 1 <= done < 13
    small_chunks(monkeypatch)
    cube = make_cube(noise(400, 1, 2, 8, 8))
    told: list[int] = []
    encode(cube, RandomConv(4), out=out, progress=lambda d, _: told.append(d))
    assert told[0] == 32 * done
    encode(cube, RandomConv(4), out=tmp_path / "whole.zarr")
    assert hash_tree(out) == hash_tree(tmp_path / "whole.zarr")
    assert not (tmp_path / "e.zarr.partial").exists()


def cut_off_before_the_end(*arguments: object, **options: object) -> list[int]:
    """Encode all chunks but do not finish; what progress told."""
    told: list[int] = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(PartialStore, "finish", lambda self: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            encode(*arguments, progress=lambda done, _: told.append(done), **options)
    return told


def test_other_features_start_anew(tmp_path: Path, monkeypatch):
    small_chunks(monkeypatch)
    cube = make_cube(noise(100, 1, 2, 8, 8))
    changed = cube.assign(image=cube["image"].where(cube["neighborhood"] != 99, 5.0))
    out = tmp_path / "e.zarr"
    for other, encoder, seed in (
        (cube, RandomConv(4), 0),
        (cube, RandomConv(8), 0),
        (cube, RandomConv(4), 1),
        (changed, RandomConv(4), 1),
    ):
        assert cut_off_before_the_end(other, encoder, seed=seed, out=out)[0] == 16
        assert cut_off_before_the_end(other, encoder, seed=seed, out=out) == [100]


def test_a_full_disk_is_a_typed_error_and_what_is_done_is_kept(tmp_path: Path, monkeypatch):
    small_chunks(monkeypatch)
    cube = make_cube(noise(100, 1, 2, 8, 8))
    out = tmp_path / "e.zarr"
    limit = resource.getrlimit(resource.RLIMIT_FSIZE)
    before = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)

    def fill(done: int, total: int) -> None:
        if done == 48:
            resource.setrlimit(resource.RLIMIT_FSIZE, (100, limit[1]))

    try:
        with pytest.raises(EncoderError, match="cannot be written"):
            encode(cube, RandomConv(4), out=out, progress=fill)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limit)
        signal.signal(signal.SIGXFSZ, before)
    assert not out.exists()
    assert len(list((tmp_path / "e.zarr.partial" / "done").iterdir())) == 1
    encode(cube, RandomConv(4), out=out)
    encode(cube, RandomConv(4), out=tmp_path / "other.zarr")
    assert hash_tree(out) == hash_tree(tmp_path / "other.zarr")


def test_two_runs_do_not_make_one_embedding(tmp_path: Path):
    cube = make_cube(noise(20, 1, 2, 8, 8))
    store = PartialStore(tmp_path / "e.zarr", "key", 4)
    with store.claimed(), pytest.raises(EncoderError, match="made by another process"):
        encode(cube, RandomConv(4), out=tmp_path / "e.zarr")
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_is_no_part_is_not_deleted(tmp_path: Path):
    mine = tmp_path / "e.zarr.partial"
    mine.mkdir()
    (mine / "thesis.txt").write_text("years of work")
    with pytest.raises(EncoderError, match="is not an embedding that was cut off"):
        encode(make_cube(noise(5, 1, 2, 8, 8)), RandomConv(4), out=tmp_path / "e.zarr")
    assert (mine / "thesis.txt").read_text() == "years of work"


def test_a_feature_that_overflows_is_named_and_not_written(tmp_path: Path):
    class Overflowing(torch.nn.Module):
        def forward(self, values: torch.Tensor, valid: torch.Tensor) -> torch.Tensor:
            means = values.mean(dim=(2, 3))
            return torch.where(means > 0.05, torch.inf, means)

    image = noise(50, 1, 2, 8, 8) * 0.01
    image[7, 0, 0] += 1.0
    spec = ImageSpec(("b0", "b1"), "DN", 30.0, 8, 8)
    fitted = FittedEncoder("overflowing", spec, Scaling.identity(2), Overflowing(), 2)
    for out in (None, tmp_path / "e.zarr"):
        with pytest.raises(EmbeddingError, match=r"1 rows .* 7"):
            encode(make_cube(image), fitted, out=out)
    assert not (tmp_path / "e.zarr").exists()


@pytest.mark.parametrize("value", [torch.inf, torch.nan])
def test_a_chip_that_was_seen_is_not_taken_for_missing(value: float):
    class Overflowing(torch.nn.Module):
        def forward(self, values: torch.Tensor, valid: torch.Tensor) -> torch.Tensor:
            means = values.mean(dim=(2, 3))
            return torch.where(means.amax(dim=1, keepdim=True) > 0.05, value, means)

    image = noise(50, 1, 2, 8, 8) * 0.01
    image[7, 0, 0] += 1.0
    image[9] = np.nan
    spec = ImageSpec(("b0", "b1"), "DN", 30.0, 8, 8)
    fitted = FittedEncoder("overflowing", spec, Scaling.identity(2), Overflowing(), 2)
    with pytest.raises(EmbeddingError, match=r"1 rows .* infinite .* 7"):
        encode(make_cube(image), fitted)


def test_a_run_cut_off_before_its_first_chunk_is_not_in_the_way(tmp_path: Path, monkeypatch):
    def cut(*_: object) -> None:
        raise KeyboardInterrupt

    cube, out = make_cube(noise(5, 1, 2, 8, 8)), tmp_path / "e.zarr"
    with monkeypatch.context() as patch:
        patch.setattr(embedding_store, "_create", cut)
        with pytest.raises(KeyboardInterrupt):
            encode(cube, RandomConv(4), out=out)
    assert encode(cube, RandomConv(4), out=out).shape == (5, 4)
    assert [p.name for p in tmp_path.iterdir()] == ["e.zarr"]


def test_weights_of_any_type_can_be_gone_on_with(tmp_path: Path):
    class Half(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.weight = torch.nn.Parameter(torch.ones(2, dtype=torch.bfloat16))

        def forward(self, values: torch.Tensor, valid: torch.Tensor) -> torch.Tensor:
            return values.mean(dim=(2, 3)) * self.weight.float()

    spec = ImageSpec(("b0", "b1"), "DN", 30.0, 8, 8)
    cube, out = make_cube(noise(5, 1, 2, 8, 8)), tmp_path / "e.zarr"
    fitted = FittedEncoder("half", spec, Scaling.identity(2), Half(), 2)
    assert cut_off_before_the_end(cube, fitted, out=out) == [5]
    assert cut_off_before_the_end(cube, fitted, out=out) == [5]
    fitted.network.weight.data.mul_(2)
    np.testing.assert_allclose(encode(cube, fitted, out=out), encode(cube, fitted))


def test_a_network_that_does_not_fit_the_device_is_an_error():
    class Huge(torch.nn.Module):
        def to(self, *_: object, **__: object):
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate a lot.")

    spec = ImageSpec(("b0", "b1"), "DN", 30.0, 8, 8)
    fitted = FittedEncoder("huge", spec, Scaling.identity(2), Huge(), 2)
    with pytest.raises(DeviceError, match="no room for the network of huge"):
        BatchRunner(fitted, batch_size=1, device=torch.device("meta"))


def test_a_store_of_something_else_is_named(tmp_path: Path):
    make_cube(noise(4, 1, 2, 8, 8)).drop_vars(["period", "band"]).to_zarr(
        tmp_path / "cube.zarr", consolidated=False
    )
    with pytest.raises(EncoderError, match="holds no variable 'embedding'"):
        open_embedding(tmp_path / "cube.zarr")


def test_torchvision_imports_beside_any_torch():
    code = (
        "from eocausal.encoders.torchvision_import import import_torchvision\n"
        "import_torchvision(); tv = import_torchvision()\n"
        "assert tv.models.resnet18(weights=None).fc.in_features == 512\n"
        "import torchvision\n"
    )
    subprocess.run([sys.executable, "-W", "error", "-c", code], check=True)


def test_a_folder_that_is_no_embedding_is_not_deleted(tmp_path: Path):
    mine = tmp_path / "mine"
    mine.mkdir()
    (mine / "thesis.txt").write_text("years of work")
    with pytest.raises(EncoderError, match="is not an embedding"):
        encode(make_cube(noise(5, 1, 2, 8, 8)), RandomConv(4), out=mine)
    assert (mine / "thesis.txt").read_text() == "years of work"
    for _ in range(2):
        encode(make_cube(noise(5, 1, 2, 8, 8)), RandomConv(4), out=tmp_path / "e.zarr")
