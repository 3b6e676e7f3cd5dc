"""The logit of treatment as a linear function of image features, to be followed back to pixels."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from eocausal.errors import EstimationError
from eocausal.folds import Splits

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from eocausal.estimators.observational import Observed, PropensityModel

__all__ = ["PlacementLogit", "placement_logit"]

EXACT = 1e-5


@dataclass(frozen=True, slots=True, eq=False)
class PlacementLogit:
    """log P(treated)/P(untreated) = intercept + features @ coefficients, for one source.

    ``Target.linear(encoder, p.coefficients, p.intercept, name="logit of treatment")`` of
    :mod:`eocausal.encoders.salience` maps which pixels move it.

    Attributes
    ----------
    coefficients
        (p,) on the features as the encoder gives them.
    intercept
        With all other confounders at their means.
    share
        Share of the variance of the logit over units that the image's part has.
    """

    coefficients: NDArray[np.float64]
    intercept: float
    share: float


def placement_logit(
    data: Observed,
    model: PropensityModel,
    *,
    image: str,
    treatment: str | None = None,
    seed: int = 0,
) -> PlacementLogit:
    """Fit a model of treatment to all units and read off the image's part of its logit.

    The model is asked for probabilities only. For models that are linear in the logit (ridge,
    elastic net, plain) the coefficients reproduce these exactly; for others there is no such
    function, and they are refused. It describes the model, fitted on all units; how well placement
    is told is measured on held-out ones (:class:`~eocausal.estimators.assignment
    .AssignmentMechanism`).

    Parameters
    ----------
    data
        The study.
    model
        How probabilities are learned.
    image
        Name of the image among the confounders.
    treatment
        Arm that is compared with the untreated; default the first.
    seed
        Of the model.

    Raises
    ------
    EstimationError
        If there is no such image or arm, or the logit is not linear in the features.
    """
    arm = data.arms[1] if treatment is None else treatment
    if arm not in data.arms[1:]:
        raise EstimationError(
            f"There is no treatment {arm!r}.",
            cause=f"The treatments are {', '.join(data.arms[1:])}.",
            next_step="Name one of these.",
        )
    c = data.confounders
    c.only(image)
    probability = model.cross_fit(c, data.arm, Splits.none(data.n), seed=seed)
    with np.errstate(divide="ignore"):
        logit = np.log(probability[:, data.arms.index(arm)]) - np.log(probability[:, 0])
    middle, spread = c.x.mean(axis=0), c.x.std(axis=0)
    keep = spread > 1e-10 * (1 + np.abs(middle))
    # Each source has total variance one, as in the models: where units are fewer than columns the
    # shortest solution is then theirs.
    size = np.sqrt(np.bincount(c.block[keep], minlength=len(c.blocks)))[c.block[keep]]
    scale = spread[keep] * np.maximum(size, 1)
    z = (c.x[:, keep] - middle[keep]) / scale
    level = float(logit.mean())
    slope = np.linalg.lstsq(z, logit - level, rcond=1e-10)[0]
    error = np.abs(level + z @ slope - logit).max() if np.isfinite(logit).all() else np.inf
    if not error <= EXACT * (1 + np.ptp(logit)):
        raise EstimationError(
            f"The logit of {model!r} is not a linear function of the confounders.",
            cause=f"The closest one differs from it by up to {error:.2g}.",
            next_step="Use RidgeLogit() or another logistic regression; for a network, its own "
            "logit is the target.",
        )
    coefficients = np.zeros(c.p)
    coefficients[keep] = slope / scale
    mine = c.block == c.blocks.index(image)
    own = (c.x - middle)[:, mine] @ coefficients[mine]
    return PlacementLogit(
        coefficients[mine],
        level - float(middle[mine] @ coefficients[mine]),
        float(own.var() / logit.var()) if logit.var() > 0 else 0.0,
    )
