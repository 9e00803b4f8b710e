"""The exam that every prior, likelihood and guide sits, in all combinations.

A new member joins by one entry in `PRIORS`, `LIKELIHOODS` or `GUIDES`: itself, and its density
written with torch.distributions alone.
"""

import math
from collections.abc import Callable
from typing import NamedTuple

import pyro
import pytest
import torch
from pyro.infer import Trace_ELBO
from torch import distributions as td
from torch.nn.functional import softplus

from pyrobbb import BayesianNetwork, MeanFieldGuide, auto_normal, likelihoods, mlp, priors

N_ROWS = 13


def number(value):
    return torch.tensor(value, dtype=torch.float64)


def normal(loc, scale):
    return td.Normal(number(loc), number(scale))


def mixture(pi, *scales):
    return td.MixtureSameFamily(td.Categorical(number([pi, 1 - pi])), normal([0.0, 0.0], scales))


# Name: the prior, and what each element of a parameter then is, given its name and the number of
# inputs of a unit; None for a point.
PRIORS = {
    "Normal": (priors.Normal(0.7, 0.1), lambda name, fan_in: normal(0.1, 0.7)),
    "FanInNormal": (priors.FanInNormal(2), lambda name, fan_in: normal(0.0, 2 * fan_in**-0.5)),
    "ScaleMixture": (priors.ScaleMixture(0.3, 1, 0.1), lambda name, fan_in: mixture(0.3, 1, 0.1)),
    "Laplace": (priors.Laplace(0.5), lambda name, fan_in: td.Laplace(number(0.0), number(0.5))),
    "StudentT": (priors.StudentT(3, 0.5), lambda name, fan_in: td.StudentT(3, 0, number(0.5))),
    "ByName": (
        priors.ByName({"*.bias": None}, default=priors.Normal(2)),
        lambda name, fan_in: None if name.endswith("bias") else normal(0.0, 2.0),
    ),
}


class Member(NamedTuple):
    """A likelihood and what it is to give.

    n_units: of the network's output. y: what a row of y is drawn from. density: that of y, given
    the output and the latent. latent: medians and log-sd of its log-normal prior, if it has one.
    """

    likelihood: Callable
    n_units: int
    y: td.Distribution
    density: Callable
    latent: tuple | None = None


REALS = normal([0.0, 0.0], [1.0, 1.0])
BITS = td.Bernoulli(number([0.4, 0.4]))
COUNTS = td.Poisson(number([2.0, 2.0]))
LABELS = td.Categorical(number([1.0, 1.0, 1.0]))


def negative_binomial(output, r):
    return td.NegativeBinomial(r, probs=output.exp() / (output.exp() + r))


LIKELIHOODS = {
    "Gaussian": Member(likelihoods.Gaussian(0.3), 2, REALS, lambda o, z: td.Normal(o, 0.3)),
    "Gaussian, noise learnt": Member(
        likelihoods.Gaussian(), 2, REALS, lambda o, z: td.Normal(o, z), (0.5, 1.0)
    ),
    "Gaussian, noise of each output learnt": Member(
        likelihoods.Gaussian(noise_median=(0.3, 2.0), noise_log_sd=0.25),
        2,
        REALS,
        lambda o, z: td.Normal(o, z),
        ((0.3, 2.0), 0.25),
    ),
    "HeteroscedasticGaussian": Member(
        likelihoods.HeteroscedasticGaussian(),
        4,
        REALS,
        lambda o, z: td.Normal(o[:, :2], softplus(o[:, 2:]) + 1e-4),
    ),
    "StudentT": Member(likelihoods.StudentT(4, 0.3), 2, REALS, lambda o, z: td.StudentT(4, o, 0.3)),
    "StudentT, noise learnt": Member(
        likelihoods.StudentT(), 2, REALS, lambda o, z: td.StudentT(4, o, z), (0.5, 1.0)
    ),
    "Bernoulli": Member(
        likelihoods.Bernoulli(), 2, BITS, lambda o, z: td.Bernoulli(1 / (1 + (-o).exp()))
    ),
    "Categorical": Member(
        likelihoods.Categorical(), 3, LABELS, lambda o, z: td.Categorical(o.softmax(-1))
    ),
    "Poisson": Member(likelihoods.Poisson(), 2, COUNTS, lambda o, z: td.Poisson(o.exp())),
    "NegativeBinomial": Member(
        likelihoods.NegativeBinomial(3), 2, COUNTS, lambda o, z: negative_binomial(o, 3)
    ),
    "NegativeBinomial, dispersion learnt": Member(
        likelihoods.NegativeBinomial(), 2, COUNTS, negative_binomial, (10.0, 1.5)
    ),
}


def mean_field_site(guide, name):
    return td.Normal(guide.split(guide.loc)[name], softplus(guide.split(guide.rho)[name]))


