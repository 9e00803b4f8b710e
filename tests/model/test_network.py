"""Any module as a Pyro model: a zoo of modules, stock Pyro on one of them, and clear refusals."""

import copy
import itertools
import logging
import math
import re

import numpy as np
import pyro
import pyro.distributions as dist
import pyro.poutine as poutine
import pytest
import scipy.stats
import torch
from modules import LastState, Tied
from pyro.infer import MCMC, NUTS, SVI, Predictive, Trace_ELBO, TraceMeanField_ELBO
from pyro.infer.autoguide import AutoDelta, AutoLowRankMultivariateNormal, AutoNormal
from torch import nn

from pyrobbb import BayesianNetwork, MeanFieldGuide, auto_normal, fit, mlp
from pyrobbb.likelihoods import Categorical, Gaussian, NegativeBinomial
from pyrobbb.model.mlp import ACTIVATIONS, MLPSpec, mlp_spec
from pyrobbb.priors import ByName, FanInNormal, Normal


class MeanOverSequence(nn.Module):
    def __init__(self):
        super().__init__()
        self.encoder = nn.TransformerEncoderLayer(4, 2, 8, batch_first=True)
        self.head = nn.Linear(4, 1)

    def forward(self, x):
        return self.head(self.encoder(x).mean(1))


def cnn():
    layers = [nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2), nn.ReLU(), nn.Flatten(), nn.Linear(18, 3)]
    return nn.Sequential(*layers)


def embedding_bag():
    return nn.Sequential(nn.EmbeddingBag(7, 3), nn.Linear(3, 3))


POINTS_IN_NORM = ByName({"1.*": None})

# A module, its prior, its likelihood, and the shape of a row of x; None: five tokens.
ZOO = {
    "MLP": (lambda: mlp(3, [4, 4], 2, "tanh"), None, Gaussian(), (3,)),
    "CNN with batch norm": (cnn, POINTS_IN_NORM, Categorical(), (1, 5, 5)),
    "LSTM": (LastState, None, Gaussian(), (6, 2)),
    "EmbeddingBag": (embedding_bag, None, Categorical(), None),
    "TransformerEncoderLayer": (MeanOverSequence, None, Gaussian(), (6, 4)),
    "tied weights": (Tied, None, Gaussian(), (3,)),
}


@pytest.fixture(params=ZOO)
def case(request):
    make, prior, likelihood, row = ZOO[request.param]
    network = BayesianNetwork(make().double(), prior, likelihood)
    x = torch.randint(7, (4, 5)) if row is None else torch.randn(4, *row, dtype=torch.float64)
    with torch.no_grad():
        output = network.net.eval()(x)
    network.net.train()
    y = output.argmax(-1) if isinstance(likelihood, Categorical) else torch.randn_like(output)
    return network, x, y


def prior_draws(network, n_draws):
    return {
        name: network.prior(name, parameter).sample((n_draws,))
        for name, parameter in network.bayesian_parameters()
    }


def one_by_one(network, draws, x):
    """Write each draw into a copy of the module and run that: what a held draw means."""
    outputs = []
    for i in range(len(next(iter(draws.values())))):
        module = copy.deepcopy(network.net)
        with torch.no_grad():
            for name, parameter in module.named_parameters():
                if name in draws:
                    parameter.copy_(draws[name][i])
            outputs.append(module(x))
    return torch.stack(outputs)


@pytest.mark.parametrize("n_draws", [1, 3])
def test_draws_at_once_give_what_they_give_one_by_one(case, n_draws):
    network, x, _ = case
    network.eval()
    draws = prior_draws(network, n_draws)
    with torch.no_grad():
        output = network.output(draws, x)
    torch.testing.assert_close(output, one_by_one(network, draws, x))
    assert len(output) == n_draws
    assert not (output[:1] == output[1:]).any()


def test_a_held_draw_gives_the_same_output_again_and_row_by_row(case):
    network, x, _ = case
    network.eval()
    draws = prior_draws(network, 3)
    with torch.no_grad():
        output = network.output(draws, x)
        again = network.output(draws, x)
        rows = torch.cat([network.output(draws, row) for row in x.split(1)], dim=1)
    torch.testing.assert_close(again, output, rtol=0, atol=0)
    torch.testing.assert_close(rows, output)


def test_batch_norm_in_training_takes_the_statistics_of_each_draw():
    network = BayesianNetwork(cnn().double(), POINTS_IN_NORM, Categorical())
    x = torch.randn(4, 1, 5, 5, dtype=torch.float64)
    draws = prior_draws(network, 3)
    expected = one_by_one(network, draws, x)
    with torch.no_grad():
        torch.testing.assert_close(network.output(draws, x), expected)
    assert network.net[1].num_batches_tracked == 3


def test_modules_that_cannot_be_vectorised_say_so_once(caplog):
    caplog.set_level(logging.INFO, logger="pyrobbb")
    messages = []
    for net in (mlp(2, [3], 1), LastState()):
        network = BayesianNetwork(net).eval()
        x = torch.randn(4, 6, 2)
        for _ in range(2):
            network.output(prior_draws(network, 2), x)
        messages.append([record.getMessage() for record in caplog.records])
    assert messages[0] == []
    (message,) = messages[1]
    assert message.startswith("Draws run one by one: the module cannot be vectorised")


