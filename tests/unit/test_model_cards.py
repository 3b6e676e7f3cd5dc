"""Model cards: search, validation, golden vectors, and what of a cube they refuse."""

import hashlib
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from safetensors.torch import save_file

from eocausal.encoders.cards import card_folders, list_cards, load_card
from eocausal.encoders.core import ImageSpec
from eocausal.encoders.image import TorchvisionCNN
from eocausal.encoders.registry import load_encoder
from eocausal.encoders.spectral import SpectralStats
from eocausal.encoders.spectral_indices import KNOWN
from eocausal.encoders.stems import inflate_stem
from eocausal.encoders.torchvision_import import import_torchvision
from eocausal.encoders.torchvision_models import headless_network
from eocausal.errors import ModelCardError, WeightsError

RGB = ("red", "green", "blue")


def write_card(folder: Path, base: str = "resnet18_imagenet", **changes) -> Path:
    """Copy a card into a folder of its own, with changes."""
    source = next(f / base for f in card_folders() if (f / base).is_dir())
    content = yaml.safe_load((source / "config.yaml").read_text())
    target = folder / "mine"
    target.mkdir(parents=True, exist_ok=True)
    content |= {"name": "mine", **changes}
    (target / "config.yaml").write_text(yaml.safe_dump(content))
    return target


def network_with_seed(seed: int = 0) -> torch.nn.Module:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return import_torchvision().models.resnet18(weights=None).eval()


@pytest.fixture(scope="module")
def weights(tmp_path_factory) -> tuple[Path, str, torch.nn.Module]:
    """Weights of a known network, as a user would bring them."""
    network = network_with_seed()
    path = tmp_path_factory.mktemp("weights") / "resnet18-own.pth"
    torch.save(network.state_dict(), path)
    return path, hashlib.sha256(path.read_bytes()).hexdigest(), network


def weights_entry(path: Path, sha256: str) -> dict:
    return {"file": path.name, "sha256": sha256, "licence": "BSD-3-Clause", "source": "here"}


def chips(n: int = 6, bands: int = 3, size: int = 32, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=(n, bands, size, size)).astype(np.float32)


def spec(bands=RGB, units="DN", resolution=30.0, size=32, width=None) -> ImageSpec:
    return ImageSpec(tuple(bands), units, resolution, size, width or size)


def test_every_shipped_card_reads_and_has_a_text():
    assert {"random_conv", "resnet18", "prithvi_eo_1_100m"} < set(list_cards())
    for name in list_cards():
        card = load_card(name)
        assert card.name == name
        assert card.known_bias
        text = next(f / name / "card.md" for f in card_folders()).read_text()
        assert text.startswith(f"# {name}\n")


@pytest.mark.parametrize("name", [n for n in list_cards() if load_card(n).golden is not None])
def test_golden_vectors_hold(name):
    load_encoder(name)


def test_every_card_without_weights_has_a_golden_vector():
    for name in list_cards():
        card = load_card(name)
        assert (card.weights is None) == (card.golden is not None)


@pytest.mark.parametrize("name", [n for n in list_cards() if n.endswith("_imagenet")])
def test_imagenet_cards_name_the_files_that_torchvision_names(name):
    card = load_card(name)
    weights = import_torchvision().models.get_model_weights(card.architecture)
    assert card.weights.source in {w.url for w in weights}
    assert card.weights.file == f"{card.architecture}-{card.weights.sha256_prefix}.pth"
    assert card.weights.source.endswith(f"/{card.weights.file}")


@pytest.mark.parametrize("name", [n for n in list_cards() if load_card(n).family == "torchvision"])
def test_cards_state_the_features_of_their_networks(name):
    card = load_card(name)
    bands = 3 if card.bands == "any" else len(card.bands)
    with torch.random.fork_rng(devices=[]), torch.device("meta"):
        headless_network(card, bands)


def test_no_weights_are_shipped():
    for folder in card_folders():
        files = [p for p in folder.rglob("*") if p.is_file() and p.name != ".gitkeep"]
        assert {p.suffix for p in files} == {".yaml", ".md"}


@pytest.mark.parametrize(("base", "at"), [("random_conv", 3), ("resnet18", 1)])
def test_a_changed_golden_vector_is_noticed(tmp_path, base, at):
    golden = load_card(base).golden.model_dump()
    golden["first8"] = list(golden["first8"])
    golden["first8"][at] *= 1.01
    with pytest.raises(ModelCardError, match="golden vector"):
        load_encoder(write_card(tmp_path, base, golden=golden))


