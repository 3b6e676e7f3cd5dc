"""CPU time of the models behind a weighted effect, penalties chosen within spatial folds.

One propensity and two outcome models on an embedding, five folds of spatial blocks, nine penalties
chosen inside the training units of each fold. scikit-learn's LogisticRegressionCV and RidgeCV get
the same columns, folds, inner folds and penalties, in this process, on one thread; so do, with
``--peers``, DoubleML and EconML with these learners (inner folds at random; EconML chooses each
penalty once, from all units). The first line is the ratio of CPU times (target: 8), with the
held-out losses of both.

    python benchmarks/weighting.py                  # about 2 minutes
    python -P benchmarks/weighting.py --peers       # about 5 minutes, needs doubleml and econml; -P
                                                    # because numba would import coverage.py here
    python benchmarks/weighting.py --scale          # seconds and memory of the whole estimate
                                                    # up to 200,000 units, about 3 minutes
"""

import argparse
import multiprocessing
import resource
import time
import warnings

import numpy as np
import pandas as pd
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegressionCV, RidgeCV
from threadpoolctl import threadpool_limits

from eocausal.estimators.confounders import Confounders
from eocausal.estimators.inner_folds import inner_splits
from eocausal.estimators.observational import Observed
from eocausal.estimators.penalties import GRID
from eocausal.estimators.ridge import Ridge
from eocausal.estimators.ridge_logit import RidgeLogit
from eocausal.folds import SpatialBlocks, Splits, split

FOLDS = SpatialBlocks(km=100)
EDGE_DEGREES = 14.0
EFFECT = 1.0


def world(n: int, p: int, *, seed: int) -> Observed:
    """Draw places whose embedding varies over space and carries all confounders."""
    rng = np.random.default_rng(seed)
    units = pd.DataFrame({"lon": rng.uniform(0, EDGE_DEGREES, n), "lat": rng.uniform(-7, 7, n)})
    wave = rng.normal(size=(2, 32)) / 2.0
    smooth = np.sqrt(2) * np.cos(units.to_numpy() @ wave + rng.uniform(0, 2 * np.pi, 32))
    latent = np.concatenate([smooth, rng.normal(size=(n, 96))], axis=1)
    latent *= (1 + np.arange(128)) ** -0.5
    z = latent @ rng.normal(size=(128, p))
    for row in range(0, n, 10_000):
        z[row : row + 10_000] += 0.5 * rng.normal(size=z[row : row + 10_000].shape)
    one, two = _two(latent, rng)
    treated = (rng.random(n) < 1 / (1 + np.exp(1 - one))).astype(np.int64)
    y = EFFECT * treated + 0.7 * one + two + rng.normal(size=n)
    names = tuple(f"image {k}" for k in range(p))
    confounders = Confounders(z, names, np.zeros(p, dtype=np.int64), ("image",))
    return Observed(units, y, treated, ("0", "1"), confounders, "treated", "y")


