"""Plots of predictions: the values of lines, and which observations are highlighted."""

import numpy as np
import pyro.distributions as dist
import pytest
import torch

from pyrobbb import BayesianNetwork, fit, mlp, plots, priors
from pyrobbb.prediction import make_prediction

X = np.linspace(-1, 1, 12)[:, None]
Y = np.array([0.2, 9.0, 0.0])
LOC = torch.tensor([[0.0, 5.0, -3.0], [1.0, 5.1, 4.0]])
REGRESSION = make_prediction([dist.Normal(LOC, torch.tensor(0.5))], np.empty(0))


@pytest.fixture(scope="module")
def posterior():
    network = BayesianNetwork(mlp(1, [5], 1, seed=0), priors.Normal(1.0))
    return fit(network, X, X, epochs=20, seed=0, progress=False, engine="fused")


def line(ax, label):
    return next(line for line in ax.lines if line.get_label() == label)


def test_the_mean_of_a_band_is_sorted_by_x():
    ax = plots.plot_band([3.0, 1.0, 2.0], REGRESSION)
    line = ax.lines[0]
    np.testing.assert_array_equal(line.get_xdata(), [1, 2, 3])
    np.testing.assert_array_equal(line.get_ydata(), REGRESSION.mean[[1, 2, 0]])
    assert len(ax.collections) == 2


def test_a_band_has_the_data_on_top(posterior):
    ax = plots.plot_band(X, posterior.predict(X, seed=0), data=(X, 2 * X))
    np.testing.assert_allclose(line(ax, "observed").get_ydata(), 2 * X[:, 0])


def test_epistemic_and_aleatoric_sd_are_sorted_by_x(posterior):
    prediction = posterior.predict(X[::-1], seed=0)
    ax = plots.plot_parts(X[::-1], prediction)
    epistemic = line(ax, "epistemic")
    np.testing.assert_allclose(epistemic.get_xdata(), X[:, 0])
    np.testing.assert_allclose(epistemic.get_ydata(), prediction.epistemic_sd[::-1, 0])
    aleatoric, total = line(ax, "aleatoric").get_ydata(), line(ax, "predictive").get_ydata()
    np.testing.assert_allclose(epistemic.get_ydata() ** 2 + aleatoric**2, total**2, rtol=1e-5)


def test_observations_outside_their_interval_are_highlighted():
    ax = plots.plot_intervals(REGRESSION, Y)
    inside, outside = ax.lines[1], ax.lines[2]
    np.testing.assert_array_equal(outside.get_ydata(), [9.0])
    assert len(inside.get_ydata()) == 2
    assert any("outside (33%)" in text.get_text() for text in ax.get_legend().get_texts())


def test_entropies_are_split_into_correct_and_incorrect_predictions():
    probs = torch.tensor([[[0.9, 0.1], [0.4, 0.6], [0.8, 0.2]]])
    prediction = make_prediction([dist.Categorical(probs=probs)], np.empty(0))
    ax = plots.plot_uncertainty(prediction, [0, 1, 1])
    assert [text.get_text() for text in ax.get_legend().get_texts()] == ["correct", "incorrect"]
