"""Comparison with NUTS: known distances, and NUTS against a closed form."""

import numpy as np
import pytest
import torch
from conjugate import LinearRegression

from pyrobbb import BayesianNetwork, compare_with_nuts, likelihoods, mlp, plots, priors

pytestmark = pytest.mark.arviz

QUICK = {"seed": 0, "progress": False}


@pytest.fixture(scope="module")
def linear():
    return LinearRegression.simulate(n=30, seed=0)


def test_nuts_finds_the_exact_posterior_of_a_linear_model(linear):
    exact = linear.posterior()
    comparison = compare_with_nuts(
        linear.network, linear.x, linear.y, posterior=exact, n_draws=300, n_warmup=200, **QUICK
    )
    mean, covariance = linear.exact()
    draws = torch.cat([comparison.mcmc["weight"][:, :, 0], comparison.mcmc["bias"]], -1).flatten(
        0, 1
    )
    sd = covariance.diagonal().sqrt()
    assert (draws.mean(0) - mean).abs().max() < 0.3 * sd.max()
    assert draws.shape == (600, 4)
    assert comparison.rhat < 1.05
    table = comparison.table
    assert table.loc["Wasserstein distance", "in sd of NUTS"] < 0.15
    assert table.loc["epistemic sd / that of NUTS", "in sd of NUTS"] == pytest.approx(1, abs=0.15)
    assert "NUTS: R-hat" in str(comparison)


@pytest.mark.slow
def test_a_posterior_that_is_too_narrow_is_detected(linear):
    narrow = linear.posterior(width=0.5)
    comparison = compare_with_nuts(
        linear.network, linear.x, linear.y, posterior=narrow, n_draws=200, n_warmup=200, **QUICK
    )
    ratio = comparison.table.loc["epistemic sd / that of NUTS", "in sd of NUTS"]
    assert ratio == pytest.approx(0.5, abs=0.1)


def test_the_comparison_fits_and_predicts_at_new_inputs_and_is_repeatable():
    x = np.linspace(-1, 1, 15)[:, None]
    network = BayesianNetwork(mlp(1, [3], 1, "tanh", seed=0), priors.Normal(1.0))
    options = {"x_new": x[:4], "n_draws": 10, "n_warmup": 10, "n_chains": 2, "epochs": 20, **QUICK}
    one, other = (compare_with_nuts(network, x, x, **options) for _ in range(2))
    assert one.by_input.shape[0] == 4
    assert one.mcmc["0.weight"].shape == (2, 10, 3, 1)
    assert one.by_input.equals(other.by_input)
    assert not torch.equal(one.mcmc["0.weight"][0], one.mcmc["0.weight"][1])
    ax = plots.plot_nuts(one)
    assert {text.get_text() for text in ax.get_legend().get_texts()} == {
        "NUTS",
        "Bayes by Backprop",
    }


def test_classes_are_compared_by_probabilities():
    x = np.linspace(-1, 1, 12)[:, None]
    network = BayesianNetwork(mlp(1, [], 2, seed=0), priors.Normal(1.0), likelihoods.Categorical())
    comparison = compare_with_nuts(
        network, x, (x[:, 0] > 0).astype(int), n_draws=10, n_warmup=10, epochs=20, **QUICK
    )
    assert comparison.by_input.shape == (24, 2)
    assert list(comparison.table.columns) == ["mean", "largest"]
    assert plots.plot_nuts(comparison).lines


def test_point_parameters_raise():
    network = BayesianNetwork(
        mlp(1, [3], 1), priors.ByName({"0.*": None}, default=priors.Normal(1.0))
    )
    with pytest.raises(
        ValueError,
        match=r"must not have point parameters, .* got 0\.weight, 0\.bias: give",
    ):
        compare_with_nuts(network, np.zeros((3, 1)), np.zeros((3, 1)))
