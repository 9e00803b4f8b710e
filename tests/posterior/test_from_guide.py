"""Posterior.from_guide: posteriors of loops of one's own, with guides of pyrobbb, Pyro, by hand."""

import numpy as np
import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro.infer import SVI, Predictive, Trace_ELBO
from pyro.infer.autoguide import AutoLowRankMultivariateNormal, AutoMultivariateNormal
from support import X, Y

from pyrobbb import (
    BayesianNetwork,
    LowRankGuide,
    MeanFieldGuide,
    Posterior,
    auto_normal,
    likelihoods,
    mlp,
    priors,
)


def by_hand(network):
    """Return a guide that is a function, with parameters in Pyro's store."""

    def guide(x, y=None, n_data=None):
        for name, weight in network.bayesian_parameters():
            loc = pyro.param(f"{name}_loc", weight.detach().clone())
            scale = pyro.param(
                f"{name}_scale", torch.full_like(weight, 0.1), dist.constraints.positive
            )
            pyro.sample(name, dist.Normal(loc, scale).to_event(weight.dim()))

    return guide


GUIDES = {
    "mean field": MeanFieldGuide,
    "low rank": lambda network: LowRankGuide(network, 2),
    "AutoNormal": auto_normal,
    "AutoMultivariateNormal": AutoMultivariateNormal,
    "AutoLowRankMultivariateNormal": lambda n: AutoLowRankMultivariateNormal(n, rank=2),
    "by hand": by_hand,
}


def fitted(kind):
    pyro.clear_param_store()
    pyro.set_rng_seed(0)
    n_inputs = X.shape[1]
    network = BayesianNetwork(
        mlp(n_inputs, [3], 1, seed=0), priors.Normal(), likelihoods.Gaussian(0.2)
    )
    guide = GUIDES[kind](network)
    svi = SVI(network, guide, pyro.optim.Adam({"lr": 0.01}), Trace_ELBO())
    x, y = network.prepare(X, Y)
    for _ in range(5):
        svi.step(x, y)
    return network, guide, x, y


# The draws of all guides are compared with Pyro's in test_own_guides.py.
FAST = ("mean field", "low rank", "by hand")


@pytest.mark.parametrize(
    "kind", [pytest.param(k, marks=() if k in FAST else pytest.mark.slow) for k in GUIDES]
)
def test_predictions_have_the_moments_of_pyros_predictive(kind):
    network, guide, x, _ = fitted(kind)
    posterior = Posterior.from_guide(network, guide, X)
    with torch.no_grad():
        draws = Predictive(guide, num_samples=1000)(x)
        f = torch.stack(
            [network.output({n: v[i] for n, v in draws.items()}, x) for i in range(1000)]
        )
    prediction = posterior.predict(X, 4000, seed=0)
    error = f.std(0).numpy() * np.sqrt(1 / 1000 + 1 / 4000)
    assert (np.abs(prediction.mean - f.mean(0).numpy()) < 5 * error + 1e-6).all()
    np.testing.assert_allclose(prediction.epistemic_sd, f.std(0).numpy(), rtol=0.1)


@pytest.mark.parametrize("kind", GUIDES)
def test_the_posterior_diagnoses_and_converts_to_arviz(kind):
    network, guide, _, _ = fitted(kind)
    posterior = Posterior.from_guide(network, guide, X)
    assert "PSIS-LOO" in repr(posterior.diagnose(X, Y, n_draws=100, seed=0))
    tree = posterior.to_arviz(X, Y, n_draws=50, seed=0)
    assert {"posterior", "posterior_predictive", "log_likelihood"} <= set(tree.children)


@pytest.mark.parametrize("kind", ["mean field", "low rank"])
def test_the_posterior_is_saved_and_loaded(kind, tmp_path):
    network, guide, _, _ = fitted(kind)
    posterior = Posterior.from_guide(network, guide, X)
    posterior.save(tmp_path / "model")
    mean = Posterior.load(tmp_path / "model").predict(X, seed=0).mean
    np.testing.assert_array_equal(mean, posterior.predict(X, seed=0).mean)


def test_later_steps_do_not_change_the_posterior():
    network, guide, x, y = fitted("mean field")
    posterior = Posterior.from_guide(network, guide, X)
    before = posterior.predict(X, seed=0).mean
    svi = SVI(network, guide, pyro.optim.Adam({"lr": 0.1}), Trace_ELBO())
    svi.step(x, y)
    np.testing.assert_array_equal(posterior.predict(X, seed=0).mean, before)
    assert network.training
    assert not posterior.network.training


@pytest.mark.parametrize(("hidden", "name"), [([3, 3], "2.weight"), ([4], "0.weight")])
def test_a_guide_of_another_network_is_refused(hidden, name):
    _, guide, _, _ = fitted("mean field")
    other = BayesianNetwork(mlp(X.shape[1], hidden, 1, seed=0), priors.Normal())
    with pytest.raises(ValueError, match=f"`guide` must sample '{name}' of shape"):
        Posterior.from_guide(other, guide, X)