@pytest.mark.parametrize(
    "name",
    [
        "../resnet18",
        "resnet18/../resnet18",
        "/etc/passwd",
        "",
        ".",
        "..",
        "Resnet18",
        "a\0b",
        "a\n",
    ],
)
def test_names_never_lead_out_of_the_folder(name):
    with pytest.raises(ModelCardError, match="no model named"):
        load_card(name)


def test_a_string_that_is_a_path_is_not_followed(tmp_path):
    folder = write_card(tmp_path)
    assert load_card(folder).name == "mine"
    assert load_card(folder / "config.yaml").name == "mine"
    with pytest.raises(ModelCardError, match="no model named"):
        load_card(str(folder))


@pytest.mark.parametrize(
    ("changes", "word"),
    [
        ({"features": 0}, "features"),
        ({"surprise": 1}, "surprise"),
        ({"weights": None}, "golden vector"),
        ({"bands": "any"}, "names its bands"),
        ({"training": None}, "training data"),
        ({"scaling": {"mean": [0.5], "sd": [0.2]}}, "fixed scaling"),
        ({"scaling": {"mean": [0.5], "sd": [-1]}}, "sd"),
        ({"family": "torchscript"}, "output is for"),
        ({"output": "vector"}, "output is for"),
        ({"bands": ["red", "red", "blue"]}, "named twice"),
        ({"ground_sampling_distance_m": {"min": 20, "max": 10}}, "min may not be larger"),
        ({"parameters": {"channels_last": False}}, "takes no parameters"),
        (
            {"scaling": {"mean": [float("nan")] * 3, "sd": [1] * 3}},
            r"scaling\.FixedScaling\.mean\.0: Input should be a finite",
        ),
        (
            {"scaling": {"mean": [0] * 3, "sd": [float("inf")] * 3}},
            r"scaling\.FixedScaling\.sd\.0: Input should be a finite",
        ),
        ({"family": "torchscript", "output": "vector"}, "whole sha256"),
        (
            {"scaling": {"mean": [0.5], "sd": [1]}, "other_bands": "refuse", "units": "DN"},
            "one mean",
        ),
    ],
)
def test_wrong_cards_are_refused_with_the_entry(tmp_path, changes, word):
    with pytest.raises(ModelCardError, match=word):
        load_card(write_card(tmp_path, **changes))


@pytest.mark.parametrize("base", ["random_conv", "spectral_stats"])
@pytest.mark.parametrize(
    ("changes", "word"),
    [
        ({"bands": ["red", "green", "blue"]}, "takes chips as they come"),
        ({"units": "reflectance"}, "takes chips as they come"),
        ({"ground_sampling_distance_m": {"min": 8, "max": 12}}, "takes chips as they come"),
        ({"input_size": 16}, "resizes nothing"),
        ({"minimum_pixels": 64}, "minimum_pixels: 64"),
    ],
)
def test_what_would_not_be_held_to_may_not_be_stated(tmp_path, base, changes, word):
    with pytest.raises(ModelCardError, match=word):
        load_encoder(write_card(tmp_path, base, **changes))


@pytest.mark.parametrize(
    ("changes", "word"),
    [
        ({"seed": -1}, "golden.seed"),
        ({"size": 0}, "golden.size"),
        ({"first8": [0.0] * 8}, "all 0"),
        ({"first8": [float("nan")] * 8}, "finite"),
    ],
)
def test_golden_vectors_that_say_nothing_are_refused(tmp_path, changes, word):
    golden = load_card("random_conv").golden.model_dump() | changes
    golden["first8"] = list(golden["first8"])
    with pytest.raises(ModelCardError, match=word):
        load_card(write_card(tmp_path, "random_conv", golden=golden))


def test_a_golden_vector_of_fewer_features_is_refused(tmp_path):
    with pytest.raises(ModelCardError, match="at least 8"):
        load_card(write_card(tmp_path, "random_conv", features=4))


def test_a_card_in_the_working_folder_is_read(tmp_path, monkeypatch):
    monkeypatch.chdir(write_card(tmp_path))
    assert load_card(Path()).name == "mine"


