"""Scores against plain sums, statsmodels, and sandwiches of stacked equations."""

import warnings

import numpy as np
import pytest
import statsmodels.api as sm
from scipy.optimize import minimize
from statsmodels.treatment.treatment_effects import TreatmentEffect

from eocausal.errors import EstimationError, OverlapError
from eocausal.estimators.aipw import aipw_ate, aipw_ato, aipw_att
from eocausal.estimators.arm_means import Estimand
from eocausal.estimators.balancing import balance_by_cbps, balance_by_entropy
from eocausal.estimators.hajek import hajek_means

ATE, ATT, ATO = Estimand.ATE, Estimand.ATT, Estimand.ATO


def draw(n=400, arms=2, seed=0, columns=3):
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(n, columns))
    slopes = 0.7 * rng.normal(size=(columns, arms))
    slopes[:, 0] = 0
    eta = x @ slopes
    arm = (eta + rng.gumbel(size=eta.shape)).argmax(axis=1)
    y = x.sum(axis=1) + 1.5 * arm + 0.5 * x[:, 0] * arm + rng.normal(size=n)
    return y, arm, x


def design(x):
    return np.column_stack([np.ones(len(x)), x])


def softmax(eta):
    e = np.exp(eta - eta.max(axis=1, keepdims=True))
    return e / e.sum(axis=1, keepdims=True)


def logit(arm, x):
    """Return coefficients (q, K-1) and probabilities (n, K) by statsmodels."""
    z = design(x)
    if arm.max() == 1:
        found = sm.Logit(arm, z).fit(disp=0, tol=1e-14, maxiter=100)
        coefficients = found.params[:, None]
    else:
        found = sm.MNLogit(arm, z).fit(disp=0, tol=1e-14, maxiter=100, method="newton")
        coefficients = np.asarray(found.params)
    return coefficients, softmax(np.column_stack([np.zeros(len(z)), z @ coefficients]))


def weights_of(arm, e, estimand):
    own = e[np.arange(len(arm)), arm]
    if estimand is ATE:
        return 1 / own
    if estimand is ATT:
        return e[:, 1] / own
    return 1 / (1 / e).sum(axis=1) / own


def sandwich(equations, theta):
    """Return (n, m) influence values of M-estimates, the derivative taken numerically."""
    psi = equations(theta)
    slope = np.empty((len(theta), len(theta)))
    for j in range(len(theta)):
        step = 1e-5 * max(1.0, abs(theta[j]))
        move = np.zeros(len(theta))
        move[j] = step
        up, down = equations(theta + move).sum(axis=0), equations(theta - move).sum(axis=0)
        slope[:, j] = (up - down) / (2 * step)
    assert np.abs(psi.sum(axis=0)).max() < 1e-6 * np.abs(psi).sum(axis=0).max()
    return -psi @ np.linalg.inv(slope).T


def indicators(arm, arms):
    return (arm[:, None] == np.arange(arms)).astype(float)


CASES = [(2, ATE), (2, ATT), (2, ATO), (3, ATE), (3, ATO), (4, ATO)]


@pytest.mark.parametrize(("arms", "estimand"), CASES)
def test_hajek_is_a_weighted_mean_within_arms(arms, estimand):
    y, arm, x = draw(arms=arms)
    e = logit(arm, x)[1]
    w = weights_of(arm, e, estimand)
    found = hajek_means(y, arm, e, estimand)
    np.testing.assert_allclose(found.weights, w, rtol=1e-12)
    for k in range(arms):
        mine = arm == k
        assert found.value[k] == pytest.approx(np.average(y[mine], weights=w[mine]), rel=1e-12)
    # With given probabilities it is weighted least squares on indicators, White's variance.
    wls = sm.WLS(y, indicators(arm, arms), weights=w).fit(cov_type="HC0")
    np.testing.assert_allclose(found.influence.T @ found.influence, wls.cov_params(), atol=1e-12)


@pytest.mark.parametrize(("arms", "estimand"), CASES)
def test_hajek_knows_that_probabilities_were_estimated(arms, estimand):
    y, arm, x = draw(arms=arms)
    z, q = design(x), x.shape[1] + 1
    gamma, e = logit(arm, x)
    found = hajek_means(y, arm, e, estimand, design=z)
    given = hajek_means(y, arm, e, estimand)
    np.testing.assert_array_equal(found.value, given.value)
    assert np.abs(found.influence - given.influence).max() > 1e-5

    def equations(theta):
        p = softmax(np.column_stack([np.zeros(len(z)), z @ theta[: q * (arms - 1)].reshape(q, -1)]))
        error = indicators(arm, arms)[:, 1:] - p[:, 1:]
        scores = (z[:, :, None] * error[:, None, :]).reshape(len(z), -1)
        w = weights_of(arm, p, estimand)
        left = w[:, None] * indicators(arm, arms) * (y[:, None] - theta[q * (arms - 1) :])
        return np.column_stack([scores, left])

    wanted = sandwich(equations, np.concatenate([gamma.reshape(-1), found.value]))
    np.testing.assert_allclose(found.influence, wanted[:, -arms:], atol=1e-8)


