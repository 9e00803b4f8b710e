"""Calibration of a classifier: temperature, and conformal sets of classes."""

import numpy as np
import pytest
from scipy import stats
from support import QUICK_ESTIMATOR

from pyrobbb import BBBClassifier
from pyrobbb.estimators.conformal import uniform_by_row
from pyrobbb.prediction import set_levels

QUICK = QUICK_ESTIMATOR | {"hidden": (8,), "epochs": 30}


def noisy_classes(n, seed=0, n_classes=3):
    """Return inputs and classes, of which a third cannot be predicted."""
    rng = np.random.default_rng(seed)
    X = rng.normal(size=(n, 2))
    angle = np.arctan2(X[:, 1], X[:, 0]) / (2 * np.pi) + 0.5
    y = (n_classes * angle).astype(int) % n_classes
    return X, np.where(rng.random(n) < 1 / 3, rng.integers(0, n_classes, n), y)


@pytest.fixture(scope="module")
def fitted():
    return BBBClassifier(**QUICK | {"epochs": 100}).fit(*noisy_classes(400))


@pytest.mark.parametrize("kl_weight", [1e-6, 1.0, 1e3])
def test_sets_have_their_coverage_for_good_and_bad_fits(kl_weight):
    covered, X_new, y_new = {0.6: 0.0, 0.9: 0.0}, *noisy_classes(1000, seed=99)
    n_fits, n_held = 6, 40
    for seed in range(n_fits):
        model = BBBClassifier(**QUICK | {"kl_weight": kl_weight, "random_state": seed, "lr": 0.1})
        model.fit(*noisy_classes(400, seed))
        for level in covered:
            sets = model.predict_set(X_new, level)
            covered[level] += sets[np.arange(1000), y_new].mean() / n_fits
    for level, coverage in covered.items():
        # of a fit, the coverage has a beta distribution; and 1,000 rows measure it
        sd = (level * (1 - level) * (1 / (n_held + 2) + 1 / 1000) / n_fits) ** 0.5
        assert level - 4 * sd < coverage < level + 1 / (n_held + 1) + 4 * sd


def test_a_set_is_a_row_of_booleans_and_grows_with_the_level(fitted):
    X, _ = noisy_classes(50, seed=1)
    smaller, larger = (fitted.predict_set(X, level) for level in (0.5, 0.9))
    assert smaller.shape == (50, 3)
    assert smaller.dtype == bool
    assert (larger >= smaller).all()
    assert larger.sum() > smaller.sum()
    np.testing.assert_array_equal(larger, fitted.predict_set(X))


def test_more_probable_classes_are_included_first(fitted):
    X, _ = noisy_classes(50, seed=1)
    probs, sets = fitted.predict_proba(X), fitted.predict_set(X, 0.8)
    for p, row in zip(probs, sets, strict=True):
        assert p[row].min(initial=1) >= p[~row].max(initial=0)


def test_sets_depend_on_the_row_and_the_seed_only(fitted):
    X, _ = noisy_classes(50, seed=1)
    whole = fitted.predict_set(X)
    np.testing.assert_array_equal(whole[::-1], fitted.predict_set(X[::-1]))
    np.testing.assert_array_equal(whole[3:4], fitted.predict_set(X[3:4]))
    again = BBBClassifier(**fitted.get_params()).fit(*noisy_classes(400))
    np.testing.assert_array_equal(whole, again.predict_set(X))


def test_random_numbers_of_rows_are_uniform_also_of_equal_rows():
    rng = np.random.default_rng(0)
    for X in (rng.normal(size=(4000, 3)), np.zeros((4000, 2)), rng.integers(0, 2, (4000, 3)) * 1.0):
        u = uniform_by_row(X, 5)
        assert stats.kstest(u, "uniform").pvalue > 0.01
        assert abs(np.corrcoef(u, uniform_by_row(X, 6))[0, 1]) < 0.06
        np.testing.assert_array_equal(u, uniform_by_row(X, 5))
    np.testing.assert_array_equal(
        uniform_by_row(np.zeros((1, 2)), 0), uniform_by_row(-np.zeros((1, 2)), 0)
    )