def _two(latent: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    drawn = (latent @ rng.normal(size=(latent.shape[1], 2))).T
    return drawn / drawn.std(axis=1, keepdims=True)


def ours(data: Observed, splits: Splits) -> tuple[np.ndarray, np.ndarray]:
    e = RidgeLogit(GRID).cross_fit(data.confounders, data.arm, splits, seed=0)
    m = Ridge(GRID, slack=0).cross_fit(data.confounders, data.y, data.arm, splits, seed=0)
    return e[:, 1], m


def logit_cv(
    cv: list[tuple[np.ndarray, np.ndarray]] | int, *, legacy: bool = False
) -> LogisticRegressionCV:
    return LogisticRegressionCV(
        Cs=1 / np.array(GRID), cv=cv, scoring="neg_log_loss", max_iter=1000, l1_ratios=(0,),
        use_legacy_attributes=legacy,
    )  # fmt: skip


def ridge_cv(cv: list[tuple[np.ndarray, np.ndarray]] | int) -> RidgeCV:
    return RidgeCV(alphas=GRID, cv=cv, scoring="neg_mean_squared_error")


def scikit(data: Observed, splits: Splits) -> tuple[np.ndarray, np.ndarray]:
    x = data.confounders.standardised()
    e, m = np.empty(data.n), np.empty((data.n, 2))
    for k in range(splits.k):
        here = splits.fold == k
        rows, inner = inner_splits(splits, k, data.arm, seed=0)
        xk, ak, yk = x[rows], data.arm[rows], data.y[rows]
        sets = [(inner.train[:, j], inner.fold == j) for j in range(inner.k)]
        logit = logit_cv([(np.flatnonzero(a), np.flatnonzero(b)) for a, b in sets])
        e[here] = logit.fit(xk, ak).predict_proba(x[here])[:, 1]
        for a in range(2):
            own = np.flatnonzero(ak == a)
            cv = [(np.flatnonzero(s[own]), np.flatnonzero(t[own])) for s, t in sets]
            m[here, a] = ridge_cv(cv).fit(xk[own], yk[own]).predict(x[here])
    return e, m


def halves(splits: Splits) -> list[tuple[np.ndarray, np.ndarray]]:
    """Return the training and held-out rows of each fold."""
    return [
        (np.flatnonzero(splits.train[:, k]), np.flatnonzero(splits.fold == k))
        for k in range(splits.k)
    ]


def double_ml(data: Observed, splits: Splits) -> tuple[np.ndarray, np.ndarray]:
    from doubleml import DoubleMLData, DoubleMLIRM

    given = DoubleMLData.from_arrays(data.confounders.standardised(), data.y, data.arm)
    inner = splits.k - 1
    model = DoubleMLIRM(given, ridge_cv(inner), logit_cv(inner), draw_sample_splitting=False)
    model.set_sample_splitting([halves(splits)])
    model.fit(store_predictions=True)
    found = {name: p[:, 0, 0] for name, p in model.predictions.items()}
    return found["ml_m"], np.stack([found["ml_g0"], found["ml_g1"]], axis=1)


def econ_ml(data: Observed, splits: Splits) -> tuple[np.ndarray, np.ndarray]:
    from econml.dr import LinearDRLearner

    x, inner = data.confounders.standardised(), splits.k - 1
    learner = LinearDRLearner(
        model_propensity=logit_cv(inner, legacy=True), model_regression=ridge_cv(inner),
        cv=halves(splits), min_propensity=1e-9,
    )  # fmt: skip
    learner.fit(data.y, data.arm, X=None, W=x, inference=None)
    e, m = np.empty(data.n), np.empty((data.n, 2))
    for k, (_, here) in enumerate(halves(splits)):
        e[here] = learner.models_propensity[0][k].predict_proba(x[here])[:, 1]
        for a in range(2):
            columns = np.column_stack([x[here], np.full(len(here), float(a))])
            m[here, a] = learner.models_regression[0][k].predict(columns)
    return e, m


def losses(data: Observed, e: np.ndarray, m: np.ndarray) -> tuple[float, float]:
    """Return the mean held-out log loss and the mean held-out squared error under the own arm."""
    own = np.where(data.arm == 1, e, 1 - e)
    return -np.log(own).mean(), ((data.y - m[np.arange(data.n), data.arm]) ** 2).mean()


def compare(n: int, p: int, *, seed: int, repeats: int, peers: bool) -> None:
    data = world(n, p, seed=seed)
    splits = split(FOLDS, data.units, seed=seed, stratum=data.arm.astype(float))
    programs = [("eocausal", ours, repeats), ("scikit-learn", scikit, 1)]
    if peers:
        programs += [("DoubleML", double_ml, 1), ("EconML", econ_ml, 1)]
    rows = {}
    for name, fit, times in programs:
        spent = []
        for _ in range(times):
            start = time.process_time()
            found = fit(data, splits)
            spent.append(time.process_time() - start)
        rows[name] = (min(spent), *losses(data, *found))
    mine, theirs = rows["eocausal"], rows["scikit-learn"]
    print(
        f"{theirs[0] / mine[0]:.1f} times less CPU time than scikit-learn (target 8); held-out log "
        f"loss {mine[1]:.4f} against {theirs[1]:.4f}, squared error {mine[2]:.4f} against "
        f"{theirs[2]:.4f}; {n:,} units, {p} features, {splits.k} folds, {len(GRID)} penalties"
    )
    for name, (seconds, log_loss, square) in rows.items():
        print(
            f"{name:>14} {seconds:8.2f} CPU s, {seconds / mine[0]:5.1f} times   "
            f"{log_loss:.6f}   {square:.6f}"
        )


def whole(n: int, p: int, seed: int) -> tuple[float, float, float, float, float]:
    """Return seconds of the models and of the whole estimate, peak GB, estimate and its error."""
    from eocausal.estimators.conley import Conley
    from eocausal.estimators.weighting import Weighting

    with threadpool_limits(1):
        data = world(n, p, seed=seed)
        splits = split(FOLDS, data.units, seed=seed, stratum=data.arm.astype(float))
        start = time.process_time()
        ours(data, splits)
        models = time.process_time() - start
        start = time.process_time()
        fitted = Weighting(folds=FOLDS, vcov=Conley(20.0)).fit(data, seed=seed).estimate
        total = time.process_time() - start
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6
    return models, total, peak, fitted.estimate, fitted.std_error


def scale(p: int, *, seed: int) -> None:
    print(
        f"{p} features   models, CPU s   per 10,000   AIPW + Conley   peak GB   data GB   estimate"
    )
    for n in (10_000, 50_000, 200_000):
        with multiprocessing.get_context("spawn").Pool(1) as pool:
            models, total, peak, estimate, error = pool.apply(whole, (n, p, seed))
        print(
            f"{n:12,} {models:15.2f} {models / n * 1e4:12.2f} {total:15.2f} {peak:9.2f} "
            f"{n * p * 8 / 1e9:9.2f}   {estimate:.3f} ({error:.3f}), true {EFFECT:g}"
        )


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--n", type=int, default=10_000)
    parser.add_argument("--p", type=int, default=512)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--peers", action="store_true")
    parser.add_argument("--scale", action="store_true")
    given = parser.parse_args()
    warnings.simplefilter("ignore", ConvergenceWarning)
    if given.scale:
        scale(given.p, seed=given.seed)
        return
    with threadpool_limits(1):
        compare(given.n, given.p, seed=given.seed, repeats=given.repeats, peers=given.peers)


if __name__ == "__main__":
    main()