@pytest.mark.parametrize("n_particles", [1, 2])
def test_a_step_of_svi_moves_every_parameter(case, n_particles):
    network, x, y = case
    guide = MeanFieldGuide(network)
    learnt = [guide.loc, guide.rho, *(point for _, point in network.point_parameters())]
    before = [parameter.detach().clone() for parameter in learnt]
    elbo = Trace_ELBO(
        num_particles=n_particles, vectorize_particles=n_particles > 1, max_plate_nesting=1
    )
    loss = SVI(network, guide, pyro.optim.Adam({"lr": 0.01}), elbo).step(x, y)
    assert math.isfinite(loss)
    for parameter, old in zip(learnt, before, strict=True):
        # Adam's first step is lr * g / (|g| + 1e-8).
        moved = (parameter - old).abs()
        assert ((moved > 0.005) & (moved < 0.0101)).all()


def test_fit_leaves_the_module_as_it_was(case):
    network, x, y = case
    network.eval()
    before = copy.deepcopy(network.net.state_dict())
    posterior = fit(network, x, y, epochs=2, batch_size=2, progress=False)
    torch.testing.assert_close(network.net.state_dict(), before, rtol=0, atol=0)
    assert not any(module.training for module in network.modules())
    assert all(parameter.grad is None for parameter in network.parameters())
    for name, point in posterior.network.point_parameters():
        assert (point != before[name]).any()


def test_gradients_reach_tied_weights_through_both_of_their_uses():
    network = BayesianNetwork(Tied().double())
    assert [name for name, _ in network.bayesian_parameters()] == [
        "first.weight",
        "first.bias",
        "second.bias",
    ]
    x = torch.randn(4, 3, dtype=torch.float64)
    draws = {k: v.requires_grad_() for k, v in prior_draws(network, 1).items()}
    network.output(draws, x).sum().backward()
    w, b1, b2 = (draws[k][0] for k in ("first.weight", "first.bias", "second.bias"))
    leaf = w.detach().clone().requires_grad_()
    ((torch.tanh(x @ leaf.T + b1) @ leaf.T) + b2).sum().backward()
    torch.testing.assert_close(draws["first.weight"].grad[0], leaf.grad)


# Stock Pyro on a linear regression, whose posterior and evidence are known.

NOISE = 0.5


class Conjugate:
    """y = x w + b + noise, standard normal priors on w and b."""

    def __init__(self):
        generator = torch.Generator().manual_seed(3)
        self.x = torch.randn(12, 2, dtype=torch.float64, generator=generator)
        noise = torch.randn(12, 1, dtype=torch.float64, generator=generator)
        self.y = self.x @ torch.tensor([[1.0], [-0.5]], dtype=torch.float64) + 0.3 + NOISE * noise
        net = mlp(2, [], 1, seed=0).double()
        self.network = BayesianNetwork(net, Normal(1.0), Gaussian(NOISE))
        design = torch.cat([self.x, torch.ones_like(self.y)], dim=1)
        self.covariance = torch.linalg.inv(design.T @ design / NOISE**2 + torch.eye(3))
        self.mean = (self.covariance @ design.T @ self.y / NOISE**2).flatten()
        marginal = design @ design.T + NOISE**2 * torch.eye(12)
        self.log_evidence = scipy.stats.multivariate_normal(np.zeros(12), marginal.numpy()).logpdf(
            self.y.flatten().numpy()
        )

    def log_joint(self, weights):
        """Give the sum of all log-densities at values of the sites, by SciPy."""
        w, b = weights["0.weight"].detach().numpy(), weights["0.bias"].detach().numpy()
        normal = scipy.stats.norm.logpdf
        likelihood = normal(self.y.numpy(), self.x.numpy() @ w.T + b, NOISE).sum()
        return normal(w).sum() + normal(b).sum() + likelihood


@pytest.fixture
def regression():
    return Conjugate()


def test_the_log_density_of_a_trace_is_that_of_prior_and_likelihood(regression):
    trace = poutine.trace(regression.network).get_trace(regression.x, regression.y)
    sites = {name: trace.nodes[name]["value"] for name in ("0.weight", "0.bias")}
    assert trace.log_prob_sum().item() == pytest.approx(regression.log_joint(sites), rel=1e-12)


