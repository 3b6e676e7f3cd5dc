"""Training without labels, and the changes of chips it rests on."""

import numpy as np
import pytest
import torch
from training_helpers import Tiny, bright_world

from eocausal.encoders.augment import BandJitter, Crop, FlipsAndTurns, HiddenSquares, augment
from eocausal.encoders.schedule import TrainingSchedule
from eocausal.encoders.self_supervised import BYOL, SimCLR, nt_xent
from eocausal.encoders.training import train_encoder
from eocausal.errors import EncoderError
from eocausal.folds import GroupFolds


def chips(n: int = 40, periods: int = 0, size: int = 8) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    shape = (n, *((periods,) if periods else ()))
    valid = torch.rand(*shape, size, size, generator=generator) > 0.1
    values = torch.randn(*shape, 2, size, size, generator=generator)
    return torch.where(valid.unsqueeze(-3), values, 0.0), valid


def test_nt_xent_is_its_formula():
    rng = np.random.default_rng(0)
    first, second = rng.normal(size=(2, 5, 3))
    both = np.concatenate([first, second])
    both /= np.linalg.norm(both, axis=1, keepdims=True)
    expected = []
    for i in range(10):
        terms = {j: np.exp(both[i] @ both[j] / 0.3) for j in range(10) if j != i}
        expected.append(-np.log(terms[(i + 5) % 10] / sum(terms.values())))
    found = nt_xent(torch.from_numpy(first), torch.from_numpy(second), 0.3)
    assert found.item() == pytest.approx(np.mean(expected), rel=1e-9)


@pytest.mark.parametrize("periods", [0, 3])
@pytest.mark.parametrize("rule", [FlipsAndTurns(), Crop(), HiddenSquares(), BandJitter()])
def test_changes_leave_hidden_pixels_at_zero_and_arguments_alone(rule, periods):
    values, valid = chips(periods=periods)
    before = values.clone(), valid.clone()
    changed, mask = augment((rule,), values, valid, np.random.default_rng(0))
    again, _ = augment((rule,), values, valid, np.random.default_rng(0))
    assert torch.equal(values, before[0])
    assert torch.equal(valid, before[1])
    assert torch.equal(changed, again)
    assert not torch.equal(changed, values)
    assert (changed.masked_select(~mask.unsqueeze(-3)) == 0).all()
    assert mask.flatten(1).any(dim=1).all()


def test_flips_and_turns_are_all_eight_and_only_these():
    values, valid = chips(n=1)
    many = augment(
        (FlipsAndTurns(),),
        values.expand(400, -1, -1, -1),
        valid.expand(400, -1, -1),
        np.random.default_rng(0),
    )[0]
    expected = {
        turned.numpy().tobytes()
        for k in range(4)
        for turned in (
            torch.rot90(values[0], k, (1, 2)).contiguous(),
            torch.rot90(values[0].flip(2), k, (1, 2)).contiguous(),
        )
    }
    assert {chip.contiguous().numpy().tobytes() for chip in many} == expected
    assert len(expected) == 8


def test_oblong_chips_keep_their_shape():
    values, valid = torch.zeros(9, 2, 4, 6), torch.ones(9, 4, 6, dtype=torch.bool)
    changed, mask = FlipsAndTurns()(values, valid, np.random.default_rng(0))
    assert changed.shape == values.shape
    assert mask.shape == valid.shape


def test_all_periods_of_a_place_turn_alike():
    values, valid = chips(periods=3)
    values[:, 1:], valid[:, 1:] = values[:, :1], valid[:, :1]
    changed, _ = FlipsAndTurns()(values, valid, np.random.default_rng(0))
    assert torch.equal(changed[:, 0], changed[:, 2])


def test_a_chip_that_would_vanish_stays():
    values, valid = chips(n=30)
    valid[:] = False
    valid[:, 0, 0] = True
    _, mask = Crop(0.2)(values, valid, np.random.default_rng(0))
    assert torch.equal(mask, valid)


@pytest.mark.parametrize("objective", [SimCLR(), BYOL()])
def test_without_labels_one_network_serves_all(objective):
    cube, units = bright_world()
    schedule = TrainingSchedule(epochs=10, batch_size=32, learning_rate=0.01)
    trained = train_encoder(cube, Tiny(), objective, schedule=schedule, device="cpu")
    assert len(trained.networks) == 1
    assert (trained.fold == 0).all()
    history = trained.history
    assert history["training"].iloc[-3:].mean() < history["training"].iloc[1:4].mean()
    assert history["held_out"].isna().all()
    assert history["kept"].tolist() == [False] * 10 + [True]
    watched = train_encoder(
        cube, Tiny(), objective, units, folds=GroupFolds("group", k=3), schedule=schedule,
        device="cpu",
    )  # fmt: skip
    assert watched.history["held_out"].notna().all()
    with pytest.raises(EncoderError, match="predicts nothing"):
        trained.predict(cube)


def test_decisions_that_make_no_sense_are_refused():
    for wrong in (
        lambda: SimCLR(temperature=0),
        lambda: BYOL(momentum=1),
        lambda: Crop(2),
        lambda: HiddenSquares(side=0),
        lambda: TrainingSchedule(epochs=0),
        lambda: TrainingSchedule(epochs=2.5),
        lambda: TrainingSchedule(learning_rate=float("inf")),
    ):
        with pytest.raises(EncoderError, match="Next: "):
            wrong()
