"""Choice of the type of prediction for a distribution: classification or regression."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch.distributions import Distribution

from .._core.arrays import ArrayLike
from ..likelihoods import base_of
from .classification import ClassificationPrediction
from .regression import RegressionPrediction

CLASSES = (torch.distributions.Categorical, torch.distributions.Bernoulli)
"""Distributions of classes, whose predictions are of type `ClassificationPrediction`."""


def make_prediction(
    distributions: Iterable[Distribution], original: ArrayLike
) -> RegressionPrediction | ClassificationPrediction:
    """Return a prediction of the type that matches the distributions.

    Parameters
    ----------
    distributions, original
        As for `Prediction`.
    """
    base = base_of(next(iter(distributions)))
    if isinstance(base, CLASSES):
        return ClassificationPrediction(distributions, original)
    return RegressionPrediction(distributions, original)
