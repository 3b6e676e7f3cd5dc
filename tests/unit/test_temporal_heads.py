"""Heads over time: formulas, masks, dates, order, seeds."""

import copy

import numpy as np
import pytest
import torch

from eocausal.encoders.temporal import (
    Deviations,
    Head,
    MeanDifference,
    MeanPool,
    MeanTrend,
    MeanVariance,
)
from eocausal.encoders.temporal_networks import GRU, TemporalAttention, Transformer, encode_dates
from eocausal.errors import EncoderError

FORMULAS = (MeanPool(), MeanDifference(), MeanTrend(), MeanVariance())
TRAINED = (
    GRU(hidden=12),
    TemporalAttention(heads=4, keys=3, width=16, features=10),
    Transformer(layers=2, heads=2, width=12),
)
HEADS = (*FORMULAS, *TRAINED, Deviations(TRAINED[0]))
F, T = 5, 6


def name_of(head: Head) -> str:
    return head.name.replace("(", " ").split()[0]


every_head = pytest.mark.parametrize("head", HEADS, ids=name_of)
trained_heads = pytest.mark.parametrize("head", TRAINED, ids=name_of)


def sequences(n: int = 9, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Row 0 is whole, row 1 has one period, row 2 none; others miss some."""
    rng = np.random.default_rng(seed)
    features = torch.from_numpy(rng.standard_normal((n, T, F)).astype(np.float32))
    present = torch.from_numpy(rng.random((n, T)) < 0.7)
    present[:, 1] = True
    present[0] = True
    present[1] = torch.arange(T) == 3
    present[2] = False
    years = np.arange(T) + rng.uniform(0.1, 0.9, (n, T)) + 12
    years = torch.from_numpy(years.astype(np.float32))
    years[~present] = torch.nan
    return features, present, years


def run(head: Head, *inputs: torch.Tensor, seed: int = 0) -> torch.Tensor:
    with torch.inference_mode():
        return head.build(F, seed=seed)(*inputs)


@every_head
def test_shape_and_finite_even_with_one_period_or_none(head):
    out = run(head, *sequences())
    assert out.shape == (9, head.n_outputs(F))
    assert out.isfinite().all()


@every_head
def test_what_a_missing_period_holds_does_not_matter(head):
    features, present, years = sequences()
    other, later = features.clone(), years.clone()
    other[~present] = torch.nan
    other[4][~present[4]] = 1e30
    later[~present] = 3.0
    assert torch.equal(run(head, features, present, years), run(head, other, present, later))


@every_head
def test_the_order_of_periods_does_not_matter(head):
    features, present, years = sequences()
    order = torch.from_numpy(np.random.default_rng(1).permutation(T))
    whole = run(head, features, present, years)
    turned = run(head, features[:, order], present[:, order], years[:, order])
    torch.testing.assert_close(turned, whole, rtol=1e-5, atol=1e-6)


@every_head
def test_leaving_a_missing_period_out_changes_nothing(head):
    features, present, years = sequences()
    present[:, 2] = False
    kept = [0, 1, 3, 4, 5]
    whole = run(head, features, present, years)
    less = run(head, features[:, kept], present[:, kept], years[:, kept])
    seen = present.any(dim=1)
    torch.testing.assert_close(less[seen], whole[seen], rtol=1e-5, atol=1e-6)


@every_head
def test_batch_does_not_matter(head):
    inputs = sequences()
    whole = run(head, *inputs)
    for i in range(9):
        alone = run(head, *(x[i : i + 1] for x in inputs))
        torch.testing.assert_close(alone[0], whole[i], rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(
    ("head", "shift", "same"),
    [
        (MeanPool(), 1.37, True),
        (MeanDifference(), 1.37, True),
        (MeanTrend(), 1.37, True),
        (MeanVariance(), 1.37, True),
        (TRAINED[0], 2.0, True),
        (TRAINED[0], 0.37, False),
        (TRAINED[1], 2.0, False),
        (TRAINED[2], 2.0, False),
    ],
)
def test_a_shift_of_all_dates(head, shift, same):
    features, present, years = sequences()
    before = run(head, features, present, years)
    after = run(head, features, present, years + shift)
    assert torch.allclose(before, after, rtol=1e-4, atol=1e-4) is same


@trained_heads
def test_uneven_dates_are_seen(head):
    features, present, years = sequences()
    other = years.clone()
    other[0, 3] += 0.4
    before, after = run(head, features, present, years), run(head, features, present, other)
    assert not torch.allclose(before[0], after[0], atol=1e-4)
    assert torch.equal(before[1:], after[1:])


@every_head
def test_gradients_are_finite_and_stop_at_missing_periods(head):
    features, present, years = sequences()
    features[~present] = torch.nan
    features.requires_grad_()
    module = head.build(F, seed=0)
    seen = present.any(dim=1)
    module(features, present, years)[seen].square().sum().backward()
    gradient = features.grad
    assert gradient.isfinite().all()
    assert (gradient[~present] == 0).all()
    assert (gradient[0] != 0).any(dim=1).all()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in module.parameters())


def test_mean_difference_is_the_change_per_year():
    features, present, years = sequences()
    out = run(MeanDifference(), features, present, years).numpy()
    for i in (0, 3, 4):
        there = present[i].numpy()
        f, t = features[i].numpy()[there], years[i].numpy()[there]
        steps = np.diff(f, axis=0)
        np.testing.assert_allclose(out[i, :F], f.mean(axis=0), rtol=1e-5, atol=1e-6)
        expected = steps.sum(axis=0) / np.diff(t).sum()
        np.testing.assert_allclose(out[i, F:], expected, rtol=1e-4, atol=1e-5)
        np.testing.assert_allclose(out[i, F:], (f[-1] - f[0]) / (t[-1] - t[0]), rtol=1e-4)
    assert (out[1, F:] == 0).all()


def test_frames_of_one_day_are_averaged():
    features = torch.tensor([[[1.0], [3.0], [10.0]], [[1.0], [3.0], [10.0]]])
    present = torch.tensor([[True, True, True], [True, True, False]])
    years = torch.tensor([[5.0, 5.0, 7.0], [5.0, 5.0, 5.0]])
    module = MeanDifference().build(1, seed=0)
    torch.testing.assert_close(
        module(features, present, years), torch.tensor([[14 / 3, 4.0], [2.0, 0.0]])
    )
    trend = MeanTrend().build(1, seed=0)(features, present, years)
    torch.testing.assert_close(trend[:, 1], torch.tensor([4.0, 0.0]))


def test_mean_trend_is_the_least_squares_slope():
    features, present, years = sequences()
    out = run(MeanTrend(), features, present, years).numpy()
    for i in (0, 3, 4):
        there = present[i].numpy()
        slopes = np.polyfit(years[i].numpy()[there], features[i].numpy()[there], 1)[0]
        np.testing.assert_allclose(out[i, F:], slopes, rtol=1e-3, atol=1e-4)
    assert (out[1, F:] == 0).all()


def test_mean_variance_is_numpys():
    features, present, years = sequences()
    out = run(MeanVariance(), features, present, years).numpy()
    for i in (0, 3, 4):
        f = features[i].numpy()[present[i].numpy()]
        np.testing.assert_allclose(out[i, F:], f.var(axis=0), rtol=1e-4)
    assert (out[1, F:] == 0).all()


@pytest.mark.parametrize("inner", [MeanVariance(), *TRAINED], ids=name_of)
def test_deviations_hide_what_a_place_is_like_and_show_what_changes(inner):
    features, present, years = sequences()
    head = Deviations(inner)
    assert head.trained == inner.trained
    assert head.n_outputs(F) == inner.n_outputs(F)
    out = run(head, features, present, years)
    torch.testing.assert_close(run(head, features + 5.0, present, years), out, rtol=1e-4, atol=1e-4)
    centred = features[:1] - features[:1].mean(dim=1, keepdim=True)
    torch.testing.assert_close(run(inner, centred, present[:1], years[:1]), out[:1])
    changed = features.clone()
    changed[0, 2] += 1.0
    assert not torch.allclose(run(head, changed, present, years)[0], out[0], atol=1e-3)


def test_only_mean_pool_is_the_mean():
    features, present, years = sequences()
    out = run(MeanPool(), features, present, years)
    torch.testing.assert_close(out[0], features[0].mean(dim=0))
    torch.testing.assert_close(out[1], features[1, 3])


def test_a_gru_step_is_torchs():
    """One image on the first of January: gap 0, sine 0, cosine 1."""
    module = GRU(hidden=4).build(F, seed=3)
    cell = torch.nn.GRUCell(F + 3, 4)
    cell.load_state_dict(
        {
            "weight_ih": module.read.weight,
            "bias_ih": module.read.bias,
            "weight_hh": module.recall.weight,
            "bias_hh": module.recall.bias,
        }
    )
    frames = torch.randn(2, 3, F, generator=torch.Generator().manual_seed(0))
    years = torch.tensor([[10.0, 11.0, 13.0], [10.0, 11.0, 13.0]])
    state = torch.zeros(2, 4)
    for k, gap in enumerate((0.0, 1.0, 2.0)):
        state = cell(torch.cat([frames[:, k], torch.tensor([[gap, 0.0, 1.0]] * 2)], 1), state)
    out = module(frames, torch.ones(2, 3, dtype=torch.bool), years)
    torch.testing.assert_close(out, state, rtol=1e-4, atol=1e-5)


def test_attention_with_one_period_is_that_period():
    """With one period every softmax is 1, whatever the queries."""
    features, present, years = sequences()
    module = TRAINED[1].build(F, seed=0)
    other = copy.deepcopy(module)
    with torch.no_grad():
        other.pool.queries.weight.mul_(-3.0)
    first, second = (m(features, present, years) for m in (module, other))
    torch.testing.assert_close(first[1], second[1])
    assert not torch.allclose(first[0], second[0])


def test_encoded_dates_go_from_the_day_of_the_year_to_the_century():
    years = torch.tensor([3.25, 4.25, 28.0])
    codes = encode_dates(years, 8)
    assert codes.shape == (3, 8)
    torch.testing.assert_close(codes[:2, :2], torch.tensor([[1.0, 0.0]] * 2), rtol=0, atol=1e-4)
    assert not torch.allclose(codes[0, 2:], codes[1, 2:], atol=0.02)
    period = 100.0 ** (1 / 3)
    torch.testing.assert_close(codes[2, 2:4], _on_circle(28.0 / period), rtol=0, atol=1e-4)
    torch.testing.assert_close(codes[2, 6:], _on_circle(0.28), rtol=0, atol=1e-5)


def _on_circle(turns: float) -> torch.Tensor:
    angle = torch.tensor(2 * torch.pi * turns)
    return torch.stack([angle.sin(), angle.cos()])


@trained_heads
def test_weights_depend_on_the_seed_alone(head):
    torch.manual_seed(1)
    state = torch.get_rng_state()
    first = head.build(F, seed=7).state_dict()
    assert torch.equal(torch.get_rng_state(), state)
    torch.manual_seed(2)
    second, third = head.build(F, seed=7).state_dict(), head.build(F, seed=8).state_dict()
    assert all(torch.equal(first[k], second[k]) for k in first)
    assert not all(torch.equal(first[k], third[k]) for k in first)
    assert head.trained
    assert not any(h.trained for h in FORMULAS)


@trained_heads
def test_a_head_learns_growth_from_noisy_levels(head):
    """The label is the slope; the level, ten times larger, says nothing."""
    rng = np.random.default_rng(0)
    n, half = 300, 200
    slope, level = rng.standard_normal(n), 3.0 * rng.standard_normal(n)
    years = np.sort(rng.uniform(10, 20, (n, T)), axis=1).astype(np.float32)
    values = level[:, None] + 0.3 * slope[:, None] * (years - 15)
    features = torch.from_numpy(np.repeat(values[..., None], F, axis=2).astype(np.float32)) / 3
    present = torch.from_numpy(rng.random((n, T)) < 0.9)
    label = torch.from_numpy(slope.astype(np.float32))
    years = torch.from_numpy(years)
    module = head.build(F, seed=0)
    last = torch.nn.Linear(head.n_outputs(F), 1)
    torch.nn.init.zeros_(last.weight)
    torch.nn.init.zeros_(last.bias)
    optimiser = torch.optim.AdamW([*module.parameters(), *last.parameters()], 2e-2)
    for _ in range(80):
        fit = last(module(features[:half], present[:half], years[:half]))[:, 0]
        loss = (fit - label[:half]).square().mean()
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    with torch.inference_mode():
        fit = last(module(features[half:], present[half:], years[half:]))[:, 0]
    assert np.corrcoef(fit.numpy(), slope[half:])[0, 1] > 0.8


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: GRU(hidden=0), "hidden below 1"),
        (lambda: TemporalAttention(heads=3, width=16), "width=18"),
        (lambda: TemporalAttention(keys=0), "keys below 1"),
        (lambda: Transformer(heads=5, width=64), "width=60"),
        (lambda: Transformer(heads=1, width=7), "width=8"),
        (lambda: Transformer(layers=0), "layers below 1"),
    ],
)
def test_impossible_sizes_are_refused(make, words):
    with pytest.raises(EncoderError, match=words):
        make()
