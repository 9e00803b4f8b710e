"""The fused loss: extreme values, row weights, and fits along a leading dimension."""

import pyro
import pyro.distributions as dist
import pytest
import torch
from modules import learned
from pyro.infer import Trace_ELBO

from pyrobbb import BayesianNetwork, LowRankGuide, MeanFieldGuide, mlp
from pyrobbb.elbo.fused_elbo import FusedELBO
from pyrobbb.elbo.fused_loss import FusedLoss
from pyrobbb.likelihoods import Gaussian
from pyrobbb.model.flat_guide import inverse_softplus
from pyrobbb.priors import Normal, ScaleMixture, ScaleMixtureNormal

every_guide = pytest.mark.parametrize("make_guide", [MeanFieldGuide, LowRankGuide])


def loss_and_gradients(elbo, network, guide, *args):
    pyro.set_rng_seed(7)
    loss = elbo.differentiable_loss(network, guide, *args)
    return loss.detach(), torch.autograd.grad(loss, learned(network, guide))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize("rho", [-100.0, 100.0])
@pytest.mark.parametrize("prior", [ScaleMixture(0.5, 1.0, 0.0025), Normal(0.0025)], ids=str)
def test_loss_and_gradients_are_finite_at_extreme_values(dtype, rho, prior):
    """Weights at 50 prior scales, and standard deviations of 1e-15 and 100."""
    network = BayesianNetwork(mlp(3, [4], 1, "tanh", seed=0).to(dtype), prior, Gaussian(1.0))
    guide = MeanFieldGuide(network)
    with torch.no_grad():
        guide.loc.fill_(50.0)
        guide.rho.fill_(rho)
    x = torch.randn(5, 3).to(dtype)
    for objective in ("trace", "mean_field"):
        for n_particles in (1, 2):
            loss, gradients = loss_and_gradients(
                FusedELBO(objective, n_particles), network, guide, x, x[:, :1]
            )
            assert loss.dtype == dtype
            assert loss.isfinite()
            assert all(gradient.isfinite().all() for gradient in gradients)


def test_the_mixture_prior_of_large_weights_equals_its_density():
    """At 50 scales the densities of both components underflow in float32."""
    network = BayesianNetwork(mlp(3, [4], 1, seed=0), ScaleMixture(0.5, 1, 0.0025), Gaussian(1.0))
    guide = MeanFieldGuide(network)
    with torch.no_grad():
        guide.loc.copy_(torch.linspace(-50, 50, len(guide.loc)))
        guide.rho.fill_(float(inverse_softplus(torch.tensor(1e-6))))
    loss = FusedLoss(network, guide)
    x = torch.randn(5, 3)
    noise = torch.zeros_like(guide.loc)
    step = loss((guide.loc.detach(), guide.rho.detach()), (), noise, x, x[:, :1])
    mixture = ScaleMixtureNormal(*(torch.tensor(v).double() for v in (0.5, 1.0, 0.0025)))
    loc = guide.loc.detach().double().requires_grad_()
    log_prior = mixture.log_prob(loc).sum()
    entropy = dist.Normal(loc.detach(), guide.scale.detach().double()).log_prob(loc.detach()).sum()
    torch.testing.assert_close(step.kl.double(), entropy - log_prior.detach(), rtol=1e-6, atol=0)
    no_data = loss(
        (guide.loc.detach(), guide.rho.detach()), (), noise, x, x[:, :1], data_weight=0.0
    )
    (gradient,) = torch.autograd.grad(-log_prior, loc)
    torch.testing.assert_close(no_data.d_loc.double(), gradient, rtol=1e-5, atol=1e-5)