def test_the_log_density_of_a_deep_network_with_learnt_noise_is_that_of_its_parts():
    network = BayesianNetwork(
        mlp(2, [3], 2, "tanh").double(), FanInNormal(1.5), Gaussian(noise_median=(0.3, 2.0))
    )
    x, y = torch.randn(5, 2).double(), torch.randn(5, 2).double()
    trace = poutine.trace(network).get_trace(x, y)
    w = {name: site["value"].numpy() for name, site in trace.nodes.items() if "0." in name}
    w |= {name: site["value"].numpy() for name, site in trace.nodes.items() if "2." in name}
    scale = trace.nodes["noise_scale"]["value"].numpy()
    hidden = np.tanh(x.numpy() @ w["0.weight"].T + w["0.bias"])
    output = hidden @ w["2.weight"].T + w["2.bias"]
    normal, gain = scipy.stats.norm.logpdf, 1.5
    expected = (
        normal(y.numpy(), output, scale).sum()
        + normal(w["0.weight"], 0, gain / math.sqrt(2)).sum()
        + normal(w["2.weight"], 0, gain / math.sqrt(3)).sum()
        + normal(w["0.bias"], 0, gain).sum()
        + normal(w["2.bias"], 0, gain).sum()
        + scipy.stats.lognorm(1.0, scale=[0.3, 2.0]).logpdf(scale).sum()
    )
    assert trace.log_prob_sum().item() == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize("n_data", [12, 30, 1000])
def test_the_log_likelihood_counts_n_data_over_n_times(regression, n_data):
    network, x, y = regression.network, regression.x, regression.y
    plain = poutine.trace(network).get_trace(x, y)
    with poutine.replay(trace=plain):
        scaled = poutine.trace(network).get_trace(x, y, n_data)
    for trace in (plain, scaled):
        trace.compute_log_prob()
    for site in ("0.weight", "0.bias"):
        assert scaled.nodes[site]["log_prob_sum"] == plain.nodes[site]["log_prob_sum"]
    expected = plain.nodes["y"]["log_prob_sum"] * n_data / 12
    torch.testing.assert_close(scaled.nodes["y"]["log_prob_sum"], expected)


def test_n_data_must_be_a_count_of_at_least_the_rows(regression):
    network, x, y = regression.network, regression.x, regression.y
    message = "`n_data` is the size of the whole data set, at least the 12 rows of x, got 11"
    with pytest.raises(ValueError, match=message):
        network(x, y, 11)
    with pytest.raises(TypeError, match=r"`n_data` must be a whole number, got 12\.0"):
        network(x, y, 12.0)


def test_without_y_the_model_draws_it_from_the_likelihood(regression):
    trace = poutine.trace(regression.network).get_trace(regression.x)
    assert not trace.nodes["y"]["is_observed"]
    assert trace.nodes["_RETURN"]["value"] is trace.nodes["y"]["value"]
    mean = regression.x @ trace.nodes["0.weight"]["value"].T + trace.nodes["0.bias"]["value"]
    torch.testing.assert_close(trace.nodes["y"]["fn"].mean, mean)
    torch.testing.assert_close(trace.nodes["y"]["fn"].stddev, torch.full_like(mean, NOISE))


def normal_of(guide):
    """Give the mean and standard deviation of each site of a normal guide, from its quantiles."""
    one_sd = scipy.stats.norm.cdf(1)
    quantiles = guide.quantiles([0.5, one_sd])
    return {name: (q[0].detach(), (q[1] - q[0]).detach()) for name, q in quantiles.items()}


@pytest.mark.parametrize("objective", [Trace_ELBO, TraceMeanField_ELBO])
def test_the_loss_of_stock_auto_normal_is_log_q_minus_log_p(regression, objective):
    # In both: its sites are a normal that is only auxiliary and a Delta, so no KL is closed.
    network, x, y = regression.network, regression.x, regression.y
    guide = AutoNormal(network, init_scale=0.2)
    svi = SVI(network, guide, pyro.optim.Adam({"lr": 0.01}), objective())
    for _ in range(3):
        svi.step(x, y)
    pyro.set_rng_seed(1)
    sites = guide(x, y)
    log_q = sum(
        scipy.stats.norm.logpdf(sites[name].detach(), loc, scale).sum()
        for name, (loc, scale) in normal_of(guide).items()
    )
    pyro.set_rng_seed(1)
    expected = log_q - regression.log_joint(sites)
    assert svi.evaluate_loss(x, y) == pytest.approx(expected, rel=1e-10)


def test_trace_mean_field_elbo_gives_the_closed_kl_less_the_log_likelihood(regression):
    network, x, y = regression.network, regression.x, regression.y
    guide = MeanFieldGuide(network, init_scale=0.2)
    svi = SVI(network, guide, pyro.optim.Adam({"lr": 0.01}), TraceMeanField_ELBO())
    for _ in range(3):
        svi.step(x, y)
    pyro.set_rng_seed(1)
    sites = guide(x, y)
    loc, scale = guide.loc.detach(), nn.functional.softplus(guide.rho.detach())
    kl = (0.5 * (scale**2 + loc**2 - 1) - scale.log()).sum()
    output = x @ sites["0.weight"].T + sites["0.bias"]
    nll = -scipy.stats.norm.logpdf(y, output.detach(), NOISE).sum()
    pyro.set_rng_seed(1)
    assert svi.evaluate_loss(x, y) == pytest.approx(kl.item() + nll, rel=1e-10)


