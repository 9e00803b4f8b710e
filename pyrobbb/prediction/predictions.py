"""The prediction that suits a distribution: of a class or of a quantity."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch.distributions import Distribution

from .._core.arrays import ArrayLike
from ..likelihoods import base_of
from .classification import ClassificationPrediction
from .regression import RegressionPrediction

CLASSES = (torch.distributions.Categorical, torch.distributions.Bernoulli)
"""Distributions of a class: their predictions are classifications."""


def make_prediction(
    distributions: Iterable[Distribution], original: ArrayLike
) -> RegressionPrediction | ClassificationPrediction:
    """Return a prediction of the kind that suits the distributions.

    Parameters
    ----------
    distributions, original
        As for `Prediction`.
    """
    base = base_of(next(iter(distributions)))
    if isinstance(base, CLASSES):
        return ClassificationPrediction(distributions, original)
    return RegressionPrediction(distributions, original)
