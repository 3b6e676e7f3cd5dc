"""Weights of others: training checkpoints, other names of tensors, whole networks."""

import copy
import hashlib
import warnings
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from safetensors.torch import save_file

from eocausal.encoders.core import ImageSpec
from eocausal.encoders.image import TorchvisionCNN
from eocausal.encoders.initial_weights import draw_weights, untouched_seeds
from eocausal.encoders.key_maps import from_timm_vit
from eocausal.encoders.registry import load_encoder
from eocausal.encoders.torchscript import ScriptedNetwork
from eocausal.encoders.torchvision_import import import_torchvision
from eocausal.errors import ModelCardError

BANDS = ("blue", "green", "red", "nir")
RGB = ("red", "green", "blue")
CARD = {
    "name": "mine",
    "features": 512,
    "bands": list(RGB),
    "units": "any",
    "scaling": "from_data",
    "ground_sampling_distance_m": "any",
    "training": {"data": "own", "regions": "none"},
    "known_bias": "none known",
    "golden": None,
}


def write_card(path: Path, **changes) -> Path:
    """Write a card beside a weights file, with its checksum."""
    weights = {
        "file": path.name,
        "sha256": hashlib.sha256(path.read_bytes()).hexdigest(),
        "licence": "own",
        "source": "here",
    } | changes.pop("weights", {})
    folder = path.parent / "mine"
    folder.mkdir(exist_ok=True)
    path.rename(folder / path.name)
    (folder / "config.yaml").write_text(yaml.safe_dump(CARD | changes | {"weights": weights}))
    return folder


def spec(bands=RGB, size=32, units="DN") -> ImageSpec:
    return ImageSpec(tuple(bands), units, 30.0, size, size)


def chips(n: int = 3, bands: int = 3, size: int = 32, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=(n, bands, size, size)).astype(np.float32)


def seeded(make, seed: int = 1) -> torch.nn.Module:
    network = untouched_seeds(make)
    draw_weights(network, seed)
    return network.eval()


class TestCheckpoints:
    network = seeded(lambda: import_torchvision().models.resnet18(weights=None))

    def features(self, folder: Path) -> np.ndarray:
        return TorchvisionCNN.from_card(folder).fit(chips(), spec(), seed=0).transform(chips())

    def expected(self) -> np.ndarray:
        network = copy.deepcopy(self.network)
        network.fc = torch.nn.Identity()
        values = chips()
        mean, sd = values.mean(axis=(0, 2, 3)), values.std(axis=(0, 2, 3))
        with torch.inference_mode():
            scaled = (values - mean[:, None, None]) / sd[:, None, None]
            return network(torch.from_numpy(scaled)).numpy()

    @pytest.mark.parametrize("suffix", ["pth", "safetensors"])
    def test_tensors_under_a_prefix_among_others(self, tmp_path, suffix):
        state = {f"module.encoder_q.{k}": v for k, v in self.network.state_dict().items()}
        state |= {f"module.encoder_k.{k}": v + 1 for k, v in self.network.state_dict().items()}
        state |= {"module.queue": torch.zeros(4, 4)}
        path = tmp_path / f"w.{suffix}"
        if suffix == "pth":
            optimiser = torch.optim.SGD(self.network.parameters(), lr=0.1, momentum=0.9)
            content = {"epoch": 99, "arch": "resnet18", "optimizer": optimiser.state_dict()}
            torch.save(content | {"state_dict": state}, path)
        else:
            save_file(state, path)
        weights = {"prefix": "module.encoder_q."}
        if suffix == "pth":
            weights["state_key"] = "state_dict"
        folder = write_card(path, family="torchvision", architecture="resnet18", weights=weights)
        np.testing.assert_allclose(self.features(folder), self.expected(), rtol=1e-3, atol=1e-4)

    def test_other_heads_and_missing_counters_do_not_matter(self, tmp_path):
        state = {
            k: v
            for k, v in self.network.state_dict().items()
            if not k.startswith("fc.") and not k.endswith("num_batches_tracked")
        }
        path = tmp_path / "w.pt"
        torch.save(state | {"head.0.weight": torch.zeros(128, 512)}, path)
        folder = write_card(path, family="torchvision", architecture="resnet18")
        np.testing.assert_allclose(self.features(folder), self.expected(), rtol=1e-3, atol=1e-4)


