"""The KL divergence of a mean-field guide from the prior, and the loss at extreme scales."""

import copy
import math

import pyro
import pyro.poutine as poutine
import pytest
import torch
from modules import LastState, loc_and_scale, network_and_data
from pyro.infer import Trace_ELBO, TraceMeanField_ELBO
from torch.distributions import kl_divergence

from pyrobbb import BayesianNetwork, MeanFieldGuide
from pyrobbb.likelihoods import Gaussian
from pyrobbb.model.flat_guide import inverse_softplus
from pyrobbb.priors import ByName, FanInNormal, Laplace, Normal, ScaleMixture

CLOSED = {
    "Normal": (Normal(0.7, loc=0.1), lambda parameter: (0.1, 0.7)),
    "FanInNormal": (
        FanInNormal(1.5),
        lambda parameter: (0.0, 1.5 / math.sqrt(math.prod(parameter.shape[1:]))),
    ),
    "by name": (
        ByName({"0.*": Normal(0.3)}, default=Normal(2.0)),
        lambda parameter: (0.0, 0.3 if len(parameter) == 4 else 2.0),
    ),
}


def nll_at_same_noise(network, guide, x, y, *rest):
    pyro.set_rng_seed(3)
    trace = poutine.trace(guide).get_trace(x, y)
    model = poutine.trace(poutine.replay(network, trace=trace)).get_trace(x, y, *rest)
    model.compute_log_prob()
    return -model.nodes["y"]["log_prob_sum"].item()


def kl_at_same_noise(objective, network, guide, *data):
    pyro.set_rng_seed(3)
    return objective().loss(network, guide, *data) - nll_at_same_noise(network, guide, *data)


@pytest.mark.parametrize(("prior", "loc_and_scale_of"), CLOSED.values(), ids=CLOSED)
@pytest.mark.parametrize("noise", [None, (0.3, 2.0)], ids=["fixed noise", "learned noise"])
def test_the_mean_field_loss_is_the_sum_of_torch_kl_divergences_plus_the_nll(
    prior, loc_and_scale_of, noise
):
    likelihood = Gaussian(0.3) if noise is None else Gaussian(noise_median=noise, noise_log_sd=0.75)
    network, x, y = network_and_data(likelihood, prior, n_out=2)
    guide = MeanFieldGuide(network)
    with torch.no_grad():
        guide.loc.add_(torch.randn_like(guide.loc))
        guide.rho.add_(torch.randn_like(guide.rho))
    loc, scale = loc_and_scale(guide)
    kl, n_elements = 0, 0
    for name, parameter in network.bayesian_parameters():
        q = torch.distributions.Normal(loc[name], scale[name])
        p_loc, p_scale = torch.tensor(loc_and_scale_of(parameter), dtype=torch.float64)
        p = torch.distributions.Normal(p_loc, p_scale)
        each = kl_divergence(q, p)
        assert each.shape == parameter.shape
        kl, n_elements = kl + each.sum(), n_elements + each.numel()
    assert n_elements == sum(p.numel() for p in network.net.parameters())
    if noise is not None:
        # The KL divergence is invariant under the logarithm, after which both are normal.
        q = torch.distributions.Normal(loc["noise_scale"], scale["noise_scale"])
        prior_log = torch.distributions.Normal(torch.tensor(noise, dtype=torch.float64).log(), 0.75)
        kl = kl + kl_divergence(q, prior_log).sum()
    expected = kl.item() + nll_at_same_noise(network, guide, x, y)
    pyro.set_rng_seed(3)
    loss = TraceMeanField_ELBO().loss(network, guide, x, y)
    assert loss == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize("objective", [Trace_ELBO, TraceMeanField_ELBO])
def test_the_kl_is_zero_when_q_is_the_prior(objective):
    likelihood = Gaussian(noise_median=(0.3, 2.0), noise_log_sd=0.8)
    network, x, y = network_and_data(likelihood, FanInNormal(1.5), n_out=2)
    guide = MeanFieldGuide(network)
    scale = {
        name: torch.full(shape, 1.5 / math.sqrt(math.prod(shape[1:])), dtype=torch.float64)
        for name, shape in guide.shapes.items()
    }
    scale["noise_scale"] = torch.full((2,), 0.8, dtype=torch.float64)
    with torch.no_grad():
        guide.loc.zero_()
        guide.loc[-2:] = torch.tensor([0.3, 2.0], dtype=torch.float64).log()
        guide.rho.copy_(inverse_softplus(torch.cat([s.flatten() for s in scale.values()])))
    kl = kl_at_same_noise(objective, network, guide, x, y)
    assert kl == pytest.approx(0, abs=1e-9)


@pytest.mark.parametrize("objective", [Trace_ELBO, TraceMeanField_ELBO])
@pytest.mark.parametrize("prior", [FanInNormal(), ScaleMixture(), Laplace()], ids=repr)
def test_the_kl_does_not_depend_on_the_number_of_data(objective, prior):
    network, x, y = network_and_data(prior=prior)
    guide = MeanFieldGuide(network)
    kl = []
    for n_rows, n_data in [(6, None), (1, None), (3, 3), (3, 6), (6, 10_000)]:
        data = x[:n_rows], y[:n_rows], n_data
        kl.append(kl_at_same_noise(objective, network, guide, *data))
    assert kl[1:] == pytest.approx([kl[0]] * 4, rel=1e-8)


@pytest.mark.parametrize("objective", [Trace_ELBO, TraceMeanField_ELBO])
def test_the_kl_does_not_depend_on_the_length_of_sequences(objective):
    network = BayesianNetwork(LastState().double())
    guide = MeanFieldGuide(network)
    kl = []
    for length in (1, 2, 20):
        data = torch.randn(4, length, 2).double(), torch.randn(4, 1).double()
        kl.append(kl_at_same_noise(objective, network, guide, *data))
    assert kl[1:] == pytest.approx([kl[0]] * 2, rel=1e-10)


@pytest.mark.parametrize("objective", [Trace_ELBO, TraceMeanField_ELBO])
@pytest.mark.parametrize("rho", [-1000.0, -100.0, -50.0, -30.0, 30.0, 100.0])
@pytest.mark.parametrize("prior", [FanInNormal(), ScaleMixture()], ids=repr)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_loss_and_gradients_are_finite_at_extreme_rho(objective, rho, prior, dtype):
    network, x, y = network_and_data(Gaussian(1.0), prior, dtype=dtype)
    guide = MeanFieldGuide(network)
    with torch.no_grad():
        guide.rho.fill_(rho)
    loss = objective().differentiable_loss(network, guide, x, y)
    loss.backward()
    assert loss.isfinite()
    assert guide.loc.grad.isfinite().all()
    assert guide.rho.grad.isfinite().all()
    assert guide.loc.grad.abs().min() > 0


def test_at_a_vanishing_scale_the_gradient_in_loc_is_that_of_the_deterministic_network():
    network, x, y = network_and_data(Gaussian(0.5), Normal(2.0), dtype=torch.float32)
    guide = MeanFieldGuide(network)
    with torch.no_grad():
        guide.rho.fill_(-100)
    TraceMeanField_ELBO().differentiable_loss(network, guide, x, y).backward()
    net = copy.deepcopy(network.net)
    nll = -torch.distributions.Normal(net(x), 0.5).log_prob(y).sum()
    (nll + sum((p**2).sum() for p in net.parameters()) / (2 * 2.0**2)).backward()
    expected = torch.cat([parameter.grad.flatten() for parameter in net.parameters()])
    torch.testing.assert_close(guide.loc.grad, expected)
