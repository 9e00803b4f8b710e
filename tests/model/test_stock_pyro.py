"""A network in stock Pyro, on a linear regression with known posterior and evidence."""

import math

import numpy as np
import pyro
import pyro.poutine as poutine
import pytest
import scipy.stats
import torch
from pyro.infer import MCMC, NUTS, SVI, Predictive, Trace_ELBO, TraceMeanField_ELBO
from pyro.infer.autoguide import AutoDelta, AutoLowRankMultivariateNormal, AutoNormal
from torch import nn

from pyrobbb import BayesianNetwork, MeanFieldGuide, mlp
from pyrobbb.likelihoods import Gaussian
from pyrobbb.priors import FanInNormal, Normal

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
        """Compute the sum of all log-densities at values of the sites with SciPy."""
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


def test_the_log_density_of_a_deep_network_with_learned_noise_is_the_sum_of_its_parts():
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
def test_the_log_likelihood_is_multiplied_by_n_data_over_n(regression, n_data):
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


def test_n_data_must_be_an_integer_of_at_least_the_number_of_rows(regression):
    network, x, y = regression.network, regression.x, regression.y
    message = "`n_data` must be the size of the whole data set, at least the 12 rows of x, got 11"
    with pytest.raises(ValueError, match=message):
        network(x, y, 11)
    with pytest.raises(TypeError, match=r"`n_data` must be a whole number, got 12\.5"):
        network(x, y, 12.5)


def test_without_y_the_model_draws_it_from_the_likelihood(regression):
    trace = poutine.trace(regression.network).get_trace(regression.x)
    assert not trace.nodes["y"]["is_observed"]
    assert trace.nodes["_RETURN"]["value"] is trace.nodes["y"]["value"]
    mean = regression.x @ trace.nodes["0.weight"]["value"].T + trace.nodes["0.bias"]["value"]
    torch.testing.assert_close(trace.nodes["y"]["fn"].mean, mean)
    torch.testing.assert_close(trace.nodes["y"]["fn"].stddev, torch.full_like(mean, NOISE))


def normal_of(guide):
    """Return the mean and standard deviation of each site of a normal guide, from its quantiles."""
    one_sd = scipy.stats.norm.cdf(1)
    quantiles = guide.quantiles([0.5, one_sd])
    return {name: (q[0].detach(), (q[1] - q[0]).detach()) for name, q in quantiles.items()}


@pytest.mark.parametrize("objective", [Trace_ELBO, TraceMeanField_ELBO])
def test_the_loss_of_stock_auto_normal_is_log_q_minus_log_p(regression, objective):
    # Both objectives sample it: AutoNormal's sites are auxiliary normals and Deltas, without a
    # closed-form KL divergence.
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


def test_trace_mean_field_elbo_is_the_closed_form_kl_minus_the_log_likelihood(regression):
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
    """Fit with a learning rate that decays to a hundredth of its initial value."""
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


def test_auto_low_rank_normal_reaches_the_posterior_and_its_elbo_is_below_the_evidence(regression):
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
