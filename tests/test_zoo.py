"""Every module of the zoo through the API: fit, predict, diagnose, ArviZ, storage, copies."""

import copy
import functools
import logging
import pickle
import warnings

import numpy as np
import pyro
import pytest
import torch
from pyro.infer import Trace_ELBO
from zoo import N_ROWS, ZOO

from pyrobbb import BayesianNetwork, FusedELBO, MeanFieldGuide, Posterior, fit
from pyrobbb.likelihoods import Gaussian

RANDOM = [name for name, specimen in ZOO.items() if specimen.draws_numbers]
FIXED = [name for name in ZOO if name not in RANDOM]

UNPICKLABLE = ["own parametrization", "weight norm", "spectral norm", "orthogonal"]

EVERYWHERE = [  # one of each kind; make test-all has all of them
    "batch norm without statistics",
    "stateful RNN",
    "embedding with padding",
    "attention",
    "weight norm by hook",
    "empty parameter",
    "kept activations",
    "buffer assigned",
    "input changed in place",
    "centred over rows",
    "graph network",
    "functional dropout",
]
SOME = [n if n in EVERYWHERE else pytest.param(n, marks=pytest.mark.slow) for n in ZOO]

pytestmark = pytest.mark.filterwarnings(
    "ignore:.*(oneDNN|enable_nested_tensor|spectral_norm|weight_norm):",
    "ignore::FutureWarning:torch",
)


def network_of(name):
    specimen = ZOO[name]
    return BayesianNetwork(specimen.net(), specimen.prior, Gaussian(0.5))


def data_of(name):
    x = ZOO[name].x()
    shape = network_of(name).targets_like(x).shape
    return x, torch.randn((N_ROWS, *shape[1:]), generator=torch.Generator().manual_seed(2))


def fitted(name, engine):
    x, y = data_of(name)
    size = N_ROWS if ZOO[name].needs_all_rows else 4
    options = {"epochs": 3, "batch_size": size, "seed": 0, "progress": False, "lr": 0.01}
    return fit(network_of(name), x, y, engine=engine, **options)


@functools.cache
def posterior_of(name):
    return fitted(name, "fused")


def outputs_one_by_one(posterior, name, x, n_draws, seed):
    """Return the outputs of new modules that have the draws as their parameters."""
    draws = posterior.draws(n_draws, seed)
    state = posterior.network.net.state_dict()
    outputs = []
    for i in range(n_draws):
        net = ZOO[name].net()
        with torch.no_grad():
            net.load_state_dict(state)
            for key, parameter in net.named_parameters():
                if key in draws:
                    parameter.copy_(draws[key][i])
            if name == "embedding with padding":
                net.embedding.weight[0] = state["embedding.weight"][0]
            outputs.append(net.eval()(x.clone()))
    return torch.stack(outputs)


def test_the_zoo_is_large():
    assert len(ZOO) >= 60


@pytest.mark.parametrize("name", ZOO)
def test_traits(name):
    specimen = ZOO[name]
    traits = network_of(name).traits(specimen.x())
    assert traits.mixes_rows == specimen.mixes_rows
    assert traits.needs_all_rows == specimen.needs_all_rows
    assert traits.draws_numbers == specimen.draws_numbers


@pytest.mark.parametrize("name", ZOO)
def test_the_fused_loss_and_its_gradients_are_those_of_trace_elbo(name):
    x, y = data_of(name)
    results = []
    for elbo in (Trace_ELBO(), FusedELBO()):
        network = network_of(name)
        guide = MeanFieldGuide(network, init_scale=0.1)
        pyro.set_rng_seed(3)
        loss = elbo.differentiable_loss(network, guide, x, y)
        loss.backward()
        learned = [guide.loc, guide.rho, *(point for _, point in network.point_parameters())]
        results.append([loss.detach(), *(parameter.grad for parameter in learned)])
        buffers = dict(network.net.named_buffers())
        results[-1] += [buffer for _, buffer in sorted(buffers.items())]
    for expected, got in zip(*results, strict=True):
        torch.testing.assert_close(got, expected, rtol=2e-4, atol=2e-4)


@pytest.mark.parametrize("name", FIXED)
def test_predictions_are_those_of_the_module_with_each_draw(name):
    posterior, x = posterior_of(name), ZOO[name].x(seed=5)
    before = x.clone()
    prediction = posterior.predict(x, 5, seed=7)
    expected = outputs_one_by_one(posterior, name, x, 5, 7)
    torch.testing.assert_close(prediction.mean, expected.mean(0), rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(
        prediction.epistemic_sd, expected.std(0, correction=0), rtol=1e-3, atol=1e-4
    )
    assert torch.equal(x, before)


@pytest.mark.parametrize("name", ZOO)
def test_predictions_depend_neither_on_memory_nor_on_earlier_calls(name):
    posterior, x = posterior_of(name), ZOO[name].x(seed=5)
    state = torch.get_rng_state()
    means = [
        posterior.predict(x, 18, seed=7, max_memory=memory).mean for memory in (2**30, 2**30, 2000)
    ]
    for mean in means[1:]:
        torch.testing.assert_close(mean, means[0], rtol=1e-4, atol=1e-4)
    assert torch.equal(torch.get_rng_state(), state)


@pytest.mark.parametrize("name", ZOO)
def test_svi_fits(name):
    posterior = fitted(name, "svi")
    assert np.isfinite(posterior.history.nelbo).all()
    assert bool((posterior.guide.loc != MeanFieldGuide(network_of(name)).loc).any())


@pytest.mark.parametrize("name", SOME)
def test_a_posterior_is_diagnosed_and_exported(name):
    posterior, (x, y) = posterior_of(name), data_of(name)
    report = posterior.diagnose(x, y, n_draws=100, seed=0)
    assert len(report.table)
    tree = posterior.to_arviz(x, y, n_draws=20, seed=0)
    assert tree["posterior_predictive"]["y"].sizes["draw"] == 20


@pytest.mark.parametrize("name", SOME)
def test_copies_predict_the_same(name, tmp_path):
    posterior, x = posterior_of(name), ZOO[name].x(seed=5)
    expected = posterior.predict(x, 5, seed=7).mean
    posterior.save(tmp_path / "posterior")
    loaded = Posterior.load(tmp_path / "posterior", network_of(name))
    for other in (loaded, copy.deepcopy(posterior)):
        assert torch.equal(other.predict(x, 5, seed=7).mean, expected)


@pytest.mark.parametrize("name", SOME)
def test_a_pickled_posterior_predicts_the_same(name):
    if name in UNPICKLABLE:
        pytest.skip("torch does not pickle it: its class is made at run time")
    posterior, x = posterior_of(name), ZOO[name].x(seed=5)
    again = pickle.loads(pickle.dumps(posterior))
    assert torch.equal(again.predict(x, 5, seed=7).mean, posterior.predict(x, 5, seed=7).mean)


@pytest.mark.slow
@pytest.mark.parametrize("name", ZOO)
def test_compiled_steps_are_fused_steps(name, caplog):
    caplog.set_level(logging.INFO, logger="pyrobbb")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # not all of them can be compiled
        compiled = fitted(name, "compiled")
    expected = posterior_of(name)
    np.testing.assert_allclose(compiled.history.nelbo, expected.history.nelbo, rtol=1e-3)
    torch.testing.assert_close(compiled.guide.loc, expected.guide.loc, rtol=1e-3, atol=1e-3)
