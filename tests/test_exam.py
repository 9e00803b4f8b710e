"""Tests that every prior, likelihood and guide must pass, in pairwise combination, on all engines.

The network is a perceptron, with and without learned scales of its inputs. The members are those of
`members.py`. `make test` runs a pairwise cover of all factors; the other combinations are marked
slow.
"""

import copy
import functools
import itertools
import math

import numpy as np
import pyro
import pytest
import torch
from members import GUIDES, LIKELIHOODS, PRIORS, number
from pyro.infer import Trace_ELBO, TraceMeanField_ELBO
from torch import distributions as td

from pyrobbb import BayesianNetwork, mlp
from pyrobbb.elbo.fused_elbo import FusedELBO
from pyrobbb.engines.base import Steps
from pyrobbb.engines.compiled import CompiledEngine
from pyrobbb.engines.fused import Chain, FusedEngine
from pyrobbb.engines.svi import SVIEngine

N_ROWS = 13
FACTORS = {
    "prior": tuple(PRIORS),
    "member": tuple(LIKELIHOODS),
    "guide": tuple(GUIDES),
    "input_scale": (False, True),
    "objective": ("trace", "mean_field"),
    "n_particles": (1, 3),
    "batch_size": (5, 1),
}


@functools.cache
def pairwise_cover(factors):
    """Return combinations in which any two levels of different factors occur together.

    The cover is built greedily: each combination is the first with the most missing pairs.
    """
    pairs = {
        levels: set(itertools.combinations(enumerate(levels), 2))
        for levels in itertools.product(*factors)
    }
    missing = set().union(*pairs.values())
    cover = []
    while missing:
        best = max(pairs, key=lambda levels: len(pairs[levels] & missing))
        missing -= pairs[best]
        cover.append(best)
    return cover


def crossed(*names, **others):
    """Run a test for a pairwise cover of the factors; mark their other combinations slow."""
    factors = {name: FACTORS[name] for name in names} | others
    cover = pairwise_cover(tuple(factors.values()))
    cases = [
        pytest.param(*levels, marks=() if levels in cover else pytest.mark.slow)
        for levels in itertools.product(*factors.values())
    ]
    return pytest.mark.parametrize(list(factors), cases)


def test_any_two_levels_of_the_factors_occur_together_in_the_cover():
    cover = pairwise_cover(tuple(FACTORS.values()))
    for (i, one), (j, other) in itertools.combinations(enumerate(FACTORS.values()), 2):
        assert {(row[i], row[j]) for row in cover} == set(itertools.product(one, other))
    assert len(cover) == len(PRIORS) * len(LIKELIHOODS)  # the minimum for these two factors


class Candidate:
    """A network, a guide away from its initial values, data, and the loss in two ways."""

    def __init__(self, prior, member, guide, input_scale):
        self.member = LIKELIHOODS[member]
        a_prior, self.prior_of, self.scale_of = PRIORS[prior]
        make_guide, self.log_q = GUIDES[guide]
        net = mlp(3, [4], self.member.n_units, "tanh", input_scale=input_scale, seed=0).double()
        self.network = BayesianNetwork(net, a_prior, self.member.likelihood)
        self.x = torch.randn(N_ROWS, 3, dtype=torch.float64)
        self.y = self.member.y.sample((N_ROWS,))
        self.guide = make_guide(self.network)
        self.guide(self.x, self.y)
        with torch.no_grad():
            for parameter in self.guide.parameters():
                parameter.add_(0.3 * torch.randn_like(parameter))

    def learned(self):
        points = [point for _, point in self.network.point_parameters()]
        return [*self.guide.parameters(), *points]

    def scales(self):
        """Return the sites of the learned scales by the name of the parameter."""
        learned = {n: self.scale_of(n) for n, _ in self.network.net.named_parameters()}
        self.log_scale_of = {
            site: (number(median).log(), number(log_sd))
            for site, median, log_sd in filter(None, learned.values())
        }
        return {name: scale[0] for name, scale in learned.items() if scale}

    def loss(self, rows=slice(None), n_data=None):
        """Return Pyro's negative ELBO, with the same noise in each call."""
        pyro.set_rng_seed(7)
        elbo = Trace_ELBO()
        return elbo.differentiable_loss(
            self.network, self.guide, self.x[rows], self.y[rows], n_data
        )

    def loss_by_parts(self):
        """Return nll + log q - log p with the same noise, computed by torch.distributions alone."""
        pyro.set_rng_seed(7)
        draws = self.guide(self.x, self.y)
        w = dict(self.network.net.named_parameters()) | draws
        x = self.x * w["inputs.log_scale"].exp() if "inputs.log_scale" in w else self.x
        hidden = torch.tanh(x @ w["0.weight"].T + w["0.bias"])
        output = hidden @ w["2.weight"].T + w["2.bias"]
        z, u, log_p = None, {}, number(0.0)
        scales = self.scales()
        for name, value in draws.items():
            if name in scales.values():
                u[name], p = value.log(), td.Normal(*self.log_scale_of[name])
            elif name in dict(self.network.net.named_parameters()):
                scale = [draws[scales[name]]] if name in scales else []
                u[name], p = value, self.prior_of(name, math.prod(value.shape[1:]), *scale)
            else:  # of log z, as the factor 1 / z in both densities of z cancels
                z = value
                medians, log_sd = self.member.latent
                u[name], p = z.log(), td.Normal(number(medians).log(), number(log_sd))
            log_p = log_p + p.log_prob(u[name]).sum()
        nll = -self.member.density(output, z).log_prob(self.y).sum()
        return nll + self.log_q(self.guide, u) - log_p


