"""Predictions of a log-normal y in its own units, against SciPy's log-normal and draws."""

import numpy as np
import pyro.distributions as dist
import pytest
import scipy.stats
import torch

from pyrobbb.prediction import make_prediction

RNG = np.random.default_rng(0)
N_DRAWS, N = 40, 3
MEAN, SD = RNG.normal(size=(N_DRAWS, N, 2)), RNG.uniform(0.1, 0.6, (N_DRAWS, 1, 2))
LOC, SCALE = np.array([5.0, -2.0]), np.array([1.3, 0.2])
Y = np.exp(LOC + SCALE * RNG.normal(size=(N, 2)))
COMPONENTS = scipy.stats.lognorm(SCALE * SD, scale=np.exp(LOC + SCALE * MEAN))


def standardised(dtype=torch.float64):
    base = dist.LogNormal(torch.as_tensor(MEAN, dtype=dtype), torch.as_tensor(SD, dtype=dtype))
    return make_prediction([base.to_event(1)], np.empty(0))


PREDICTION = standardised().rescaled_log(LOC, SCALE)


def test_the_density_is_that_of_scipy():
    expected = np.log(COMPONENTS.pdf(Y).prod(-1).mean(0))
    np.testing.assert_allclose(PREDICTION.log_prob(Y), expected, rtol=1e-10)


def test_moments_are_those_of_scipy():
    mean = COMPONENTS.mean().mean(0)
    np.testing.assert_allclose(PREDICTION.mean, mean, rtol=1e-12)
    np.testing.assert_allclose(PREDICTION.aleatoric_sd**2, COMPONENTS.var().mean(0), rtol=1e-12)
    np.testing.assert_allclose(PREDICTION.epistemic_sd, COMPONENTS.mean().std(0), rtol=1e-12)


def test_quantiles_solve_the_distribution_function_of_scipy():
    for q, values in zip((0.05, 0.5, 0.95), PREDICTION.quantile([0.05, 0.5, 0.95]), strict=True):
        for i, j in np.ndindex(N, 2):
            medians = np.exp(LOC + SCALE * MEAN)[:, i, j]
            parts = scipy.stats.lognorm(SCALE[j] * SD[:, 0, j], scale=medians)
            assert parts.cdf(values[i, j]).mean() == pytest.approx(q, rel=1e-8)
    np.testing.assert_allclose(PREDICTION.cdf(Y), COMPONENTS.cdf(Y).mean(0), rtol=1e-10)


def test_draws_have_the_distribution_that_is_predicted():
    draws = np.concatenate([PREDICTION.sample(seed) for seed in range(100)])
    below = (draws <= Y).mean(0)
    np.testing.assert_allclose(below, PREDICTION.cdf(Y), atol=4 * 0.5 / np.sqrt(len(draws)))


def test_a_column_is_the_marginal_distribution():
    column = PREDICTION.column(1)
    np.testing.assert_allclose(column.mean, PREDICTION.mean[:, 1], rtol=1e-14)
    expected = np.log(COMPONENTS.pdf(Y)[..., 1].mean(0))
    np.testing.assert_allclose(column.log_prob(Y[:, 1]), expected, rtol=1e-10)


def test_the_mean_of_log_y_is_bounded():
    lower, upper = np.array([-0.5, -1.0]), np.array([0.4, 1.5])
    bounded = standardised().rescaled_log(LOC, SCALE, lower, upper)
    parts = scipy.stats.lognorm(SCALE * SD, scale=np.exp(LOC + SCALE * MEAN.clip(lower, upper)))
    np.testing.assert_allclose(bounded.mean, parts.mean().mean(0), rtol=1e-12)
    expected = np.log(parts.pdf(Y).prod(-1).mean(0))
    np.testing.assert_allclose(bounded.log_prob(Y), expected, rtol=1e-10)


def test_predictions_in_single_precision_do_not_overflow():
    far = standardised(torch.float32).rescaled_log(np.full(2, 200.0), SCALE)
    assert np.isfinite(far.mean).all()
    assert (far.mean > 1e80).all()


def test_other_likelihoods_and_rescaled_predictions_are_refused():
    normal = make_prediction([dist.Normal(torch.zeros(2, 3), 1.0)], np.empty(0))
    with pytest.raises(ValueError, match="needs a log-normal likelihood, got Normal"):
        _ = normal.rescaled_log(0.0, 1.0).mean
    with pytest.raises(ValueError, match="that has not been rescaled"):
        standardised().rescaled(1.0, 2.0).rescaled_log(0.0, 1.0)
