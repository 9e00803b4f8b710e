"""Targets are scaled as far as the support of their likelihood allows."""

import numpy as np
import pyro.distributions as dist
import pytest
import torch
from support import QUICK_ESTIMATOR

from pyrobbb import BBBRegressor, likelihoods

RNG = np.random.default_rng(0)
X = RNG.normal(size=(60, 2))
POSITIVE = 1000 * np.exp(X[:, 0] + 0.1 * RNG.normal(size=60))
OPTIONS = QUICK_ESTIMATOR | {"hidden": (4,), "epochs": 400, "calibration": 0.0}


@pytest.mark.parametrize("n_targets", [1, 2])
@pytest.mark.parametrize(
    "likelihood",
    [
        lambda output: dist.LogNormal(output, 0.3).to_event(1),
        lambda output: dist.Gamma(4.0, torch.exp(1.4 - output)).to_event(1),
        lambda output: dist.InverseGamma(4.0, torch.exp(1.4 + output)).to_event(1),
        lambda output: dist.Exponential(torch.exp(-output)).to_event(1),
        lambda output: dist.HalfNormal(torch.exp(output)).to_event(1),
    ],
)
def test_positive_targets_are_divided_by_their_standard_deviation(likelihood, n_targets):
    y = np.stack([POSITIVE] * n_targets, 1)
    y = y[:, 0] if n_targets == 1 else y
    model = BBBRegressor(likelihood=likelihood, **OPTIONS).fit(X, y)
    assert (model.target_scaling_.loc == 0).all()
    np.testing.assert_allclose(model.target_scaling_.scale, POSITIVE.std())
    mean = model.predict(X)
    assert mean.shape == y.shape
    assert (mean > 0).all()
    assert np.corrcoef(np.log(mean).ravel(), np.log(y).ravel())[0, 1] > 0.9


def test_predictions_of_a_positive_target_do_not_depend_on_its_unit():
    def fitted(unit):
        options = OPTIONS | {"likelihood": lambda output: dist.LogNormal(output, 0.3).to_event(1)}
        return BBBRegressor(**options).fit(X, unit * POSITIVE).predict(X) / unit

    np.testing.assert_allclose(fitted(1e6), fitted(1.0), rtol=1e-6)


@pytest.mark.parametrize("likelihood", ["lognormal", likelihoods.LogNormal(scale=0.2)])
@pytest.mark.parametrize("n_targets", [1, 2])
def test_the_logarithm_of_a_log_normal_target_is_standardised(likelihood, n_targets, tmp_path):
    y = np.stack([POSITIVE, 1e-6 * POSITIVE[::-1] ** 2], 1)[:, :n_targets]
    model = BBBRegressor(**OPTIONS | {"likelihood": likelihood}).fit(X, y)
    np.testing.assert_allclose(model.target_scaling_.loc, np.log(y).mean(0))
    np.testing.assert_allclose(model.target_scaling_.scale, np.log(y).std(0))
    _, z = model.standardised(X, y)
    np.testing.assert_allclose(model.target_scaling_.inverse(z), y)
    # The density in units of y is that of z, with the derivative of the transformation.
    prediction = model.predict_distribution(X)
    assert prediction.mean.shape == y.shape
    of_z = model.posterior_.predict(model.standardised(X, y)[0], model.n_draws, model.seed_)
    bounds = np.log(z).min(0) - 0.25, np.log(z).max(0) + 0.25
    of_z = of_z.rescaled_log(0.0, 1.0, *bounds)
    derivative = np.log(z / y / np.log(y).std(0)).sum(1)
    np.testing.assert_allclose(prediction.log_prob(y), of_z.log_prob(z) + derivative, rtol=1e-8)
    model.save(tmp_path / "model")
    loaded = BBBRegressor.load(tmp_path / "model")
    np.testing.assert_array_equal(loaded.predict(X), model.predict(X))
    assert loaded.likelihood_ == model.likelihood_