def fitted(regression, guide, n_steps, lr=0.05):
    """Step with a learning rate that falls to a hundredth of its start."""
    optimizer = pyro.optim.ClippedAdam({"lr": lr, "lrd": 0.01 ** (1 / n_steps)})
    svi = SVI(regression.network, guide, optimizer, Trace_ELBO())
    for _ in range(n_steps):
        svi.step(regression.x, regression.y)
    return svi


def test_auto_delta_finds_the_mode_of_the_posterior(regression):
    guide = AutoDelta(regression.network)
    fitted(regression, guide, 300)
    sites = guide()
    mode = torch.cat([sites["0.weight"].flatten(), sites["0.bias"]])
    torch.testing.assert_close(mode, regression.mean, rtol=0, atol=1e-4)


def test_auto_low_rank_normal_reaches_the_posterior_and_never_beats_the_evidence(regression):
    guide = AutoLowRankMultivariateNormal(regression.network, init_scale=0.1, rank=2)
    svi = fitted(regression, guide, 500)
    distribution = guide.get_posterior()
    torch.testing.assert_close(distribution.mean, regression.mean, rtol=0, atol=0.05)
    covariance = regression.covariance
    torch.testing.assert_close(distribution.covariance_matrix, covariance, rtol=0, atol=0.01)
    losses = torch.tensor([svi.evaluate_loss(regression.x, regression.y) for _ in range(50)])
    gap = losses.mean() + regression.log_evidence
    standard_error = losses.std() / 50**0.5
    assert gap > -4 * standard_error
    assert gap < 0.05 + 4 * standard_error


def test_nuts_samples_the_exact_posterior(regression):
    mcmc = MCMC(NUTS(regression.network), num_samples=150, warmup_steps=50, disable_progbar=True)
    mcmc.run(regression.x, regression.y)
    samples = mcmc.get_samples()
    draws = torch.cat([samples["0.weight"].flatten(1), samples["0.bias"]], dim=1)
    assert draws.shape == (150, 3)
    sizes = [mcmc.diagnostics()[name]["n_eff"] for name in ("0.weight", "0.bias")]
    n_effective = torch.cat([size.flatten() for size in sizes]).clamp(max=150)
    variance = regression.covariance.diagonal()
    assert ((draws.mean(0) - regression.mean).abs() < 4 * (variance / n_effective).sqrt()).all()
    assert ((draws.var(0) / variance - 1).abs() < 4 * (2 / n_effective).sqrt()).all()


@pytest.mark.parametrize(("parallel", "n"), [(True, 4000), (False, 300)])
def test_prior_predictive_draws_have_the_variance_of_prior_and_noise(regression, parallel, n):
    draws = Predictive(regression.network, num_samples=n, parallel=parallel)(regression.x)
    assert draws["y"].shape == (n, 12, 1)
    assert draws["0.weight"].reshape(n, -1).shape == (n, 2)
    variance = (regression.x**2).sum(1) + 1 + NOISE**2
    ratio = draws["y"].squeeze(-1).pow(2).mean(0) / variance
    # The mean of n squared standard normal values has the standard error sqrt(2 / n).
    assert ((ratio - 1).abs() < 4 * math.sqrt(2 / n)).all()


@pytest.mark.parametrize("parallel", [True, False])
@pytest.mark.parametrize("n_draws", [1, 5])
def test_posterior_predictive_draws_are_the_same_in_parallel_or_not(parallel, n_draws):
    # With y the output itself there is no noise in which they could differ.
    network = BayesianNetwork(
        mlp(2, [4], 2).double(), likelihood=lambda output: dist.Delta(output, event_dim=1)
    )
    x = torch.randn(5, 2, dtype=torch.float64)
    draws = prior_draws(network, n_draws)
    predictive = Predictive(network, posterior_samples=draws, parallel=parallel)(x)
    assert list(predictive) == ["y"]
    torch.testing.assert_close(predictive["y"], one_by_one(network, draws, x))


@pytest.mark.parametrize("n_draws", [1, 5])
@pytest.mark.parametrize("median", [0.5, (0.5, 2.0)], ids=["one scale", "a scale each"])
def test_predictive_takes_the_draws_of_the_noise_with_those_of_the_weights(median, n_draws):
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


def own_noise(output):
    scale = pyro.sample("scale", dist.LogNormal(output.new_zeros(()), 1.0))
    tilt = pyro.sample("tilt", dist.Normal(output.new_zeros(2), 1.0).to_event(1))
    return dist.Normal(output + tilt, scale)


LATENTS = {
    "one noise scale": Gaussian(),
    "a noise scale for each output": Gaussian(noise_median=(0.5, 2.0)),
    "total count": NegativeBinomial(),
    "a callable with sites of its own": own_noise,
}


class Replayed:
    """A guide of known draws: one each time it runs, or all at once in the particles' plate."""

    def __init__(self, draws, at_once):
        self.draws, self.at_once, self.turn = draws, at_once, 0

    def __call__(self, *args):
        for name, values in self.draws.items():
            value = values[:, None] if self.at_once else values[self.turn]
            pyro.sample(name, dist.Delta(value, event_dim=values.dim() - 1))
        self.turn += 1


