"""What each layer has learned: KL divergences against Monte Carlo, and small cases by hand."""

import math

import numpy as np
import pyro.distributions as dist
import pytest
import torch
from torch import nn

from pyrobbb import BayesianNetwork, fit, mlp, priors
from pyrobbb.diagnostics import dead_units, layers

pytestmark = pytest.mark.arviz


@pytest.mark.parametrize(
    "prior",
    [
        priors.Normal(0.7),
        priors.FanInNormal(),
        priors.ScaleMixture(0.5, 1.0, 0.1),
        priors.Laplace(0.5),
    ],
)
def test_the_kl_divergence_of_a_layer_agrees_with_monte_carlo(prior):
    network = BayesianNetwork(mlp(2, [4], 1, seed=0), prior)
    posterior = fit(network, np.ones((10, 2)), np.ones((10, 1)), epochs=20, seed=0, progress=False)
    table = layers(posterior)
    assert list(table.index) == ["0.weight", "0.bias", "2.weight", "2.bias"]
    loc, scale = (
        posterior.guide.split(v.detach().double())
        for v in (posterior.guide.loc, posterior.guide.scale)
    )
    for name, parameter in posterior.network.bayesian_parameters():
        q = dist.Normal(loc[name], scale[name])
        draws = q.sample((20_000,))
        base = prior(name, parameter.double()).base_dist
        ratios = q.log_prob(draws) - base.log_prob(draws)
        error = float(ratios.mean(tuple(range(1, ratios.dim()))).std() / 20_000**0.5)
        assert table.loc[name, "kl"] == pytest.approx(float(ratios.mean()), abs=5 * error + 2e-3)
        snr = loc[name].abs() / scale[name]
        assert table.loc[name, "snr"] == pytest.approx(float(snr.median()), rel=1e-6)
        assert table.loc[name, "below_1"] == pytest.approx(float((snr < 1).double().mean()))


def test_weights_at_the_prior_are_counted():
    network = BayesianNetwork(mlp(2, [4], 1, seed=0), priors.Normal(1.0))
    posterior = fit(network, np.ones((5, 2)), np.ones((5, 1)), epochs=1, seed=0, progress=False)
    with torch.no_grad():
        posterior.guide.loc[:8] = 0.0
        posterior.guide.rho[:8] = math.log(math.e - 1)  # scale 1
        posterior.guide.rho[8:] = -5.0
    table = layers(posterior)
    assert list(table["at_prior"]) == [1.0, 0.0, 0.0, 0.0]
    assert table.loc["0.weight", "kl"] == pytest.approx(0, abs=1e-6)


def test_units_are_dead_if_no_outgoing_weight_exceeds_its_noise():
    network = BayesianNetwork(mlp(2, [4], 3, seed=0), priors.Normal(1.0))
    posterior = fit(network, np.ones((5, 2)), np.ones((5, 3)), epochs=1, seed=0, progress=False)
    with torch.no_grad():
        loc = posterior.guide.split(posterior.guide.loc)["2.weight"]
        posterior.guide.rho.fill_(-3.0)
        loc.fill_(0.0)
        loc[1, 2] = 0.5  # one outgoing weight of one of four units
    assert dead_units(posterior) == 0.75
    single = BayesianNetwork(nn.Linear(2, 1))
    fitted = fit(single, np.ones((5, 2)), np.ones((5, 1)), epochs=1, seed=0, progress=False)
    assert dead_units(fitted) is None