class TimmBlock(torch.nn.Module):
    """A block whose query, key and value are one layer."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.norm1 = torch.nn.LayerNorm(width, eps=1e-6)
        self.attn = torch.nn.ModuleDict(
            {"qkv": torch.nn.Linear(width, 3 * width), "proj": torch.nn.Linear(width, width)}
        )
        self.norm2 = torch.nn.LayerNorm(width, eps=1e-6)
        self.mlp = torch.nn.ModuleDict(
            {"fc1": torch.nn.Linear(width, 2 * width), "fc2": torch.nn.Linear(2 * width, width)}
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        n, tokens, width = x.shape
        qkv = self.attn["qkv"](self.norm1(x)).view(n, tokens, 3, self.heads, width // self.heads)
        query, key, value = qkv.permute(2, 0, 3, 1, 4)
        weight = (query @ key.transpose(-1, -2) / (width // self.heads) ** 0.5).softmax(dim=-1)
        x = x + self.attn["proj"]((weight @ value).transpose(1, 2).reshape(n, tokens, width))
        hidden = torch.nn.functional.gelu(self.mlp["fc1"](self.norm2(x)))
        return x + self.mlp["fc2"](hidden)


class TimmTransformer(torch.nn.Module):
    """A vision transformer with the names of tensors that timm, DINO and MAE use."""

    def __init__(self, size: int, patch: int, depth: int, heads: int, width: int) -> None:
        super().__init__()
        self.cls_token = torch.nn.Parameter(torch.randn(1, 1, width))
        self.pos_embed = torch.nn.Parameter(torch.randn(1, 1 + (size // patch) ** 2, width))
        self.patch_embed = torch.nn.ModuleDict(
            {"proj": torch.nn.Conv2d(3, width, patch, stride=patch)}
        )
        self.blocks = torch.nn.ModuleList(TimmBlock(width, heads) for _ in range(depth))
        self.norm = torch.nn.LayerNorm(width, eps=1e-6)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        patches = self.patch_embed["proj"](x).flatten(2).transpose(1, 2)
        tokens = torch.cat([self.cls_token.expand(len(x), -1, -1), patches], dim=1) + self.pos_embed
        for block in self.blocks:
            tokens = block(tokens)
        return self.norm(tokens)[:, 0]


def test_names_of_timm_are_those_of_the_same_transformer():
    from torchvision.models import VisionTransformer

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        theirs = TimmTransformer(size=32, patch=8, depth=3, heads=2, width=16).eval()
        for parameter in theirs.parameters():
            torch.nn.init.normal_(parameter, std=0.3)
        ours = VisionTransformer(32, 8, 3, 2, 16, 32, num_classes=5).eval()
    ours.heads = torch.nn.Identity()
    ours.load_state_dict(from_timm_vit(theirs.state_dict()))
    images = torch.from_numpy(chips())
    with torch.inference_mode():
        torch.testing.assert_close(ours(images), theirs(images), rtol=1e-4, atol=1e-5)


def test_names_that_are_not_of_the_plain_transformer_stay():
    odd = {"blocks.0.ls1.gamma": torch.ones(1), "reg_token": torch.ones(1), "norm": torch.ones(1)}
    assert set(from_timm_vit(odd)) == set(odd)
    assert set(from_timm_vit({"head.weight": torch.ones(1)})) == {"heads.head.weight"}


class Tokens(torch.nn.Module):
    """A patch embedding with a class token before the patches."""

    def __init__(self, bands: int = 4, width: int = 12) -> None:
        super().__init__()
        self.embed = torch.nn.Conv2d(bands, width, 8, stride=8)
        self.token = torch.nn.Parameter(torch.randn(1, 1, width))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        patches = torch.tanh(self.embed(x)).flatten(2).transpose(1, 2)
        mean = patches.mean(dim=(1, 2), keepdim=True)
        return torch.cat([self.token.expand(x.size(0), -1, -1) * mean, patches], dim=1)


class Chancy(torch.nn.Module):
    """Features of a convolution after a layer that is not the same in training."""

    def __init__(self, layer: torch.nn.Module) -> None:
        super().__init__()
        self.embed = torch.nn.Conv2d(4, 12, 3)
        self.layer = layer

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.layer(self.embed(x)).mean(dim=(2, 3))


class Counts(torch.nn.Module):
    """Features that grow a little with every call."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = torch.nn.Conv2d(4, 12, 3)
        self.calls = torch.zeros(1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.calls.add_(1e-4)
        return self.embed(x).mean(dim=(2, 3)) * (1 + self.calls)


class OfTwo(torch.nn.Module):
    """Keeps the length of the batch it was traced with."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = torch.nn.Conv2d(4, 12, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.embed(x).reshape(len(x), 12, -1).mean(dim=2)


def save_script(network: torch.nn.Module, path: Path, *, traced: bool = True) -> Path:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        if traced:
            script = torch.jit.trace(network, torch.zeros(2, 4, 32, 32), check_trace=False)
        else:
            script = torch.jit.script(network)
        torch.jit.save(script, path)
    return path


SCRIPTED = {
    "family": "torchscript",
    "architecture": "own",
    "bands": list(BANDS),
    "features": 12,
    "scaling": {"mean": [1.0, 2.0, 3.0, 4.0], "sd": [1.0, 2.0, 1.0, 2.0]},
    "units": "reflectance",
}


class TestTorchScript:
    tokens = seeded(Tokens)
    cube = spec(BANDS, units="reflectance")

    def scaled(self, images: np.ndarray) -> torch.Tensor:
        mean, sd = (np.reshape(SCRIPTED["scaling"][k], (4, 1, 1)) for k in ("mean", "sd"))
        return torch.from_numpy(((images - mean) / sd).astype(np.float32))

    @pytest.mark.parametrize(
        ("output", "reduce"),
        [
            ("class_token", lambda out: out[:, 0]),
            ("tokens", lambda out: out.mean(1)),
            ("patch_tokens", lambda out: out[:, 1:].mean(1)),
        ],
    )
    def test_tokens_become_a_vector(self, tmp_path, output, reduce):
        path = save_script(self.tokens, tmp_path / "w.pt")
        encoder = load_encoder(write_card(path, **SCRIPTED, output=output))
        assert isinstance(encoder, ScriptedNetwork)
        fitted = encoder.fit(chips(bands=4), self.cube, seed=0)
        with torch.inference_mode():
            expected = reduce(self.tokens(self.scaled(chips(bands=4)))).numpy()
        found = fitted.transform(chips(bands=4))
        assert found.shape == (3, 12)
        np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5)
        assert len(fitted.weights_sha256) == 64

    @pytest.mark.parametrize("traced", [True, False])
    @pytest.mark.parametrize("output", ["vector", "map"])
    def test_a_whole_resnet(self, tmp_path, output, traced):
        resnet = seeded(lambda: import_torchvision().models.resnet18(weights=None))
        resnet.conv1 = seeded(lambda: torch.nn.Conv2d(4, 64, 7, stride=2, padding=3, bias=False))
        resnet.fc = torch.nn.Identity()
        kept = torch.nn.Sequential(*list(resnet.children())[:-2])
        path = save_script(resnet if output == "vector" else kept, tmp_path / "w.pt", traced=traced)
        card = write_card(path, **SCRIPTED | {"features": 512}, output=output)
        fitted = load_encoder(card).fit(chips(bands=4), self.cube, seed=0)
        with torch.inference_mode():
            expected = resnet(self.scaled(chips(bands=4))).numpy()
        np.testing.assert_allclose(
            fitted.transform(chips(bands=4)), expected, rtol=1e-3, atol=1e-4 * expected.max()
        )

    def test_bands_are_matched_by_name_and_chips_resized(self, tmp_path):
        path = save_script(self.tokens, tmp_path / "w.pt")
        encoder = load_encoder(write_card(path, **SCRIPTED, output="tokens", input_size=32))
        images = chips(bands=4, size=64)
        forward = encoder.fit(images, spec(BANDS, 64, "reflectance"), seed=0)
        backward = encoder.fit(images, spec(BANDS[::-1], 64, "reflectance"), seed=0)
        assert backward.scaling.mean == (4.0, 3.0, 2.0, 1.0)
        turned = np.ascontiguousarray(images[:, ::-1])
        np.testing.assert_allclose(
            backward.transform(turned), forward.transform(images), rtol=1e-4, atol=1e-5
        )
        small = torch.nn.functional.interpolate(
            self.scaled(images), (32, 32), mode="bilinear", antialias=True
        )
        with torch.inference_mode():
            expected = self.tokens(small).mean(dim=1).numpy()
        np.testing.assert_allclose(forward.transform(images), expected, rtol=1e-4, atol=1e-5)

    def test_gradients_reach_the_pixels_and_copies_agree(self, tmp_path):
        path = save_script(self.tokens, tmp_path / "w.pt")
        encoder = load_encoder(write_card(path, **SCRIPTED, output="tokens"))
        network = encoder.fit(chips(bands=4), self.cube, seed=0).network
        values = torch.from_numpy(chips(bands=4)).requires_grad_()
        valid = torch.ones(3, 32, 32, dtype=torch.bool)
        out = network(values, valid)
        out.sum().backward()
        assert values.grad.abs().amax(dim=(2, 3)).min() > 0
        torch.testing.assert_close(copy.deepcopy(network)(values, valid), out)

    @pytest.mark.parametrize(
        ("changes", "word"),
        [
            ({"output": "vector"}, r"output: vector.*\(3, 12\)"),
            ({"output": "map"}, "output: map"),
            ({"output": "tokens", "features": 13}, "features: 13"),
        ],
    )
    def test_an_output_other_than_the_card_says_is_refused(self, tmp_path, changes, word):
        path = save_script(self.tokens, tmp_path / "w.pt")
        encoder = load_encoder(write_card(path, **SCRIPTED | changes))
        with pytest.raises(ModelCardError, match=word):
            encoder.fit(chips(bands=4), self.cube, seed=0)

    @pytest.mark.parametrize(
        ("cube", "word"),
        [
            (spec(BANDS[:3], units="reflectance"), "add nir"),
            (spec((*BANDS, "swir1"), units="reflectance"), "select band="),
            (spec(BANDS, units="DN"), "units are 'DN'"),
        ],
    )
    def test_cubes_that_do_not_fit_are_refused(self, tmp_path, cube, word):
        path = save_script(self.tokens, tmp_path / "w.pt")
        encoder = load_encoder(write_card(path, **SCRIPTED, output="tokens"))
        with pytest.raises(ModelCardError, match=word):
            encoder.fit(chips(bands=len(cube.bands)), cube, seed=0)

    def test_a_network_for_another_number_of_bands_says_so(self, tmp_path):
        path = save_script(self.tokens, tmp_path / "w.pt")
        wrong = SCRIPTED | {"bands": list(RGB), "scaling": "from_data"}
        encoder = load_encoder(write_card(path, **wrong, output="tokens"))
        with pytest.raises(ModelCardError, match="does not take chips of 32 by 32 pixels and 3"):
            encoder.fit(chips(), spec(units="reflectance"), seed=0)

    @pytest.mark.parametrize(
        ("layer", "word"),
        [
            (torch.nn.Dropout(0.5), "other features when it is called again"),
            (torch.nn.BatchNorm2d(12), "other features alone than among others"),
        ],
    )
    def test_a_network_traced_in_training_mode_is_refused(self, tmp_path, layer, word):
        network = seeded(lambda: Chancy(layer))
        for training, folder in ((False, tmp_path / "eval"), (True, tmp_path / "train")):
            folder.mkdir()
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", torch.jit.TracerWarning)
                path = save_script(network.train(training), folder / "w.pt")
            encoder = load_encoder(write_card(path, **SCRIPTED, output="vector"))
            if not training:
                encoder.fit(chips(bands=4), self.cube, seed=0)
        with pytest.raises(ModelCardError, match=word):
            encoder.fit(chips(bands=4), self.cube, seed=0)

    def test_a_network_that_counts_its_calls_is_refused(self, tmp_path):
        path = save_script(seeded(Counts), tmp_path / "w.pt", traced=False)
        encoder = load_encoder(write_card(path, **SCRIPTED, output="vector"))
        with pytest.raises(ModelCardError, match="changes its own tensors"):
            encoder.fit(chips(bands=4), self.cube, seed=0)

    def test_a_network_for_one_length_of_batch_is_refused(self, tmp_path):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", torch.jit.TracerWarning)
            path = save_script(seeded(OfTwo), tmp_path / "w.pt")
        encoder = load_encoder(write_card(path, **SCRIPTED, output="vector"))
        with pytest.raises(ModelCardError, match="batch of any length"):
            encoder.fit(chips(bands=4), self.cube, seed=0)

    def test_a_network_that_gives_nan_is_refused(self, tmp_path):
        network = seeded(Tokens)
        with torch.no_grad():
            network.embed.weight[0, 0, 0, 0] = torch.nan
        path = save_script(network, tmp_path / "w.pt")
        encoder = load_encoder(write_card(path, **SCRIPTED, output="tokens"))
        with pytest.raises(ModelCardError, match="not finite"):
            encoder.fit(chips(bands=4), self.cube, seed=0)

    def test_its_golden_vector_is_checked(self, tmp_path):
        path = save_script(self.tokens, tmp_path / "w.pt")
        golden = {"seed": 0, "size": 32, "first8": [1.0] * 8, "tolerance": 1e-4}
        with pytest.raises(ModelCardError, match="golden vector"):
            load_encoder(write_card(path, **SCRIPTED | {"golden": golden}, output="tokens"))
