"""Calibration: exact on exchangeable rows, and what it changes of a prediction."""

import numpy as np
import pyro.distributions as dist
import pytest
import torch
from scipy import stats
from sklearn.datasets import make_friedman1

from pyrobbb import BBBRegressor, Calibration
from pyrobbb.prediction.predictions import make_prediction
from pyrobbb.scores import coverage

LOC = torch.tensor([[0.0, 5.0, -3.0], [1.0, 5.1, 4.0]], dtype=torch.float64)
SCALE = torch.tensor([[1.0], [2.0]], dtype=torch.float64)
NORMAL = make_prediction([dist.Normal(LOC[..., None], SCALE[..., None]).to_event(1)], np.empty(0))
Y = np.array([[0.3], [9.0], [-3.1]])
NARROWER = Calibration(np.array([0.0, 0.8, 1.0]), np.array([0.0, 0.5, 1.0]))


# The levels


def test_a_new_row_lies_within_with_the_probability_stated():
    rng = np.random.default_rng(0)
    n_held, n_times = 19, 20_000
    # The levels of a mixture that is far too wide: most observations are near the median.
    levels = rng.beta(1, 3, (n_times, n_held + 1))
    for share in (0.5, 0.9, 0.925):
        holds = [new <= Calibration.of(held)(share) for *held, new in levels]
        standard_error = (share * (1 - share) / n_times) ** 0.5
        assert np.mean(holds) == pytest.approx(share, abs=4 * standard_error)


def test_levels_of_a_mixture_that_is_right_are_the_shares():
    levels = np.arange(1, 50) / 50
    calibration = Calibration.of(levels[::-1])
    np.testing.assert_allclose(calibration([0.0, 0.013, 0.5, 0.9, 1.0]), [0, 0.013, 0.5, 0.9, 1])


def test_only_the_ratio_of_weights_matters():
    levels = np.array([0.1, 0.4, 0.8])
    alike = Calibration.of(levels, [2.0, 2.0, 2.0])
    np.testing.assert_allclose(alike.share, Calibration.of(levels).share)
    heavy = Calibration.of(levels, [1.0, 1.0, 2.0])
    np.testing.assert_allclose(heavy.share, [0, 3 / 16, 6 / 16, 12 / 16, 1])


def test_columns_are_taken_together_and_a_row_counts_once():
    levels = np.array([[0.1, 0.9], [0.4, 0.2]])
    calibration = Calibration.of(levels)
    np.testing.assert_allclose(calibration.level, [0, 0.1, 0.2, 0.4, 0.9, 1])
    np.testing.assert_allclose(calibration.share, [0, 1 / 6, 2 / 6, 3 / 6, 4 / 6, 1])


@pytest.mark.parametrize(
    ("share", "level", "message"),
    [
        ([0, 0.5, 0.4, 1], [0, 0.1, 0.2, 1], "`share` must rise from 0 to 1"),
        ([0, 0.5, 1], [0, np.nan, 1], "`level` must rise from 0 to 1"),
        ([0, 0.5, 1], [0.1, 0.5, 1], "`level` must rise from 0 to 1"),
        ([0, 1], [0, 0.5, 1], "must be as many, got 2 and 3"),
        (0.5, 0.5, "`share` must rise from 0 to 1"),
    ],
)
def test_what_is_no_calibration_is_refused(share, level, message):
    with pytest.raises(ValueError, match=message):
        Calibration(np.array(share, dtype=float), np.array(level, dtype=float))


# Predictions


def test_the_central_level_is_that_of_the_interval_that_ends_at_the_observation():
    levels = NORMAL.central_level(Y)
    for row in range(3):
        lower, upper = NORMAL.interval(float(levels[row, 0]))
        ends = np.array([lower[row, 0], upper[row, 0]])
        assert np.abs(ends - Y[row, 0]).min() < 1e-6


def test_of_counts_it_is_that_of_the_smallest_interval_that_holds_the_observation():
    rate = torch.tensor([[0.5, 3.0, 40.0, 7.0], [0.7, 5.0, 30.0, 7.0]], dtype=torch.float64)
    prediction = make_prediction([dist.Poisson(rate)], np.empty(0))
    y = np.array([0.0, 9.0, 20.0, 7.0])
    for row, level in enumerate(prediction.central_level(y)):
        for near, holds in ((level + 1e-6, True), (level - 1e-6, False)):
            if 0 < near < 1:
                lower, upper = prediction.interval(float(near))
                assert (lower[row] <= y[row] <= upper[row]) == holds


def test_the_units_of_y_do_not_change_the_central_level():
    np.testing.assert_allclose(
        NORMAL.rescaled(100.0, 3.0).central_level(100 + 3 * Y), NORMAL.central_level(Y)
    )


@pytest.mark.parametrize("y", [Y[:2], Y[:, 0], np.zeros((3, 2))])
def test_observations_of_another_shape_are_refused(y):
    with pytest.raises(ValueError, match=r"`y` must have the shape .*\(3, 1\)"):
        NORMAL.central_level(y)


