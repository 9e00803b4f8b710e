"""Choice of the type of prediction for a distribution: classification or regression."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch.distributions import Distribution

from .._core.trees import InputsLike, arrays_of, structured
from ..likelihoods import base_of
from .classification import ClassificationPrediction
from .regression import RegressionPrediction

CLASSES = (torch.distributions.Categorical, torch.distributions.Bernoulli)
"""Distributions of classes, whose predictions are of type `ClassificationPrediction`."""


def make_prediction(
    distributions: Iterable[Distribution], x: InputsLike
) -> RegressionPrediction | ClassificationPrediction:
    """Return a prediction of the type that matches the distributions.

    Parameters
    ----------
    distributions
        As for `Prediction`.
    x : array-like, or nested tuples and mappings of them
        Results are tensors if the first array is a tensor, and NumPy arrays otherwise.
    """
    original = arrays_of(structured("x", x))[0]
    base = base_of(next(iter(distributions)))
    if isinstance(base, CLASSES):
        return ClassificationPrediction(distributions, original)
    return RegressionPrediction(distributions, original)