@pytest.mark.parametrize(("estimand", "group"), [(ATE, "all"), (ATT, 1)])
def test_hajek_and_its_variance_are_those_of_statsmodels(estimand, group):
    y, arm, x = draw()
    z = design(x)
    fit = sm.Logit(arm, z).fit(disp=0, tol=1e-14)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # statsmodels' own, on its generalised method of moments
        theirs = TreatmentEffect(sm.OLS(y, z), arm, results_select=fit).ipw(
            return_results=True, effect_group=group, disp=False
        )
    found = hajek_means(y, arm, logit(arm, x)[1], estimand, design=z)
    psi = found.influence[:, 1] - found.influence[:, 0]
    assert found.value[1] - found.value[0] == pytest.approx(theirs.effect[0], rel=1e-9)
    assert np.sqrt(psi @ psi) == pytest.approx(theirs.results_gmm.bse[0], rel=1e-6)


def test_the_design_may_be_scaled_and_shifted():
    y, arm, x = draw()
    e = logit(arm, x)[1]
    plain = hajek_means(y, arm, e, ATE, design=design(x)).influence
    odd = np.column_stack([np.full(len(x), 7.0), 1e3 + 1e4 * x @ np.diag([1, 1e-3, 3])])
    np.testing.assert_allclose(hajek_means(y, arm, e, ATE, design=odd).influence, plain, atol=1e-9)


def test_two_arms_overlap_weights_are_the_probability_of_the_other_arm():
    y, arm, x = draw()
    e = logit(arm, x)[1]
    found = hajek_means(y, arm, e, ATO)
    np.testing.assert_allclose(found.weights, e[np.arange(len(arm)), 1 - arm], rtol=1e-12)


def test_the_att_is_not_defined_for_several_treatments():
    y, arm, x = draw(arms=3)
    e = logit(arm, x)[1]
    with pytest.raises(EstimationError, match="population of its own"):
        hajek_means(y, arm, e, ATT)
    with pytest.raises(EstimationError, match="compares two arms"):
        balance_by_entropy(y, arm, x, ATT)
    with pytest.raises(EstimationError, match="compares two arms"):
        balance_by_cbps(y, arm, x, ATE)


@pytest.mark.parametrize("normalised", [True, False])
def test_aipw_scores(normalised):
    y, arm, x = draw()
    e, a = logit(arm, x)[1], arm == 1
    m = np.column_stack([sm.OLS(y[arm == k], design(x[arm == k])).fit().predict(design(x))
                         for k in (0, 1)])  # fmt: skip
    found = aipw_ate(y, arm, e, m, normalised=normalised)
    effect = found.value[1] - found.value[0]
    psi = found.influence[:, 1] - found.influence[:, 0]
    if normalised:
        one = m[:, 1].mean() + np.average((y - m[:, 1])[a], weights=1 / e[a, 1])
        zero = m[:, 0].mean() + np.average((y - m[:, 0])[~a], weights=1 / e[~a, 0])
        assert effect == pytest.approx(one - zero, rel=1e-12)
    else:
        gamma = m[:, 1] - m[:, 0]
        gamma += np.where(a, (y - m[:, 1]) / e[:, 1], -(y - m[:, 0]) / e[:, 0])
        assert effect == pytest.approx(gamma.mean(), rel=1e-12)
        np.testing.assert_allclose(psi, (gamma - effect) / len(y), atol=1e-14)
    assert abs(psi.sum()) < 1e-12

    found = aipw_att(y, arm, e, m, normalised=normalised)
    effect = found.value[1] - found.value[0]
    psi = found.influence[:, 1] - found.influence[:, 0]
    odds, left = e[:, 1] / e[:, 0], y - m[:, 0]
    total = odds[~a].sum() if normalised else a.sum()
    bias = (odds * left)[~a].sum() / total
    assert effect == pytest.approx(left[a].mean() - bias, rel=1e-12)
    if not normalised:
        score = np.where(a, left, -odds * left) / a.mean()
        np.testing.assert_allclose(psi, (score - a / a.mean() * effect) / len(y), atol=1e-13)
    assert abs(psi.sum()) < 1e-12


