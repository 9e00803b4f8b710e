"""Learned scales of priors, against Pyro models written by hand, quadrature and NUTS."""

import math

import numpy as np
import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro.infer import MCMC, NUTS, Predictive, Trace_ELBO, TraceMeanField_ELBO
from torch import nn

from pyrobbb import BayesianNetwork, FusedELBO, MeanFieldGuide, fit, likelihoods, mlp, priors
from pyrobbb.priors import Learned, ScaleMixtureNormal

X = torch.linspace(-1, 1, 36).double().reshape(12, 3).cos()
Y = X.sum(1, keepdim=True).sin()

# The prior; the argument that is learned, its median and log-sd; the prior of w given it.
FAMILIES = {
    "Normal": (
        priors.Normal("learned", 0.2),
        ("scale", 1.0, 1.0),
        lambda s, w: dist.Normal(0.2, s.expand(w.shape)),
    ),
    "FanInNormal": (
        priors.FanInNormal(Learned(2.0, 0.5)),
        ("gain", 2.0, 0.5),
        lambda s, w: dist.Normal(0.0, s / w[0].numel() ** 0.5 * torch.ones_like(w)),
    ),
    "ScaleMixture": (
        priors.ScaleMixture(0.3, Learned(0.5, 0.7), 0.05),
        ("scale1", 0.5, 0.7),
        lambda s, w: ScaleMixtureNormal(
            w.new_tensor(0.3).expand(w.shape), s.expand(w.shape), (s / 10).expand(w.shape)
        ),
    ),
    "Laplace": (
        priors.Laplace("learned"),
        ("scale", 1.0, 1.0),
        lambda s, w: dist.Laplace(0.0, s.expand(w.shape)),
    ),
    "StudentT": (
        priors.StudentT(4.0, Learned(0.5)),
        ("scale", 0.5, 1.0),
        lambda s, w: dist.StudentT(4.0, torch.zeros_like(w), s),
    ),
}


def model_by_hand(net, scale, given):
    """Return a Pyro model with the same sites as a network, written without pyrobbb."""
    argument, median, log_sd = scale

    def model(x, y):
        weights = {}
        for name, parameter in net.named_parameters():
            hyperprior = dist.LogNormal(torch.tensor(median).double().log(), log_sd)
            s = pyro.sample(f"{name}_{argument}", hyperprior)
            prior = given(s, parameter.detach())
            weights[name] = pyro.sample(name, prior.to_event(parameter.dim()))
        output = torch.func.functional_call(net, weights, (x,))
        with pyro.plate("data", len(x)):
            pyro.sample("y", dist.Normal(output, 0.3).to_event(1), obs=y)

    return model


@pytest.mark.parametrize("objective", ["trace", "mean_field"])
@pytest.mark.parametrize("family", FAMILIES)
def test_loss_and_gradients_are_those_of_a_pyro_model_written_by_hand(family, objective):
    prior, scale, given = FAMILIES[family]
    net = mlp(3, [4], 1, "tanh", seed=0).double()
    network = BayesianNetwork(net, prior, likelihoods.Gaussian(0.3))
    guide = MeanFieldGuide(network)
    with torch.no_grad():
        guide.loc.add_(0.3 * torch.randn_like(guide.loc))
        guide.rho.add_(torch.randn_like(guide.rho))
    stock = {"trace": Trace_ELBO, "mean_field": TraceMeanField_ELBO}[objective]()
    results = []
    for elbo, model in (
        (stock, model_by_hand(net, scale, given)),
        (stock, network),
        (FusedELBO(objective), network),
    ):
        pyro.set_rng_seed(3)
        loss = elbo.differentiable_loss(model, guide, X, Y)
        gradients = torch.autograd.grad(loss, (guide.loc, guide.rho))
        results.append((loss.detach(), *gradients))
    for result in results[1:]:
        torch.testing.assert_close(result, results[0], rtol=1e-10, atol=1e-10)


def test_there_is_one_site_for_each_parameter_before_it():
    prior = priors.ByName(
        {"*.bias": priors.FanInNormal("learned"), "0.*": priors.Normal("learned")},
        default=priors.Normal(),
    )
    network = BayesianNetwork(mlp(3, [4], 1), prior)
    sites = network.latent_sites()
    names = ["0.weight_scale", "0.weight", "0.bias_gain", "0.bias", "2.weight", "2.bias_gain"]
    assert [site.name for site in sites] == [*names, "2.bias", "noise_scale"]
    assert [float(sites[i].start) for i in (0, 2, 5)] == pytest.approx([1.0] * 3)
    assert list(MeanFieldGuide(network).shapes) == [site.name for site in sites]


def test_no_random_numbers_are_drawn_when_a_network_is_made():
    before = torch.random.get_rng_state()
    network = BayesianNetwork(mlp(3, [4], 1, seed=0), priors.Normal("learned"))
    network.latent_sites()
    network.check_trial(torch.zeros(2, 3))
    assert torch.equal(torch.random.get_rng_state(), before)


class Quantised(nn.Module):
    """A layer with a parameter whose name is that of the learned scale of another."""

    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(1, 3))
        self.weight_scale = nn.Parameter(torch.ones(()))

    def forward(self, x):
        return x @ (self.weight * self.weight_scale).T


