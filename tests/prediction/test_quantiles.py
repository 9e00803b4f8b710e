"""Quantiles, levels and densities of mixtures of any distribution, against draws and SciPy."""

import logging

import numpy as np
import pyro.distributions as dist
import pytest
import torch
from scipy import special, stats
from torch import distributions as td
from torch.distributions import transforms

from pyrobbb import BayesianNetwork, RegressionPrediction, fit, mlp, scores
from pyrobbb.prediction import make_prediction

N_COMPONENTS, N_ROWS = 5, 4
LOC = torch.randn(N_COMPONENTS, N_ROWS, 1, generator=torch.Generator().manual_seed(0))
LEVELS = np.array([0.001, 0.05, 0.5, 0.9, 0.999])


def two(loc):
    return torch.stack([loc, loc + 5], -1)


def halves(loc):
    return td.Categorical(logits=torch.stack([loc, -loc], -1))


def transformed(base, *parts):
    return td.TransformedDistribution(base, list(parts))


# By name: a function of a location (of any sign), a scale (positive) and a share in (0, 1).
WITH_FORMULA = {
    "normal": lambda o, e, s: dist.Normal(o, e),
    "student_t, no variance": lambda o, e, s: dist.StudentT(o.new_tensor(1.5), o, e),
    "student_t, no mean": lambda o, e, s: dist.StudentT(o.new_tensor(1.0), o, e),
    "student_t, a df for each row": lambda o, e, s: dist.StudentT(1 + e, o, e),
    "cauchy": lambda o, e, s: dist.Cauchy(o, e),
    "laplace": lambda o, e, s: dist.Laplace(o, e),
    "gumbel": lambda o, e, s: dist.Gumbel(o, e),
    "logistic": lambda o, e, s: dist.Logistic(o, e),
    "log_normal": lambda o, e, s: dist.LogNormal(o, 1.5),
    "log_normal, scales far apart": lambda o, e, s: dist.LogNormal(10 * o, 3.0),
    "chi2": lambda o, e, s: dist.Chi2(1 + e),
    "gamma": lambda o, e, s: dist.Gamma(e, e),
    "inverse_gamma": lambda o, e, s: dist.InverseGamma(e, e),
    "exponential": lambda o, e, s: dist.Exponential(e),
    "weibull": lambda o, e, s: dist.Weibull(e, o.new_tensor(0.7)),
    "pareto": lambda o, e, s: dist.Pareto(e, o.new_tensor(0.8)),
    "half_normal": lambda o, e, s: dist.HalfNormal(e),
    "half_cauchy": lambda o, e, s: dist.HalfCauchy(e),
    "fisher": lambda o, e, s: td.FisherSnedecor(1 + e, 1 + 2 * e),
    "kumaraswamy": lambda o, e, s: dist.Kumaraswamy(1 + e, 1.0 + e.flip(0)),
    "beta": lambda o, e, s: dist.Beta(1 + e, 1 + e.flip(0)),
    "affine_beta": lambda o, e, s: dist.AffineBeta(1 + e, 1 + e.flip(0), o, e),
    "continuous_bernoulli": lambda o, e, s: td.ContinuousBernoulli(probs=s),
    "uniform": lambda o, e, s: dist.Uniform(o, o + e),
    "logit_normal": lambda o, e, s: transformed(dist.Normal(o, 1.0), transforms.SigmoidTransform()),
    "negative log_normal": lambda o, e, s: transformed(
        dist.LogNormal(o, 1.0), transforms.AffineTransform(o, -e)
    ),
    "softplus of normal": lambda o, e, s: transformed(
        dist.Normal(o, e), transforms.SoftplusTransform(), transforms.AffineTransform(1.0, 2.0)
    ),
    "mixture of normals": lambda o, e, s: dist.MixtureSameFamily(halves(o), td.Normal(two(o), 1.0)),
    "mixture of paretos": lambda o, e, s: dist.MixtureSameFamily(
        halves(o), td.Pareto(two(e), o.new_tensor(0.8))
    ),
    "poisson": lambda o, e, s: dist.Poisson(3 * e),
    "negative_binomial": lambda o, e, s: dist.NegativeBinomial(e, logits=o),
    "zero_inflated_poisson": lambda o, e, s: dist.ZeroInflatedPoisson(3 * e, gate=s),
    "zero_inflated_negative_binomial": lambda o, e, s: dist.ZeroInflatedNegativeBinomial(
        e, logits=o, gate=s
    ),
    "binomial": lambda o, e, s: dist.Binomial(20, logits=o),
    "binomial, a count for each row": lambda o, e, s: dist.Binomial((10 * e).ceil(), logits=o),
    "geometric": lambda o, e, s: dist.Geometric(s),
    "mixture of poissons": lambda o, e, s: dist.MixtureSameFamily(halves(o), td.Poisson(two(e))),
}
BY_DRAWS = {
    "von_mises": lambda o, e, s: dist.VonMises(o, e),
    "beta_binomial": lambda o, e, s: dist.BetaBinomial(e, e.flip(0), 20),
    "asymmetric_laplace": lambda o, e, s: dist.AsymmetricLaplace(o, e, 2.0 + 0 * o),
    "stable": lambda o, e, s: dist.Stable(o.new_tensor(1.5), o.new_tensor(0.3), e, o),
    "delta": lambda o, e, s: dist.Delta(o),
    "twice a poisson": lambda o, e, s: transformed(
        dist.Poisson(e), transforms.AffineTransform(0.0, 2.0)
    ),
    "multivariate_normal": lambda o, e, s: dist.MultivariateNormal(
        torch.cat([o, 2 * o], -1), torch.eye(2).to(o)
    ),
    "dirichlet": lambda o, e, s: dist.Dirichlet(torch.cat([e, 2 * e, e], -1)),
    "multinomial": lambda o, e, s: dist.Multinomial(20, logits=torch.cat([o, 2 * o, -o], -1)),
}
ALL = WITH_FORMULA | BY_DRAWS


