"""Forecasts: what a model predicts of some rows, in one form for all libraries."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy import stats

N_NODES = 16
"""Nodes of the quadrature of a density over the unit interval around an integer."""
N_CHECKED = 8
"""Draws of y that show whether a distribution is one of integers."""


@dataclass(frozen=True)
class Distributed:
    """A forecast by a frozen distribution of SciPy, with a value for each row."""

    distribution: Any

    @property
    def mean(self) -> np.ndarray:
        """Mean of each row."""
        return self.distribution.mean()

    @property
    def is_discrete(self) -> bool:
        """Whether it has probabilities instead of a density."""
        return isinstance(self.distribution.dist, stats.rv_discrete)

    def log_prob(self, y: np.ndarray) -> np.ndarray:
        """Return the log density, or log probability, of each row."""
        if self.is_discrete:
            return self.distribution.logpmf(y)
        return self.distribution.logpdf(y)

    def interval(self, level: float) -> tuple[np.ndarray, np.ndarray]:
        """Return the central interval."""
        return self.distribution.interval(level)


@dataclass(frozen=True)
class Classes:
    """A forecast of classes, as `pyrobbb.scores` takes it.

    Attributes
    ----------
    probs : ndarray of shape (n_rows, n_classes)
    """

    probs: np.ndarray

    @property
    def label(self) -> np.ndarray:
        """The most probable class."""
        return self.probs.argmax(1)

    def log_prob(self, y: np.ndarray) -> np.ndarray:
        """Return the log probability of each row's class."""
        with np.errstate(divide="ignore"):
            return np.log(self.probs[np.arange(len(y)), y.astype(int)])


def log_mass(forecast: Any, y: np.ndarray) -> np.ndarray:
    """Return the log probability of integers, whether the forecast has a density or not.

    A density is integrated over the unit interval around y, so that a density and the
    probabilities of a model of counts are compared on the same footing. A tall, narrow density
    gains nothing over probability 1.
    """
    if is_discrete(forecast):
        return np.asarray(forecast.log_prob(y))
    if isinstance(forecast, Distributed):
        return _log_between(forecast.distribution, y - 0.5, y + 0.5)
    nodes, weights = np.polynomial.legendre.leggauss(N_NODES)
    at_nodes = np.stack([np.asarray(forecast.log_prob(y + node / 2)) for node in nodes])
    log_weights = np.log(weights / 2)[:, None]
    return np.minimum(np.logaddexp.reduce(at_nodes + log_weights, axis=0), 0.0)


def is_discrete(forecast: Any) -> bool:
    """Return whether the predictive distribution is one of integers."""
    if isinstance(forecast, Distributed):
        return forecast.is_discrete
    draws = np.asarray(forecast.sample(0))[:N_CHECKED]
    return bool((draws == draws.round()).all())


def _log_between(distribution: Any, lower: np.ndarray, upper: np.ndarray) -> np.ndarray:
    # On the side of the median where both are small, so that their difference has digits.
    below = distribution.cdf(upper) - distribution.cdf(lower)
    above = distribution.sf(lower) - distribution.sf(upper)
    mass = np.where(distribution.cdf(lower) > 0.5, above, below)
    with np.errstate(divide="ignore"):
        found = np.log(mass)
    # So far out that the mass has underflowed, the density is nearly constant in logs.
    middle = distribution.logpdf((lower + upper) / 2)
    return np.where(mass > 1e-300, found, middle)