def test_a_parameter_with_the_name_of_a_scale_is_refused():
    message = "`net` has a parameter named 'weight_scale', which is the name of another site"
    with pytest.raises(ValueError, match=message):
        BayesianNetwork(Quantised(), priors.Normal("learned"))
    BayesianNetwork(Quantised(), priors.Normal())
    BayesianNetwork(Quantised(), priors.FanInNormal("learned"))  # "weight_gain"


@pytest.mark.parametrize("engine", ["svi", "fused"])
def test_a_custom_prior_that_draws_a_learned_scale_is_refused(engine):
    def custom(name, parameter):
        return priors.Normal("learned")(name, parameter)

    network = BayesianNetwork(mlp(3, [4], 1).double(), custom)
    with pytest.raises(ValueError, match=r"`prior` has the Pyro site '0\.weight_scale'"):
        fit(network, X, Y, epochs=1, engine=engine, progress=False)


@pytest.mark.parametrize("parallel", [True, False])
def test_prior_draws_have_the_variance_of_the_hyperprior(parallel):
    """The variance of w is the mean square of s: median^2 exp(2 log_sd^2)."""
    n = 2000 if parallel else 300
    prior = priors.FanInNormal(Learned(2.0, 0.3))
    network = BayesianNetwork(nn.Linear(3, 1).double(), prior, likelihoods.Gaussian(0.1))
    pyro.set_rng_seed(0)
    draws = Predictive(network, num_samples=n, parallel=parallel)(X)
    weights = draws["weight"].reshape(n, 3)
    z = weights / (draws["weight_gain"].reshape(n, 1) / math.sqrt(3))
    assert abs(z.square().mean() - 1) < 4 * math.sqrt(2 / (3 * n))
    logs = draws["weight_gain"].log().flatten()
    assert abs(logs.mean() - math.log(2)) < 4 * 0.3 / math.sqrt(n)
    assert logs.std() == pytest.approx(0.3, rel=4 / math.sqrt(2 * n))
    assert draws["y"].shape == (n, 12, 1)


class Linear:
    """y = X w + noise of sd 0.5, w ~ N(0, s^2): the posterior of log s by quadrature."""

    def __init__(self, n, d, scale, log_sd=1.0):
        rng = np.random.default_rng(1)
        self.x = math.sqrt(n) * np.linalg.qr(rng.normal(size=(n, d)))[0]  # orthogonal columns
        self.y = self.x @ rng.normal(size=(d, 1)) * scale + 0.5 * rng.normal(size=(n, 1))
        prior = priors.Normal(Learned(1.0, log_sd))
        net = nn.Linear(d, 1, bias=False).double()
        self.network = BayesianNetwork(net, prior, likelihoods.Gaussian(0.5))
        t = np.linspace(-6, 3, 4001)
        values, vectors = np.linalg.eigh(self.x @ self.x.T)
        variance = np.exp(2 * t)[:, None] * values.clip(0) + 0.25  # of y, given t = log s
        log_density = -0.5 * (vectors.T @ self.y)[:, 0] ** 2 / variance - 0.5 * np.log(variance)
        log_density = log_density.sum(1) - 0.5 * n * np.log(2 * np.pi)
        log_density += -0.5 * (t / log_sd) ** 2 - np.log(log_sd * np.sqrt(2 * np.pi))
        density = np.exp(log_density - log_density.max())
        self.log_evidence = np.log(density.sum() * (t[1] - t[0])) + log_density.max()
        density /= density.sum()
        self.mean = (density * t).sum()
        self.sd = math.sqrt((density * (t - self.mean) ** 2).sum())


def test_nuts_draws_a_scale_from_its_exact_posterior():
    case = Linear(15, 4, 0.6)
    pyro.set_rng_seed(0)
    mcmc = MCMC(NUTS(case.network), num_samples=200, warmup_steps=100, disable_progbar=True)
    mcmc.run(torch.tensor(case.x), torch.tensor(case.y))
    log_scale = mcmc.get_samples()["weight_scale"].log()
    n_effective = float(mcmc.diagnostics()["weight_scale"]["n_eff"])
    assert log_scale.mean() == pytest.approx(case.mean, abs=4 * case.sd / math.sqrt(n_effective))
    assert log_scale.std() == pytest.approx(case.sd, rel=4 / math.sqrt(2 * n_effective))


@pytest.mark.parametrize("engine", ["fused", pytest.param("svi", marks=pytest.mark.slow)])
def test_a_fit_reaches_the_exact_posterior_of_the_scale(engine):
    """With many rows and orthogonal columns, mean field is nearly exact."""
    case = Linear(200, 30, 0.2)
    options = {"fused": {"epochs": 1500, "n_particles": 4}, "svi": {"epochs": 600}}[engine]
    posterior = fit(
        case.network,
        case.x,
        case.y,
        engine=engine,
        batch_size=200,
        lr=0.02,
        seed=0,
        objective="mean_field",
        progress=False,
        **options,
    )
    guide = posterior.guide
    loc, scale = (float(guide.split(v.detach())["weight_scale"]) for v in (guide.loc, guide.scale))
    assert loc == pytest.approx(case.mean, abs=0.2 * case.sd)
    assert scale == pytest.approx(case.sd, rel=0.15)
    if engine == "fused":
        elbo = FusedELBO("mean_field", num_particles=2000)
        nelbo = elbo.loss(posterior.network, guide, torch.tensor(case.x), torch.tensor(case.y))
        assert -0.15 < nelbo + case.log_evidence < 0.3  # KL(q || posterior), with error 0.05
