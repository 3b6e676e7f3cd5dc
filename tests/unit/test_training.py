"""Cross-fitted training: who learns from what, what is kept, what comes out."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch
from training_helpers import Tiny, bright_world

from eocausal.contracts import check_embedding
from eocausal.encoders.base import open_embedding
from eocausal.encoders.core import Backbone, ImageSpec
from eocausal.encoders.crossfit import align, fold_of_neighborhoods, parts_of, rows_of_units
from eocausal.encoders.dragonnet import Dragonnet
from eocausal.encoders.objectives import Objective, Outcome, Propensity
from eocausal.encoders.schedule import TrainingSchedule
from eocausal.encoders.self_supervised import BYOL, SimCLR
from eocausal.encoders.small_cnn import SmallCNN
from eocausal.encoders.standardised import Standardised
from eocausal.encoders.trained import TrainedEncoder
from eocausal.encoders.trained_files import load_trained
from eocausal.encoders.training import train_encoder
from eocausal.errors import AlignmentError, DeviceError, EncoderError, FoldError
from eocausal.folds import GroupFolds, RandomFolds

CUBE, UNITS = bright_world()
FOLDS = GroupFolds("group", k=3)
SCHEDULE = TrainingSchedule(epochs=4, batch_size=16, learning_rate=0.05)


def trained(objective: Objective | None = None, units: pd.DataFrame = UNITS, **given):
    settings = {"folds": FOLDS, "schedule": SCHEDULE, "device": "cpu", "seed": 3} | given
    architecture = settings.pop("architecture", Tiny())
    cube = settings.pop("cube", CUBE)
    return train_encoder(cube, architecture, objective or Propensity(), units, **settings)


@pytest.fixture(scope="module")
def propensity() -> TrainedEncoder:
    return trained()


@pytest.fixture(scope="module")
def dragonnet() -> TrainedEncoder:
    return trained(Dragonnet(), schedule=replace(SCHEDULE, epochs=12))


def same_weights(one: TrainedEncoder, two: TrainedEncoder) -> bool:
    return one.weights_sha256 == two.weights_sha256 and all(
        torch.equal(a, b)
        for s, t in zip(one.scored, two.scored, strict=True)
        for a, b in zip(s.state_dict().values(), t.state_dict().values(), strict=True)
    )


def test_it_learns(propensity):
    p = propensity.predict(CUBE, device="cpu")["propensity"]
    known = p.notna()
    truth = UNITS.set_index("neighborhood")
    assert list(p.index[~known]) == ["n04"]
    assert np.corrcoef(p[known], truth["bright"][known])[0, 1] > 0.8
    best = propensity.history.query("kept")
    assert (best["held_out"] < 0.66).all()


@pytest.mark.parametrize("fold", [0, 2])
def test_labels_of_a_fold_do_not_reach_its_own_network(propensity, fold):
    own = propensity.fold[propensity.fold == fold].index
    changed = UNITS.copy()
    rows = changed["neighborhood"].isin(own)
    changed.loc[rows, "treated"] = 1 - changed.loc[rows, "treated"]
    other = trained(units=changed)
    assert (other.fold == propensity.fold).all()
    pair = [t.encode(CUBE, device="cpu").sel(neighborhood=own).values for t in (propensity, other)]
    np.testing.assert_array_equal(*pair)
    pair = [t.predict(CUBE, device="cpu").loc[own] for t in (propensity, other)]
    pd.testing.assert_frame_equal(*pair, check_exact=True)
    elsewhere = [
        t.predict(CUBE, device="cpu").drop(own)["propensity"].dropna() for t in (propensity, other)
    ]
    assert not (elsewhere[0] == elsewhere[1]).any()


def test_the_same_seed_gives_the_same_bits_however_chips_are_read(propensity):
    state = torch.get_rng_state()
    assert same_weights(trained(memory=0, readers=3), propensity)
    assert torch.equal(state, torch.get_rng_state())
    assert not same_weights(trained(seed=4), propensity)


def test_dropout_is_seeded_too():
    schedule = replace(SCHEDULE, epochs=2)
    runs = [trained(architecture=Tiny(dropout=0.3), schedule=schedule) for _ in range(2)]
    assert same_weights(*runs)


def test_history_keeps_the_epoch_with_the_lowest_held_out_loss(propensity):
    history = propensity.history
    assert list(history.columns) == ["fold", "epoch", "training", "held_out", "rate", "kept"]
    for _, rows in history.groupby("fold"):
        assert rows["held_out"][rows["kept"]].item() == rows["held_out"].min()
        assert rows["epoch"].tolist() == list(range(len(rows)))


def test_training_stops_when_held_out_losses_no_longer_fall():
    noise = UNITS.assign(treated=np.random.default_rng(0).integers(0, 2, len(UNITS)))
    schedule = replace(SCHEDULE, epochs=60, patience=2)
    history = trained(units=noise, schedule=schedule).history
    for _, rows in history.groupby("fold"):
        assert len(rows) - 1 == rows["epoch"][rows["kept"]].item() + 2


def test_without_held_out_folds_the_last_epoch_is_kept():
    run = trained(schedule=replace(SCHEDULE, held_out=0, epochs=2), folds=GroupFolds("group", k=2))
    assert run.history["held_out"].isna().all()
    assert (run.history.query("kept")["epoch"] == 2).all()


def test_dragonnet_predicts_both_arms_in_the_outcome_s_units(dragonnet):
    found = dragonnet.predict(CUBE, device="cpu").dropna()
    assert list(found.columns) == ["propensity", "outcome_0", "outcome_1", "effect"]
    np.testing.assert_allclose(found["effect"], found["outcome_1"] - found["outcome_0"])
    assert found["effect"].mean() == pytest.approx(20, abs=6)
    bright = UNITS.set_index("neighborhood")["bright"][found.index]
    assert np.corrcoef(found["outcome_0"], bright)[0, 1] > 0.8


def test_what_salience_asks_for_is_what_is_predicted(dragonnet):
    k = 1
    own = dragonnet.fold[dragonnet.fold == k].index.difference(["n04"])
    encoder = dragonnet.networks[k]
    chips = CUBE["image"].sel(neighborhood=own).values[:, 0]
    values, valid = (torch.from_numpy(a) for a in encoder.scaling.apply(chips))
    found = dragonnet.predict(CUBE, device="cpu").loc[own]
    effect = dragonnet.effect(k)(values, valid).numpy()
    np.testing.assert_allclose(effect, found["effect"], rtol=1e-4, atol=1e-4)
    logit = dragonnet.logit(k)(values, valid).numpy()
    np.testing.assert_allclose(1 / (1 + np.exp(-logit)), found["propensity"], rtol=1e-4)
    values.requires_grad_()
    dragonnet.outcome(k, arm=1)(values, valid).sum().backward()
    assert values.grad.abs().sum() > 0
    with pytest.raises(EncoderError, match="by networks 0 to 2"):
        dragonnet.outcome(k)


def test_the_embedding_is_one_with_folds_and_says_so(propensity, tmp_path):
    embedding = propensity.encode(CUBE, device="cpu", out=tmp_path / "embedding.zarr")
    check_embedding(embedding)
    assert embedding.attrs["cross_fitted"] == "by fold"
    assert embedding.attrs["weights_sha256"] == propensity.weights_sha256
    assert (embedding["fold"].to_series() == propensity.fold).all()
    assert embedding.attrs["leading_features"] == "logit"
    p = propensity.predict(CUBE, device="cpu")["propensity"]
    np.testing.assert_allclose(1 / (1 + np.exp(-embedding[:, 0])), p, rtol=1e-5)
    row = embedding.sel(neighborhood="n07")
    chip = CUBE["image"].sel(neighborhood="n07").values
    own = propensity.networks[int(row["fold"])].transform(chip)[0]
    np.testing.assert_allclose(row, own, rtol=1e-4, atol=1e-5)
    written = open_embedding(tmp_path / "embedding.zarr")
    np.testing.assert_array_equal(written, embedding)
    assert (written["fold"] == embedding["fold"]).all()


def test_scores_alone_are_the_first_features(dragonnet):
    scores = dragonnet.only_scores().encode(CUBE, device="cpu")
    assert scores.sizes["feature"] == 3
    whole = dragonnet.encode(CUBE, device="cpu")[:, :3]
    np.testing.assert_allclose(scores, whole, rtol=1e-5, atol=1e-6)
    with pytest.raises(EncoderError, match="cannot be written by itself"):
        dragonnet.only_scores().save("anywhere")


def test_networks_have_one_coordinate_system(propensity):
    images = CUBE["image"].values[6:, 0]
    features = [network.transform(images) for network in propensity.networks]
    for one, two in ((0, 1), (1, 2)):
        same = np.mean(
            [np.corrcoef(features[one][:, j], features[two][:, j])[0, 1] for j in range(7)]
        )
        assert same > 0.7


def test_procrustes_undoes_a_turn():
    rng = np.random.default_rng(0)
    reference = rng.normal(size=(200, 5)) * [3, 2, 1, 1, 0.5]
    turn = np.linalg.qr(rng.normal(size=(5, 5)))[0]
    turned = (7 * reference @ turn + 4).astype(np.float32)
    head = Propensity().head(5, seed=0)
    back = align(torch.nn.Identity(), head, turned, reference.astype(np.float32), 0)
    found = back(torch.from_numpy(turned)).detach().numpy()
    np.testing.assert_array_equal(found[:, 0], head(torch.from_numpy(turned)).detach()[:, 0])
    expected = reference - reference.mean(axis=0)
    np.testing.assert_allclose(found[:, 1:], expected / np.sqrt(np.mean(expected**2)), atol=1e-4)
    faint = reference.astype(np.float32) * np.array([1, 1, 1, 1, 1e-4], np.float32)
    kept = align(torch.nn.Identity(), head, faint, faint, 0)(torch.from_numpy(faint))
    assert (kept[:, 1:] == 0).all(dim=0).tolist() == [False] * 4 + [True]
    with pytest.raises(EncoderError, match="the same for all chips"):
        align(torch.nn.Identity(), head, np.ones((9, 5), np.float32), turned[:9], 0)


def test_places_without_a_fold_get_the_mean_over_networks():
    some = UNITS.iloc[:72]
    run = trained(units=some)
    embedding = run.encode(CUBE, device="cpu")
    assert (embedding["fold"][72:] == -1).all()
    images = CUBE["image"].values[72:, 0]
    mean = np.mean([network.transform(images) for network in run.networks], axis=0)
    np.testing.assert_allclose(embedding[72:], mean, rtol=1e-4, atol=1e-5)
    assert run.predict(CUBE, device="cpu")["propensity"].iloc[72:].notna().all()


def test_units_without_label_are_embedded_and_not_learnt_from():
    hidden = UNITS.assign(treated=UNITS["treated"].astype(float).where(UNITS.index % 4 != 0))
    flipped = UNITS.assign(treated=np.where(UNITS.index % 4 == 0, 7, UNITS["treated"]))
    flipped["treated"] = flipped["treated"].where(flipped["treated"] != 7, np.nan)
    one, two = trained(units=hidden), trained(units=flipped)
    assert same_weights(one, two)
    assert not same_weights(one, trained())
    assert one.predict(CUBE, device="cpu")["propensity"].notna().sum() == len(UNITS) - 1


def test_units_of_one_place_teach_as_one_place_with_their_weight():
    twice = pd.concat([UNITS, UNITS], ignore_index=True)
    once, both = trained(), trained(units=twice, folds=GroupFolds("group", k=3))
    pair = [t.predict(CUBE, device="cpu")["propensity"] for t in (once, both)]
    np.testing.assert_allclose(*pair, rtol=1e-3)
    with pytest.raises(FoldError, match="units in several folds"):
        trained(units=twice, folds=RandomFolds(3))


def test_parts_are_whole_folds_and_never_the_own():
    for part in parts_of(5, 2):
        assert sorted((*part.training, *part.held_out, part.network)) == list(range(5))
        assert len(part.held_out) == 2
    with pytest.raises(FoldError, match="at least 3 folds"):
        parts_of(2, 1)


def test_folds_follow_neighborhoods():
    labels = CUBE.indexes["neighborhood"]
    row = rows_of_units(UNITS.set_index("neighborhood"), labels)
    fold = fold_of_neighborhoods(UNITS.iloc[:50], row[:50], labels, FOLDS, seed=0)
    assert (fold[50:] == -1).all()
    assert pd.Series(fold[:50]).groupby(UNITS["group"][:50]).nunique().max() == 1
    with pytest.raises(AlignmentError, match="not in the cube"):
        rows_of_units(UNITS.assign(neighborhood="elsewhere"), labels)


@pytest.mark.parametrize("objective", [Propensity(smoothing=0.1), Outcome(), SimCLR()])
def test_written_networks_are_the_same_networks(objective, tmp_path):
    run = trained(
        objective, architecture=SmallCNN(widths=(8,)), schedule=replace(SCHEDULE, epochs=1)
    )
    run.save(tmp_path / "networks")
    again = load_trained(tmp_path / "networks")
    assert again.objective == objective
    assert again.architecture == SmallCNN(widths=(8,))
    assert same_weights(run, again)
    pd.testing.assert_frame_equal(run.history, again.history)
    pd.testing.assert_series_equal(run.fold, again.fold, check_index_type=False)
    np.testing.assert_array_equal(
        run.encode(CUBE, device="cpu").values, again.encode(CUBE, device="cpu").values
    )


def test_periods_of_a_place_share_its_weight():
    cube, units = bright_world(periods=2)
    cube["image"][:, 1] = cube["image"][:, 0]
    schedule = replace(SCHEDULE, epochs=12)
    run = trained(cube=cube, units=units, schedule=schedule)
    assert run.encode(cube, device="cpu").dims == ("neighborhood", "period", "feature")
    p = run.predict(cube, device="cpu")["propensity"]
    assert len(p) == 90
    assert np.corrcoef(p.dropna(), units["bright"].to_numpy()[p.notna()])[0, 1] > 0.5


def test_sequences_are_read_with_their_dates():
    cube, units = bright_world(periods=4)
    cube["image"][:30, 1] = np.nan
    cube["valid"][:30, 1] = 0
    schedule = replace(SCHEDULE, epochs=15)
    architecture = Tiny(sequence=True)
    run = trained(cube=cube, units=units, architecture=architecture, schedule=schedule)
    assert run.encode(cube, device="cpu").dims == ("neighborhood", "feature")
    p = run.predict(cube, device="cpu")["propensity"]
    assert list(p.index[p.isna()]) == ["n04"]
    assert np.corrcoef(p.dropna(), units["bright"].to_numpy()[p.notna()])[0, 1] > 0.5


def test_places_with_one_image_each_teach_no_sequence():
    cube, units = bright_world(periods=4)
    cube["image"][:, 1:] = np.nan
    cube["valid"][:, 1:] = 0
    for few in (cube, cube.isel(period=[0])):
        with pytest.raises(EncoderError, match="There is no change to see in a single image"):
            trained(cube=few, units=units, architecture=Tiny(sequence=True))


class _LoudAndFaint(torch.nn.Module):
    """Means of the bands: the one that tells treatment is a hundred times smaller."""

    def forward(self, values: torch.Tensor, valid: torch.Tensor) -> torch.Tensor:
        return values.mean(dim=(2, 3)) * torch.tensor([0.01, 1.0]) + 3.0


class LoudAndFaint:
    name = "loud and faint"
    sequence = False

    def check(self, spec: ImageSpec) -> None:
        pass

    def build(self, spec: ImageSpec, *, seed: int) -> Backbone:
        return Backbone(_LoudAndFaint(), 2)


def test_a_faint_feature_is_learnt_beside_a_loud_one():
    """Change per year is far smaller than level, and a rate that suits one is for both."""
    schedule = replace(SCHEDULE, epochs=12, learning_rate=0.3)
    run = trained(architecture=LoudAndFaint(), schedule=schedule)
    p = run.predict(CUBE, device="cpu")["propensity"].dropna()
    bright = UNITS.set_index("neighborhood")["bright"][p.index]
    assert np.corrcoef(p, bright)[0, 1] > 0.8
    assert p.std() > 0.05


def test_features_have_one_scale_before_the_first_step():
    rng = torch.Generator().manual_seed(0)
    features = torch.randn(200, 4, generator=rng) * torch.tensor([100.0, 1.0, 0.0, 0.01]) + 7
    rows = torch.cat([features, torch.full((1, 4), torch.nan)])
    network = Standardised(torch.nn.Identity(), 4)
    network.take(rows)
    found = network(features)
    size = features.var(dim=0, correction=0).mean().sqrt()
    torch.testing.assert_close(found.mean(dim=0) / size, torch.zeros(4), atol=1e-4, rtol=0)
    sd = found.std(dim=0, correction=0) / size
    torch.testing.assert_close(sd[:2], torch.ones(2), atol=1e-4, rtol=0)
    assert (sd[2:] < 0.001).all()  # what hardly varies is not blown up
    before = network.spread.clone()
    network.take(rows[-1:])
    assert torch.equal(network.spread, before)


def test_chips_that_hold_nothing_though_the_cube_says_so_are_left_out():
    cube, units = bright_world(periods=2)
    cube["image"][10] = np.nan
    cube["image"][11, 1] = np.nan
    assert (cube["valid"][10:12] > 0).all()
    run = trained(cube=cube, units=units, architecture=SmallCNN(widths=(8,)))
    p = run.predict(cube, device="cpu")["propensity"]
    assert list(p.index[p.isna()]) == ["n04", "n10"]
    alone = cube.isel(period=[0]).drop_vars(["period_start", "period_end"])
    same = run.predict(alone, device="cpu")["propensity"]
    np.testing.assert_allclose(p["n11"], same["n11"], rtol=1e-5)


def test_following_networks_draw_by_the_seed_too():
    """A network with dropout, followed by a slow one that has dropout as well."""
    runs = []
    for number in (1, 2):
        torch.manual_seed(number)
        state = torch.get_rng_state()
        runs.append(trained(BYOL(), architecture=Tiny(dropout=0.3), schedule=SCHEDULE))
        assert torch.equal(torch.get_rng_state(), state)
    assert same_weights(*runs)


def test_without_labels_the_names_of_places_do_not_matter():
    run = trained(SimCLR(), None, folds=None, schedule=replace(SCHEDULE, epochs=1))
    elsewhere = CUBE.assign_coords(lon=CUBE["lon"] + 1)
    np.testing.assert_array_equal(
        run.encode(CUBE, device="cpu"), run.encode(elsewhere, device="cpu")
    )


def test_batches_of_two_leave_no_chip_alone():
    few = CUBE.isel(neighborhood=slice(5, 10))
    schedule = replace(SCHEDULE, batch_size=2, epochs=1)
    run = trained(BYOL(), None, folds=None, schedule=schedule, cube=few)
    assert np.isfinite(run.encode(few, device="cpu")).all()


def test_reduced_precision_is_for_gpus_alone():
    schedule = replace(SCHEDULE, mixed_precision=True, epochs=2)
    with pytest.raises(DeviceError, match=r"mixed_precision=True was asked for on cpu.*Next: "):
        trained(schedule=schedule)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA GPU")
def test_reduced_precision_is_near_full_precision():
    schedule = replace(SCHEDULE, mixed_precision=True, epochs=2)
    one = trained(schedule=schedule, device="cuda")
    full = trained(schedule=replace(SCHEDULE, epochs=2), device="cuda")
    assert not same_weights(one, full)
    np.testing.assert_allclose(one.history["training"], full.history["training"], rtol=0.05)