def distribution_of(name, dtype=torch.float32):
    loc = LOC.to(dtype)
    distribution = ALL[name](loc, loc.exp(), loc.sigmoid())
    return distribution if distribution.event_shape else td.Independent(distribution, 1)


def prediction_of(name, dtype=torch.float32):
    return make_prediction([distribution_of(name, dtype)], np.empty(0))


def draws_of(distribution, n=40_000):
    torch.manual_seed(1)
    return distribution.sample((n,)).double().flatten(0, 1).numpy()


@pytest.mark.parametrize("name", ALL)
def test_quantiles_and_levels_agree_with_draws(name):
    distribution, prediction = distribution_of(name), prediction_of(name)
    draws = draws_of(distribution)
    quantiles, levels = prediction.quantile(LEVELS), LEVELS.reshape(-1, 1, 1)
    n = len(draws) if name in WITH_FORMULA else min(len(draws), 2**14)
    error = 5 * np.sqrt(levels * (1 - levels) / n) + 1e-6
    assert ((draws <= quantiles[:, None]).mean(1) >= levels - error).all()
    assert ((draws < quantiles[:, None]).mean(1) <= levels + error).all()
    at, below = (draws <= draws[7]).mean(0), (draws < draws[7]).mean(0)
    expected = np.maximum(1 - 2 * np.minimum(at, 1 - below), 0)
    np.testing.assert_allclose(
        prediction.central_level(draws[7]), expected, atol=10 * 0.5 / np.sqrt(n)
    )


@pytest.mark.parametrize("name", ALL)
def test_every_quantity_of_a_prediction_is_computed(name):
    prediction = prediction_of(name, torch.float64)
    y = prediction.sample(seed=0)[0]
    assert np.isfinite(scores.crps(prediction, y, n_levels=10))
    assert not np.isnan(prediction.log_prob(y)).any()
    shape = y.shape
    for part in ("mean", "sd", "epistemic_sd", "aleatoric_sd"):
        assert getattr(prediction, part).shape == shape
    assert all(np.isfinite(bound).all() for bound in prediction.interval(0.99))


@pytest.mark.parametrize(
    ("distribution", "frozen"),
    [
        (lambda one: dist.LogNormal(0.7 * one, 1.5 * one), stats.lognorm(1.5, scale=np.exp(0.7))),
        (lambda one: dist.LogNormal(300 * one, one), stats.lognorm(1.0, scale=np.exp(300.0))),
        (lambda one: dist.Gamma(0.3 * one, 2 * one), stats.gamma(0.3, scale=0.5)),
        (lambda one: dist.InverseGamma(2 * one, 3 * one), stats.invgamma(2, scale=3)),
        (lambda one: dist.Weibull(2 * one, 0.7 * one), stats.weibull_min(0.7, scale=2)),
        (lambda one: dist.Pareto(2 * one, 0.8 * one), stats.pareto(0.8, scale=2)),
        (lambda one: dist.Beta(2 * one, 0.8 * one), stats.beta(2, 0.8)),
        (lambda one: dist.HalfCauchy(2 * one), stats.halfcauchy(scale=2)),
        (lambda one: dist.Cauchy(0 * one, 2 * one), stats.cauchy(scale=2)),
        (lambda one: dist.StudentT(1.5 * one, one, 2 * one), stats.t(1.5, 1, 2)),
        (lambda one: dist.Uniform(-one, 3 * one), stats.uniform(-1, 4)),
        (lambda one: dist.Binomial(20, 0.3 * one), stats.binom(20, 0.3)),
        (lambda one: dist.Geometric(0.01 * one), stats.geom(0.01, loc=-1)),
    ],
)
def test_quantiles_of_a_single_component_are_those_of_scipy(distribution, frozen):
    levels = np.array([1e-6, 0.01, 0.5, 0.99, 1 - 1e-6])
    one = torch.ones(1, 1, dtype=torch.float64)
    quantiles = make_prediction([distribution(one)], np.empty(0)).quantile(levels)
    np.testing.assert_allclose(quantiles[:, 0], frozen.ppf(levels), rtol=1e-7, atol=1e-12)