@pytest.mark.parametrize("likelihood", LATENTS.values(), ids=LATENTS)
@pytest.mark.parametrize("n_particles", [3, 4])
def test_vectorised_particles_have_the_loss_of_the_same_draws_one_by_one(likelihood, n_particles):
    network = BayesianNetwork(mlp(2, [4], 2).double(), likelihood=likelihood)
    x = torch.randn(4, 2, dtype=torch.float64)  # as many rows as particles, or not
    y = torch.randint(4, (4, 2)).double()
    guide = MeanFieldGuide(network, x, init_scale=0.5)
    draws = Predictive(guide, num_samples=n_particles)(x)
    draws = {n: v.reshape(n_particles, *guide.shapes[n]).detach() for n, v in draws.items()}
    losses = [
        Trace_ELBO(
            num_particles=n_particles, vectorize_particles=at_once, max_plate_nesting=1
        ).loss(network, Replayed(draws, at_once), x, y, 7)
        for at_once in (True, False)
    ]
    assert losses[0] == pytest.approx(losses[1], rel=1e-12)


@pytest.mark.parametrize("likelihood", LATENTS.values(), ids=LATENTS)
@pytest.mark.parametrize("n_draws", [1, 3, 4])
def test_the_distribution_of_many_draws_is_that_of_each(likelihood, n_draws):
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


@pytest.mark.parametrize("objective", [Trace_ELBO, TraceMeanField_ELBO])
def test_vectorised_particles_have_the_same_expectation(regression, objective):
    guide = MeanFieldGuide(regression.network, init_scale=0.3)
    options = {"vectorize_particles": True, "max_plate_nesting": 1}
    many = objective(num_particles=500, **options)
    pair = regression.network, guide
    vectorised = torch.tensor([many.loss(*pair, regression.x, regression.y) for _ in range(20)])
    single = torch.tensor([objective().loss(*pair, regression.x, regression.y) for _ in range(400)])
    standard_error = (vectorised.var() / 20 + single.var() / 400).sqrt()
    assert (vectorised.mean() - single.mean()).abs() < 4 * standard_error
    # 500 particles have 1/500 of the variance of one; a variance of 20 values has an error of 0.3.
    assert vectorised.var() < 4 * single.var() / 500


def test_a_latent_site_for_each_row_is_left_in_its_rows():
    def row_noise(output):
        with pyro.plate("rows", output.shape[-2], dim=-1):
            scale = pyro.sample("scale", dist.LogNormal(output.new_zeros(()), 1.0))
        return dist.Normal(output, scale[..., None])

    network = BayesianNetwork(mlp(2, [], 2), likelihood=row_noise)
    trace = poutine.trace(network).get_trace(torch.randn(3, 2))
    scale = trace.nodes["scale"]["value"]
    assert scale.shape == (3,)
    torch.testing.assert_close(trace.nodes["y"]["fn"].stddev, scale[:, None].expand(3, 2))


# Two networks in one process.


def stepper(make_guide, seed):
    net = nn.Sequential(nn.Linear(2, 3), nn.BatchNorm1d(3), nn.Tanh(), nn.Linear(3, 1)).double()
    network = BayesianNetwork(net, POINTS_IN_NORM)
    guide = make_guide(network)
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(5, 2, dtype=torch.float64, generator=generator)
    svi = SVI(network, guide, pyro.optim.Adam({"lr": 0.05}), Trace_ELBO())

    def step(i):
        pyro.set_rng_seed(seed + i)
        return svi.step(x, x[:, :1])

    return step, network, guide


@pytest.mark.parametrize("make_guide", [MeanFieldGuide, auto_normal])
def test_two_networks_in_one_process_do_not_meet(make_guide):
    pyro.set_rng_seed(0)
    step, network, guide = stepper(make_guide, 10)
    alone = [step(i) for i in range(5)]
    pyro.set_rng_seed(0)
    step, other_network, other_guide = stepper(make_guide, 10)
    step_b, *_ = stepper(make_guide, 20)
    beside, losses_b = [], []
    for i in range(5):
        losses_b.append(step_b(i))
        beside.append(step(i))
    assert beside == alone
    assert losses_b != alone
    for one, two in ((network, other_network), (guide, other_guide)):
        torch.testing.assert_close(two.state_dict(), one.state_dict(), rtol=0, atol=0)
    assert list(pyro.get_param_store()) == []


# What a network says of itself.


def test_parameters_are_bayesian_points_or_frozen():
    net = cnn()
    net[4].bias.requires_grad_(False)
    network = BayesianNetwork(net, ByName({"1.*": None, "0.bias": None}), Categorical())
    bayesian = [name for name, _ in network.bayesian_parameters()]
    assert bayesian == ["0.weight", "4.weight"]
    points = [name for name, _ in network.point_parameters()]
    assert points == ["0.bias", "1.weight", "1.bias"]
    trace = poutine.trace(network).get_trace(torch.randn(2, 1, 5, 5))
    assert [name for name in trace.param_nodes if name.startswith("net.")] == [
        f"net.{name}" for name in points
    ]
    assert trace.stochastic_nodes == [*bayesian, "data", "y"]


