"""Preparation: inputs in the units of the network, with compressed tails."""

import numpy as np
from support import QUICK_ESTIMATOR

from pyrobbb import BBBRegressor
from pyrobbb.estimators.preparation import compress_tails


def test_units_of_inputs_do_not_matter(friedman):
    X, y = friedman
    plain = BBBRegressor(**QUICK_ESTIMATOR).fit(X, y).predict(X)
    other = (X + 7) * [1e6, 1e-6, 1, 1e200, 1e-200]
    moved = BBBRegressor(**QUICK_ESTIMATOR).fit(other, y).predict(other)
    np.testing.assert_allclose(plain, moved, rtol=1e-3)


def test_tails_are_compressed_and_keep_their_order():
    z = np.array([-20.0, -3.0, -1.5, 0.0, 2.9, 3.0, 3.1, 8.0])
    np.testing.assert_allclose(
        compress_tails(z), [-3 - np.log(18), -3, -1.5, 0, 2.9, 3, 3 + np.log(1.1), 3 + np.log(6)]
    )


def test_the_predicted_noise_of_an_outlying_row_does_not_vanish():
    rng = np.random.default_rng(0)
    X = rng.standard_normal((300, 2))
    y = np.exp(-X[:, 0]) * rng.standard_normal(300)  # the noise decreases with x
    model = BBBRegressor(**QUICK_ESTIMATOR | {"epochs": 500, "likelihood": "heteroscedastic"}).fit(
        X, y
    )
    near, far = model.predict([[2.5, 0.0], [12.0, 0.0]], return_std=True)[1]
    assert 0.05 * near < far
