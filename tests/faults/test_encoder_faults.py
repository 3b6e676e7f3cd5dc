"""What goes wrong on the way to an embedding: files, memory, devices, broken data."""

import hashlib
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
import xarray as xr
import yaml

from eocausal.encoders.base import encode, open_embedding, resolve_device
from eocausal.encoders.cards import Weights, load_card
from eocausal.encoders.core import FittedEncoder, ImageSpec, Scaling, embed_array
from eocausal.encoders.image import TorchvisionCNN
from eocausal.encoders.random_conv import GaussianPatches, RandomConv
from eocausal.encoders.spectral import SpectralMeans
from eocausal.encoders.weights import read_weights
from eocausal.errors import DeviceError, EncoderError, ModelCardError, WeightsError


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


def test_a_reader_that_fails_leaves_no_store(tmp_path: Path):
    image = noise(200, 1, 2, 8, 8)
    cube = make_cube(image)
    fitted = RandomConv(4).fit(image[:, 0], ImageSpec(("b0", "b1"), "DN", 30.0, 8, 8), seed=0)
    encode(cube, fitted, out=tmp_path / "e.zarr")
    before = open_embedding(tmp_path / "e.zarr")

    class Broken(xr.backends.BackendArray):
        shape, dtype = image.shape, image.dtype

        def __getitem__(self, key):
            rows = key.tuple[0]
            if isinstance(rows, slice) and (rows.stop or 200) > 100:
                raise OSError("the disk went away")
            return image[key.tuple]

    lazy = cube.copy()
    lazy["image"] = (cube["image"].dims, xr.core.indexing.LazilyIndexedArray(Broken()))
    with pytest.raises(OSError, match="disk went away"):
        encode(lazy, fitted, out=tmp_path / "e.zarr", batch_size=8)
    xr.testing.assert_identical(open_embedding(tmp_path / "e.zarr"), before)
    assert [p.name for p in tmp_path.iterdir()] == ["e.zarr"]


def test_killed_while_encoding_leaves_no_store(tmp_path: Path):
    code = f"""
import sys; sys.path.insert(0, {str(Path(__file__).parent)!r})
import time
from test_encoder_faults import make_cube, noise
from eocausal.encoders.base import encode
from eocausal.encoders.random_conv import RandomConv
def tell(done, total):
    print(done, flush=True)
    time.sleep(0.2)
encode(make_cube(noise(400, 1, 2, 8, 8)), RandomConv(8), out={str(tmp_path / "e.zarr")!r},
       batch_size=1, progress=tell)
"""
    child = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE)
    assert child.stdout is not None
    child.stdout.readline()
    os.kill(child.pid, signal.SIGKILL)
    child.wait()
    child.stdout.close()
    time.sleep(0.1)
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(EncoderError, match="no embedding at"):
        open_embedding(tmp_path / "e.zarr")


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
        encode(make_cube(noise(5, 1, 2, 8, 8)), SpectralMeans(), out=mine)
    assert (mine / "thesis.txt").read_text() == "years of work"
    for _ in range(2):
        encode(make_cube(noise(5, 1, 2, 8, 8)), SpectralMeans(), out=tmp_path / "e.zarr")