def test_a_handler_may_give_a_point_another_value():
    network = BayesianNetwork(mlp(2, [], 1), ByName({"*.bias": None}), Gaussian(0.1))
    x = torch.randn(3, 2)
    with poutine.substitute(data={"net.0.bias": torch.tensor([100.0])}):
        trace = poutine.trace(network).get_trace(x)
    expected = x @ trace.nodes["0.weight"]["value"].T + 100
    torch.testing.assert_close(trace.nodes["y"]["fn"].mean, expected)


def test_latent_sites_come_in_the_models_order_with_their_starts():
    network = BayesianNetwork(mlp(3, [4], 2).double(), likelihood=Gaussian(noise_median=0.2))
    sites = network.latent_sites()
    trace = poutine.trace(network).get_trace(torch.randn(5, 3).double())
    assert [site.name for site in sites] == [
        n for n in trace.stochastic_nodes if n not in ("data", "y")
    ]
    assert [site.fan_in for site in sites] == [3, 1, 4, 1, 1]
    for site, (_, parameter) in zip(sites, network.bayesian_parameters(), strict=False):
        torch.testing.assert_close(site.start, parameter.detach(), rtol=0, atol=0)
        assert site.start.data_ptr() != parameter.data_ptr()
    assert sites[-1].start.item() == pytest.approx(0.2)
    assert sites[-1].support.check(torch.tensor([-1.0, 1.0])).tolist() == [False, True]


@pytest.mark.parametrize(
    ("prior", "start"),
    [
        (dist.Gamma(2.0, 1.0), 1.0),
        (dist.HalfNormal(2.0), 2 * float(scipy.stats.norm.ppf(0.75))),
        (dist.Beta(2.0, 2.0), 0.5),
        (dist.Normal(torch.tensor([1.0, 2.0]), 1.0).to_event(1), [1.0, 2.0]),
    ],
)
def test_the_sites_of_a_callable_are_found_by_running_it_on_some_input(prior, start):
    def likelihood(output):
        return dist.Normal(output + pyro.sample("own", prior).mean(), 1.0)

    network = BayesianNetwork(mlp(3, [], 1), likelihood=likelihood)
    assert [site.name for site in network.latent_sites()] == ["0.weight", "0.bias"]
    site = network.latent_sites(np.zeros((2, 3)))[-1]
    assert site.name == "own"
    torch.testing.assert_close(site.start, torch.tensor(start), atol=1e-6, rtol=1e-6)


def test_prepare_brings_data_to_the_dtype_of_the_network():
    network = BayesianNetwork(mlp(2, [], 1))
    x, y = network.prepare(np.arange(6).reshape(3, 2), [[1], [2], [3]])
    assert (x.dtype, y.dtype) == (torch.float32, torch.float32)
    assert (x.tolist(), y.tolist()) == ([[0, 1], [2, 3], [4, 5]], [[1], [2], [3]])


def test_prepare_leaves_whole_numbers_to_an_embedding():
    network = BayesianNetwork(embedding_bag(), likelihood=Categorical())
    x = network.prepare_inputs(np.array([[1, 2], [3, 4]], dtype=np.int32))
    assert x.dtype == torch.int32


def test_prepare_leaves_modes_buffers_and_random_state_alone():
    net = cnn().train()
    net[1].eval()
    network = BayesianNetwork(net, POINTS_IN_NORM, Categorical())
    modes = [module.training for module in network.modules()]
    before, state = copy.deepcopy(net.state_dict()), torch.get_rng_state()
    network.prepare(torch.randn(4, 1, 5, 5, generator=torch.Generator()), [0, 1, 2, 0])
    assert [module.training for module in network.modules()] == modes
    torch.testing.assert_close(net.state_dict(), before, rtol=0, atol=0)
    assert torch.equal(torch.get_rng_state(), state)


@pytest.mark.parametrize("likelihood", LATENTS.values(), ids=LATENTS)
def test_prepare_draws_no_latent_from_the_random_state(likelihood):
    network = BayesianNetwork(mlp(2, [4], 2), likelihood=likelihood)
    state = torch.get_rng_state()
    network.prepare(np.zeros((3, 2)), np.ones((3, 2)))
    network.latent_sites(np.zeros((3, 2)))
    assert torch.equal(torch.get_rng_state(), state)


