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
