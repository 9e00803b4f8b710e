"""Plots of calibration: coverage of intervals, and reliability of class probabilities."""

import numpy as np
import pyro.distributions as dist
import pytest
import torch

from pyrobbb import plots
from pyrobbb.prediction import make_prediction

Y = np.array([0.2, 9.0, 0.0])
LOC = torch.tensor([[0.0, 5.0, -3.0], [1.0, 5.1, 4.0]])
REGRESSION = make_prediction([dist.Normal(LOC, torch.tensor(0.5))], np.empty(0))


def test_coverage_curves_share_one_diagonal():
    ax = plots.plot_coverage(REGRESSION, Y)
    assert len(ax.lines) == 2  # The diagonal and the curve.
    assert ax.lines[1].get_ydata().max() == pytest.approx(2 / 3)
    plots.plot_coverage(REGRESSION, Y, ax=ax)
    assert len(ax.lines) == 3  # No second diagonal.


def test_reliability_is_the_accuracy_of_each_bin():
    probs = torch.tensor([[[0.9, 0.1], [0.4, 0.6], [0.8, 0.2]]])
    prediction = make_prediction([dist.Categorical(probs=probs)], np.empty(0))
    ax = plots.plot_reliability(prediction, [0, 1, 1], n_bins=2)
    assert ax.lines[1].get_ydata() == pytest.approx([2 / 3])


def test_risk_is_plotted_against_coverage():
    probs = torch.tensor([[[0.9, 0.1], [0.4, 0.6], [0.8, 0.2]]])
    prediction = make_prediction([dist.Categorical(probs=probs)], np.empty(0))
    ax = plots.plot_risk_coverage(prediction, [0, 0, 0])
    np.testing.assert_allclose(ax.lines[0].get_xydata(), [[1 / 3, 0], [2 / 3, 0], [1, 1 / 3]])
    assert plots.plot_risk_coverage(REGRESSION, Y, ax=ax).get_ylabel().startswith("mean squared")


def test_label_and_color_are_those_of_the_curve():
    ax = plots.plot_coverage(REGRESSION, Y, label="network", color=plots.SECOND)
    assert ax.lines[0].get_label() == "calibrated"
    assert ax.lines[1].get_label() == "network"
    assert ax.lines[1].get_color() == plots.SECOND


def test_the_risk_curve_has_the_order_of_a_given_uncertainty_and_its_own_style():
    probs = torch.tensor([[[0.9, 0.1], [0.4, 0.6], [0.8, 0.2]]])
    prediction = make_prediction([dist.Categorical(probs=probs)], np.empty(0))
    style = {"label": "network", "color": plots.SECOND}
    ax = plots.plot_risk_coverage(prediction, [0, 0, 0], [2.0, 1.0, 3.0], **style)
    np.testing.assert_allclose(ax.lines[0].get_ydata(), [1, 1 / 2, 1 / 3])
    assert (ax.lines[0].get_label(), ax.lines[0].get_color()) == ("network", plots.SECOND)
