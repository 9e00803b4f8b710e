"""BBBRegressor: predictions in the units of y."""

import numpy as np
from sklearn.datasets import make_friedman1
from support import QUICK_ESTIMATOR

from pyrobbb import BBBRegressor


def test_predictions_are_in_the_units_of_y(regressor, friedman):
    X, y = friedman
    mean, sd = regressor.predict(X, return_std=True)
    assert mean.shape == sd.shape == y.shape
    assert np.corrcoef(mean, y)[0, 1] > 0.95
    assert abs(mean.mean() - y.mean()) < 2
    assert 8 < sd.mean() < 16  # the noise has a standard deviation of 10
    assert regressor.score(X, y) > 0.9


def test_all_methods_of_prediction_agree(regressor, friedman):
    X, y = friedman
    prediction = regressor.predict_distribution(X)
    lower, upper = regressor.predict_interval(X, 0.8)
    quantiles = regressor.predict_quantiles(X, [0.1, 0.5, 0.9])
    assert quantiles.shape == (len(X), 3)
    np.testing.assert_allclose(quantiles[:, [0, 2]], np.stack([lower, upper], 1))
    np.testing.assert_allclose(regressor.predict_quantiles(X, 0.5), quantiles[:, 1])
    np.testing.assert_array_equal(regressor.predict(X), prediction.mean)
    np.testing.assert_allclose(
        prediction.sd**2, prediction.epistemic_sd**2 + prediction.aleatoric_sd**2
    )
    assert prediction.log_prob(y).shape == y.shape
    assert 0.75 < np.mean((lower < y) & (y < upper)) < 0.97


def test_samples_have_the_moments_of_the_prediction(regressor, friedman):
    X = friedman[0][:20]
    samples = regressor.sample_y(X, 4000, random_state=1)
    mean, sd = regressor.predict(X, return_std=True)
    assert samples.shape == (20, 4000)
    assert (abs(samples.mean(1) - mean) < 0.2 * sd).all()
    np.testing.assert_allclose(samples.std(1), sd, rtol=0.15)
    np.testing.assert_array_equal(samples, regressor.sample_y(X, 4000, random_state=1))
    assert (samples != regressor.sample_y(X, 4000, random_state=2)).any()


def test_a_target_far_from_0_keeps_its_precision():
    X, y = make_friedman1(100, 5, random_state=0)
    near, far = (BBBRegressor(**QUICK_ESTIMATOR).fit(X, y + shift) for shift in (0, 1e9))
    np.testing.assert_allclose(far.predict(X) - 1e9, near.predict(X), atol=1e-3)


def test_each_target_has_its_noise_scale_and_units():
    rng = np.random.default_rng(0)
    X = rng.normal(size=(400, 2))
    Y = X @ [[1.0, 100.0], [2.0, -50.0]] + rng.normal(size=(400, 2)) * [0.1, 30.0]
    model = BBBRegressor((), restarts=1, epochs=1000, random_state=0).fit(X, Y)
    mean, sd = model.predict(X, return_std=True)
    assert mean.shape == sd.shape == Y.shape
    np.testing.assert_allclose(sd.mean(0), [0.1, 30], rtol=0.3)
    assert model.predict_quantiles(X, [0.1, 0.9]).shape == (400, 2, 2)
    assert model.sample_y(X, 7).shape == (400, 2, 7)
    assert model.score(X, Y) > 0.9


def test_counts_are_predicted_as_counts():
    rng = np.random.default_rng(0)
    X = rng.uniform(-1, 1, (400, 1))
    y = rng.poisson(np.exp(1 + X[:, 0]))
    model = BBBRegressor(likelihood="poisson", restarts=1, epochs=300, random_state=0).fit(X, y)
    np.testing.assert_allclose(model.predict([[-0.5], [0.5]]), np.exp([0.5, 1.5]), rtol=0.25)
    quantiles = model.predict_quantiles(X, [0.05, 0.95])
    np.testing.assert_array_equal(quantiles, quantiles.round())