def test_residual_on_residual_is_least_squares():
    y, arm, x = draw()
    e = logit(arm, x)[1]
    m = np.column_stack([x.sum(axis=1), x.sum(axis=1) + 1])
    left = y - (e * m).sum(axis=1)
    ols = sm.OLS(left, arm - e[:, 1]).fit(cov_type="HC0")
    found = aipw_ato(y, arm, e, m)
    psi = found.influence[:, 1] - found.influence[:, 0]
    assert found.value[1] - found.value[0] == pytest.approx(ols.params[0], rel=1e-12)
    assert np.sqrt(psi @ psi) == pytest.approx(ols.bse[0], rel=1e-12)


def test_aipw_of_several_arms_gives_each_arm_its_own_mean():
    y, arm, x = draw(arms=3)
    e = logit(arm, x)[1]
    m = np.zeros((len(y), 3))
    found = aipw_ate(y, arm, e, m)
    np.testing.assert_allclose(found.value, hajek_means(y, arm, e, ATE).value, rtol=1e-12)
    np.testing.assert_allclose(
        found.influence, hajek_means(y, arm, e, ATE).influence, atol=1e-14
    )  # fmt: skip


@pytest.mark.parametrize(("arms", "estimand"), [(2, ATE), (2, ATT), (3, ATE)])
def test_entropy_balancing_balances_with_the_least_divergence(arms, estimand):
    y, arm, x = draw(arms=arms)
    found = balance_by_entropy(y, arm, x, estimand)
    target = x.mean(axis=0) if estimand is ATE else x[arm == 1].mean(axis=0)
    assert (found.weights > 0).all()
    for k in range(arms):
        mine = arm == k
        w = found.weights[mine]
        np.testing.assert_allclose(w @ x[mine] / w.sum(), target, atol=1e-10)
        if estimand is ATT and k == 1:
            np.testing.assert_array_equal(w, 1.0)
            continue
        z = x[mine] - target
        dual = minimize(
            lambda at, z=z: np.log(np.exp(-z @ at).sum()),
            np.zeros(x.shape[1]), method="BFGS", options={"gtol": 1e-9},
        )  # fmt: skip
        plain = np.exp(-z @ dual.x)
        np.testing.assert_allclose(w / w.sum(), plain / plain.sum(), rtol=1e-5)


@pytest.mark.parametrize("ridge", [0.0, 0.05])
@pytest.mark.parametrize(("arms", "estimand"), [(2, ATE), (2, ATT), (3, ATE)])
def test_entropy_balancing_knows_that_weights_and_target_were_estimated(arms, estimand, ridge):
    y, arm, x = draw(arms=arms)
    sd, p = x.std(axis=0), x.shape[1]
    found = balance_by_entropy(y, arm, x, estimand, ridge=ridge)
    people = np.ones(len(y), dtype=bool) if estimand is ATE else arm == 1
    balanced = [k for k in range(arms) if estimand is ATE or k == 0]

    def equations(theta):
        target = theta[:p]
        z, out = (x - target) / sd, [people[:, None] * (x - target)]
        for i, k in enumerate(balanced):
            at = theta[p * (i + 1) : p * (i + 2)]
            mine, w = arm == k, np.exp(-z @ at)
            out.append((mine * w)[:, None] * (z - ridge * at))
        for j, k in enumerate(range(arms)):
            at = (
                theta[p * (balanced.index(k) + 1) : p * (balanced.index(k) + 2)]
                if (k in balanced)
                else np.zeros(p)
            )
            w = (arm == k) * np.exp(-z @ at)
            out.append((w * (y - theta[p * (len(balanced) + 1) + j]))[:, None])
        return np.column_stack(out)

    target = x[people].mean(axis=0)
    tilts = []
    for k in balanced:
        w = found.weights[arm == k]
        z = design((x[arm == k] - target) / sd)
        tilts.append(-np.linalg.lstsq(z, np.log(w), rcond=None)[0][1:])
    start = np.concatenate([target, *tilts, found.value])
    wanted = sandwich(equations, start)[:, -arms:]
    np.testing.assert_allclose(found.influence, wanted, atol=2e-8)


@pytest.mark.parametrize("estimand", [ATE, ATT, ATO])
def test_cbps_balances_and_knows_that_it_was_estimated(estimand):
    y, arm, x = draw()
    z, q = design(x), x.shape[1] + 1
    found = balance_by_cbps(y, arm, x, estimand)
    one, zero = (found.weights * (arm == k) for k in (1, 0))
    np.testing.assert_allclose(one @ z, zero @ z, rtol=1e-10, atol=1e-9)

    def equations(theta):
        p = softmax(np.column_stack([np.zeros(len(z)), z @ theta[:q]]))
        w = weights_of(arm, p, estimand)
        left = w[:, None] * indicators(arm, 2) * (y[:, None] - theta[q:])
        return np.column_stack([(w * (2 * arm - 1))[:, None] * z, left])

    odds = np.log({ATE: found.weights - 1, ATT: found.weights, ATO: 1 / found.weights - 1}[estimand]
                  [arm == 0])  # fmt: skip
    gamma = np.linalg.lstsq(z[arm == 0], odds * (-1 if estimand is ATO else 1), rcond=None)[0]
    wanted = sandwich(equations, np.concatenate([gamma, found.value]))[:, -2:]
    np.testing.assert_allclose(found.influence, wanted, atol=1e-8)


