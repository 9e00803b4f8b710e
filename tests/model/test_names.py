"""Priors and likelihoods by name."""

import re

import pytest
import torch
from support import QUICK_ESTIMATOR, X, noisy_sine

from pyrobbb import BayesianNetwork, BBBRegressor, bandits, last_layer, likelihoods, mlp, priors
from pyrobbb.model.names import LIKELIHOODS, PRIORS


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("mixture", priors.ScaleMixture(0.5, 1.0, 0.1)),
        ("normal", priors.Normal()),
        ("fan_in", priors.FanInNormal()),
        ("laplace", priors.Laplace()),
        ("student_t", priors.StudentT()),
    ],
)
def test_a_prior_by_name_is_that_of_its_class(name, expected):
    assert BayesianNetwork(mlp(3, [4], 1), prior=name).prior == expected
    options = {**QUICK_ESTIMATOR, "epochs": 1, "likelihood": "gaussian", "prior": name}
    x, y = noisy_sine(20)
    model = BBBRegressor(**options).fit(x, y[:, 0])
    assert model.posterior_.chains[0].network.prior == expected


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("gaussian", likelihoods.Gaussian()),
        ("heteroscedastic", likelihoods.HeteroscedasticGaussian()),
        ("student_t", likelihoods.StudentT()),
        ("lognormal", likelihoods.LogNormal()),
        ("poisson", likelihoods.Poisson()),
        ("negative_binomial", likelihoods.NegativeBinomial()),
        ("bernoulli", likelihoods.Bernoulli()),
        ("categorical", likelihoods.Categorical()),
    ],
)
def test_a_likelihood_by_name_is_that_of_its_class(name, expected):
    assert BayesianNetwork(mlp(3, [4], 2), likelihood=name).likelihood == expected


def test_the_tests_above_know_all_names():
    assert len(PRIORS) == 5
    assert len(LIKELIHOODS) == 8


def test_the_defaults_are_the_first_names():
    network = BayesianNetwork(mlp(3, [4], 1))
    assert network.prior == PRIORS["mixture"]
    assert network.likelihood == LIKELIHOODS["gaussian"]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"prior": "nromal"}, "`prior` must be one of mixture, normal, fan_in, laplace, student_t, "
         "got 'nromal': did you mean 'normal'?"),
        ({"prior": "Fan-In"}, "got 'Fan-In': did you mean 'fan_in'?"),
        ({"prior": "x"}, "student_t, got 'x'."),
        ({"likelihood": "gausian"}, "`likelihood` must be one of gaussian, heteroscedastic, "
         "student_t, lognormal, poisson, negative_binomial, bernoulli, categorical, got 'gausian': "
         "did you mean 'gaussian'?"),
    ],
)  # fmt: skip
def test_an_unknown_name_lists_all_names_and_the_nearest(options, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        BayesianNetwork(mlp(3, [4], 1), **options)


def test_a_regressor_takes_no_likelihood_of_classes():
    x, y = noisy_sine(20)
    with pytest.raises(ValueError, match=r"must be one of gaussian, .*, auto, got 'cat"):
        BBBRegressor(likelihood="categorical").fit(x, y)
    with pytest.raises(ValueError, match=r"got 'poison': did you mean 'poisson'\?"):
        BBBRegressor(likelihood="poison").fit(x, y)


def test_a_last_layer_and_an_agent_take_names():
    labels = (X[:, 0] > 0).astype(int)
    net = mlp(3, [4], 2, seed=0).double()
    by_name = last_layer(net, X, labels, likelihood="categorical")
    by_class = last_layer(net, X, labels, likelihood=likelihoods.Categorical())
    torch.testing.assert_close(by_name.guide.loc, by_class.guide.loc, rtol=0, atol=0)
    agent = bandits.ThompsonSampler(2, 2, likelihood="heteroscedastic", prior="normal", seed=0)
    assert agent.act([0.0, 1.0]) in (0, 1)