def test_quantiles_and_intervals_are_the_mixtures_at_other_levels():
    calibrated = NORMAL.calibrated(NARROWER)
    for own, others in zip(calibrated.interval(0.8), NORMAL.interval(0.5), strict=True):
        np.testing.assert_allclose(own, others)
    np.testing.assert_allclose(
        calibrated.quantile([0.1, 0.5, 0.7]), NORMAL.quantile([0.25, 0.5, 0.625])
    )
    assert np.isfinite(calibrated.quantile([1e-12, 1 - 1e-12])).all()


def test_the_probability_of_a_quantile_is_that_of_the_end_of_its_interval():
    np.testing.assert_allclose(NARROWER.probability([0.1, 0.5, 0.7, 0.9]), [0.25, 0.5, 0.625, 0.75])


def test_all_else_stays_the_mixtures():
    calibrated = NORMAL.calibrated(NARROWER)
    for name in ("mean", "sd", "epistemic_sd", "aleatoric_sd"):
        np.testing.assert_array_equal(getattr(calibrated, name), getattr(NORMAL, name))
    np.testing.assert_array_equal(calibrated.log_prob(Y), NORMAL.log_prob(Y))
    np.testing.assert_array_equal(calibrated.sample(0), NORMAL.sample(0))
    np.testing.assert_array_equal(calibrated.central_level(Y), NORMAL.central_level(Y))


def test_columns_and_other_units_keep_the_calibration():
    calibrated = NORMAL.calibrated(NARROWER)
    interval = np.stack(NORMAL.interval(0.5))
    np.testing.assert_allclose(np.stack(calibrated.column(0).interval(0.8)), interval[..., 0])
    np.testing.assert_allclose(
        np.stack(calibrated.rescaled(1.0, 2.0).interval(0.8)), 1 + 2 * interval
    )
    np.testing.assert_allclose(np.stack(calibrated.calibrated(None).interval(0.5)), interval)


# Estimators

QUICK = {"epochs": 400, "restarts": 2, "random_state": 0}


def skewed(n, n_targets=1, seed=0):
    """Give data whose noise is mostly small and sometimes large: no normal one."""
    X, y = make_friedman1(n, 5, random_state=seed)
    noise = stats.t(2).rvs((n, n_targets), random_state=seed + 1)
    y = y[:, None] + noise
    return X, y if n_targets > 1 else y[:, 0]


@pytest.mark.slow
def test_the_intervals_of_a_regressor_come_near_to_their_promise_under_a_wrong_likelihood():
    X, y = skewed(1500)
    X_new, y_new = skewed(5000, seed=9)
    prediction = BBBRegressor(calibration=0.2, **QUICK).fit(X, y).predict_distribution(X_new)
    for level in (0.5, 0.8, 0.9):
        gaps = {
            name: abs(coverage(own, y_new, level) - level)
            for name, own in {"own": prediction, "mixture": prediction.calibrated(None)}.items()
        }
        assert gaps["own"] < gaps["mixture"] / 2
    assert coverage(prediction, y_new, 0.9) == pytest.approx(0.9, abs=0.05)


def test_several_targets_are_calibrated_together():
    X, y = skewed(200, n_targets=2)
    model = BBBRegressor(**QUICK).fit(X, y)
    assert len(model.calibration_.level) == 2 * 20 + 2
    assert model.predict_interval(X)[0].shape == (200, 2)


def test_rows_held_out_are_taken_up_in_the_end():
    X, y = skewed(100)
    calibrated, plain = (BBBRegressor(calibration=c, **QUICK).fit(X, y) for c in (0.1, 0.0))
    assert calibrated.posterior_.settings["n_data"] == plain.posterior_.settings["n_data"] == 100
    assert calibrated.posterior_.settings["epochs"] == 100  # a quarter, after 400 without them


def test_too_few_rows_are_not_calibrated_by_and_the_log_says_so(caplog):
    X, y = skewed(89)
    with caplog.at_level("INFO", logger="pyrobbb.estimators"):
        model = BBBRegressor(**QUICK).fit(X, y)
    assert model.calibration_ is None
    assert "89 rows are too few to calibrate intervals" in caplog.text


def test_a_likelihood_without_distribution_function_is_not_calibrated_and_the_log_says_so(caplog):
    X, y = skewed(100)
    model = BBBRegressor(
        likelihood=lambda output: dist.AsymmetricLaplace(output, 1.0, 1.0).to_event(1),
        **QUICK | {"epochs": 2},
    ).fit(X, y)
    assert model.calibration_ is None
    assert "not calibrated: AsymmetricLaplace has no distribution function" in caplog.text
    assert np.isfinite(model.predict(X)).all()


def test_without_calibration_intervals_are_those_of_the_mixture(caplog):
    X, y = skewed(200)
    with caplog.at_level("INFO", logger="pyrobbb.estimators"):
        model = BBBRegressor(calibration=0, **QUICK).fit(X, y)
    assert model.calibration_ is None
    assert caplog.text == ""


def test_a_stream_keeps_the_calibration_of_its_first_part():
    X, y = skewed(200)
    model = BBBRegressor(**QUICK).partial_fit(X[:150], y[:150])
    first = model.calibration_
    assert model.partial_fit(X[150:], y[150:]).calibration_ is first
    model.set_params(warm_start=True).fit(X, y)
    assert model.calibration_ is first
