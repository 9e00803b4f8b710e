"""`last_layer` for regression, against closed forms in NumPy and SciPy."""

import logging

import numpy as np
import pytest
import torch
from scipy.optimize import minimize
from scipy.stats import multivariate_normal
from torch import nn

from pyrobbb import BayesianNetwork, Posterior, compare_with_nuts, last_layer, mlp, priors, update
from pyrobbb.likelihoods import Gaussian, StudentT

RNG = np.random.default_rng(0)
X = RNG.normal(size=(60, 3))
Y = np.tanh(X @ RNG.normal(size=(3, 2))) + [0.1, 0.5] * RNG.normal(size=(60, 2))
NET = mlp(3, [4], 2, "tanh", seed=0).double()
NET_OF_ONE = mlp(3, [4], 1, "tanh", seed=0).double()
STEPS = np.exp(np.linspace(-0.1, 0.1, 21))
"""Factors around a scale; the middle one is 1."""


class Head(nn.Module):
    """A module with names of its own, whose last layer has no bias."""

    def __init__(self):
        super().__init__()
        self.body = nn.Sequential(nn.Linear(3, 5), nn.ReLU(), nn.Dropout(0.5), nn.BatchNorm1d(5))
        self.out = nn.Linear(5, 2, bias=False)

    def forward(self, x):
        return self.out(self.body(x) + 1)