def auto_normal_site(guide, name):
    loc, rho = (tree.get_parameter(f"{name}_unconstrained") for tree in (guide.locs, guide.scales))
    return td.Normal(loc, softplus(rho))


# Name: what makes the guide, and the density of a site's elements in unconstrained space.
GUIDES = {
    "MeanFieldGuide": (MeanFieldGuide, mean_field_site),
    "auto_normal": (auto_normal, auto_normal_site),
}


class Candidate:
    """A network, a guide away from its start, data, and the loss in two ways."""

    def __init__(self, prior, member, guide):
        self.member = LIKELIHOODS[member]
        a_prior, self.prior_of = PRIORS[prior]
        make_guide, self.q_of = GUIDES[guide]
        net = mlp(3, [4], self.member.n_units, "tanh", seed=0).double()
        self.network = BayesianNetwork(net, a_prior, self.member.likelihood)
        self.x = torch.randn(N_ROWS, 3, dtype=torch.float64)
        self.y = self.member.y.sample((N_ROWS,))
        self.guide = make_guide(self.network)
        self.guide(self.x, self.y)
        with torch.no_grad():
            for parameter in self.guide.parameters():
                parameter.add_(0.3 * torch.randn_like(parameter))

    def learnt(self):
        points = [point for _, point in self.network.point_parameters()]
        return [*self.guide.parameters(), *points]

    def loss(self, rows=slice(None), n_data=None):
        """Give Pyro's negative ELBO, at the same noise each time."""
        pyro.set_rng_seed(7)
        elbo = Trace_ELBO()
        return elbo.differentiable_loss(
            self.network, self.guide, self.x[rows], self.y[rows], n_data
        )

    def loss_by_parts(self):
        """Give nll + log q - log p at the same noise, by torch.distributions alone."""
        pyro.set_rng_seed(7)
        draws = self.guide(self.x, self.y)
        w = dict(self.network.net.named_parameters()) | draws
        hidden = torch.tanh(self.x @ w["0.weight"].T + w["0.bias"])
        output = hidden @ w["2.weight"].T + w["2.bias"]
        z = None
        log_q_less_log_p = number(0.0)
        for name, value in draws.items():
            if name in dict(self.network.net.named_parameters()):
                u, p = value, self.prior_of(name, math.prod(value.shape[1:]))
            else:  # of log z, as the factor 1 / z in both densities of z cancels
                z = value
                medians, log_sd = self.member.latent
                u, p = z.log(), td.Normal(number(medians).log(), number(log_sd))
            log_ratio = self.q_of(self.guide, name).log_prob(u) - p.log_prob(u)
            log_q_less_log_p = log_q_less_log_p + log_ratio.sum()
        nll = -self.member.density(output, z).log_prob(self.y).sum()
        return nll + log_q_less_log_p


@pytest.fixture
def candidate(prior, member, guide):
    return Candidate(prior, member, guide)


def all_members(test):
    for argument, names in (("guide", GUIDES), ("member", LIKELIHOODS), ("prior", PRIORS)):
        test = pytest.mark.parametrize(argument, names)(test)
    return test


@all_members
def test_the_sites_are_those_that_have_a_density(candidate):
    expected = {
        name
        for name, parameter in candidate.network.net.named_parameters()
        if candidate.prior_of(name, math.prod(parameter.shape[1:])) is not None
    }
    latent = candidate.guide(candidate.x, candidate.y).keys() - expected
    assert expected | latent == {site.name for site in candidate.network.latent_sites()}
    assert len(latent) == (candidate.member.latent is not None)


@all_members
def test_the_loss_is_the_nll_and_log_q_less_log_p(candidate):
    loss = candidate.loss()
    assert loss.isfinite()
    torch.testing.assert_close(loss, candidate.loss_by_parts(), rtol=1e-10, atol=0)


@all_members
def test_gradients_are_finite_nowhere_zero_and_those_of_the_parts(candidate):
    gradients = torch.autograd.grad(candidate.loss(), candidate.learnt())
    for gradient in gradients:
        assert gradient.isfinite().all()
        assert (gradient != 0).all()
    expected = torch.autograd.grad(candidate.loss_by_parts(), candidate.learnt())
    torch.testing.assert_close(gradients, expected, rtol=1e-8, atol=1e-10)


@all_members
@pytest.mark.parametrize("batch_size", [5, 1])
def test_minibatch_losses_average_to_the_loss_of_all_the_data(candidate, batch_size):
    batches = torch.arange(N_ROWS).split(batch_size)  # the last of 5, 5, 3 is ragged
    weighted = [
        len(rows) / N_ROWS * candidate.loss(rows, n_data=N_ROWS).detach() for rows in batches
    ]
    torch.testing.assert_close(sum(weighted), candidate.loss().detach(), rtol=1e-12, atol=0)