@pytest.mark.parametrize("name", BY_DRAWS)
def test_quantiles_from_draws_are_repeatable_and_said_so_in_one_log_line(name, caplog):
    state = torch.get_rng_state()
    with caplog.at_level(logging.WARNING):
        prediction = prediction_of(name)
        first = prediction.interval(0.9)
        prediction.central_level(first[0])
    (record,) = caplog.records
    assert "is not known: quantiles and intervals are those of draws" in record.getMessage()
    np.testing.assert_array_equal(first, prediction_of(name).interval(0.9))
    assert torch.equal(torch.get_rng_state(), state)


def test_nothing_is_logged_if_the_distribution_function_is_known(caplog):
    for name in WITH_FORMULA:
        prediction_of(name).interval(0.9)
    assert not caplog.records


@pytest.mark.parametrize("name", ["uniform", "mixture of paretos", "negative log_normal"])
def test_components_have_no_density_outside_their_own_bounds(name):
    """The density, integrated below a quantile, is its probability."""
    prediction = prediction_of(name, torch.float64)
    low, high = (float(v) for v in prediction.column(0).quantile([0.1, 0.6])[:, 0])
    grid = np.linspace(low, high, 1001)
    log_prob = [prediction.log_prob(np.full((N_ROWS, 1), v))[0] for v in grid]
    density = np.exp(log_prob)
    assert np.trapezoid(density, grid) == pytest.approx(0.5, abs=5e-3)


def test_moments_are_those_of_the_distribution():
    cauchy, no_variance = prediction_of("cauchy"), prediction_of("student_t, no variance")
    assert np.isnan(cauchy.mean).all()
    assert np.isinf(no_variance.sd).all()
    np.testing.assert_allclose(no_variance.mean, LOC.mean(0))
    assert np.isinf(prediction_of("pareto").mean).all()


def test_moments_without_a_formula_are_those_of_draws():
    x, weights = np.polynomial.hermite_e.hermegauss(60)
    values = special.expit(LOC.numpy()[..., None] + x)
    weights = weights / weights.sum()
    mean = (values * weights).sum(-1)
    variance = ((values - mean[..., None]) ** 2 * weights).sum(-1)
    prediction = prediction_of("logit_normal")
    np.testing.assert_allclose(prediction.mean, mean.mean(0), atol=0.01)
    np.testing.assert_allclose(prediction.epistemic_sd, mean.std(0), atol=0.01)
    np.testing.assert_allclose(prediction.aleatoric_sd, np.sqrt(variance.mean(0)), atol=0.01)


@pytest.mark.parametrize("name", WITH_FORMULA)
def test_a_column_is_the_marginal_of_any_likelihood_with_independent_columns(name):
    parts = (LOC.double(), LOC.flip(0).double())
    joint, *alone = (
        RegressionPrediction([ALL[name](loc, loc.exp(), loc.sigmoid())], np.empty(0))
        for loc in (torch.cat(parts, -1), parts[0][..., 0], parts[1][..., 0])
    )
    joint = RegressionPrediction([td.Independent(d, 1) for d in joint._distributions], np.empty(0))
    for j, expected in enumerate(alone):
        column = joint.column(j)
        y = expected.sample(seed=0)[0]
        np.testing.assert_allclose(column.quantile(LEVELS), expected.quantile(LEVELS), rtol=1e-6)
        np.testing.assert_allclose(column.log_prob(y), expected.log_prob(y))


def test_a_column_of_dependent_columns_is_refused():
    prediction = prediction_of("dirichlet")
    with pytest.raises(ValueError, match="`column` needs a likelihood with independent columns"):
        _ = prediction.column(0).mean


def test_crps_from_draws_is_near_that_of_quantiles():
    prediction = prediction_of("normal")
    y = prediction.sample(seed=0)[0]
    expected = scores.crps(prediction, y)
    assert scores.crps(prediction, y, from_draws=True) == pytest.approx(expected, rel=0.01)


def test_quantiles_of_a_fitted_log_normal_likelihood_are_those_of_its_draws():
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(40, 3, generator=generator)
    y = torch.randn(40, 1, generator=generator).exp()
    network = BayesianNetwork(mlp(3, [4], 1, seed=0), likelihood=lambda o: dist.LogNormal(o, 1.5))
    posterior = fit(network, x, y, epochs=20, progress=False, seed=0)
    prediction = posterior.predict(x, 2000, seed=1)
    assert bool((prediction.quantile(0.01) > 0).all())
    below = (prediction.sample(seed=2) < prediction.quantile(0.5)).double().mean(0)
    torch.testing.assert_close(below, torch.full_like(below, 0.5), atol=0.05, rtol=0.0)
