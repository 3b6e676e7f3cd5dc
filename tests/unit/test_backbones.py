"""Backbones: every architecture against torchvision's own, and networks to be trained."""

import hashlib
from collections import OrderedDict
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml

from eocausal.encoders.cards import card_folders, load_card
from eocausal.encoders.core import Architecture, Encoder, ImageSpec, Scaling
from eocausal.encoders.image import TorchvisionCNN
from eocausal.encoders.initial_weights import draw_weights, untouched_seeds
from eocausal.encoders.small_cnn import SmallCNN, masked_mean_max
from eocausal.encoders.torchvision_import import import_torchvision
from eocausal.encoders.torchvision_models import CardFeatures, headless_network, load_state
from eocausal.errors import EncoderError, ModelCardError

RGB = ("red", "green", "blue")
HEADS = {"resnet": "fc", "swin": "head", "vit": "heads.head"}


def spec(bands=RGB, size=32, units="DN") -> ImageSpec:
    return ImageSpec(tuple(bands), units, 30.0, size, size)


def chips(n: int = 2, bands: int = 3, size: int = 32, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=(n, bands, size, size)).astype(np.float32)


def source_network(architecture: str) -> torch.nn.Module:
    """Torchvision's network, head included: seeded weights, statistics of what it has seen."""
    models = import_torchvision().models
    network = untouched_seeds(lambda: models.get_model(architecture, weights=None))
    draw_weights(network, 1)
    norms = [m for m in network.modules() if isinstance(m, torch.nn.BatchNorm2d)]
    for norm in norms:
        norm.momentum = None
    if norms:
        with torch.no_grad(), torch.random.fork_rng(devices=[]):
            network.train()(torch.from_numpy(chips(16, size=64, seed=9)))
    return network.eval()


def without_head(network: torch.nn.Module, architecture: str) -> torch.nn.Module:
    known = [path for family, path in HEADS.items() if architecture.startswith(family)]
    path = known[0] if known else f"classifier.{len(network.classifier) - 1}"
    parent, _, last = path.rpartition(".")
    setattr(network.get_submodule(parent), last, torch.nn.Identity())
    return network


def encoder_with(network: torch.nn.Module, base: str, folder: Path, **changes) -> TorchvisionCNN:
    """Save a network's weights and load them by a copy of a card."""
    folder.mkdir(exist_ok=True)
    path = folder / "own.pth"
    torch.save(network.state_dict(), path)
    source = next(f / base for f in card_folders() if (f / base).is_dir())
    content = yaml.safe_load((source / "config.yaml").read_text()) | {"name": folder.name}
    content["weights"] = {
        "file": path.name,
        "sha256": hashlib.sha256(path.read_bytes()).hexdigest(),
        "licence": "own",
        "source": "here",
    }
    (folder / "config.yaml").write_text(yaml.safe_dump(content | changes))
    return TorchvisionCNN.from_card(folder)


@pytest.fixture(scope="module")
def resnet(tmp_path_factory) -> TorchvisionCNN:
    folder = tmp_path_factory.mktemp("cards") / "mine"
    return encoder_with(source_network("resnet18"), "resnet18_imagenet", folder)


@pytest.mark.parametrize(
    ("architecture", "features", "size"),
    [
        ("resnet18", 512, 32),
        ("resnet50", 2048, 32),
        ("convnext_tiny", 768, 32),
        ("swin_t", 768, 48),
        ("efficientnet_v2_s", 1280, 32),
    ],
)
def test_features_are_those_of_torchvision_before_the_head(tmp_path, architecture, features, size):
    network = source_network(architecture)
    encoder = encoder_with(network, f"{architecture}_imagenet", tmp_path / "mine")
    images = chips(size=size)
    fitted = encoder.fit(images, spec(size=size), seed=0)
    values, _ = fitted.scaling.apply(images)
    with torch.inference_mode():
        expected = without_head(network, architecture)(torch.from_numpy(values)).numpy()
    found = fitted.transform(images)
    assert found.shape == (2, features)
    assert expected.std() > 0
    np.testing.assert_allclose(found, expected, rtol=1e-3, atol=1e-4 * np.abs(expected).max())


