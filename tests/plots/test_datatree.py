"""Plots of a DataTree: the axes they use, and the values they show."""

import numpy as np
import pytest
from matplotlib.figure import Figure

from pyrobbb import BayesianNetwork, fit, mlp, plots
from pyrobbb.diagnostics.importance import loo

pytestmark = [
    pytest.mark.arviz,
    pytest.mark.filterwarnings("ignore:Estimated shape parameter of Pareto"),
]

X = np.random.default_rng(0).normal(size=(30, 1))


@pytest.fixture(scope="module")
def tree():
    network = BayesianNetwork(mlp(1, [4], 1, seed=0))
    options = {"epochs": 50, "restarts": 2, "seed": 0, "progress": False, "engine": "fused"}
    return fit(network, X, X, **options).to_arviz(X, X, n_draws=100, seed=0)


@pytest.fixture(autouse=True)
def _close():
    yield
    import matplotlib.pyplot as plt

    plt.close("all")


@pytest.mark.parametrize("plot", [plots.plot_loo_pit, plots.plot_khat])
def test_given_axes_are_used(tree, plot):
    ax = Figure().subplots()
    assert plot(tree, ax=ax) is ax
    assert ax.lines
    assert plot(tree).lines  # In a new figure.


def test_khat_values_and_bound_agree_with_loo(tree):
    ax = plots.plot_khat(tree, ax=Figure().subplots())
    values = np.concatenate([points.get_offsets()[:, 1] for points in ax.collections])
    np.testing.assert_allclose(values, loo(tree).pareto_k)
    assert ax.lines[0].get_ydata()[0] == pytest.approx(loo(tree).good_k)


def test_a_posterior_predictive_check_has_a_line_for_each_data_set(tree):
    assert len(plots.plot_ppc(tree, n_draws=20).lines) == 21  # One of them is y.


def test_a_forest_has_intervals_of_each_restart(tree):
    _, forest = plots.plot_forest(tree, ["noise_scale"])
    assert len(forest.lines) == 4  # An inner and an outer interval of each.
