"""InputScale in front of a perceptron, in all that takes a network."""

import numpy as np
import pytest
import torch
from stored_folders import edit, header_of
from support import X, Y, assert_same_fit, quick_fit
from torch.testing import assert_close

from pyrobbb import (
    BayesianNetwork,
    InputScale,
    Posterior,
    crosscheck,
    fit,
    fresh_start,
    likelihoods,
    mlp,
    priors,
)

PRIOR = priors.ByName({"inputs.log_scale": priors.Normal()}, priors.ScaleMixture(0.5, 1.0, 0.1))


def network(prior=PRIOR, likelihood=None):
    net = mlp(3, [4], 1, "tanh", input_scale=True, seed=0)
    return BayesianNetwork(net.double(), prior, likelihood)


def test_a_scale_is_a_common_factor_of_the_first_weights_of_its_input():
    scaled, plain = network(), BayesianNetwork(mlp(3, [4], 1, "tanh", seed=0).double())
    draws = {
        name: torch.randn((6, *p.shape), dtype=torch.float64)
        for name, p in scaled.bayesian_parameters()
    }
    log_scale = draws["inputs.log_scale"]
    of_plain = draws | {"0.weight": draws["0.weight"] * log_scale.exp()[:, None]}
    del of_plain["inputs.log_scale"]
    x = torch.as_tensor(X)
    assert_close(scaled.output(draws, x), plain.output(of_plain, x))


def test_a_new_layer_does_not_change_its_inputs():
    x = torch.randn(5, 3)
    assert torch.equal(InputScale(3)(x), x)


@pytest.mark.parametrize("n_in", [0, 1.5])
def test_the_number_of_inputs_is_checked(n_in):
    with pytest.raises((TypeError, ValueError), match="n_in"):
        InputScale(n_in)


@pytest.mark.parametrize(
    "prior", [PRIOR, priors.ByName({"inputs.log_scale": None}, priors.Normal())]
)
def test_the_fused_loss_is_that_of_pyro_for_drawn_and_for_point_scales(prior):
    assert crosscheck(network(prior), X, Y).ok


def test_compiled_steps_are_those_of_the_fused_engine():
    options = {"epochs": 60, "restarts": 2}
    compiled = quick_fit(network(), engine="compiled", **options)
    assert compiled.chains[0].settings.engine == "compiled"
    assert_same_fit(compiled, quick_fit(network(), **options), rtol=1e-8)


def test_a_restart_starts_with_scales_of_1():
    start = network()
    with torch.no_grad():
        start.net.inputs.log_scale.fill_(2.0)
    assert not fresh_start(start, seed=1).net.inputs.log_scale.any()


def test_a_posterior_is_stored_and_read_without_the_module(tmp_path):
    posterior = quick_fit(network())
    posterior.save(tmp_path / "model")
    read = Posterior.load(tmp_path / "model")
    np.testing.assert_array_equal(read.predict(X, seed=0).mean, posterior.predict(X, seed=0).mean)


def test_the_reference_does_not_implement_it():
    checked = crosscheck(network(), X, Y)
    assert "not a plain MLP" in str(checked)


def test_a_folder_of_an_earlier_version_has_no_input_scale(tmp_path):
    posterior = quick_fit(BayesianNetwork(mlp(3, [4], 1, seed=0).double()))
    posterior.save(tmp_path / "model")
    net = header_of(tmp_path / "model")["net"]
    assert net.pop("input_scale") is False
    edit(tmp_path / "model", net=net)
    read = Posterior.load(tmp_path / "model")
    np.testing.assert_array_equal(read.predict(X, seed=0).mean, posterior.predict(X, seed=0).mean)


def test_the_scale_of_an_irrelevant_input_shrinks():
    rng = np.random.default_rng(0)
    x = rng.normal(size=(100, 3))
    y = x[:, :1] + 0.1 * rng.normal(size=(100, 1))
    net = mlp(3, [20], 1, input_scale=True, seed=0)
    model = BayesianNetwork(net, PRIOR, likelihoods.Gaussian(0.1))
    posterior = fit(model, x, y, epochs=1_000, lr=0.02, engine="fused", seed=0, progress=False)
    relevant, *irrelevant = posterior.draws(200, seed=0)["inputs.log_scale"].mean(0)
    assert relevant - max(irrelevant) > 0.7
