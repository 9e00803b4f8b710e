"""Choice of the likelihood that predicts held-out rows best, for likelihood="auto"."""

import numpy as np

from pyrobbb import BBBRegressor, likelihoods


def test_auto_detects_noise_that_depends_on_the_inputs():
    rng = np.random.default_rng(0)
    X = rng.uniform(-1, 1, (500, 1))
    y = 5 * X[:, 0] + np.where(X[:, 0] > 0, 2.0, 0.2) * rng.normal(size=500)
    model = BBBRegressor(likelihood="auto", restarts=1, epochs=400, random_state=0).fit(X, y)
    assert isinstance(model.likelihood_, likelihoods.HeteroscedasticGaussian)
    low, high = model.predict_distribution([[-0.5], [0.5]]).aleatoric_sd
    assert 0.15 < low < 0.5
    assert 1.5 < high < 2.7


def test_auto_chooses_constant_noise_where_it_is_constant(friedman):
    """The seed matters: both likelihoods predict nearly equally well, and only 60 rows decide."""
    X, y = friedman
    model = BBBRegressor(likelihood="auto", restarts=1, epochs=400, random_state=1)
    assert isinstance(model.fit(X, y).likelihood_, likelihoods.Gaussian)