@pytest.fixture
def candidate(prior, member, guide, input_scale):
    return Candidate(prior, member, guide, input_scale)


@crossed("prior", "member", "guide", "input_scale")
def test_the_sites_are_those_that_have_a_density(candidate):
    scales = candidate.scales()
    expected = {
        name
        for name, parameter in candidate.network.net.named_parameters()
        if name in scales or candidate.prior_of(name, math.prod(parameter.shape[1:])) is not None
    }
    expected |= set(scales.values())
    latent = candidate.guide(candidate.x, candidate.y).keys() - expected
    assert expected | latent == {site.name for site in candidate.network.latent_sites()}
    assert len(latent) == (candidate.member.latent is not None)


@crossed("prior", "member", "guide", "input_scale")
def test_the_loss_is_the_nll_plus_log_q_minus_log_p(candidate):
    loss = candidate.loss()
    assert loss.isfinite()
    torch.testing.assert_close(loss, candidate.loss_by_parts(), rtol=1e-10, atol=0)


@crossed("prior", "member", "guide", "input_scale")
def test_gradients_are_finite_nonzero_and_those_of_the_parts(candidate):
    gradients = torch.autograd.grad(candidate.loss(), candidate.learned())
    for gradient in gradients:
        assert gradient.isfinite().all()
        assert (gradient != 0).all()
    expected = torch.autograd.grad(candidate.loss_by_parts(), candidate.learned())
    torch.testing.assert_close(gradients, expected, rtol=1e-8, atol=1e-10)


@crossed("prior", "member", "guide", "input_scale", "batch_size")
def test_minibatch_losses_average_to_the_loss_of_all_the_data(candidate, batch_size):
    batches = torch.arange(N_ROWS).split(batch_size)  # the last of 5, 5, 3 is ragged
    weighted = [
        len(rows) / N_ROWS * candidate.loss(rows, n_data=N_ROWS).detach() for rows in batches
    ]
    torch.testing.assert_close(sum(weighted), candidate.loss().detach(), rtol=1e-12, atol=0)


# The fused loss, and the three engines. AutoNormal is not fused.


fused_only = {"guide": ("MeanFieldGuide", "LowRankGuide")}


def pyros_elbo(objective, n_particles):
    kind = {"trace": Trace_ELBO, "mean_field": TraceMeanField_ELBO}[objective]
    return kind(num_particles=n_particles, vectorize_particles=n_particles > 1, max_plate_nesting=1)