def test_cbps_and_entropy_balancing_are_one_for_the_att_and_logit_and_cbps_for_the_ato():
    y, arm, x = draw()
    cbps, entropy = balance_by_cbps(y, arm, x, ATT), balance_by_entropy(y, arm, x, ATT)
    np.testing.assert_allclose(cbps.value, entropy.value, rtol=1e-10)
    np.testing.assert_allclose(cbps.influence, entropy.influence, atol=1e-12)
    cbps = balance_by_cbps(y, arm, x, ATO)
    hajek = hajek_means(y, arm, logit(arm, x)[1], ATO, design=design(x))
    np.testing.assert_allclose(cbps.weights, hajek.weights, rtol=1e-8)
    np.testing.assert_allclose(cbps.influence, hajek.influence, atol=1e-10)


@pytest.mark.parametrize("balance", [balance_by_entropy, balance_by_cbps])
@pytest.mark.parametrize("estimand", [ATE, ATT])
def test_constant_dependent_and_scaled_columns_change_nothing(balance, estimand):
    y, arm, x = draw()
    plain = balance(y, arm, x, estimand)
    more = np.column_stack([x * [1e5, 1e-5, 1], np.full(len(x), 3.0), x[:, 0] + 2 * x[:, 1] - 4])
    same = balance(y, arm, more, estimand)
    np.testing.assert_allclose(same.value, plain.value, rtol=1e-9)
    np.testing.assert_allclose(same.influence, plain.influence, atol=1e-10)
    alone = balance(y, arm, x[:, :0], estimand)
    np.testing.assert_allclose(
        alone.value, [y[arm == 0].mean(), y[arm == 1].mean()], rtol=1e-12
    )  # fmt: skip


@pytest.mark.parametrize("balance", [balance_by_entropy, balance_by_cbps])
@pytest.mark.parametrize("kind", ["no control has it", "beyond all controls"])
def test_what_cannot_be_balanced_is_named(balance, kind):
    y, arm, x = draw()
    rng = np.random.default_rng(3)
    if kind == "no control has it":
        x[:, 1] = np.where(arm == 1, rng.random(len(x)) < 0.3, 0.0)
    else:
        x[:, 1] = np.where(arm == 1, 3 + rng.random(len(x)), rng.random(len(x)))
    with pytest.raises(OverlapError, match="'slope'") as caught:
        balance(y, arm, x, ATT, names=("height", "slope", "rain"))
    assert "'height'" not in caught.value.fact
    assert "approximate balance" in caught.value.next_step


def test_more_columns_than_units_cannot_be_balanced_exactly_but_nearly():
    y, arm, x = draw(n=80, columns=60)
    names = tuple(f"feature {j}" for j in range(60))
    with pytest.raises(OverlapError, match=r"too many columns \(60\)"):
        balance_by_entropy(y, arm, x, ATT, names=names)
    found = balance_by_entropy(y, arm, x, ATT, ridge=0.1, names=names)
    treated, control = x[arm == 1], x[arm == 0]
    w = found.weights[arm == 0]
    gap = np.abs(w @ control / w.sum() - treated.mean(axis=0)) / x.std(axis=0)
    assert f"{gap.max():.2g} standard deviations (feature {gap.argmax()})" in found.note
    before = np.abs(control.mean(axis=0) - treated.mean(axis=0)) / x.std(axis=0)
    assert gap.max() < 0.8 * before.max()
    less = balance_by_entropy(y, arm, x, ATT, ridge=1.0).weights[arm == 0]
    assert less.std() < w.std()


def test_a_ridge_gives_up_balance_in_proportion_to_the_tilt():
    y, arm, x = draw()
    ridge, target = 0.2, x[arm == 1].mean(axis=0)
    w = balance_by_entropy(y, arm, x, ATT, ridge=ridge).weights[arm == 0]
    z = (x[arm == 0] - target) / x.std(axis=0)
    tilt = -np.linalg.lstsq(design(z), np.log(w), rcond=None)[0][1:]
    np.testing.assert_allclose(w @ z / w.sum(), ridge * tilt, atol=1e-9)


def test_entropy_balancing_refuses_what_it_has_not():
    y, arm, x = draw()
    with pytest.raises(EstimationError, match="no ATO"):
        balance_by_entropy(y, arm, x, ATO)
    with pytest.raises(EstimationError, match="not a penalty"):
        balance_by_entropy(y, arm, x, ATT, ridge=-1.0)
