"""Weights files that are wrong, damaged, or would do something else than give features."""

import hashlib
import os
import pickle
import warnings
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from safetensors.torch import save_file

from eocausal.encoders.cards import Weights, load_card
from eocausal.encoders.core import ImageSpec
from eocausal.encoders.image import TorchvisionCNN
from eocausal.encoders.initial_weights import untouched_seeds
from eocausal.encoders.registry import load_encoder
from eocausal.encoders.torchscript import read_program
from eocausal.encoders.torchvision_import import import_torchvision
from eocausal.encoders.weights import read_weights
from eocausal.errors import ModelCardError, WeightsError


class Payload:
    """A pickle of it makes a folder when it is read without limits."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self):
        return os.mkdir, (str(self.path),)


def checksum(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def entry(path: Path, **changes) -> Weights:
    known = {"file": path.name, "sha256": checksum(path), "licence": "x", "source": "the archive"}
    return Weights.model_validate(known | changes)


def script(network: torch.nn.Module, path: Path) -> Path:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        torch.jit.save(torch.jit.script(network.eval()), path)
    return path


def repacked(path: Path, change) -> Path:
    """Rewrite the members of a zip archive; ``change`` gets a name and its bytes."""
    with zipfile.ZipFile(path) as archive:
        members = {m.filename: archive.read(m) for m in archive.infolist()}
    with zipfile.ZipFile(path, "w", zipfile.ZIP_STORED) as archive:
        for name, content in members.items():
            archive.writestr(name, change(name, content))
    return path


class Scale(torch.nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.weight = torch.nn.Parameter(torch.ones(1))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x.mean(dim=(2, 3)) * self.weight


class Writes(Scale):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        torch.save(x, "written.pt")
        return x.mean(dim=(2, 3))


class Reads(Scale):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x.mean(dim=(2, 3)) + torch.from_file("secret.bin", False, 1).sum()


class HidesInALoop(Scale):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        for i in range(x.size(0)):
            if i > 0:
                torch.save(x[i], "written.pt")
        return x.mean(dim=(2, 3))


class Remembers(Scale):
    calls: int

    def __init__(self) -> None:
        super().__init__()
        self.calls = 0

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.calls += 1
        return x.mean(dim=(2, 3)) + self.calls


class Seeds(Scale):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        torch.manual_seed(1)
        return x.mean(dim=(2, 3)) + torch.rand(1)


class RunsWhileRead(Scale):
    @torch.jit.export
    def __getstate__(self) -> tuple[torch.Tensor, bool]:
        return self.weight, self.training

    @torch.jit.export
    def __setstate__(self, state: tuple[torch.Tensor, bool]) -> None:
        torch.save(state[0], "written.pt")
        self.weight = state[0]
        self.training = state[1]


class TestPrograms:
    def test_a_plain_program_is_read(self, tmp_path):
        program = read_program(script(Scale(), tmp_path / "w.pt"))
        assert program(torch.ones(2, 3, 4, 4)).shape == (2, 3)

    @pytest.mark.parametrize(
        ("network", "word"),
        [
            (Writes, "aten::save"),
            (Reads, "aten::from_file"),
            (HidesInALoop, "aten::save"),
            (Remembers, "prim::SetAttr"),
            (Seeds, "aten::manual_seed"),
            (RunsWhileRead, "__setstate__"),
        ],
    )
    def test_programs_that_do_more_than_features_are_not_run(
        self, tmp_path, monkeypatch, network, word
    ):
        monkeypatch.chdir(tmp_path)
        path = script(network(), tmp_path / "w.pt")
        with pytest.raises(WeightsError, match=f"is not run.*{word}"):
            read_program(path)
        assert [p.name for p in tmp_path.iterdir()] == ["w.pt"]

    def test_compiled_classes_are_refused(self, tmp_path):
        def name_one(name: str, content: bytes) -> bytes:
            return content + b"# __torch__.torch.classes.x.Y\n" if name.endswith(".py") else content

        path = repacked(script(Scale(), tmp_path / "w.pt"), name_one)
        with pytest.raises(WeightsError, match=r"torch\.classes"):
            read_program(path)

    @pytest.mark.parametrize("member", ["data.pkl", "constants.pkl"])
    def test_a_pickle_with_code_in_the_archive_does_not_run(self, tmp_path, member):
        target = tmp_path / "target"
        payload = pickle.dumps(Payload(target), 2)
        path = repacked(
            script(Scale(), tmp_path / "w.pt"),
            lambda name, content: payload if name.endswith(f"/{member}") else content,
        )
        with pytest.raises(WeightsError, match="cannot be read"):
            read_program(path)
        assert not target.exists()

    @pytest.mark.parametrize("share", [0.0, 0.5, 0.99])
    def test_a_truncated_archive(self, tmp_path, share):
        path = script(Scale(), tmp_path / "w.pt")
        whole = path.read_bytes()
        path.write_bytes(whole[: int(share * len(whole))])
        with pytest.raises(WeightsError, match="cannot be read"):
            read_program(path)

    def test_tensors_are_not_a_program(self, tmp_path):
        torch.save(Scale().state_dict(), tmp_path / "w.pt")
        with pytest.raises(WeightsError, match="not a TorchScript archive"):
            read_program(tmp_path / "w.pt")

    def test_a_whole_pickled_network_is_not_a_program(self, tmp_path):
        target = tmp_path / "target"
        torch.save(Payload(target), tmp_path / "w.pt")
        with pytest.raises(WeightsError, match="not a TorchScript archive"):
            read_program(tmp_path / "w.pt")
        assert not target.exists()


class TestCards:
    def card(self, path: Path, **changes) -> Path:
        folder = path.parent / "mine"
        folder.mkdir()
        content = load_card("prithvi_eo_1_100m").model_dump(mode="json")
        content |= {"name": "mine", "bands": ["a", "b", "c"], "features": 3, "output": "vector"}
        content |= {"scaling": "from_data", "weights": entry(path).model_dump()} | changes
        (folder / "config.yaml").write_text(yaml.safe_dump(content))
        return folder

    def test_another_checksum_is_refused_before_anything_is_read(self, tmp_path):
        path = script(Scale(), tmp_path / "w.pt")
        folder = self.card(path)
        load_encoder(folder, path)
        script(Writes(), path)
        with pytest.raises(WeightsError, match="The card expects"):
            load_encoder(folder, path)

    def test_a_file_changed_after_loading_is_noticed(self, tmp_path):
        path = script(Scale(), tmp_path / "w.pt")
        encoder = load_encoder(self.card(path), path)
        script(Writes(), path)
        spec = ImageSpec(("a", "b", "c"), "reflectance x 10000", 30.0, 32, 32)
        with pytest.raises(WeightsError, match="The card expects"):
            encoder.fit(np.zeros((4, 3, 32, 32), np.float32), spec, seed=0)

    def test_a_card_of_the_other_family_is_refused(self, tmp_path):
        path = script(Scale(), tmp_path / "w.pt")
        with pytest.raises(ModelCardError, match="family 'torchscript'"):
            TorchvisionCNN.from_card(self.card(path), path)

    @pytest.mark.parametrize("name", ["prithvi_eo_1_100m", "dino_vit_b_16"])
    def test_a_card_without_checksum_tells_how_to_complete_it(self, tmp_path, name):
        path = tmp_path / load_card(name).weights.file
        path.write_bytes(b"anything")
        with pytest.raises(WeightsError, match=f"write 'sha256: {checksum(path)}'"):
            load_encoder(name, path)


STATE = {"a.x": torch.zeros(2), "a.y": torch.ones(3), "b.x": torch.zeros(1)}


class TestTensors:
    def saved(self, tmp_path: Path, content: object) -> Path:
        torch.save(content, tmp_path / "w.pth")
        return tmp_path / "w.pth"

    def test_a_pickle_with_code_inside_a_checkpoint_does_not_run(self, tmp_path):
        target = tmp_path / "target"
        path = self.saved(tmp_path, {"state_dict": STATE, "args": Payload(target)})
        with pytest.raises(WeightsError, match=r"It names \w+\.mkdir.*would run code"):
            read_weights(path, entry(path, state_key="state_dict"))
        assert not target.exists()

    def test_a_whole_pickled_network_is_refused(self, tmp_path):
        path = self.saved(tmp_path, torch.nn.Linear(2, 2))
        with pytest.raises(WeightsError, match="would run code"):
            read_weights(path, entry(path))

    def test_a_program_is_not_tensors(self, tmp_path):
        path = script(Scale(), tmp_path / "w.pt")
        with pytest.raises(WeightsError, match="family torchscript"):
            read_weights(path, entry(path))

    @pytest.mark.parametrize("suffix", ["pth", "safetensors"])
    @pytest.mark.parametrize("share", [0.0, 0.3, 0.9])
    def test_a_truncated_file_with_its_own_checksum(self, tmp_path, suffix, share):
        path = tmp_path / f"w.{suffix}"
        big = {"a": torch.randn(100, generator=torch.Generator().manual_seed(0))}
        torch.save(big, path) if suffix == "pth" else save_file(big, path)
        whole = path.read_bytes()
        path.write_bytes(whole[: int(share * len(whole))])
        with pytest.raises(WeightsError, match=str(path)):
            read_weights(path, entry(path))

    @pytest.mark.parametrize(
        ("changes", "word"),
        [
            ({}, "Write state_key: teacher"),
            ({"state_key": "student"}, "no entry 'student'.*epoch, teacher"),
            ({"state_key": "epoch"}, "The entry 'epoch' of .* not a dictionary"),
            ({"state_key": "teacher", "prefix": "c."}, "begins with 'c.'.*a.x, a.y, b.x"),
        ],
    )
    def test_a_card_that_does_not_fit_the_checkpoint(self, tmp_path, changes, word):
        path = self.saved(tmp_path, {"epoch": 3, "teacher": STATE})
        with pytest.raises(WeightsError, match=word):
            read_weights(path, entry(path, **changes))
        state, _ = read_weights(path, entry(path, state_key="teacher", prefix="a."))
        assert sorted(state) == ["x", "y"]

    @pytest.mark.parametrize("content", [[], {}, 3, {"a": 3}, {1: torch.zeros(1)}])
    def test_contents_that_are_no_tensors(self, tmp_path, content):
        path = self.saved(tmp_path, content)
        with pytest.raises(WeightsError, match="not a dictionary of tensors"):
            read_weights(path, entry(path))

    @pytest.mark.parametrize(
        ("weights_of", "bands", "word"),
        [
            ("resnet34", ["red", "green", "blue"], r"left over layer1\.2"),
            ("mobilenet_v3_small", ["red", "green", "blue"], "missing conv1.weight"),
            ("resnet18", ["red", "green", "blue", "nir"], r"\(64, 3, 7, 7\), not \(64, 4, 7, 7\)"),
        ],
    )
    def test_weights_of_another_network_are_refused(self, tmp_path, weights_of, bands, word):
        models = import_torchvision().models
        network = untouched_seeds(lambda: models.get_model(weights_of, weights=None))
        path = self.saved(tmp_path, network.state_dict())
        card = load_card("resnet18_imagenet").model_copy(
            update={"weights": entry(path), "bands": tuple(bands)}
        )
        spec = ImageSpec(tuple(bands), "DN", 30.0, 32, 32)
        noise = np.random.default_rng(0).normal(size=(4, len(bands), 32, 32)).astype(np.float32)
        with pytest.raises(WeightsError, match=word):
            TorchvisionCNN(card, path).fit(noise, spec, seed=0)