@pytest.mark.parametrize(
    ("x", "message"),
    [
        (np.zeros((4, 2)), "`x` with rows of shape (2,) and dtype torch.float32 does not fit the"),
        (np.zeros(4), "`x` with rows of shape () and dtype torch.float32 does not fit the network"),
        (np.full((4, 3), np.nan), "`x` has 12 value(s) that are NaN or infinite"),
        (np.zeros((5, 3)), "`x` and `y` must have one row each: got 5 and 4 rows."),
    ],
)
def test_data_that_do_not_fit_are_refused(x, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        BayesianNetwork(mlp(3, [], 1)).prepare(x, np.zeros((4, 1)))


class Returns(nn.Linear):
    def __init__(self, change):
        super().__init__(2, 1)
        self.change = change

    def forward(self, x):
        return self.change(super().forward(x))


@pytest.mark.parametrize(
    ("change", "got"),
    [
        (lambda output: (output, output), "<class 'tuple'>"),
        (lambda output: output.mean(), "shape ()"),
        (lambda output: output[:1], "shape (1, 1)"),
    ],
)
def test_a_module_must_give_a_row_for_each_row(change, got):
    message = f"`net` must give a tensor with one row for each row of x: for 2 rows it gave {got}."
    with pytest.raises(ValueError, match=re.escape(message)):
        BayesianNetwork(Returns(change)).prepare_inputs(np.zeros((4, 2)))


@pytest.mark.parametrize("net", [lambda x: x, nn.Linear, "net", None])
def test_the_net_must_be_a_module(net):
    message = f"`net` must be a torch.nn.Module, got {type(net).__name__}."
    with pytest.raises(TypeError, match=re.escape(message)):
        BayesianNetwork(net)


@pytest.mark.parametrize("argument", ["prior", "likelihood"])
def test_a_class_in_place_of_an_instance_is_recognised(argument):
    value = {"prior": Normal, "likelihood": Gaussian}[argument]
    message = f"`{argument}` must be a callable .*: a class, write parentheses after it"
    with pytest.raises(TypeError, match=message):
        BayesianNetwork(mlp(2, [], 1), **{argument: value})


@pytest.mark.parametrize("argument", ["prior", "likelihood"])
def test_prior_and_likelihood_must_be_callables(argument):
    message = rf"`{argument}` must be a callable such as those of pyrobbb\.{argument}s, got 1\.0"
    with pytest.raises(TypeError, match=message):
        BayesianNetwork(mlp(2, [], 1), **{argument: 1.0})


def test_lazy_parameters_are_refused():
    net = nn.Sequential(nn.LazyLinear(3), nn.ReLU(), nn.Linear(3, 1))
    message = "`net` has the lazy parameter '0.weight': run the module once on some rows first"
    with pytest.raises(ValueError, match=message):
        BayesianNetwork(net)
    net(torch.zeros(1, 2))
    assert len(BayesianNetwork(net).bayesian_parameters()) == 4


@pytest.mark.parametrize(
    ("prior", "got"),
    [
        (lambda name, p: dist.Normal(0.0, 1.0), "batch shape () and event shape ()"),
        (lambda name, p: dist.Normal(p, 1.0), "batch shape (1, 2) and event shape ()"),
        (lambda name, p: dist.Normal(p, 1.0).to_event(1), "batch shape (1,) and event shape (2,)"),
        (
            lambda name, p: dist.Normal(torch.zeros(2, 1), 1.0).to_event(2),
            "batch shape () and event shape (2, 1)",
        ),
    ],
)
def test_a_prior_in_another_shape_than_its_parameter_is_refused(prior, got):
    message = (
        "`prior` must give '0.weight' a distribution whose event has the parameter's shape "
        f"(1, 2), got {got}: end it in .expand(parameter.shape).to_event(parameter.dim())."
    )
    with pytest.raises(ValueError, match=re.escape(message)):
        BayesianNetwork(mlp(2, [], 1), prior)


def test_a_prior_must_give_distributions():
    with pytest.raises(TypeError, match="`prior` must give a distribution or None, got float for"):
        BayesianNetwork(mlp(2, [], 1), lambda name, parameter: 1.0)


@pytest.mark.parametrize(
    ("net", "prior"),
    [
        (mlp(2, [], 1), lambda name, parameter: None),
        (mlp(2, [], 1).requires_grad_(False), None),
        (nn.ReLU(), None),
    ],
    ids=["no priors", "all frozen", "no parameters"],
)
def test_a_network_without_a_bayesian_parameter_is_refused(net, prior):
    with pytest.raises(ValueError, match="`prior` leaves no parameter of `net` Bayesian: all are"):
        BayesianNetwork(net, prior)


@pytest.mark.parametrize("name", ["y", "data", "noise_scale"])
def test_a_parameter_with_the_name_of_a_site_is_refused(name):
    net = nn.Linear(2, 1)
    net.register_parameter(name, nn.Parameter(torch.zeros(1)))
    message = f"`net` has a parameter named '{name}', which is a site of the model"
    with pytest.raises(ValueError, match=message):
        BayesianNetwork(net)
    if name == "noise_scale":
        assert len(BayesianNetwork(net, likelihood=Gaussian(0.1)).bayesian_parameters()) == 3


# mlp() and what recognises it.


@pytest.mark.parametrize("activation", ACTIVATIONS)
@pytest.mark.parametrize("hidden", [[], [5], [4, 6, 3]])
def test_mlp_alternates_linear_layers_and_activations(activation, hidden):
    net = mlp(3, hidden, 2, activation)
    sizes = [3, *hidden, 2]
    linears = [layer for layer in net if isinstance(layer, nn.Linear)]
    assert [(layer.in_features, layer.out_features) for layer in linears] == list(
        itertools.pairwise(sizes)
    )
    assert [type(layer) for layer in list(net)[1::2]] == [ACTIVATIONS[activation]] * len(hidden)
    assert type(net) is nn.Sequential


def test_a_seed_repeats_the_weights_and_leaves_the_random_state_alone():
    state = torch.get_rng_state()
    first = mlp(3, [4], 1, seed=1)
    assert torch.equal(torch.get_rng_state(), state)
    torch.testing.assert_close(mlp(3, [4], 1, seed=1).state_dict(), first.state_dict())
    assert not torch.equal(mlp(3, [4], 1, seed=2)[0].weight, first[0].weight)
    assert not torch.equal(mlp(3, [4], 1)[0].weight, mlp(3, [4], 1)[0].weight)


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ((0, [3], 1), ValueError, "`n_in` must be at least 1, got 0."),
        ((2, [3], -1), ValueError, "`n_out` must be at least 1, got -1."),
        ((2, [3, 0], 1), ValueError, "`hidden` must be at least 1, got 0."),
        ((2.0, [3], 1), TypeError, "`n_in` must be a whole number, got 2.0."),
        ((2, [3.5], 1), TypeError, "`hidden` must be a whole number, got 3.5."),
        ((2, 3, 1), TypeError, "`hidden` must be a sequence such as [50, 50], got 3."),
        ((2, "50", 1), TypeError, "`hidden` must be a sequence such as [50, 50], got '50'."),
        ((2, [3], 1, "swish"), ValueError, "`activation` must be one of relu, tanh, sigmoid, "),
    ],
)
def test_mlp_refuses_what_makes_no_network(arguments, error, message):
    with pytest.raises(error, match=re.escape(message)):
        mlp(*arguments)