def test_few_rows_make_sets_of_all_classes(caplog):
    X, y = noisy_classes(60)
    with caplog.at_level("INFO", logger="pyrobbb.estimators"):
        model = BBBClassifier(**QUICK).fit(X, y)
    assert "60 rows are too few to calibrate sets of classes" in caplog.text
    assert model.predict_set(X, 0.01).all()
    assert model.temperature_ == 1
    model = BBBClassifier(**QUICK).fit(*noisy_classes(100))  # 24 held-out rows
    assert model.predict_set(X, 0.97).all()
    assert not model.predict_set(X, 0.5).all()


def test_without_calibration_sets_and_probabilities_are_those_of_the_mixture(caplog):
    X, y = noisy_classes(200)
    with caplog.at_level("INFO", logger="pyrobbb.estimators"):
        model = BBBClassifier(**QUICK, calibration=0).fit(X, y)
    assert caplog.text == ""
    assert model.calibration_ is None
    assert model.temperature_ == 1
    assert all(chain.settings.n_data == 200 for chain in model.posterior_.chains)
    probs = model.predict_proba(X)
    np.testing.assert_array_equal(probs, model.predict_distribution(X).tempered(1.0).probs)
    expected = set_levels(probs, uniform_by_row(X, model.seed_)) <= 0.7
    np.testing.assert_array_equal(model.predict_set(X, 0.7), expected)


@pytest.mark.filterwarnings("ignore:The number of unique classes is greater than 50%")
def test_rare_classes_are_never_an_error():
    X, _ = noisy_classes(120)
    for y in (
        [0] * 119 + [1],
        [0] * 60 + [*range(1, 61)],
        [*range(60)] * 2,
        [0, 1] * 59 + [2, 3],
    ):
        model = BBBClassifier(**QUICK | {"epochs": 2}).fit(X, y)
        assert model.predict_set(X).shape == (120, len(set(y)))


def test_an_overconfident_fit_gets_a_temperature_above_1():
    X, y = noisy_classes(600)
    X_new, y_new = noisy_classes(2000, seed=9)
    options = QUICK | {"epochs": 150, "kl_weight": 1e-4, "hidden": (50, 50), "lr": 0.1}
    plain, calibrated = (BBBClassifier(**options, calibration=c).fit(X, y) for c in (0, 0.2))
    assert calibrated.temperature_ > 1.2
    prediction = calibrated.predict_distribution(X_new)
    log_losses = [
        -p.log_prob(y_new).mean()
        for p in (prediction, prediction.tempered(1.0), plain.predict_distribution(X_new))
    ]
    assert log_losses[0] < min(log_losses[1:])
    probs = calibrated.predict_proba(X_new)
    np.testing.assert_allclose(np.log(probs[np.arange(2000), y_new]), prediction.log_prob(y_new))
    np.testing.assert_array_equal(calibrated.predict(X_new), probs.argmax(1))
    np.testing.assert_allclose(
        calibrated.decision_uncertainty(X_new), prediction.mutual_information
    )


def test_weights_of_held_out_rows_count():
    X, y = noisy_classes(300)
    weight = np.where(y == 0, 1e-3, 1.0)
    model = BBBClassifier(**QUICK | {"epochs": 100}).fit(X, y, sample_weight=weight)
    X_new, y_new = noisy_classes(3000, seed=9)
    sets = model.predict_set(X_new)[np.arange(3000), y_new]
    assert sets[y_new != 0].mean() == pytest.approx(0.9, abs=0.12)


def test_further_fits_keep_the_calibration_of_the_first():
    X, y = noisy_classes(300)
    model = BBBClassifier(**QUICK).partial_fit(X[:200], y[:200])
    first = model.calibration_, model.temperature_
    assert len(first[0].level) == 26
    model.partial_fit(X[200:], y[200:])
    model.set_params(warm_start=True).fit(X, y)
    assert (model.calibration_, model.temperature_) == first


def test_the_refit_includes_the_held_out_rows():
    model = BBBClassifier(**QUICK).fit(*noisy_classes(200))
    for chain in model.posterior_.chains:
        assert chain.settings.n_data == 200
        assert chain.settings.epochs == 8  # a quarter of those of the first fit


@pytest.mark.parametrize("level", [0, 1, 1.5])
def test_a_level_must_be_a_probability(fitted, level):
    with pytest.raises(ValueError, match=r"`level` must be a probability in \(0, 1\), got"):
        fitted.predict_set(np.zeros((1, 2)), level)
