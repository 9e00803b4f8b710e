"""Split conformal calibration: its exact coverage, and its effect on predictions."""

import numpy as np
import pyro.distributions as dist
import pytest
import torch
from mapie.regression import SplitConformalRegressor
from scipy import stats
from sklearn.datasets import make_friedman1
from sklearn.linear_model import LinearRegression

from pyrobbb import Calibration
from pyrobbb.prediction import make_prediction

LOC = torch.tensor([[0.0, 5.0, -3.0], [1.0, 5.1, 4.0]], dtype=torch.float64)
SCALE = torch.tensor([[1.0], [2.0]], dtype=torch.float64)
NORMAL = make_prediction([dist.Normal(LOC[..., None], SCALE[..., None]).to_event(1)], np.empty(0))
Y = np.array([[0.3], [9.0], [-3.1]])
NARROWER = Calibration(np.array([0.0, 0.8, 1.0]), np.array([0.0, 0.5, 1.0]))


# The levels


def test_an_interval_contains_a_new_observation_with_the_stated_probability():
    rng = np.random.default_rng(0)
    n_held, n_times = 19, 20_000
    # Levels of a mixture that is far too wide: most observations are near the median.
    levels = rng.beta(1, 3, (n_times, n_held + 1))
    for share in (0.5, 0.9, 0.925):
        holds = [new <= Calibration.of(held)(share) for *held, new in levels]
        standard_error = (share * (1 - share) / n_times) ** 0.5
        assert np.mean(holds) == pytest.approx(share, abs=4 * standard_error)


def test_intervals_agree_with_split_conformal_intervals_of_mapie():
    # With the same scale for all rows, the central level grows with the absolute residual, which
    # is MAPIE's conformity score. Of 99 rows and a new one, 90 % is at a step of the quantile.
    X, y = make_friedman1(250, 5, noise=2.0, random_state=0)
    model = LinearRegression().fit(X[:100], y[:100])
    held, new = slice(100, 199), slice(199, None)
    mapie = SplitConformalRegressor(model, confidence_level=0.9, prefit=True)
    _, expected = mapie.conformalize(X[held], y[held]).predict_interval(X[new])

    def predict(X):
        loc = torch.as_tensor(model.predict(X))[None]
        return make_prediction([dist.Normal(loc, torch.full_like(loc, 3.0))], np.empty(0))

    calibration = Calibration.of(predict(X[held]).central_level(y[held]))
    interval = predict(X[new]).calibrated(calibration).interval(0.9)
    np.testing.assert_allclose(np.stack(interval, 1), expected[..., 0], rtol=1e-4)


def test_the_levels_of_a_correct_mixture_are_the_shares():
    levels = np.arange(1, 50) / 50
    calibration = Calibration.of(levels[::-1])
    np.testing.assert_allclose(calibration([0.0, 0.013, 0.5, 0.9, 1.0]), [0, 0.013, 0.5, 0.9, 1])


def test_only_the_ratio_of_weights_matters():
    levels = np.array([0.1, 0.4, 0.8])
    equal = Calibration.of(levels, [2.0, 2.0, 2.0])
    np.testing.assert_allclose(equal.share, Calibration.of(levels).share)
    unequal = Calibration.of(levels, [1.0, 1.0, 2.0])
    np.testing.assert_allclose(unequal.share, [0, 3 / 16, 6 / 16, 12 / 16, 1])


def test_columns_are_pooled_and_a_row_counts_once():
    levels = np.array([[0.1, 0.9], [0.4, 0.2]])
    calibration = Calibration.of(levels)
    np.testing.assert_allclose(calibration.level, [0, 0.1, 0.2, 0.4, 0.9, 1])
    np.testing.assert_allclose(calibration.share, [0, 1 / 6, 2 / 6, 3 / 6, 4 / 6, 1])


@pytest.mark.parametrize("prior_rows", [1, 20, 400])
def test_prior_rows_average_the_coverage_of_held_out_rows_with_the_level_itself(prior_rows):
    levels = np.random.default_rng(0).beta(3, 1, (27, 2))  # of intervals that are too narrow
    held_out = Calibration.of(levels)
    calibration = Calibration.of(levels, prior_rows=prior_rows)
    level = np.linspace(0, 1, 201)
    coverage = np.interp(level, held_out.level, held_out.share)
    expected = (27 * coverage + prior_rows * level) / (27 + prior_rows)
    np.testing.assert_allclose(calibration(expected), level, atol=1e-12)