@pytest.mark.parametrize("activation", ACTIVATIONS)
@pytest.mark.parametrize("hidden", [(5,), (4, 6, 3)])
def test_mlp_spec_gives_back_what_mlp_was_called_with(activation, hidden):
    assert mlp_spec(mlp(3, hidden, 2, activation)) == MLPSpec(3, hidden, 2, activation)


def test_a_linear_models_spec_builds_it_again():
    spec = mlp_spec(mlp(3, [], 2, "tanh"))
    assert (spec.n_in, spec.hidden, spec.n_out) == (3, (), 2)
    rebuilt = mlp(spec.n_in, spec.hidden, spec.n_out, spec.activation)
    assert repr(rebuilt) == repr(mlp(3, [], 2))


class MySequential(nn.Sequential):
    pass


class MyLinear(nn.Linear):
    pass


@pytest.mark.parametrize(
    "net",
    [
        nn.Linear(2, 1),
        nn.Sequential(),
        nn.Sequential(nn.ReLU()),
        nn.Sequential(nn.Linear(2, 1), nn.ReLU()),
        nn.Sequential(nn.ReLU(), nn.Linear(2, 1)),
        nn.Sequential(nn.Linear(2, 1), nn.Linear(1, 1)),
        nn.Sequential(nn.Linear(2, 1), nn.Linear(1, 1), nn.Linear(1, 1)),
        nn.Sequential(nn.Linear(2, 1), nn.ReLU(), nn.ReLU()),
        nn.Sequential(nn.Linear(2, 3, bias=False), nn.ReLU(), nn.Linear(3, 1)),
        nn.Sequential(nn.Linear(2, 3), nn.ReLU(), nn.Linear(3, 1, bias=False)),
        nn.Sequential(nn.Linear(2, 3), nn.LeakyReLU(), nn.Linear(3, 1)),
        nn.Sequential(nn.Linear(2, 3), nn.ReLU(inplace=True), nn.Linear(3, 1)),
        nn.Sequential(nn.Linear(2, 3), nn.GELU(approximate="tanh"), nn.Linear(3, 1)),
        nn.Sequential(nn.Linear(2, 3), nn.Softplus(beta=2), nn.Linear(3, 1)),
        nn.Sequential(nn.Linear(2, 3), nn.Dropout(), nn.Linear(3, 1)),
        nn.Sequential(nn.Linear(2, 3), nn.ReLU(), nn.Linear(3, 3), nn.Tanh(), nn.Linear(3, 1)),
        nn.Sequential(MyLinear(2, 3), nn.ReLU(), nn.Linear(3, 1)),
        MySequential(nn.Linear(2, 3), nn.ReLU(), nn.Linear(3, 1)),
    ],
    ids=lambda net: re.sub(r"\s+", " ", repr(net)),
)
def test_mlp_spec_recognises_nothing_else(net):
    assert mlp_spec(net) is None


def test_a_prior_that_does_not_cover_all_real_numbers_is_refused():
    def positive(name, parameter):
        return dist.HalfNormal(1.0).expand(parameter.shape).to_event(parameter.dim())

    with pytest.raises(ValueError, match="a distribution over all real numbers, got Independent"):
        BayesianNetwork(mlp(2, [], 1), positive)
    with pytest.raises(
        TypeError, match=r"`prior` must be a callable such as those of pyrobbb\.priors"
    ):
        BayesianNetwork(mlp(2, [], 1), dist.Normal(0.0, 1.0))
