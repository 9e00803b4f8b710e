"""The units in which a likelihood sees the target: they follow from its support."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from pyro.distributions import constraints

from ..likelihoods import base_of
from ..model.likelihood_trial import initial_distribution
from ..model.network import BayesianNetwork
from ..model.sites import is_real
from ..prediction import ClassificationPrediction, Standardizer, make_prediction


def target_scaling(
    network: BayesianNetwork, n_features: int, y: np.ndarray, weight: np.ndarray | None
) -> Standardizer | None:
    """Return the scaling of the target that leaves it within the support of a likelihood.

    Real targets are standardised. Those of a likelihood on the positive numbers are divided by
    their standard deviation, without a shift. All others, such as counts and fractions, are not
    scaled: None.

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
