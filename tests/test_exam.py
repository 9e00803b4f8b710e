"""The exam that every prior, likelihood and guide sits, in all combinations, on all engines.

A new member joins by one entry in `PRIORS`, `LIKELIHOODS` or `GUIDES`: itself, and its density
written with torch.distributions alone.
"""

import copy
import itertools
import math
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import pyro
import pytest
import torch
from pyro.infer import Trace_ELBO, TraceMeanField_ELBO
from torch import distributions as td
from torch.nn.functional import softplus

from pyrobbb import BayesianNetwork, MeanFieldGuide, auto_normal, likelihoods, mlp, priors
from pyrobbb.elbo.fused_elbo import FusedELBO
from pyrobbb.engines.base import Steps
from pyrobbb.engines.compiled import CompiledEngine
from pyrobbb.engines.fused import Chain, FusedEngine
from pyrobbb.engines.svi import SVIEngine

N_ROWS = 13


def number(value):
    return torch.tensor(value, dtype=torch.float64)


def normal(loc, scale):
    return td.Normal(number(loc), number(scale))


def mixture(pi, *scales):
    return td.MixtureSameFamily(td.Categorical(number([pi, 1 - pi])), normal([0.0, 0.0], scales))


def given(name, parameter):
    """Give another mean and scale to each input of a unit."""
    loc = torch.linspace(-1, 1, priors.fan_in(parameter)).to(parameter).expand(parameter.shape)
    return priors.Given({name: loc}, {name: loc.exp()})(name, parameter)


def given_density(name, fan_in):
    loc = torch.linspace(-1, 1, fan_in).double()
    return td.Normal(loc, loc.exp())


# Name: the prior, and what each element of a parameter then is, given its name and the number of
# inputs of a unit; None for a point.
PRIORS = {
    "Normal": (priors.Normal(0.7, 0.1), lambda name, fan_in: normal(0.1, 0.7)),
    "FanInNormal": (priors.FanInNormal(2), lambda name, fan_in: normal(0.0, 2 * fan_in**-0.5)),
    "ScaleMixture": (priors.ScaleMixture(0.3, 1, 0.1), lambda name, fan_in: mixture(0.3, 1, 0.1)),
    "Laplace": (priors.Laplace(0.5), lambda name, fan_in: td.Laplace(number(0.0), number(0.5))),
    "StudentT": (priors.StudentT(3, 0.5), lambda name, fan_in: td.StudentT(3, 0, number(0.5))),
    "Given": (given, given_density),
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


# The fused loss, and the three engines. Only MeanFieldGuide is fused.


def all_models(test):
    test = pytest.mark.parametrize("guide", ["MeanFieldGuide"])(test)
    for argument, names in (("member", LIKELIHOODS), ("prior", PRIORS)):
        test = pytest.mark.parametrize(argument, names)(test)
    return test


def pyros_elbo(objective, n_particles):
    kind = {"trace": Trace_ELBO, "mean_field": TraceMeanField_ELBO}[objective]
    return kind(num_particles=n_particles, vectorize_particles=n_particles > 1, max_plate_nesting=1)


@all_models
@pytest.mark.parametrize("n_particles", [1, 3])
@pytest.mark.parametrize("objective", ["trace", "mean_field"])
def test_the_fused_loss_and_its_gradients_are_pyros(candidate, objective, n_particles):
    results = []
    for elbo in (FusedELBO(objective, n_particles), pyros_elbo(objective, n_particles)):
        pyro.set_rng_seed(7)
        rows = slice(2, 9)
        loss = elbo.differentiable_loss(
            candidate.network, candidate.guide, candidate.x[rows], candidate.y[rows], N_ROWS
        )
        results.append((loss.detach(), torch.autograd.grad(loss, candidate.learnt())))
    fused, expected = results
    torch.testing.assert_close(fused[0], expected[0], rtol=1e-10, atol=0)
    torch.testing.assert_close(fused[1], expected[1], rtol=1e-9, atol=1e-10)


class GivenNoise(FusedEngine):
    """Takes the noise that Pyro draws after `torch.manual_seed(7)`."""

    def advance_noise(self, n_steps):
        torch.manual_seed(7)
        n_particles = self.noise_size // len(self.chains[0].guide.loc)
        return torch.stack([self.loss.noise(n_particles) for _ in range(n_steps)])

    def noise_at(self, positions, *, functional=False):
        return positions


class Fit:
    """Four steps from a candidate's start: batches of 5, 5 and 3 rows and the first again."""

    def __init__(self, candidate, make_engine):
        self.network = copy.deepcopy(candidate.network)
        self.guide = copy.deepcopy(candidate.guide)
        self.engine = make_engine(self)
        rows = torch.tensor([[12, 1, 3, 5, 7], [9, 11, 0, 2, 4], [6, 8, 10, 6, 8], [3, 4, 0, 1, 2]])
        n_rows = np.array([5, 5, 3, 5])
        steps = Steps(
            candidate.x,
            candidate.y,
            rows,
            n_rows,
            n_data=N_ROWS,
            kl_weight=np.array([0.5, 1.0, 0.25, 2.0]),
            step_weight=n_rows / 5,
            lr=np.array([0.01, 0.02, 0.03, 0.02]),
        )
        self.losses = np.full((4, 2, 1), np.nan)
        torch.manual_seed(7)
        self.engine.run(steps, self.losses)
        self.engine.sync()

    def learnt(self):
        points = [point for _, point in self.network.point_parameters()]
        return [p.detach() for p in (self.guide.loc, self.guide.rho, *points)]

    def by_svi(self):
        return SVIEngine(
            self.network,
            self.guide,
            elbo=pyros_elbo("trace", 1),
            optimizer=torch.optim.Adam,
            parameters=[point for _, point in self.network.point_parameters()]
            + list(self.guide.parameters()),
            clip_norm=30.0,
        )

    def by_fused(self):
        return GivenNoise(
            [Chain(self.network, self.guide, seed=0)],
            closed_form_kl=False,
            estimator="reparam",
            n_particles=1,
            optimizer=torch.optim.Adam,
            clip_norm=30.0,
        )

    def by_compiled(self):
        return CompiledEngine(self.by_fused(), batch_size=10, ragged=True)


def assert_same_fit(one, other, start):
    np.testing.assert_allclose(one.losses, other.losses, rtol=1e-8)
    torch.testing.assert_close(one.learnt(), other.learnt(), rtol=1e-8, atol=1e-9)
    for before, after in zip(start.learnt(), one.learnt(), strict=True):
        assert (before != after).any()


@all_models
def test_steps_by_the_fused_engine_are_those_of_pyros_svi(candidate):
    assert_same_fit(Fit(candidate, Fit.by_fused), Fit(candidate, Fit.by_svi), candidate)


# A compilation takes seconds: every likelihood and every prior is compiled at least once.
N_PAIRS = max(len(LIKELIHOODS), len(PRIORS))
PAIRS = zip(itertools.cycle(LIKELIHOODS), itertools.cycle(PRIORS), strict=False)


@pytest.mark.slow
@pytest.mark.parametrize("guide", ["MeanFieldGuide"])
@pytest.mark.parametrize(("member", "prior"), list(itertools.islice(PAIRS, N_PAIRS)))
def test_steps_by_the_compiled_engine_are_those_of_pyros_svi(candidate):
    compiled = Fit(candidate, Fit.by_compiled)
    assert compiled.engine.name == "compiled"
    assert_same_fit(compiled, Fit(candidate, Fit.by_svi), candidate)
