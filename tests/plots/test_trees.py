"""Pictures of a DataTree: they draw where they are told, and what they are for."""

import numpy as np
import pytest
from matplotlib.figure import Figure

from pyrobbb import BayesianNetwork, fit, mlp, plots

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
def test_a_picture_is_drawn_on_the_axes_given(tree, plot):
    ax = Figure().subplots()
    assert plot(tree, ax=ax) is ax
    assert ax.lines
    assert plot(tree).lines  # and in a figure of its own


def test_khats_are_those_of_the_corrected_score(tree):
    from pyrobbb.diagnostics.checks import loo

    ax = plots.plot_khat(tree, ax=Figure().subplots())
    drawn = np.concatenate([points.get_offsets()[:, 1] for points in ax.collections])
    np.testing.assert_allclose(drawn, loo(tree).pareto_k)
    assert ax.lines[0].get_ydata()[0] == pytest.approx(loo(tree).good_k)


def test_a_posterior_check_draws_as_many_data_sets_as_told(tree):
    assert len(plots.plot_ppc(tree, n_draws=20).lines) == 21  # and the data


def test_a_forest_has_a_line_a_restart(tree):
    _, forest = plots.plot_forest(tree, ["noise_scale"])
    assert len(forest.lines) == 4  # an inner and an outer interval each
