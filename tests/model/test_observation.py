"""The observed site under vectorised draws, against the same draws one at a time."""

import pyro
import pyro.distributions as dist
import pyro.poutine as poutine
import pytest
import torch
from modules import LATENTS, one_by_one, prior_draws
from pyro.infer import Predictive, Trace_ELBO

from pyrobbb import BayesianNetwork, MeanFieldGuide, mlp
from pyrobbb.likelihoods import Gaussian


@pytest.mark.parametrize("parallel", [True, False])
@pytest.mark.parametrize("n_draws", [1, 5])
def test_posterior_predictive_draws_are_the_same_in_parallel_and_sequentially(parallel, n_draws):
    # y is the output itself, so that there is no noise in which they could differ.
    network = BayesianNetwork(
        mlp(2, [4], 2).double(), likelihood=lambda output: dist.Delta(output, event_dim=1)
    )
    x = torch.randn(5, 2, dtype=torch.float64)
    draws = prior_draws(network, n_draws)
    predictive = Predictive(network, posterior_samples=draws, parallel=parallel)(x)
    assert list(predictive) == ["y"]
    torch.testing.assert_close(predictive["y"], one_by_one(network, draws, x))


@pytest.mark.parametrize("n_draws", [1, 5])
@pytest.mark.parametrize("median", [0.5, (0.5, 2.0)], ids=["one scale", "one scale per output"])
def test_predictive_pairs_draws_of_the_noise_with_draws_of_the_weights(median, n_draws):
    network = BayesianNetwork(mlp(2, [4], 2).double(), likelihood=Gaussian(noise_median=median))
    x = torch.randn(5, 2, dtype=torch.float64)
    guide = MeanFieldGuide(network)
    draws = Predictive(guide, num_samples=n_draws)(x)
    shapes = {name: value.shape for name, value in draws.items()}
    y = Predictive(network, guide=guide, num_samples=n_draws, parallel=True)(x)["y"]
    assert y.shape == (n_draws, 5, 2)
    trace = Predictive(network, posterior_samples=draws, parallel=True).get_vectorized_trace(x)
    sites = {name: value.reshape(n_draws, *guide.shapes[name]) for name, value in draws.items()}
    distribution = trace.nodes["y"]["fn"]
    torch.testing.assert_close(
        distribution.mean.reshape(n_draws, 5, 2), one_by_one(network, sites, x)
    )
    scale = sites["noise_scale"].reshape(n_draws, 1, -1).expand(n_draws, 5, 2)
    torch.testing.assert_close(distribution.stddev.reshape(n_draws, 5, 2), scale)
    assert {name: value.shape for name, value in draws.items()} == shapes


class Replayed:
    """A guide of known draws: one per call, or all in one call in the plate of the particles."""

    def __init__(self, draws, vectorized):
        self.draws, self.vectorized, self.n_calls = draws, vectorized, 0

    def __call__(self, *args):
        for name, values in self.draws.items():
            value = values[:, None] if self.vectorized else values[self.n_calls]
            pyro.sample(name, dist.Delta(value, event_dim=values.dim() - 1))
        self.n_calls += 1


@pytest.mark.parametrize("likelihood", LATENTS.values(), ids=LATENTS)
@pytest.mark.parametrize("n_particles", [3, 4])
def test_vectorised_particles_have_the_loss_of_the_same_draws_one_at_a_time(
    likelihood, n_particles
):
    network = BayesianNetwork(mlp(2, [4], 2).double(), likelihood=likelihood)
    x = torch.randn(4, 2, dtype=torch.float64)  # as many rows as particles in one of the cases
    y = torch.randint(4, (4, 2)).double()
    guide = MeanFieldGuide(network, x, init_scale=0.5)
    draws = Predictive(guide, num_samples=n_particles)(x)
    draws = {n: v.reshape(n_particles, *guide.shapes[n]).detach() for n, v in draws.items()}
    losses = [
        Trace_ELBO(
            num_particles=n_particles, vectorize_particles=vectorized, max_plate_nesting=1
        ).loss(network, Replayed(draws, vectorized), x, y, 7)
        for vectorized in (True, False)
    ]
    assert losses[0] == pytest.approx(losses[1], rel=1e-12)


@pytest.mark.parametrize("likelihood", LATENTS.values(), ids=LATENTS)
@pytest.mark.parametrize("n_draws", [1, 3, 4])
def test_the_distribution_of_many_draws_equals_that_of_each_draw(likelihood, n_draws):
    network = BayesianNetwork(mlp(2, [4], 2).double(), likelihood=likelihood)
    x = torch.randn(4, 2, dtype=torch.float64)
    guide = MeanFieldGuide(network, x, init_scale=0.5)
    draws = Predictive(guide, num_samples=n_draws)(x)
    draws = {n: v.reshape(n_draws, *guide.shapes[n]).detach() for n, v in draws.items()}
    weights = [name for name, _ in network.bayesian_parameters()]
    latents = {name: value for name, value in draws.items() if name not in weights}
    distribution = network.distribution(network.output(draws, x), latents)
    assert (distribution.batch_shape, distribution.event_shape) == ((n_draws, 4), (2,))
    for i in range(n_draws):
        with poutine.condition(data={name: value[i] for name, value in draws.items()}):
            alone = poutine.trace(network).get_trace(x).nodes["y"]["fn"]
        torch.testing.assert_close(distribution.mean[i], alone.mean)
        torch.testing.assert_close(distribution.variance[i], alone.variance)


def test_a_latent_site_per_row_is_not_realigned():
    def row_noise(output):
        with pyro.plate("rows", output.shape[-2], dim=-1):
            scale = pyro.sample("scale", dist.LogNormal(output.new_zeros(()), 1.0))
        return dist.Normal(output, scale[..., None])

    network = BayesianNetwork(mlp(2, [], 2), likelihood=row_noise)
    trace = poutine.trace(network).get_trace(torch.randn(3, 2))
    scale = trace.nodes["scale"]["value"]
    assert scale.shape == (3,)
    torch.testing.assert_close(trace.nodes["y"]["fn"].stddev, scale[:, None].expand(3, 2))
