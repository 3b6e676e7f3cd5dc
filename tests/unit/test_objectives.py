"""Objectives: labels by neighborhood, losses against their formulas, heads."""

import numpy as np
import pandas as pd
import pytest
import torch

from eocausal.encoders.dragonnet import Dragonnet
from eocausal.encoders.objectives import Labels, Outcome, Propensity, average_labels
from eocausal.encoders.training_chips import Moments, scaling_of
from eocausal.errors import AssignmentError, MissingColumnError, OneArmError, OutcomeError

UNITS = pd.DataFrame(
    {
        "treated": [1, 0, 1, np.nan, 0, 1],
        "outcome": [3.0, 1.0, np.nan, 9.0, 2.0, 5.0],
        "row": [0, 0, 0, 1, 2, 2],
    }
)
ROW = UNITS["row"].to_numpy()
CPU = torch.device("cpu")


def features(n: int, f: int = 4) -> torch.Tensor:
    return torch.randn(1, n, f, generator=torch.Generator().manual_seed(0))


def shaken(head: torch.nn.Module) -> torch.nn.Module:
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in head.parameters():
            parameter.add_(torch.randn(parameter.shape, generator=generator))
    return head


def test_labels_are_means_over_units_with_their_number():
    labels = average_labels(Dragonnet().quantities(UNITS), ROW, 4)
    np.testing.assert_allclose(labels.mean[:, 0], [2 / 3, 0, 0.5, 0])
    np.testing.assert_array_equal(labels.weight[:, 0], [3, 0, 2, 0])
    np.testing.assert_allclose(labels.mean[0], [2 / 3, 1.0, 3.0])
    np.testing.assert_array_equal(labels.weight[0], [3, 1, 1])
    np.testing.assert_array_equal(labels.known(), [True, False, True, False])


def test_the_propensity_loss_of_neighborhoods_is_that_of_their_units():
    objective = Propensity()
    head = shaken(objective.head(4, seed=0))
    z = features(4)
    labels = average_labels(objective.quantities(UNITS), ROW, 4)
    loss = head.loss(z, labels.targets(CPU), None).item()
    known = UNITS["treated"].notna().to_numpy()
    p = torch.sigmoid(head(z[0]))[:, 0].detach().numpy()[ROW[known]]
    t = UNITS["treated"].to_numpy()[known]
    assert loss == pytest.approx(-np.mean(t * np.log(p) + (1 - t) * np.log(1 - p)), rel=1e-5)


def test_label_smoothing_draws_labels_to_one_half():
    sharp, smooth = Propensity(), Propensity(smoothing=0.2)
    z = features(3)
    labels = Labels(np.array([[1.0], [0.0], [1.0]]), np.ones((3, 1)))
    drawn = Labels(np.array([[0.9], [0.1], [0.9]]), np.ones((3, 1)))
    loss = shaken(smooth.head(4, seed=0)).loss(z, labels.targets(CPU), None)
    other = shaken(sharp.head(4, seed=0)).loss(z, drawn.targets(CPU), None)
    torch.testing.assert_close(loss, other)


def test_a_head_begins_at_the_mean_of_its_labels():
    labels = average_labels(Dragonnet().quantities(UNITS), ROW, 4)
    head = Dragonnet().head(4, seed=3)
    head.begin(torch.nn.Identity(), labels)
    table = head.table(head(features(5)[0]).detach().numpy().astype(float))
    np.testing.assert_allclose(table["propensity"], 3 / 5, rtol=1e-5)
    np.testing.assert_allclose(table["outcome_0"], 11 / 4, rtol=1e-5)
    np.testing.assert_allclose(table["effect"], 0, atol=1e-5)


@pytest.mark.parametrize("b", [0.0, 0.7])
def test_dragonnet_is_its_formula_unit_by_unit(b):
    units = pd.DataFrame({"treated": [1, 0, 1, 0, 1], "outcome": [3.0, 1.0, 4.0, 2.5, 5.0]})
    row = np.array([0, 1, 2, 3, 4])
    objective = Dragonnet(targeted_regularisation=b, propensity_weight=2.0, hidden=3)
    head = objective.head(4, seed=0)
    labels = average_labels(objective.quantities(units), row, 5)
    head.begin(torch.nn.Identity(), labels)
    shaken(head)
    # begin's buffers are not parameters, so that the scale of the outcome is as it was
    z = features(5)
    loss = head.loss(z, labels.targets(CPU), None).item()
    t, y = units["treated"].to_numpy(), units["outcome"].to_numpy()
    raw = head(z[0]).detach().numpy().astype(float)
    g = 1 / (1 + np.exp(-raw[:, 0]))
    q = np.where(t == 1, raw[:, 2], raw[:, 1])
    error = (y - q) / y.std()
    shrunk = (g + 0.01) / 1.02
    h = t / shrunk - (1 - t) / (1 - shrunk)
    expected = np.mean(error**2) - 2 * np.mean(t * np.log(g) + (1 - t) * np.log(1 - g))
    expected += b * np.mean((error - float(head.epsilon.detach()) * h) ** 2)
    assert loss == pytest.approx(expected, rel=1e-4)


def test_outcomes_come_back_in_their_units():
    labels = Labels(np.array([[100.0], [300.0], [0.0]]), np.array([[1.0], [1.0], [0.0]]))
    head = Outcome().head(4, seed=0)
    head.begin(torch.nn.Identity(), labels)
    np.testing.assert_allclose(head(features(2)[0]).detach(), 200.0)
    targets = labels.targets(CPU)
    assert head.loss(features(3), targets, None).item() == pytest.approx(1.0)


@pytest.mark.parametrize(
    ("column", "error"),
    [([0, 1, 2], AssignmentError), (["a", 1, 0], OutcomeError), ([np.inf, 1, 0], OutcomeError)],
)
def test_a_treatment_is_zero_or_one(column, error):
    with pytest.raises(error, match="Next: "):
        Propensity().quantities(pd.DataFrame({"treated": column}))


def test_what_teaches_nothing_is_refused():
    with pytest.raises(MissingColumnError, match="outcome"):
        Outcome().quantities(pd.DataFrame({"treated": [0]}))
    one = Labels(np.ones((3, 1)), np.ones((3, 1)))
    with pytest.raises(OneArmError, match="treated = 1"):
        Propensity().check(one, "here")
    with pytest.raises(OutcomeError, match="in every neighborhood here"):
        Outcome().check(one, "here")


def test_scaling_from_moments_is_that_of_all_pixels():
    rng = np.random.default_rng(0)
    pixels = rng.normal(10_000, 3, (4, 50, 2))
    known = Moments(
        np.full(4, 50.0),
        pixels.mean(axis=1),
        ((pixels - pixels.mean(axis=1, keepdims=True)) ** 2).sum(axis=1),
        np.zeros(4, "V16"),
    )
    scaling = scaling_of(known, np.array([0, 2, 3]), ("a", "b"))
    chosen = pixels[[0, 2, 3]].reshape(-1, 2)
    np.testing.assert_allclose(scaling.mean, chosen.mean(axis=0), rtol=1e-12)
    np.testing.assert_allclose(scaling.sd, chosen.std(axis=0), rtol=1e-9)