def test_lists_in_lists_without_end_are_refused(tmp_path):
    folder = write_card(tmp_path)
    (folder / "config.yaml").write_text("[" * 5000)
    with pytest.raises(ModelCardError, match="is not YAML"):
        load_card(folder)


@pytest.mark.parametrize("file", ["../x.pth", "/x.pth", "x.bin", "a/b.pth", "x.pt2", "x.pkl"])
def test_weights_file_names_hold_no_folder(tmp_path, file):
    entry = {"file": file, "sha256": "0" * 64, "licence": "x", "source": "x"}
    with pytest.raises(ModelCardError, match="file"):
        load_card(write_card(tmp_path, weights=entry))


def test_a_card_in_the_wrong_folder_is_refused(tmp_path):
    folder = write_card(tmp_path)
    shutil.move(folder, tmp_path / "other")
    with pytest.raises(ModelCardError, match="has the name 'mine'"):
        load_card(tmp_path / "other")


def test_features_are_those_before_the_last_layer(tmp_path, weights):
    path, sha256, network = weights
    card = write_card(tmp_path, weights=weights_entry(path, sha256))
    fitted = TorchvisionCNN.from_card(card, path).fit(chips(), spec(), seed=0)
    assert fitted.weights_sha256 == sha256
    values, _ = fitted.scaling.apply(chips())
    kept = []
    network.avgpool.register_forward_hook(lambda module, args, out: kept.append(out.flatten(1)))
    with torch.inference_mode():
        network(torch.from_numpy(values))
    np.testing.assert_allclose(fitted.transform(chips()), kept[0], rtol=1e-4, atol=1e-5)


def test_an_encoder_without_the_weights_of_its_card_is_not_random():
    encoder = TorchvisionCNN(load_card("resnet18_imagenet"))
    for use in (
        lambda: encoder.fit(chips(), spec(), seed=0),
        lambda: encoder.build(spec(), seed=0),
    ):
        with pytest.raises(WeightsError, match="are not at"):
            use()


def test_weights_that_are_not_finite_are_refused(tmp_path, weights):
    state = dict(weights[2].state_dict())
    state["layer1.0.conv1.weight"] = torch.full_like(state["layer1.0.conv1.weight"], torch.nan)
    path = tmp_path / "resnet18-own.pth"
    torch.save(state, path)
    entry = weights_entry(path, hashlib.sha256(path.read_bytes()).hexdigest())
    encoder = TorchvisionCNN.from_card(write_card(tmp_path, weights=entry), path)
    with pytest.raises(WeightsError, match="1 tensors of the weights file hold NaN"):
        encoder.fit(chips(), spec(), seed=0)


def test_safetensors_and_pth_agree(tmp_path, weights):
    path, sha256, network = weights
    plain = TorchvisionCNN.from_card(
        write_card(tmp_path / "a", weights=weights_entry(path, sha256)), path
    )
    safe = tmp_path / "w.safetensors"
    save_file(network.state_dict(), safe)
    entry = weights_entry(safe, hashlib.sha256(safe.read_bytes()).hexdigest())
    other = TorchvisionCNN.from_card(write_card(tmp_path / "b", weights=entry), safe)
    np.testing.assert_array_equal(
        plain.fit(chips(), spec(), seed=0).transform(chips()),
        other.fit(chips(), spec(), seed=0).transform(chips()),
    )


def test_weights_are_found_beside_the_card(tmp_path, weights):
    path, sha256, _ = weights
    folder = write_card(tmp_path, weights=weights_entry(path, sha256))
    with pytest.raises(WeightsError, match="Get resnet18-own"):
        TorchvisionCNN.from_card(folder)
    shutil.copy(path, folder)
    assert TorchvisionCNN.from_card(folder / "config.yaml").weights == folder / path.name


def test_bands_are_matched_by_name_not_by_position(tmp_path, weights):
    path, sha256, _ = weights
    encoder = TorchvisionCNN.from_card(
        write_card(tmp_path, weights=weights_entry(path, sha256)), path
    )
    images = chips() * np.array([1, 2, 3], np.float32)[:, None, None]
    forward = encoder.fit(images, spec(), seed=0).transform(images)
    backward = np.ascontiguousarray(images[:, ::-1])
    again = encoder.fit(backward, spec(RGB[::-1]), seed=0).transform(backward)
    np.testing.assert_allclose(again, forward, rtol=1e-4, atol=1e-5)