@crossed("prior", "member", "input_scale", "objective", "n_particles", "batch_size", **fused_only)
def test_the_fused_loss_and_its_gradients_are_pyros(candidate, objective, n_particles, batch_size):
    results = []
    for elbo in (FusedELBO(objective, n_particles), pyros_elbo(objective, n_particles)):
        pyro.set_rng_seed(7)
        rows = slice(2, 2 + batch_size)
        loss = elbo.differentiable_loss(
            candidate.network, candidate.guide, candidate.x[rows], candidate.y[rows], N_ROWS
        )
        results.append((loss.detach(), torch.autograd.grad(loss, candidate.learned())))
    fused, expected = results
    torch.testing.assert_close(fused[0], expected[0], rtol=1e-10, atol=0)
    torch.testing.assert_close(fused[1], expected[1], rtol=1e-9, atol=1e-10)


class FixedNoise(FusedEngine):
    """Engine with the noise that Pyro draws after `torch.manual_seed(7)`."""

    def advance_noise(self, n_steps):
        torch.manual_seed(7)
        n_particles = self.noise_size // sum(self.chains[0].guide.noise_sizes)
        noise = [self.loss.noise(n_particles) for _ in range(max(n_steps, 1))]
        return torch.stack(noise)[:n_steps]

    def noise_at(self, positions, *, functional=False):
        return positions


class Fit:
    """Four steps from a candidate's state, in batches of 5, 5, 3 and 5 rows."""

    def __init__(self, candidate, engine, objective="trace", n_particles=1):
        self.network = copy.deepcopy(candidate.network)
        self.guide = copy.deepcopy(candidate.guide)
        points = [point for _, point in self.network.point_parameters()]
        if engine == "svi":
            self.engine = SVIEngine(
                self.network,
                self.guide,
                elbo=pyros_elbo(objective, n_particles),
                optimizer=torch.optim.Adam,
                parameters=[*points, *self.guide.parameters()],
                clip_norm=30.0,
            )
        else:
            self.engine = FixedNoise(
                [Chain(self.network, self.guide, seed=0)],
                closed_form_kl=objective == "mean_field",
                estimator="reparam",
                n_particles=n_particles,
                optimizer=torch.optim.Adam,
                clip_norm=30.0,
            )
        if engine == "compiled":
            self.engine = CompiledEngine(self.engine, batch_size=10, ragged=True)
        self.learned = [p.detach() for p in (*self.guide.parameters(), *points)]
        start = [tensor.clone() for tensor in self.learned]
        self.losses = self.run(candidate)
        for before, after in zip(start, self.learned, strict=True):
            assert (before != after).any()

    def run(self, candidate):
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
        losses = np.full((4, 2, 1), np.nan)
        torch.manual_seed(7)
        self.engine.run(steps, losses)
        self.engine.sync()
        return losses


def assert_same_fit(one, other, objective):
    # The SVI engine records the sampled KL divergence, whatever the objective.
    parts = [0, 1] if objective == "trace" else [0]
    np.testing.assert_allclose(one.losses[:, parts], other.losses[:, parts], rtol=1e-8)
    torch.testing.assert_close(one.learned, other.learned, rtol=1e-8, atol=1e-9)


@crossed("prior", "member", "input_scale", "objective", "n_particles", **fused_only)
def test_steps_by_the_fused_engine_are_those_of_pyros_svi(candidate, objective, n_particles):
    fits = [Fit(candidate, engine, objective, n_particles) for engine in ("fused", "svi")]
    assert_same_fit(*fits, objective)


# A compilation takes seconds: every likelihood and every prior is compiled at least once by
# `make test-all`, and a quarter of them by `make test`.
N_PAIRS = max(len(LIKELIHOODS), len(PRIORS))
PAIRS = zip(itertools.cycle(LIKELIHOODS), itertools.cycle(PRIORS), strict=False)


CASES = [
    pytest.param(*pair, "MeanFieldGuide", False, marks=pytest.mark.slow if i % 4 else ())
    for i, pair in enumerate(itertools.islice(PAIRS, N_PAIRS))
]
CASES += [
    ("Gaussian, noise learned", "ScaleMixture", "LowRankGuide", False),
    ("Gaussian, noise learned", "ScaleMixture", "MeanFieldGuide", True),
]


@pytest.mark.parametrize(("member", "prior", "guide", "input_scale"), CASES)
def test_steps_by_the_compiled_engine_are_those_of_pyros_svi(candidate):
    compiled = Fit(candidate, "compiled")
    assert compiled.engine.name == "compiled"
    assert_same_fit(compiled, Fit(candidate, "svi"), "trace")
