"""Plots of weights: their number, and the density of their prior."""

import numpy as np
import pytest
import torch
from matplotlib.figure import Figure

from pyrobbb import BayesianNetwork, fit, mlp, plots, priors

X = np.linspace(-1, 1, 12)[:, None]


@pytest.fixture(scope="module")
def posterior():
    network = BayesianNetwork(mlp(1, [5], 1, seed=0), priors.Normal(1.0))
    return fit(network, X, X, epochs=20, seed=0, progress=False, engine="fused")


def test_the_prior_of_weights_is_its_density(posterior):
    ax = plots.plot_weights(posterior, "2.weight")
    (prior,) = ax.lines
    assert prior.get_label() == "prior"
    expected = torch.distributions.Normal(0.0, 1.0).log_prob(torch.as_tensor(prior.get_xdata()))
    np.testing.assert_allclose(prior.get_ydata(), expected.exp(), rtol=1e-5)
    with pytest.raises(ValueError, match=r"`name` must be one of 0\.weight, .*, got 'w'"):
        plots.plot_weights(posterior, "w")


def test_ratios_of_all_weights_are_plotted_on_the_given_axes(posterior):
    ax = Figure().subplots()
    assert plots.plot_snr(posterior, ax=ax) is ax
    assert sum(bar.get_height() for bar in ax.patches) == 16  # The weights of 1-5-1.