def test_fixed_scaling_is_matched_by_name_too(tmp_path, weights):
    path, sha256, _ = weights
    encoder = TorchvisionCNN.from_card(
        write_card(
            tmp_path,
            weights=weights_entry(path, sha256),
            scaling={"mean": [0.4, 0.5, 0.6], "sd": [0.1, 0.2, 0.3]},
            other_bands="refuse",
            units="reflectance",
        ),
        path,
    )
    turned = spec(("blue", "red", "green"), units="reflectance")
    fitted = encoder.fit(chips(), turned, seed=0)
    assert fitted.scaling.mean == (0.6, 0.4, 0.5)
    assert fitted.scaling.sd == (0.3, 0.1, 0.2)


class TestInflation:
    weight = torch.randn(8, 3, 5, 5, generator=torch.Generator().manual_seed(0))

    def test_same_bands_are_untouched(self):
        assert inflate_stem(self.weight, RGB, RGB) is self.weight

    @pytest.mark.parametrize(
        "bands",
        [("blue", "green", "red", "nir", "swir1"), ("swir1", "nir", "red", "green"), ("red",)],
    )
    def test_sum_over_bands_is_kept(self, bands):
        inflated = inflate_stem(self.weight, RGB, bands)
        assert inflated.shape == (8, len(bands), 5, 5)
        torch.testing.assert_close(inflated.sum(dim=1), self.weight.sum(dim=1))

    def test_known_bands_are_copied_and_others_get_the_mean(self):
        inflated = inflate_stem(self.weight, RGB, ("blue", "green", "red", "nir", "swir1"))
        torch.testing.assert_close(inflated[:, 0], self.weight[:, 2] * 0.6)
        torch.testing.assert_close(inflated[:, 2], self.weight[:, 0] * 0.6)
        torch.testing.assert_close(inflated[:, 4], self.weight.mean(dim=1) * 0.6)

    def test_equal_bands_give_the_response_of_three(self):
        image = torch.randn(1, 1, 20, 20, generator=torch.Generator().manual_seed(1))
        wide = inflate_stem(self.weight, RGB, ("red", "nir", "swir1", "green", "x", "y"))
        torch.testing.assert_close(
            torch.conv2d(image.repeat(1, 6, 1, 1), wide),
            torch.conv2d(image.repeat(1, 3, 1, 1), self.weight),
            rtol=1e-4,
            atol=1e-4,
        )


@pytest.mark.parametrize(
    ("changes", "cube", "word"),
    [
        ({}, {"bands": ("b1", "b2", "b3")}, "name the bands for what they are"),
        ({"other_bands": "refuse"}, {"bands": ("red", "green", "nir")}, "add blue"),
        ({"other_bands": "refuse"}, {"bands": (*RGB, "nir")}, "select band="),
        ({"units": "reflectance"}, {"units": "DN"}, "rescale the imagery"),
        (
            {"ground_sampling_distance_m": {"min": 8, "max": 12}},
            {"resolution": 30.0},
            "30 of the units of its coordinates, the card's 8 to 12 m",
        ),
        ({}, {"size": 20}, "20 pixels"),
        ({"input_size": 64}, {"width": 40}, "32 by 40 pixels.*build square chips"),
    ],
)
def test_cubes_that_do_not_fit_are_refused(tmp_path, weights, changes, cube, word):
    path, sha256, _ = weights
    folder = write_card(tmp_path, weights=weights_entry(path, sha256), **changes)
    encoder = TorchvisionCNN(load_card(folder), path)
    with pytest.raises(ModelCardError, match=word):
        encoder.check(spec(**cube))


def test_all_misfits_are_named_at_once(tmp_path):
    card = load_card(write_card(tmp_path, units="reflectance"))
    with pytest.raises(ModelCardError, match=r"units are.*pixels, the network"):
        card.check(bands=RGB, units="DN", resolution=30.0, height=8, width=9)


def test_input_size_resizes(tmp_path):
    golden = load_card("resnet18").golden.model_dump()
    card = load_card(write_card(tmp_path, "resnet18", input_size=64, golden=golden))
    resized = TorchvisionCNN(card).fit(chips(), spec(), seed=0).transform(chips())
    plain = TorchvisionCNN(load_card("resnet18")).fit(chips(), spec(), seed=0).transform(chips())
    assert resized.shape == plain.shape == (6, 512)
    assert np.abs(resized - plain).max() > 0.1


