"""Simulation-based calibration: ranks are uniform if and only if the posterior is exact."""

import numpy as np
import pytest
import torch
from conjugate import LinearRegression
from scipy import stats
from support import combined

from pyrobbb import BayesianNetwork, mlp, plots, sbc
from pyrobbb.comparisons.simulation import simulate

pytestmark = pytest.mark.arviz

X = np.random.default_rng(0).normal(size=(20, 3))
NETWORK = LinearRegression.simulate(20, 0).network


@pytest.fixture
def exact_fit(monkeypatch):
    """Replace `fit` by the exact posterior, with its scale multiplied by a width."""

    def use(width):
        def fit(network, x, y, **options):
            return LinearRegression(x, y).posterior(width=width)

        monkeypatch.setattr("pyrobbb.comparisons.simulation.fit", fit)

    return use


def test_the_ranks_of_an_exact_posterior_are_uniform(exact_fit):
    exact_fit(1.0)
    result = sbc(NETWORK, X, n_sims=200, n_draws=63, seed=0, progress=False)
    assert result.ranks["output"].shape == (200, 3)
    assert set(result.ranks) == {"output", "lp"}
    for values in (result.pit["lp"], *result.pit["output"].T):
        assert stats.kstest(values, "uniform").pvalue > 0.001


@pytest.mark.slow
def test_a_posterior_that_is_too_narrow_is_detected(exact_fit):
    exact_fit(0.4)
    result = sbc(NETWORK, X, n_sims=200, n_draws=63, seed=0, progress=False)
    assert stats.kstest(result.pit["lp"], "uniform").pvalue < 1e-6
    outputs = result.pit["output"][:, 0]
    assert ((outputs < 0.05) | (outputs > 0.95)).mean() > 0.2  # the true value is often outside


def test_simulated_data_have_the_moments_of_the_prior():
    network = LinearRegression.simulate(20, 0).network
    rows = torch.as_tensor(X)
    drawn = [simulate(network, rows, seed) for seed in range(400)]
    weights = torch.stack([draws["weight"][0, 0] for draws, _ in drawn])
    assert float(weights.std()) == pytest.approx(1, rel=0.1)
    residuals = torch.stack([y - rows @ d["weight"][0].T - d["bias"][0] for d, y in drawn])
    assert float(residuals.std()) == pytest.approx(0.5, rel=0.05)


def test_the_noise_scale_is_ranked_and_ranks_are_repeatable():
    network = BayesianNetwork(mlp(3, [2], 1, seed=0))
    options = {"n_sims": 3, "n_draws": 20, "epochs": 5, "seed": 0, "progress": False}
    one, other = (sbc(network, X, probes=X[:2], engine="fused", **options) for _ in range(2))
    assert {name: ranks.shape for name, ranks in one.ranks.items()} == {
        "noise_scale": (3,),
        "output": (3, 2),
        "lp": (3,),
    }
    for name, ranks in one.ranks.items():
        np.testing.assert_array_equal(ranks, other.ranks[name])
        assert (ranks >= 0).all()
        assert (ranks <= 20).all()
    assert one.tree["prior_sbc"].sizes["draw"] == 3


def test_ranks_can_be_plotted(exact_fit):
    exact_fit(1.0)
    result = sbc(NETWORK, X, n_sims=30, n_draws=20, seed=0, progress=False)
    assert len(plots.plot_sbc(result)) >= 4


def test_ranks_are_counted_over_the_draws_of_all_chains(monkeypatch):
    parts = [
        LinearRegression(torch.as_tensor(X), torch.full((20, 1), y).double()) for y in (-50.0, 50.0)
    ]

    def fit(network, x, y, **options):
        return combined([part.posterior() for part in parts])

    monkeypatch.setattr("pyrobbb.comparisons.simulation.fit", fit)
    result = sbc(NETWORK, X, n_sims=5, n_draws=40, seed=0, progress=False)
    # At the mean of x, all draws of one chain are below the true value, and none of the other.
    at_mean = sbc(NETWORK, X, probes=X.mean(0)[None], n_sims=5, n_draws=40, seed=0, progress=False)
    assert result.ranks["lp"].shape == (5,)
    np.testing.assert_array_equal(at_mean.ranks["output"], 20)