def test_the_derivative_of_the_scale_is_that_of_softplus_and_zero_at_the_lower_bound(regression):
    network, x, y = regression
    guide = MeanFieldGuide(network)
    with torch.no_grad():
        guide.rho.copy_(torch.linspace(-12, 60, len(guide.rho)))
    fused = loss_and_gradients(FusedELBO(), network, guide, x, y)
    expected = loss_and_gradients(Trace_ELBO(), network, guide, x, y)
    torch.testing.assert_close(fused, expected, rtol=1e-9, atol=1e-9)
    with torch.no_grad():  # softplus(-34.5) is 1.03e-15
        guide.rho.copy_(torch.tensor([-36.0, -34.0]).repeat(len(guide.rho) // 2))
    _, (_, d_rho) = loss_and_gradients(FusedELBO(), network, guide, x, y)
    assert (d_rho[::2] == 0).all()
    # The gradient is -1 / scale up to rounding, times d scale / d rho = scale.
    torch.testing.assert_close(d_rho[1::2], torch.full_like(d_rho[1::2], -1.0))


@pytest.mark.parametrize("n_particles", [1, 3])
def test_rows_of_weight_zero_have_no_effect(case, n_particles):
    network, x, y = case
    network.net.eval()  # batch norm in training sees all rows
    guide = MeanFieldGuide(network)
    loss = FusedLoss(network, guide)
    state = [tensor.detach() for tensor in learned(network, guide)]
    noise = loss.noise(n_particles)
    arguments, rows = (state[:2], tuple(state[2:]), noise), torch.tensor([0, 1, 2, 0, 4])
    masked = loss(*arguments, x[rows], y[rows], row_weight=torch.tensor([1.0, 1, 1, 0, 0]).double())
    alone = loss(*arguments, x[:3], y[:3])
    torch.testing.assert_close(vars(masked), vars(alone), rtol=1e-10, atol=1e-10)
    halved = loss(*arguments, x, y, row_weight=torch.full((5,), 0.5).double())
    torch.testing.assert_close(halved.nll, loss(*arguments, x, y).nll / 2, rtol=1e-12, atol=0)


@pytest.mark.parametrize("n_particles", [1, 3])
@pytest.mark.parametrize("closed_form_kl", [False, True])
@every_guide
def test_fits_along_a_leading_dimension_equal_single_fits(
    case, n_particles, closed_form_kl, make_guide
):
    network, x, y = case
    network.net.eval()
    guide = make_guide(network)
    loss = FusedLoss(network, guide, closed_form_kl=closed_form_kl)
    n_chains = 2
    state = [tensor.detach() for tensor in learned(network, guide)]
    states = [[t + 0.1 * torch.randn_like(t) for t in state] for _ in range(n_chains)]
    noises = [loss.noise(n_particles) for _ in range(n_chains)]
    rows = torch.tensor([[0, 1, 2], [4, 3, 0]])
    weights = torch.tensor([[1.0, 1, 1], [1, 1, 0]]).double()
    options = {"data_weight": 3.0, "kl_weight": 0.5}
    x_of, y_of = x[rows], y[rows]
    stacked = [torch.stack(parts) for parts in zip(*states, strict=True)]
    n = len(list(guide.parameters()))
    together = loss(
        stacked[:n],
        tuple(stacked[n:]),
        torch.stack(noises),
        x[rows],
        y[rows],
        row_weight=weights,
        **options,
    )
    for c in range(n_chains):
        alone = loss(
            states[c][:n],
            tuple(states[c][n:]),
            noises[c],
            x_of[c],
            y_of[c],
            row_weight=weights[c],
            **options,
        )
        for name in ("nll", "kl"):
            torch.testing.assert_close(
                getattr(together, name)[c], getattr(alone, name), rtol=1e-9, atol=1e-10
            )
        for name in ("d_guide", "d_points"):
            parts = tuple(d[c] for d in getattr(together, name))
            torch.testing.assert_close(parts, getattr(alone, name), rtol=1e-9, atol=1e-10)


@every_guide
def test_the_gradients_are_weighted_sums_of_those_of_nll_and_kl(regression, make_guide):
    network, x, y = regression
    guide = make_guide(network)
    for closed_form_kl in (False, True):
        loss = FusedLoss(network, guide, closed_form_kl=closed_form_kl)
        arguments = ([p.detach() for p in guide.parameters()], (), loss.noise(), x, y)
        data = loss(*arguments, data_weight=1.0, kl_weight=0.0)
        kl = loss(*arguments, data_weight=0.0, kl_weight=1.0)
        both = loss(*arguments, data_weight=3.0, kl_weight=0.5)
        torch.testing.assert_close(both.nll, 3 * data.nll)
        torch.testing.assert_close(both.kl, kl.kl)
        for d_both, d_data, d_kl in zip(both.d_guide, data.d_guide, kl.d_guide, strict=True):
            torch.testing.assert_close(d_both, 3 * d_data + 0.5 * d_kl)


@every_guide
def test_draws_equal_those_of_the_guide_at_the_same_noise(regression, make_guide):
    network, _, _ = regression
    guide = make_guide(network)
    loss = FusedLoss(network, guide)
    pyro.set_rng_seed(5)
    expected = guide()
    pyro.set_rng_seed(5)
    draws = loss.draws(list(guide.parameters()), loss.noise())
    torch.testing.assert_close(draws, expected, rtol=1e-12, atol=0)