def test_prior_rows_reduce_the_variation_of_the_coverage():
    rng = np.random.default_rng(0)
    n_held, share = 27, 25 / 28
    samples = rng.random((4000, n_held))  # of a correct mixture: the coverage is the level
    sd = {m: np.std([Calibration.of(s, prior_rows=m)(share) for s in samples]) for m in (0, 20)}
    assert sd[0] == pytest.approx(stats.beta(25, 3).std(), rel=0.03)
    assert sd[20] < 0.6 * sd[0]  # 27 / (27 + 20) = 0.57


def test_rows_with_weights_are_not_more_rows_beside_prior_rows():
    levels = np.array([0.2, 0.5, 0.6])
    one, other = (Calibration.of(levels, np.full(3, w), prior_rows=5) for w in (1.0, 8.0))
    np.testing.assert_allclose(one.share, other.share)


@pytest.mark.parametrize(("prior_rows", "error"), [(-1, ValueError), (2.5, TypeError)])
def test_prior_rows_are_a_count(prior_rows, error):
    with pytest.raises(error, match="`prior_rows` must be "):
        Calibration.of([0.1, 0.2], prior_rows=prior_rows)


@pytest.mark.parametrize(
    ("share", "level", "message"),
    [
        ([0, 0.5, 0.4, 1], [0, 0.1, 0.2, 1], "`share` must increase from 0 to 1"),
        ([0, 0.5, 1], [0, np.nan, 1], "`level` must increase from 0 to 1"),
        ([0, 0.5, 1], [0.1, 0.5, 1], "`level` must increase from 0 to 1"),
        ([0, 1], [0, 0.5, 1], "must have the same length, got 2 and 3"),
        (0.5, 0.5, "`share` must increase from 0 to 1"),
    ],
)
def test_invalid_calibrations_are_rejected(share, level, message):
    with pytest.raises(ValueError, match=message):
        Calibration(np.array(share, dtype=float), np.array(level, dtype=float))


# Predictions


def test_the_central_level_is_that_of_the_interval_ending_at_the_observation():
    levels = NORMAL.central_level(Y)
    for row in range(3):
        lower, upper = NORMAL.interval(float(levels[row, 0]))
        ends = np.array([lower[row, 0], upper[row, 0]])
        assert np.abs(ends - Y[row, 0]).min() < 1e-6


def test_the_central_level_of_a_count_is_that_of_the_smallest_interval_containing_it():
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
def test_observations_of_the_wrong_shape_are_rejected(y):
    with pytest.raises(ValueError, match=r"`y` must have the shape .*\(3, 1\)"):
        NORMAL.central_level(y)


def test_calibrated_quantiles_are_those_of_the_mixture_at_corrected_levels():
    calibrated = NORMAL.calibrated(NARROWER)
    for bound, expected in zip(calibrated.interval(0.8), NORMAL.interval(0.5), strict=True):
        np.testing.assert_allclose(bound, expected)
    np.testing.assert_allclose(
        calibrated.quantile([0.1, 0.5, 0.7]), NORMAL.quantile([0.25, 0.5, 0.625])
    )
    assert np.isfinite(calibrated.quantile([1e-12, 1 - 1e-12])).all()


def test_a_quantile_is_the_end_of_a_calibrated_interval():
    np.testing.assert_allclose(NARROWER.probability([0.1, 0.5, 0.7, 0.9]), [0.25, 0.5, 0.625, 0.75])


def test_calibration_changes_only_quantiles_and_intervals():
    calibrated = NORMAL.calibrated(NARROWER)
    for name in ("mean", "sd", "epistemic_sd", "aleatoric_sd"):
        np.testing.assert_array_equal(getattr(calibrated, name), getattr(NORMAL, name))
    np.testing.assert_array_equal(calibrated.log_prob(Y), NORMAL.log_prob(Y))
    np.testing.assert_array_equal(calibrated.sample(0), NORMAL.sample(0))
    np.testing.assert_array_equal(calibrated.central_level(Y), NORMAL.central_level(Y))


def test_columns_and_rescaled_predictions_keep_the_calibration():
    calibrated = NORMAL.calibrated(NARROWER)
    interval = np.stack(NORMAL.interval(0.5))
    np.testing.assert_allclose(np.stack(calibrated.column(0).interval(0.8)), interval[..., 0])
    np.testing.assert_allclose(
        np.stack(calibrated.rescaled(1.0, 2.0).interval(0.8)), 1 + 2 * interval
    )
    np.testing.assert_allclose(np.stack(calibrated.calibrated(None).interval(0.5)), interval)
