"""Yardsticks: predictions of a constant and of a linear model, for comparison with a network."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
import torch
from torch.distributions import Categorical, NegativeBinomial, Normal, Poisson

from ..likelihoods import Likelihood
from ..likelihoods import NegativeBinomial as NegativeBinomialLikelihood
from ..likelihoods import Poisson as PoissonLikelihood
from ..prediction import ClassificationPrediction, RegressionPrediction

__all__ = [
    "are_counts",
    "constant_classes",
    "constant_numbers",
    "linear_classes",
    "linear_numbers",
]

ALPHAS = np.logspace(-3, 4, 15)
MIN_VARIANCE = 1e-300
"""Replaces a variance or a mean of 0."""
FLOOR = 1e-6
"""Share of a uniform distribution that is mixed into the classes, one of which may be unseen."""


def are_counts(likelihood: Likelihood) -> bool:
    """Return whether a likelihood is one of counts, with which yardsticks are compared."""
    return isinstance(likelihood, PoissonLikelihood | NegativeBinomialLikelihood)


def constant_numbers(mean: float, variance: float, n: int, *, is_count: bool) -> Any:
    """Return a `RegressionPrediction` with the same mean and variance for all n rows."""
    return _numbers(np.full(n, mean), variance, is_count)


def constant_classes(y: np.ndarray, n: int, n_classes: int) -> Any:
    """Return a `ClassificationPrediction` of the frequencies of the classes in y for n rows."""
    shares = np.bincount(y, minlength=n_classes) / len(y)
    return _classes(np.tile(shares, (n, 1)))


def linear_numbers(
    x: np.ndarray, y: np.ndarray, x_new: np.ndarray, *, is_count: bool = False
) -> RegressionPrediction:
    """Fit a ridge regression, and predict new rows.

    The penalty is that with the lowest squared error of rows left out, which is also the variance
    of the predictions: normal, or for counts a negative binomial or a Poisson distribution.

    Parameters
    ----------
    x : ndarray of shape (n, n_inputs)
    y : ndarray of shape (n,)
    x_new : ndarray of shape (n_new, n_inputs)
    is_count : bool
    """
    from sklearn.linear_model import RidgeCV
    from sklearn.preprocessing import StandardScaler

    scaler = StandardScaler().fit(x)
    model = RidgeCV(ALPHAS).fit(scaler.transform(x), y)
    return _numbers(model.predict(scaler.transform(x_new)), -model.best_score_, is_count)


def linear_classes(
    x: np.ndarray, y: np.ndarray, x_new: np.ndarray, n_classes: int
) -> ClassificationPrediction:
    """Fit a logistic regression with scikit-learn's default penalty, and predict new rows.

    Parameters
    ----------
    x : ndarray of shape (n, n_inputs)
    y : ndarray of shape (n,)
        Indices of classes, at least two of them.
    x_new : ndarray of shape (n_new, n_inputs)
    n_classes : int
    """
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.linear_model import LogisticRegression
    from sklearn.preprocessing import StandardScaler

    scaler = StandardScaler().fit(x)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        model = LogisticRegression(max_iter=500).fit(scaler.transform(x), y)
    probs = np.zeros((len(x_new), n_classes))
    probs[:, model.classes_] = model.predict_proba(scaler.transform(x_new))
    return _classes((1 - FLOOR) * probs + FLOOR / n_classes)


def _numbers(mean: np.ndarray, variance: float, is_count: bool) -> RegressionPrediction:
    loc = torch.as_tensor(mean, dtype=torch.float64)[None]
    distribution: Any
    if not is_count:
        sd = max(variance, MIN_VARIANCE) ** 0.5
        distribution = Normal(loc, torch.full_like(loc, sd))
    else:
        loc = loc.clamp(min=1e-3 if variance > 0 else MIN_VARIANCE)
        excess = variance - float(loc.mean())
        if excess > 0:  # the variance exceeds the mean by mean^2 / size
            size = torch.full_like(loc, float((loc**2).mean()) / excess)
            distribution = NegativeBinomial(size, probs=loc / (loc + size))
        else:
            distribution = Poisson(loc)
    return RegressionPrediction([distribution], np.empty(0))


def _classes(probs: np.ndarray) -> ClassificationPrediction:
    return ClassificationPrediction([Categorical(torch.as_tensor(probs)[None])], np.empty(0))
