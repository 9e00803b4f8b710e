"""Pictures of predictions and weights: that what is drawn is what it is called."""

import numpy as np
import pytest
import torch

from pyrobbb import BayesianNetwork, fit, mlp, plots, priors
from pyrobbb.fitted.history import History

X = np.linspace(-1, 1, 12)[:, None]


@pytest.fixture(scope="module")
def posterior():
    network = BayesianNetwork(mlp(1, [5], 1, seed=0), priors.Normal(1.0))
    return fit(network, X, X, epochs=20, seed=0, progress=False, engine="fused")


def line(ax, label):
    return next(drawn for drawn in ax.lines if drawn.get_label() == label)


def test_a_band_may_have_the_data_on_top(posterior):
    ax = plots.plot_band(X, posterior.predict(X, seed=0), data=(X, 2 * X))
    np.testing.assert_allclose(line(ax, "observed").get_ydata(), 2 * X[:, 0])


def test_the_two_parts_of_the_uncertainty_are_drawn_in_the_order_of_x(posterior):
    prediction = posterior.predict(X[::-1], seed=0)
    ax = plots.plot_parts(X[::-1], prediction)
    doubt = line(ax, "doubt (epistemic)")
    np.testing.assert_allclose(doubt.get_xdata(), X[:, 0])
    np.testing.assert_allclose(doubt.get_ydata(), prediction.epistemic_sd[::-1, 0])
    noise, total = line(ax, "noise (aleatoric)").get_ydata(), line(ax, "predictive sd").get_ydata()
    np.testing.assert_allclose(doubt.get_ydata() ** 2 + noise**2, total**2, rtol=1e-5)


def test_weights_are_drawn_against_their_prior(posterior):
    ax = plots.plot_weights(posterior, "2.weight")
    prior = line(ax, "prior")
    expected = torch.distributions.Normal(0.0, 1.0).log_prob(torch.as_tensor(prior.get_xdata()))
    np.testing.assert_allclose(prior.get_ydata(), expected.exp(), rtol=1e-5)
    with pytest.raises(ValueError, match=r"`name` must be one of 0\.weight, .*, got 'w'"):
        plots.plot_weights(posterior, "w")


def test_the_history_of_a_long_fit_is_drawn_in_stretches():
    n = 1000
    noise = np.random.default_rng(0).normal(size=n)
    history = History(noise, noise, noise, np.arange(n), np.full(n, 5))
    ax = plots.plot_history(history)
    drawn = line(ax, "negative ELBO")
    np.testing.assert_allclose(drawn.get_ydata(), noise.reshape(200, 5).mean(1))
    np.testing.assert_allclose(drawn.get_xdata(), np.arange(200) * 5 + 3)
