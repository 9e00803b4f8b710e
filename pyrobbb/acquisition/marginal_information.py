"""Acquisition functions of single rows: mutual information with the weights, and variance."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from torch import Tensor
from torch.distributions import Distribution

from ..prediction import Prediction
from .draws import entropy, is_classification, moments, prediction_of, probabilities


def bald(model: Any, x: Any = None, *, n_draws: int = 200, seed: int | None = None) -> np.ndarray:
    """Return the mutual information of each row's label and the weights.

    For a regression, the predictive distribution and those of the draws are taken as normal with
    their variances, which is exact for a linear model with normal noise.

    Parameters
    ----------
    model : Prediction, Posterior or estimator
    x : array-like of shape (n, ...), optional
        Rows, for a posterior or an estimator.
    n_draws, seed
        As for `Posterior.predict`.

    Returns
    -------
    ndarray of shape (n,)
        In nats, at least 0.

    References
    ----------
    Houlsby, Huszar, Ghahramani and Lengyel (2011), "Bayesian active learning for classification and
    preference learning", equation 2.
    """
    prediction = prediction_of(model, x, n_draws, seed)
    return _by_row(prediction, _bald_of_classes, _bald_of_numbers)


def variance(
    model: Any, x: Any = None, *, n_draws: int = 200, seed: int | None = None
) -> np.ndarray:
    """Return the variance over draws of each row's mean, or of its class probabilities.

    Variances of several columns, or of several classes, are summed.

    Parameters
    ----------
    model, x, n_draws, seed
        As for `bald`.

    Returns
    -------
    ndarray of shape (n,)
        For a regression, the square of the epistemic standard deviation, in squared units of y.
    """
    prediction = prediction_of(model, x, n_draws, seed)
    return _by_row(
        prediction,
        lambda d: probabilities(d).var(0, correction=0).sum(-1),
        lambda d: moments(d)[0].var(0, correction=0).sum(-1),
    )


def _by_row(
    prediction: Prediction,
    of_classes: Callable[[Distribution], Tensor],
    of_numbers: Callable[[Distribution], Tensor],
) -> np.ndarray:
    score = of_classes if is_classification(prediction) else of_numbers
    return np.concatenate([score(chunk).cpu().numpy() for chunk in prediction.chunks()])


def _bald_of_classes(distribution: Distribution) -> Tensor:
    probs = probabilities(distribution)
    return (entropy(probs.mean(0)) - entropy(probs).mean(0)).clamp(min=0)


def _bald_of_numbers(distribution: Distribution) -> Tensor:
    means, variances = moments(distribution)
    total = means.var(0, correction=0) + variances.mean(0)
    return 0.5 * (total.log() - variances.log().mean(0)).sum(-1).clamp(min=0)
