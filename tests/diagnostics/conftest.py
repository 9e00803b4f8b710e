"""Fits that are diagnosed in several files."""

import pytest
from support import noisy_sine

from pyrobbb import BayesianNetwork, fit, mlp


@pytest.fixture(scope="package")
def good():
    """Return a converged fit with two restarts, to `noisy_sine()`."""
    network = BayesianNetwork(mlp(1, [20], 1, "tanh", seed=0))
    return fit(network, *noisy_sine(), restarts=2, seed=0, engine="fused", progress=False)


@pytest.fixture(scope="package")
def short():
    """Return a fit to `noisy_sine()` that has not converged."""
    network = BayesianNetwork(mlp(1, [20], 1, "tanh", seed=0))
    return fit(network, *noisy_sine(), epochs=200, seed=0, engine="fused", progress=False)
