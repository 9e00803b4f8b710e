"""`last_layer` for classes: the bound against quadrature, importance sampling and scikit-learn."""

import numpy as np
import pytest
import torch

from pyrobbb import BayesianNetwork, last_layer, mlp, update
from pyrobbb.diagnostics.importance import log_ratios
from pyrobbb.last_layers.classes import Classes, fit_classes
from pyrobbb.likelihoods import Bernoulli, Categorical

RNG = np.random.default_rng(1)
X = RNG.normal(size=(80, 2))
LABELS = (X[:, 0] + 0.5 * RNG.normal(size=80) > 0).astype(int) + (X[:, 1] > 0.7)


def quadrature(log_density, centre, sd):
    """Return the log integral and the moments of a density of one number, by quadrature."""
    w = np.linspace(centre - 12 * sd, centre + 12 * sd, 4001)
    logs = np.array([log_density(value) for value in w])
    mass = np.exp(logs - logs.max()) * (w[1] - w[0])
    total = mass.sum()
    mean = (mass * w).sum() / total
    variance = (mass * (w - mean) ** 2).sum() / total
    return np.log(total) + logs.max(), mean, variance**0.5


@pytest.mark.parametrize("scale", [0.5, 2.0])
def test_one_weight_is_close_to_its_posterior_by_quadrature(scale):
    phi, y = X[:, 0], (LABELS > 0).astype(float)
    data = Classes(torch.tensor(phi[:, None]), torch.tensor(y[:, None]), has_reference=True)
    prior = torch.tensor([scale**-2.0], dtype=torch.float64)
    fit = fit_classes(data, torch.zeros(1, 1, dtype=torch.float64), prior)

    def log_joint(w):
        logits = phi * w
        log_prior = -0.5 * (w / scale) ** 2 - 0.5 * np.log(2 * np.pi * scale**2)
        return (y * logits - np.logaddexp(0, logits)).sum() + log_prior

    sd = float(fit.covariance) ** 0.5
    log_evidence, mean, exact_sd = quadrature(log_joint, float(fit.mean), sd)
    assert 0 <= log_evidence - fit.bound < 0.05
    assert float(fit.mean) == pytest.approx(mean, abs=0.1 * exact_sd)
    assert sd == pytest.approx(exact_sd, rel=0.05)


@pytest.mark.parametrize("likelihood", [Categorical(), Bernoulli()])
def test_the_bound_is_below_the_elbo_and_close_to_the_evidence(likelihood):
    is_joint = isinstance(likelihood, Categorical)
    net = mlp(2, [4], 3 if is_joint else 2, "tanh", seed=0).double()
    y = LABELS if is_joint else np.c_[LABELS > 0, LABELS > 1].astype(float)
    posterior = last_layer(net, X, y, likelihood=likelihood, prior_scale=1.5)
    ratios = log_ratios(posterior.chains, X, y, n_draws=2000, seed=0).double()
    bound, error = posterior.settings["log_evidence"], float(ratios.std()) / 2000**0.5
    evidence = float(torch.logsumexp(ratios, 0)) - np.log(2000)
    assert bound < float(ratios.mean()) + 3 * error < bound + 0.5
    assert bound < evidence < bound + 1


def test_the_prior_scale_maximises_the_bound():
    net, options = mlp(2, [4], 3, "tanh", seed=0).double(), {"likelihood": Categorical()}
    settings = last_layer(net, X, LABELS, **options).settings
    scale = settings["prior_scale"][0]
    at = [
        last_layer(net, X, LABELS, prior_scale=scale * step, **options).settings["log_evidence"]
        for step in (0.9, 1.0, 1.1)
    ]
    assert settings["log_evidence"] == pytest.approx(at[1], abs=1e-6)
    assert at[1] > max(at[0], at[2])


def test_outputs_of_a_bernoulli_likelihood_are_independent():
    net = mlp(2, [4], 2, "tanh", seed=0).double()
    y = np.c_[LABELS > 0, LABELS > 1].astype(float)
    both = last_layer(net, X, y, likelihood=Bernoulli())
    single = mlp(2, [4], 1, "tanh", seed=0).double()
    single[0].load_state_dict(net[0].state_dict())
    for k in (0, 1):
        alone = last_layer(single, X, y[:, k : k + 1], likelihood=Bernoulli())
        for part, expected in zip(both.guide.moments(), alone.guide.moments(), strict=True):
            torch.testing.assert_close(part[k], expected[0], rtol=1e-6, atol=1e-8)


def test_predictions_of_classes_integrate_over_the_weights():
    net = mlp(2, [4], 3, "tanh", seed=0).double()
    posterior = last_layer(net, X, LABELS, likelihood=Categorical(), prior_scale=1.0)
    moments = (part[0].numpy() for part in posterior.guide.moments())
    weights = np.random.default_rng(0).multivariate_normal(*moments, 20_000)
    with torch.no_grad():
        phi = net[:2](torch.tensor(X[:5])).numpy()
    logits = (
        np.einsum("skd,nd->snk", weights[:, :12].reshape(-1, 3, 4), phi) + weights[:, None, 12:]
    )
    expected = torch.tensor(logits).softmax(-1).mean(0).numpy()
    probs = posterior.predict(X[:5], n_draws=20_000, seed=0).probs
    np.testing.assert_allclose(probs, expected, atol=4 * (2 / 20_000) ** 0.5 * 0.3)
    assert (posterior.predict(X, seed=0).label == LABELS).mean() > 0.7


def test_classes_in_the_network_are_refused_an_update():
    net = mlp(2, [4], 3, "tanh", seed=0).double()
    network = BayesianNetwork(net, likelihood=Categorical())
    with pytest.raises(TypeError, match="Gaussian likelihood for an update in closed form, got C"):
        update(last_layer(network, X, LABELS), X, LABELS)


def test_a_dense_covariance_of_too_many_weights_is_refused():
    net = mlp(2, [2000], 5, seed=0)
    with pytest.raises(ValueError, match="at most 8192 weights, got 10005: use fit"):
        last_layer(net, X, LABELS, likelihood=Categorical())
