"""Split conformal calibration of a regressor's intervals."""

import numpy as np
import pyro.distributions as dist
import pytest
from scipy import stats
from sklearn.datasets import make_friedman1

from pyrobbb import BBBRegressor
from pyrobbb.estimators.conformal import calibrate_intervals, n_calibration_rows
from pyrobbb.scores import coverage

OPTIONS = {"likelihood": "gaussian", "epochs": 400, "restarts": 2, "random_state": 0}


def heavy_tailed(n, n_targets=1, seed=0):
    """Return data with heavy-tailed, non-Gaussian noise."""
    X, y = make_friedman1(n, 5, random_state=seed)
    noise = stats.t(2).rvs((n, n_targets), random_state=seed + 1)
    y = y[:, None] + noise
    return X, y if n_targets > 1 else y[:, 0]


def test_intervals_have_nearly_their_level_under_a_misspecified_likelihood():
    X, y = heavy_tailed(1500)
    X_new, y_new = heavy_tailed(5000, seed=9)
    prediction = BBBRegressor(calibration=0.2, **OPTIONS).fit(X, y).predict_distribution(X_new)
    predictions = {"calibrated": prediction, "mixture": prediction.calibrated(None)}
    for level in (0.5, 0.8, 0.9):
        gaps = {
            name: abs(coverage(each, y_new, level) - level) for name, each in predictions.items()
        }
        assert gaps["calibrated"] < gaps["mixture"] / 2
    assert coverage(prediction, y_new, 0.9) == pytest.approx(0.9, abs=0.05)


def test_the_levels_of_several_targets_are_pooled():
    X, y = heavy_tailed(200, n_targets=2)
    model = BBBRegressor(**OPTIONS).fit(X, y)
    assert len(model.calibration_.level) == 2 * 20 + 2
    assert model.predict_interval(X)[0].shape == (200, 2)


def test_the_intervals_of_the_posterior_itself_count_as_twenty_rows():
    X, y = heavy_tailed(70)
    model = BBBRegressor(calibration=0, **OPTIONS).fit(X[:40], y[:40])
    held = model._prepare(X[40:], y[40:], None)
    calibration = calibrate_intervals(model.posterior_, held, model.n_draws, model.seed_)
    prediction = model.predict_distribution(X[40:])
    for share in (0.3, 0.6, 0.8, 0.9):
        level = float(calibration(share))
        n_inside = 30 * coverage(prediction, y[40:], level)
        least, most = ((30 * k / 31 + 20 * level) / 50 for k in (n_inside, n_inside + 1))
        assert least <= share <= most


def test_rows_of_nearly_no_weight_do_not_calibrate():
    X, y = heavy_tailed(300)
    model = BBBRegressor(calibration=0, **OPTIONS).fit(X[:40], y[:40])
    wrong = np.where(np.arange(260) % 2, 0.0, 1e3)
    held = model._prepare(X[40:], y[40:] + wrong, np.where(wrong, 1e-9, 1.0))
    kept = model._prepare(X[41::2], y[41::2], None)
    found, expected = (
        calibrate_intervals(model.posterior_, rows, model.n_draws, model.seed_)(0.8)
        for rows in (held, kept)
    )
    assert found == pytest.approx(expected, abs=0.05)


@pytest.mark.parametrize(
    ("fraction", "n_rows", "n_classes", "expected"),
    [
        (0.1, 200, 1, 20),
        (0.1, 90, 1, 9),
        (0.1, 89, 1, 9),  # at least nine, from 36 rows on
        (0.1, 35, 1, 0),
        (0.1, 89, 2, 0),
        (0.1, 90, 2, 22),  # of classes a quarter, or 24 rows
        (0.1, 96, 2, 24),
        (0.1, 249, 3, 24),
        (0.1, 250, 3, 25),
        (0.1, 95, 80, 15),
        (0.0, 500, 1, 0),
        (0.5, 10**6, 1, 1000),
        (0.5, 20, 10, 10),
        (0.9, 20, 11, 9),
        (0.9, 20, 12, 0),  # each class needs a row to fit
    ],
)
def test_the_number_of_held_out_rows_has_bounds(fraction, n_rows, n_classes, expected):
    assert n_calibration_rows(fraction, n_rows, n_classes) == expected


def test_the_refit_includes_the_held_out_rows():
    X, y = heavy_tailed(100)
    calibrated, plain = (BBBRegressor(calibration=c, **OPTIONS).fit(X, y) for c in (0.1, 0.0))
    for chain in calibrated.posterior_.chains:
        assert chain.settings.n_data == 100
        assert chain.settings.epochs == 100  # a quarter of those of the first fit
    assert all(chain.settings.n_data == 100 for chain in plain.posterior_.chains)


def test_too_few_rows_are_not_held_out_and_this_is_logged(caplog):
    X, y = heavy_tailed(35)
    with caplog.at_level("INFO", logger="pyrobbb.estimators"):
        model = BBBRegressor(**OPTIONS).fit(X, y)
    assert model.calibration_ is None
    assert "35 rows are too few to calibrate intervals" in caplog.text


def asymmetric_laplace(output):
    return dist.AsymmetricLaplace(output, 1.0, 1.0).to_event(1)


def test_without_a_distribution_function_intervals_are_calibrated_from_draws(caplog):
    X, y = heavy_tailed(100)
    model = BBBRegressor(**OPTIONS | {"epochs": 2, "likelihood": asymmetric_laplace}).fit(X, y)
    assert "The distribution function of AsymmetricLaplace is not known" in caplog.text
    levels = model.calibration_.level
    assert ((levels >= 0) & (levels <= 1)).all()
    assert len(np.unique(levels)) > 5
    assert np.isfinite(model.predict_interval(X)).all()


def test_without_calibration_intervals_are_those_of_the_mixture(caplog):
    X, y = heavy_tailed(200)
    with caplog.at_level("INFO", logger="pyrobbb.estimators"):
        model = BBBRegressor(calibration=0, **OPTIONS).fit(X, y)
    assert model.calibration_ is None
    assert caplog.text == ""


def test_further_fits_keep_the_calibration_of_the_first():
    X, y = heavy_tailed(200)
    model = BBBRegressor(**OPTIONS).partial_fit(X[:150], y[:150])
    first = model.calibration_
    assert model.partial_fit(X[150:], y[150:]).calibration_ is first
    model.set_params(warm_start=True).fit(X, y)
    assert model.calibration_ is first