def test_a_log_normal_prediction_is_sane_far_from_the_data():
    model = BBBRegressor(**OPTIONS | {"likelihood": "lognormal"}).fit(X, POSITIVE)
    mean, sd = model.predict(1e6 * X[:5], return_std=True)
    assert np.isfinite(mean).all()
    assert np.isfinite(sd).all()
    assert (mean < 3 * POSITIVE.max()).all()


def test_predictions_of_a_log_normal_target_do_not_depend_on_its_unit():
    one, other = (
        BBBRegressor(**OPTIONS | {"likelihood": "lognormal"}).fit(X, unit * POSITIVE).predict(X)
        for unit in (1.0, 1e6)
    )
    np.testing.assert_allclose(other, 1e6 * one, rtol=1e-6)


@pytest.mark.parametrize("further", [False, True])
def test_a_log_normal_target_must_be_positive(further):
    model = BBBRegressor(**OPTIONS | {"likelihood": "lognormal", "epochs": 1})
    if further:
        model.partial_fit(X, POSITIVE)
    y = np.where(np.arange(60) == 7, -2.5, POSITIVE)
    with pytest.raises(ValueError, match=r"`y` must be positive .*, got -2.5 in row 7: choose"):
        model.partial_fit(X, y)


@pytest.mark.parametrize(
    ("likelihood", "y"),
    [
        (lambda output: dist.Beta(torch.exp(output), 1.0).to_event(1), 1 / (1 + POSITIVE / 1000)),
        (lambda output: dist.Geometric(logits=output).to_event(1), np.arange(60)),
        (likelihoods.Poisson(), np.arange(60)),
        ("negative_binomial", np.arange(60)),
    ],
)
def test_bounded_and_discrete_targets_keep_their_units(likelihood, y):
    model = BBBRegressor(**OPTIONS | {"likelihood": likelihood, "epochs": 5}).fit(X, y)
    assert model.target_scaling_ is None
    assert model.predict(X).shape == (60,)


@pytest.mark.parametrize(
    ("likelihood", "message"),
    [
        (likelihoods.Bernoulli(), "must be a distribution of numbers, got Bernoulli: use BBBClass"),
        (
            lambda output: dist.Categorical(logits=output.repeat(1, 3)),
            "must be a distribution of numbers, got Categorical",
        ),
    ],
)
def test_a_likelihood_of_classes_is_refused(likelihood, message):
    with pytest.raises(ValueError, match=f"`likelihood` of a BBBRegressor {message}"):
        BBBRegressor(**OPTIONS | {"likelihood": likelihood}).fit(X, np.arange(60) % 2)


@pytest.mark.parametrize(
    ("likelihood", "centre"),
    [
        ("gaussian", lambda y: y),
        ("lognormal", np.log),
        (lambda output: dist.Gamma(4.0, torch.exp(1.4 - output)).to_event(1), None),
    ],
)
def test_the_scaling_of_the_target_is_weighted(likelihood, centre):
    weight = np.where(X[:, 0] > 0, 3.0, 0.1)
    options = OPTIONS | {"epochs": 2}
    model = BBBRegressor(likelihood=likelihood, **options).fit(X, POSITIVE, sample_weight=weight)
    values = POSITIVE if centre is None else centre(POSITIVE)
    mean = np.average(values, weights=weight)
    sd = np.average((values - mean) ** 2, weights=weight) ** 0.5
    np.testing.assert_allclose(model.target_scaling_.scale, sd, rtol=1e-6)
    np.testing.assert_allclose(model.target_scaling_.loc, 0 if centre is None else mean, rtol=1e-6)


def test_a_target_beyond_a_bound_that_is_not_zero_is_not_scaled():
    likelihood = lambda output: dist.Pareto(100.0, torch.nn.functional.softplus(output)).to_event(1)  # noqa: E731
    model = BBBRegressor(likelihood=likelihood, **OPTIONS | {"epochs": 2}).fit(
        X, 101 + X[:, 0] ** 2
    )
    assert model.target_scaling_ is None
