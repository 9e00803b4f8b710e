"""The units in which a likelihood sees the target: they follow from its support."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Self

import numpy as np
import torch
from pyro.distributions import constraints
from torch import Tensor

from .._core.arrays import ArrayLike, to_numpy
from ..likelihoods import LogNormal, base_of
from ..model.likelihood_trial import initial_distribution
from ..model.network import BayesianNetwork
from ..model.sites import is_real
from ..prediction import (
    ClassificationPrediction,
    RegressionPrediction,
    Standardizer,
    make_prediction,
)

EXTRAPOLATION = 0.25
"""Distance from the range of log y, in its standard deviations, that its mean can be predicted at.
On tables of a few dozen rows, wider or no bounds gave predictive means with a larger error."""


@dataclass(frozen=True)
class LogStandardizer(Standardizer):
    """Mean and standard deviation of the logarithm of positive columns.

    Attributes
    ----------
    loc, scale : Tensor of shape (...)
        As for `Standardizer`, of log y. In the units of the network, y is
        exp((log y - loc) / scale), whose logarithm is standardised.
    lower, upper : Tensor of shape (...)
        Bounds of the predicted mean of the standardised logarithm; see `EXTRAPOLATION`.
    """

    lower: Tensor
    upper: Tensor

    @classmethod
    def of(cls, x: ArrayLike, weight: ArrayLike | None = None) -> Self:
        """Compute the mean, standard deviation and range of the logarithm of each column."""
        scaling = Standardizer.of(_log(x), weight)
        z = torch.as_tensor(scaling.transform(_log(x)))
        return cls(scaling.loc, scaling.scale, z.amin(0) - EXTRAPOLATION, z.amax(0) + EXTRAPOLATION)

    def transform(self, x: ArrayLike) -> Any:
        """Return the data in the units of the network; raise a ValueError unless positive."""
        return np.exp(super().transform(_log(x)))

    def inverse(self, z: ArrayLike) -> Any:
        """Return the data in their own units."""
        return np.exp(super().inverse(_log(z)))


def is_log(scaling: Standardizer | None) -> bool:
    """Return whether a scaling is that of a logarithm."""
    return isinstance(scaling, LogStandardizer)


def in_target_units(
    prediction: RegressionPrediction, scaling: Standardizer | None
) -> RegressionPrediction:
    """Return a prediction in the units of y, from one in the units of the network."""
    match scaling:
        case None:
            return prediction
        case LogStandardizer():
            return prediction.rescaled_log(scaling.loc, scaling.scale, scaling.lower, scaling.upper)
    return prediction.rescaled(scaling.loc, scaling.scale)


def _log(y: ArrayLike) -> np.ndarray:
    y = to_numpy(y)
    wrong = np.argwhere(~(y > 0))
    if len(wrong):
        raise ValueError(
            f"`y` must be positive for a log-normal likelihood, got {y[tuple(wrong[0])]:g} in row "
            f"{wrong[0][0]}: choose another likelihood, or leave these rows out."
        )
    return np.log(y)


def target_scaling(
    network: BayesianNetwork, n_features: int, y: np.ndarray, weight: np.ndarray | None
) -> Standardizer | None:
    """Return the scaling of the target that leaves it within the support of a likelihood.

    Real targets are standardised, and so is the logarithm of those of `LogNormal`. Those of another
    likelihood on the positive numbers are divided by their standard deviation, without a shift. All
    others, such as counts and fractions, are not scaled: None.

    Parameters
    ----------
    network : BayesianNetwork
        With the likelihood.
    n_features : int
        Number of its inputs.
    y : ndarray of shape (n, n_targets)
    weight : ndarray of shape (n,), optional
    """
    x = torch.zeros(1, n_features)
    network.targets_like(x)  # raises unless the likelihood returns a distribution
    with torch.no_grad():
        distribution = base_of(initial_distribution(network.likelihood, network.net(x)))
    if isinstance(make_prediction([distribution], x), ClassificationPrediction):
        raise ValueError(
            "`likelihood` of a BBBRegressor must be a distribution of numbers, got "
            f"{type(distribution).__name__}: use BBBClassifier for classes."
        )
    if isinstance(network.likelihood, LogNormal):
        return LogStandardizer.of(y, weight)
    support = distribution.support
    if is_real(support):
        return Standardizer.of(y, weight)
    if _is_positive(support):
        scaling = Standardizer.of(y, weight)
        return Standardizer(torch.zeros_like(scaling.loc), scaling.scale)
    return None


def _is_positive(support: Any) -> bool:
    """Return whether a support is all positive or all non-negative real numbers."""
    half_lines = type(constraints.positive), type(constraints.nonnegative)
    if not isinstance(support, half_lines) or support.is_discrete:
        return False
    return bool(torch.as_tensor(support.lower_bound).eq(0).all())