def test_layout_in_memory_does_not_matter():
    card = load_card("resnet18")
    a = TorchvisionCNN(card, channels_last=True).fit(chips(), spec(), seed=0).transform(chips())
    b = TorchvisionCNN(card, channels_last=False).fit(chips(), spec(), seed=0).transform(chips())
    np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-4 * np.abs(a).max())


@pytest.mark.parametrize(
    ("architecture", "features"),
    [("mobilenet_v3_small", 1024), ("convnext_tiny", 768), ("swin_t", 768), ("densenet121", 1024)],
)
def test_random_weights_depend_on_the_seed_alone(tmp_path, architecture, features):
    card = load_card(write_card(tmp_path, "resnet18", architecture=architecture, features=features))
    runs = []
    for global_seed in (1, 2):
        torch.manual_seed(global_seed)
        fitted = TorchvisionCNN(card).fit(chips(2), spec(), seed=0)
        runs.append(fitted.transform(chips(2)))
    assert runs[0].shape == (2, features)
    assert np.isfinite(runs[0]).all()
    assert runs[0].std() > 0
    np.testing.assert_array_equal(runs[0], runs[1])


@pytest.mark.parametrize(
    ("changes", "word"),
    [
        ({"architecture": "vgg11"}, "Features are taken from"),
        ({"architecture": "resnet19"}, "no architecture"),
        ({"features": 100}, "Write features: 512"),
    ],
)
def test_impossible_networks_are_refused(tmp_path, changes, word):
    card = load_card(write_card(tmp_path, "resnet18", **changes))
    with pytest.raises(ModelCardError, match=word):
        headless_network(card, 3)


def test_wrong_parameters_of_random_conv_are_refused(tmp_path):
    for parameters in ({"patches": "gaussain"}, {"stide": 2}):
        with pytest.raises(ModelCardError, match="random_conv takes"):
            load_encoder(write_card(tmp_path, "random_conv", parameters=parameters))


STATISTICS = {
    "family": "spectral_stats",
    "architecture": "SpectralStats",
    "features": 12,
    "minimum_pixels": 1,
    "golden": {"seed": 0, "size": 32, "first8": [1.0] * 8, "tolerance": 1e9},
}


def test_spectral_statistics_by_card(tmp_path):
    name = KNOWN[0].name
    parameters = {"quantiles": [0.1, 0.9], "indices": [], "texture": {"levels": 4}}
    folder = write_card(
        tmp_path, "random_conv", **STATISTICS | {"parameters": parameters, "features": 42}
    )
    with pytest.raises(ModelCardError, match=r"states 42 features.*gives \d+ for the bands red"):
        load_encoder(folder)
    parameters = {"quantiles": [0.1, 0.9], "indices": [], "texture": None}
    folder = write_card(tmp_path, "random_conv", **STATISTICS | {"parameters": parameters})
    assert load_encoder(folder) == SpectralStats(quantiles=(0.1, 0.9), indices=(), texture=None)
    for wrong in ({"quantile": [0.1]}, {"indices": [name, "nvdi"]}, {"texture": 3}):
        with pytest.raises(ModelCardError, match="spectral_stats takes quantiles, indices"):
            load_encoder(write_card(tmp_path, "random_conv", **STATISTICS | {"parameters": wrong}))


def test_a_card_of_another_family_is_refused():
    with pytest.raises(ModelCardError, match="family 'random_conv'"):
        TorchvisionCNN.from_card("random_conv")


def test_reading_cards_needs_no_torch():
    code = (
        "import sys\nfrom eocausal.encoders.cards import list_cards, load_card\n"
        "[load_card(n) for n in list_cards()]\n"
        "assert 'torch' not in sys.modules\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_imagenet_weights_if_the_user_has_them():
    path = os.environ.get("EOCAUSAL_RESNET18_IMAGENET")
    if path is None:
        pytest.skip("set EOCAUSAL_RESNET18_IMAGENET to the path of resnet18-f37072fd.pth")
    encoder = TorchvisionCNN.from_card("resnet18_imagenet", path)
    fitted = encoder.fit(chips(), spec(), seed=0)
    assert fitted.weights_sha256.startswith("f37072fd")
    assert np.isfinite(fitted.transform(chips())).all()