def seeded_head():
    """Return a `Head` with repeatable weights, in float64."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return Head().double()


def features_of(net):
    """Return the features of X, by calling the parts of a module."""
    with torch.no_grad():
        x = torch.tensor(X)
        if not isinstance(net, Head):
            return np.c_[net[1](net[0](x)).numpy(), np.ones(len(x))]
        hidden, norm = torch.relu(net.body[0](x)), net.body[3]
        scaled = (hidden - norm.running_mean) / (norm.running_var + norm.eps).sqrt()
        return (scaled * norm.weight + norm.bias + 1).numpy()


def posterior_of(phi, y, prior, noise):
    """Return mean and covariance of Bayesian linear regression (Bishop 2006, 3.50 and 3.51)."""
    prior_precision = np.diag(np.broadcast_to(prior, phi.shape[1]) ** -2.0)
    covariance = np.linalg.inv(prior_precision + phi.T @ phi / noise**2)
    return covariance @ phi.T @ y / noise**2, covariance


def log_evidence(phi, y, prior, noise, loc=0.0):
    """Return the log density of y with the weights integrated out."""
    loc = np.broadcast_to(loc, phi.shape[1])
    covariance = (phi * np.broadcast_to(prior, phi.shape[1]) ** 2) @ phi.T
    return multivariate_normal(phi @ loc, covariance + noise**2 * np.eye(len(phi))).logpdf(y)


def assert_moments(posterior, phi, prior, noise):
    """Check mean and covariance of the weights of each target."""
    mean, covariance = posterior.guide.moments()
    for k in (0, 1):
        expected = posterior_of(phi, Y[:, k], prior, noise[k])
        np.testing.assert_allclose(mean[k], expected[0], rtol=1e-9, atol=1e-12)
        np.testing.assert_allclose(covariance[k], expected[1], rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("make", [lambda: NET, seeded_head], ids=["mlp", "without bias"])
def test_moments_are_those_of_linear_regression_on_the_features(make):
    net = make()
    posterior = last_layer(net, X, Y, prior_scale=0.7, noise_scale=[0.2, 0.6])
    assert_moments(posterior, features_of(net), 0.7, [0.2, 0.6])


@pytest.mark.parametrize("make", [lambda: NET, seeded_head], ids=["mlp", "without bias"])
def test_scales_maximise_the_marginal_likelihood_of_each_target(make):
    net = make()
    phi, posterior = features_of(net), last_layer(net, X, Y)
    fits = [
        minimize(
            lambda logs, k: -log_evidence(phi, Y[:, k], *np.exp(logs)),
            [-0.3, -1.0],
            args=(k,),
            method="Nelder-Mead",
            options={"xatol": 1e-7, "fatol": 1e-9},
        )
        for k in (0, 1)
    ]
    found = np.array([posterior.settings["prior_scale"], posterior.settings["noise_scale"]])
    np.testing.assert_allclose(found, np.exp([fit.x for fit in fits]).T, rtol=1e-5)
    best = -sum(fit.fun for fit in fits)
    assert posterior.settings["log_evidence"] == pytest.approx(best, abs=1e-8)
    assert posterior.history.nelbo[-1] == pytest.approx(-best, abs=1e-8)


@pytest.mark.parametrize(
    ("options", "scales"),
    [
        ({"prior_scale": 0.5}, lambda settings, step: (0.5, settings["noise_scale"][0] * step)),
        ({"noise_scale": 0.3}, lambda settings, step: (settings["prior_scale"][0] * step, 0.3)),
    ],
)
def test_one_scale_maximises_the_evidence_if_the_other_is_given(options, scales):
    phi, settings = features_of(NET_OF_ONE), last_layer(NET_OF_ONE, X, Y[:, :1], **options).settings
    values = [log_evidence(phi, Y[:, 0], *scales(settings, step)) for step in STEPS]
    assert np.argmax(values) == 10
    assert settings["log_evidence"] == pytest.approx(values[10], abs=1e-8)


def test_normal_priors_and_noise_of_the_network_are_kept():
    prior = priors.ByName({"*.weight": priors.Normal(0.5)}, default=priors.Normal(3.0))
    posterior = last_layer(BayesianNetwork(NET, prior, Gaussian(0.3)), X, Y)
    assert_moments(posterior, features_of(NET), [0.5] * 4 + [3.0], [0.3, 0.3])
    assert posterior.network.likelihood == Gaussian(0.3)


def test_noise_is_chosen_under_given_priors_that_differ_between_weights():
    prior = priors.ByName({"2.weight": priors.Normal(0.5, 0.2)}, default=priors.Normal(3.0))
    noise = last_layer(BayesianNetwork(NET_OF_ONE, prior), X, Y[:, :1]).settings["noise_scale"][0]
    phi, scales, loc = features_of(NET_OF_ONE), [0.5] * 4 + [3.0], [0.2] * 4 + [0.0]
    values = [
        log_evidence(phi, Y[:, 0], np.array(scales), noise * step, np.array(loc)) for step in STEPS
    ]
    assert np.argmax(values) == 10


def test_another_prior_is_replaced_and_logged(caplog):
    with caplog.at_level(logging.INFO, "pyrobbb"):
        posterior = last_layer(BayesianNetwork(NET, priors.Laplace(1.0)), X, Y)
    assert "Laplace(scale=1.0), is replaced by a normal prior" in caplog.text
    assert posterior.guide.loc.equal(last_layer(NET, X, Y).guide.loc)


def test_update_equals_conditioning_on_all_rows_at_once():
    options = {"prior_scale": 0.7, "noise_scale": [0.2, 0.6]}
    whole = last_layer(NET, X, Y, **options)
    updated = last_layer(NET, X[:20], Y[:20], **options)
    for rows in (slice(20, 21), slice(21, 60)):
        updated = update(updated, X[rows], Y[rows])
    for part, expected in zip(updated.guide.moments(), whole.guide.moments(), strict=True):
        torch.testing.assert_close(part, expected, rtol=1e-9, atol=1e-11)
    for name in ("log_evidence", "n_data"):
        assert updated.settings[name] == pytest.approx(whole.settings[name], rel=1e-9)


def test_predictions_have_the_closed_form_moments():
    posterior = last_layer(NET, X, Y, prior_scale=0.7, noise_scale=[0.2, 0.6])
    prediction = posterior.predict(X[:5], n_draws=20_000, seed=0)
    phi = features_of(NET)
    for k, noise in enumerate((0.2, 0.6)):
        mean, covariance = posterior_of(phi, Y[:, k], 0.7, noise)
        sd = np.sqrt(np.einsum("ni,ij,nj->n", phi[:5], covariance, phi[:5]))
        np.testing.assert_allclose(prediction.epistemic_sd[:, k], sd, rtol=4 / 200)
        np.testing.assert_allclose(prediction.aleatoric_sd[:, k], noise, rtol=1e-9)
        assert (np.abs(prediction.mean[:, k] - phi[:5] @ mean) < 4 * sd / 20_000**0.5).all()


def test_it_agrees_with_nuts():
    net = mlp(3, [2], 1, "tanh", seed=0).double()
    posterior = last_layer(net, X[:30], Y[:30, :1], prior_scale=1.0, noise_scale=0.5)
    comparison = compare_with_nuts(
        posterior.network,
        X[:30],
        Y[:30, :1],
        posterior=posterior,
        n_draws=150,
        n_warmup=60,
        n_chains=1,
        seed=0,
        progress=False,
    )
    nuts = comparison.mcmc["2.weight"].flatten(0, 1)[:, 0]
    mean, covariance = posterior.guide.moments()
    sd = covariance[0].diagonal()[:2].sqrt()
    assert ((nuts.mean(0) - mean[0][:2]).abs() < 0.4 * sd).all()
    assert ((nuts.std(0) / sd - 1).abs() < 0.3).all()


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_a_stored_posterior_has_the_same_draws_and_updates(tmp_path, dtype):
    posterior = last_layer(mlp(3, [4], 2, "tanh", seed=0).to(dtype), X, Y)
    posterior.save(tmp_path / "posterior")
    loaded = Posterior.load(tmp_path / "posterior")
    for name, draws in posterior.draws(20, seed=1).items():
        assert loaded.draws(20, seed=1)[name].equal(draws)
    assert loaded.settings == posterior.settings
    again = update(loaded, X[:3], Y[:3]).guide.loc
    assert again.equal(update(posterior, X[:3], Y[:3]).guide.loc)


def test_a_diagnosis_finds_the_posterior_exact():
    diagnosis = last_layer(NET, X, Y).diagnose(X, Y, n_draws=200, seed=0)
    assert {diagnosis[key].verdict for key in ("elbo", "scales", "khat")} == {"good"}


def test_arviz_gets_draws_and_log_densities():
    posterior = last_layer(NET, X, Y)
    tree = posterior.to_arviz(X, Y, n_draws=50, seed=0)
    mean, covariance = posterior.guide.moments()
    draw = tree["posterior"].isel(chain=0, draw=0)
    weights = np.c_[draw["2.weight"].values, draw["2.bias"].values]
    expected = sum(multivariate_normal(mean[k], covariance[k]).logpdf(weights[k]) for k in (0, 1))
    assert float(tree["sample_stats"]["logq"][0, 0]) == pytest.approx(expected, rel=1e-9)


def test_frozen_weights_are_shared_and_others_copied():
    net = mlp(3, [4, 4], 2, "tanh", seed=0).double()
    net[0].requires_grad_(False)
    before = {name: value.clone() for name, value in net.state_dict().items()}
    posterior = last_layer(net, X, Y)
    fitted = dict(posterior.network.net.named_parameters())
    for name, parameter in net.named_parameters():
        assert (fitted[name] is parameter) == name.startswith("0.")
    assert net.training
    assert all(net.state_dict()[name].equal(value) for name, value in before.items())
    assert [name for name, _ in posterior.network.bayesian_parameters()] == ["4.weight", "4.bias"]


def test_a_frozen_module_has_a_last_layer_too():
    net = mlp(3, [4], 2, "tanh", seed=0).double().requires_grad_(False)
    assert last_layer(net, X, Y).guide.loc.equal(last_layer(NET, X, Y).guide.loc)
    assert not any(parameter.requires_grad for parameter in net.parameters())


def test_targets_without_noise_are_reported(caplog):
    net = mlp(3, [], 1, seed=0).double()
    with caplog.at_level(logging.WARNING, "pyrobbb"):
        last_layer(net, X, X @ np.ones((3, 1)))
    assert "highest without noise" in caplog.text


class Ends(nn.Module):
    """A module whose output is not that of its linear layer."""

    def __init__(self, function):
        super().__init__()
        self.linear, self.function = nn.Linear(3, 3), function

    def forward(self, x):
        return self.function(self.linear, x)


@pytest.mark.parametrize(
    ("net", "options", "message"),
    [
        (Ends(lambda f, x: f(x).exp()), {}, "its output is not that of 'linear'"),
        (Ends(lambda f, x: f(x) + f(2 * x)), {}, "its output is not that of 'linear'"),
        (Ends(lambda f, x: f(f(x))), {}, "must call its last layer 'linear' once"),
        (nn.Bilinear(3, 3, 2), {}, "missing 1 required positional argument"),
        (nn.Sequential(nn.Identity(), nn.LayerNorm(3)), {}, "a module without nn.Linear"),
        (NET, {"likelihood": StudentT()}, "must be Gaussian, Bernoulli or Categorical"),
        (NET, {"noise_scale": [0.1]}, "one for each of 2 columns of y, got 1"),
        (NET, {"noise_scale": -1.0}, "`noise_scale` must be"),
        (NET, {"prior_scale": 0.0}, "`prior_scale` must be"),
        (BayesianNetwork(NET), {"likelihood": Gaussian()}, "`likelihood` must be left out"),
    ],
)
def test_what_has_no_closed_form_is_refused(net, options, message):
    with pytest.raises(ValueError, match=message):
        last_layer(net.double(), X, Y, **options)


def test_a_network_must_be_a_module():
    with pytest.raises(TypeError, match="`network` must be a BayesianNetwork or a torch"):
        last_layer("net", X, Y)


def test_an_update_has_no_options_of_a_fit():
    posterior = last_layer(NET, X, Y)
    with pytest.raises(TypeError, match="`lr` is not an option of the update of a last layer"):
        update(posterior, X, Y, lr=0.1)
    with pytest.raises(TypeError, match="`epochs` is not an option of the update"):
        update(posterior, X, Y, epochs=3)
