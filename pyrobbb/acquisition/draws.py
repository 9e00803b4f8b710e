"""What each draw of the weights predicts: the basis of all acquisition functions."""

from __future__ import annotations

from typing import Any, cast

import torch
from torch import Tensor
from torch.distributions import Distribution

from .._core.messages import shown
from ..likelihoods import base_of
from ..prediction import ClassificationPrediction, Prediction


def prediction_of(model: Any, x: Any, n_draws: int, seed: int | None) -> Prediction:
    """Return a prediction itself, or that of a posterior or an estimator at x."""
    if isinstance(model, Prediction):
        if x is not None:
            raise ValueError("`x` must be left out with a prediction, which has its rows.")
        return model
    if x is None:
        raise ValueError(f"`x` is required with a {type(model).__name__}, got None.")
    if hasattr(model, "predict_distribution"):
        return cast(Prediction, model.predict_distribution(x))
    if hasattr(model, "chains"):
        return cast(Prediction, model.predict(x, n_draws, seed))
    raise TypeError(
        f"`model` must be a prediction, a posterior or an estimator, got {shown(model)}."
    )


def is_classification(prediction: Prediction) -> bool:
    """Return whether a prediction is one of classes."""
    return isinstance(prediction, ClassificationPrediction)


def probabilities(distribution: Distribution) -> Tensor:
    """Return the probabilities of the classes under each draw, shape (n_draws, n, K), in float64.

    Raises
    ------
    ValueError
        If a row has several labels.
    """
    base: Any = base_of(distribution)
    probs = base.probs.double()
    if isinstance(base, torch.distributions.Bernoulli):
        probs = torch.stack([1 - probs, probs], -1)
    if probs.dim() == 4 and probs.shape[2] == 1:
        probs = probs.squeeze(2)
    if probs.dim() != 3:
        raise ValueError(
            "Acquisition of classes needs one label a row, got rows of shape "
            f"{tuple(distribution.event_shape)}."
        )
    return probs


def moments(distribution: Distribution) -> tuple[Tensor, Tensor]:
    """Return mean and variance of each column under each draw, (n_draws, n, n_columns), in float64.

    Raises
    ------
    ValueError
        If torch has no formula for them.
    """
    try:
        mean, variance = distribution.mean.double(), distribution.variance.double()
    except NotImplementedError:
        raise ValueError(
            "Acquisition needs the mean and variance of the likelihood, of which torch has no "
            f"formula for {type(base_of(distribution)).__name__}."
        ) from None
    mean, variance = torch.broadcast_tensors(mean, variance)
    return mean.reshape(*mean.shape[:2], -1), variance.reshape(*mean.shape[:2], -1)


def entropy(probs: Tensor) -> Tensor:
    """Return the entropy over the last dimension, in nats."""
    return torch.special.entr(probs).sum(-1)