@pytest.mark.slow
def test_a_vision_transformer_gives_its_class_token_at_any_size():
    from torchvision.models.vision_transformer import interpolate_embeddings

    source = source_network("vit_b_16")
    state = source.state_dict()
    source = without_head(source, "vit_b_16")
    card = load_card("vit_b_16_imagenet")
    for size in (224, 48):
        images = torch.from_numpy(chips(size=size))
        sized = card.model_copy(update={"input_size": size})
        network = untouched_seeds(lambda card=sized: headless_network(card, 3))
        load_state(network, state, sized)
        if size != 224:
            positions = interpolate_embeddings(size, 16, OrderedDict(state))
            source.encoder.pos_embedding = torch.nn.Parameter(positions["encoder.pos_embedding"])
            source.image_size = size
        with torch.inference_mode():
            expected = source(images)
            found = CardFeatures(network.eval(), size, channels_last=True)(images, images[:, 0] > 0)
        assert found.shape == (2, 768)
        torch.testing.assert_close(found, expected, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize(("size", "word"), [(None, "no input_size"), (50, "multiple of the patch")])
def test_a_vision_transformer_needs_a_size_that_fits(size, word):
    card = load_card("vit_b_16_imagenet").model_copy(update={"input_size": size, "weights": None})
    with pytest.raises(ModelCardError, match=word):
        TorchvisionCNN(card).fit(chips(), spec(), seed=0)


class TestTraining:
    def test_it_is_an_encoder_and_an_architecture(self, resnet):
        assert isinstance(resnet, Encoder)
        assert isinstance(resnet, Architecture)
        assert not resnet.sequence

    def test_it_begins_with_the_weights_of_the_card(self, resnet):
        images = chips(4)
        fitted = resnet.fit(images, spec(), seed=0)
        backbone = resnet.build(spec(), seed=0)
        assert backbone.n_features == fitted.n_features == 512
        values, valid = map(torch.from_numpy, fitted.scaling.apply(images))
        with torch.inference_mode():
            found = backbone.module.eval()(values, valid).numpy()
        np.testing.assert_allclose(found, fitted.transform(images), rtol=1e-4, atol=1e-5)

    def test_every_layer_learns_and_gradients_reach_the_pixels(self, resnet):
        module = resnet.build(spec((*RGB, "nir")), seed=0).module
        assert module.training
        assert all(p.requires_grad for p in module.parameters())
        norms = [m for m in module.modules() if isinstance(m, torch.nn.BatchNorm2d)]
        before = norms[0].running_mean.clone()
        values = torch.randn(4, 4, 32, 32, generator=torch.Generator().manual_seed(0))
        values.requires_grad_()
        module(values, torch.ones(4, 32, 32, dtype=torch.bool)).square().mean().backward()
        assert all(p.grad is not None and p.grad.isfinite().all() for p in module.parameters())
        assert values.grad.abs().amax(dim=(0, 2, 3)).min() > 0
        assert not torch.equal(norms[0].running_mean, before)

    def test_random_weights_come_from_the_seed_alone(self):
        encoder = TorchvisionCNN(load_card("resnet18"))
        torch.manual_seed(5)
        first = encoder.build(spec(), seed=3).module.state_dict()
        drawn = torch.rand(1)
        torch.manual_seed(5)
        assert torch.equal(drawn, torch.rand(1))
        again = encoder.build(spec(), seed=3).module.state_dict()
        other = encoder.build(spec(), seed=4).module.state_dict()
        assert all(torch.equal(first[k], again[k]) for k in first)
        assert not torch.equal(first["network.conv1.weight"], other["network.conv1.weight"])

    def test_inflating_leaves_global_seeds_alone(self, resnet):
        torch.manual_seed(5)
        resnet.build(spec((*RGB, "nir")), seed=0)
        drawn = torch.rand(1)
        torch.manual_seed(5)
        assert torch.equal(drawn, torch.rand(1))

    def test_a_fixed_scaling_is_refused(self, tmp_path):
        encoder = encoder_with(
            source_network("resnet18"),
            "resnet18_imagenet",
            tmp_path / "mine",
            scaling={"mean": [0.0] * 3, "sd": [255.0] * 3},
            other_bands="refuse",
            units="DN",
        )
        encoder.fit(chips(), spec(), seed=0)
        with pytest.raises(ModelCardError, match="write 'scaling: from_data'"):
            encoder.build(spec(), seed=0)


def crosses(n: int, seed: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Chips of noise with a ``+`` or an ``x`` of the same pixels at a random place."""
    rng = np.random.default_rng(seed)
    images = rng.normal(0, 0.2, (n, 2, 24, 24)).astype(np.float32)
    plus = rng.integers(2, size=n)
    for image, kind in zip(images, plus, strict=True):
        row, column = rng.integers(3, 21, size=2)
        for step in range(-2, 3):
            down, right = ((step, 0), (0, step)) if kind else ((step, step), (step, -step))
            for dy, dx in (down, right):
                image[:, row + dy, column + dx] = 2.0
    return torch.from_numpy(images), torch.from_numpy(plus.astype(np.float32))


class TestSmallCNN:
    def features(self, values, valid, **kwargs):
        module = SmallCNN(**kwargs).build(spec(size=values.shape[-1]), seed=0).module
        with torch.inference_mode():
            return module.eval()(values, valid)

    def test_it_is_an_architecture(self):
        small = SmallCNN(widths=(16, 32))
        assert isinstance(small, Architecture)
        backbone = small.build(spec(), seed=0)
        assert (backbone.n_features, backbone.minimum_pixels) == (64, 4)

    @pytest.mark.parametrize("size", [16, 17, 33, 48])
    def test_any_size_gives_the_stated_features(self, size):
        values = torch.from_numpy(chips(3, size=size))
        found = self.features(values, torch.ones(3, size, size, dtype=torch.bool))
        assert found.shape == (3, 256)
        assert found.isfinite().all()
        assert found.std() > 0

    @pytest.mark.parametrize("training", [True, False])
    def test_a_chip_does_not_depend_on_its_batch(self, training):
        module = SmallCNN().build(spec(), seed=0).module.train(training)
        values, valid = torch.from_numpy(chips(8)), torch.ones(8, 32, 32, dtype=torch.bool)
        with torch.no_grad():
            together = module(values, valid)
            alone = torch.cat(
                [module(v[None], m[None]) for v, m in zip(values, valid, strict=True)]
            )
        torch.testing.assert_close(together, alone, rtol=1e-5, atol=1e-5)

    def test_a_gap_is_not_the_same_as_average_ground(self):
        values, valid = torch.from_numpy(chips(2)), torch.ones(2, 32, 32, dtype=torch.bool)
        values[:, :, :16] = 0
        gap = valid.clone()
        gap[:, :16] = False
        assert (self.features(values, valid) - self.features(values, gap)).abs().max() > 1e-3

    def test_nothing_seen_is_finite_in_both_directions(self):
        module = SmallCNN().build(spec(), seed=0).module
        values = torch.zeros(2, 3, 32, 32, requires_grad=True)
        found = module(values, torch.zeros(2, 32, 32, dtype=torch.bool))
        found.sum().backward()
        assert torch.equal(found, torch.zeros_like(found))
        assert values.grad.isfinite().all()
        assert all(p.grad.isfinite().all() for p in module.parameters())

    def test_pooling_is_that_of_the_places_seen(self):
        rng = np.random.default_rng(0)
        maps, weight = rng.normal(size=(3, 4, 5, 6)), rng.uniform(size=(3, 1, 5, 6))
        weight[weight < 0.4] = 0
        found = masked_mean_max(torch.from_numpy(maps), torch.from_numpy(weight)).numpy()
        for i in range(3):
            seen = weight[i, 0] > 0
            expected = np.average(maps[i][:, seen], axis=1, weights=weight[i, 0][seen])
            np.testing.assert_allclose(found[i, :4], expected)
            np.testing.assert_allclose(found[i, 4:], maps[i][:, seen].max(axis=1))

    def test_weights_come_from_the_seed_alone(self):
        states = []
        for global_seed in (1, 2):
            torch.manual_seed(global_seed)
            states.append(SmallCNN().build(spec(), seed=0).module.state_dict())
        assert all(torch.equal(states[0][k], states[1][k]) for k in states[0])
        other = SmallCNN().build(spec(), seed=1).module.state_dict()
        assert not torch.equal(states[0]["stem.weight"], other["stem.weight"])

    def test_it_learns_a_shape_that_band_statistics_do_not_show(self):
        backbone = SmallCNN(widths=(16, 32, 64)).build(spec(("a", "b"), size=24), seed=0)
        head = untouched_seeds(lambda: torch.nn.Linear(backbone.n_features, 1))
        draw_weights(head, 0)
        parameters = [*backbone.module.parameters(), *head.parameters()]
        optimiser = torch.optim.AdamW(parameters, 2e-3)
        images, plus = crosses(512, seed=0)
        order = torch.Generator().manual_seed(0)
        for _ in range(60):
            rows = torch.randperm(512, generator=order)[:64]
            valid = torch.ones(64, 24, 24, dtype=torch.bool)
            logit = head(backbone.module(images[rows], valid))[:, 0]
            loss = torch.nn.functional.binary_cross_entropy_with_logits(logit, plus[rows])
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
        images, plus = crosses(400, seed=1)
        with torch.inference_mode():
            valid = torch.ones(400, 24, 24, dtype=torch.bool)
            right = (head(backbone.module.eval()(images, valid))[:, 0] > 0) == (plus > 0)
        assert right.float().mean() > 0.9

    @pytest.mark.parametrize(
        "kwargs",
        [
            {"widths": ()},
            {"widths": (12,)},
            {"groups": 0},
            {"widths": 32},
            {"widths": (32.0,)},
            {"widths": [32]},
            {"widths": (32,), "groups": 8.0},
        ],
    )
    def test_impossible_decisions_are_refused(self, kwargs):
        with pytest.raises(EncoderError, match="widths are"):
            SmallCNN(**kwargs)

    def test_small_chips_are_refused(self):
        with pytest.raises(EncoderError, match="needs at least 16"):
            SmallCNN().check(spec(size=15))


def test_scaling_of_a_card_and_of_a_sample_differ(resnet):
    images = chips(8) * 3 + 5
    assert resnet.fit(images, spec(), seed=0).scaling == Scaling.from_images(images, RGB)


@pytest.mark.parametrize("name", [pytest.param("vit_b_16", marks=pytest.mark.slow), "swin_t"])
def test_random_weights_do_not_depend_on_the_global_seed(name):
    drawn = []
    for seed in (1, 2):
        torch.manual_seed(seed)
        network = import_torchvision().models.get_model(name, weights=None)
        draw_weights(network, 0)
        drawn.append(network.state_dict())
    for key, value in drawn[0].items():
        torch.testing.assert_close(value, drawn[1][key], rtol=0, atol=0, msg=key)


@pytest.mark.parametrize("seed", [-1, 0.5, None, True])
@pytest.mark.parametrize("network", [SmallCNN(), TorchvisionCNN(load_card("resnet18"))])
def test_a_seed_that_is_none_is_refused(network, seed):
    with pytest.raises(EncoderError, match="The seed is"):
        network.build(spec(), seed=seed)


@pytest.mark.parametrize("network", [SmallCNN(), TorchvisionCNN(load_card("resnet18"))])
def test_networks_are_float32_whatever_the_default(network):
    expected = network.build(spec(), seed=0).module.state_dict()
    torch.set_default_dtype(torch.float64)
    try:
        found = network.build(spec(), seed=0).module.state_dict()
    finally:
        torch.set_default_dtype(torch.float32)
    torch.testing.assert_close(found, expected, rtol=0, atol=0)
