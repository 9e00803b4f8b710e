"""Parameters of the estimators are checked before the first fit."""

import numpy as np
import pytest
from support import QUICK_ESTIMATOR

from pyrobbb import BBBClassifier, BBBRegressor, priors
from pyrobbb.estimators.parameters import draw_seed

NUMBER, COUNT = "must be a number, got", "must be a whole number, got"
REFUSED = [
    ("hidden", "large", "must be 'auto' or a sequence"),
    ("hidden", 0, "must be at least 1"),
    ("hidden", None, "must be 'auto' or a sequence"),
    ("hidden", {50}, "must be 'auto' or a sequence such as .*, got a set"),
    ("hidden", (0,), "must be at least 1"),
    ("hidden", (5.5,), COUNT),
    ("hidden", ("5",), COUNT),
    ("prior", "flat", "must be one of mixture, normal"),
    ("prior", None, "must be one of mixture, .* or a callable, got None"),
    ("prior", {"scale": 1.0}, "must be one of .* or a callable, got a dict"),
    ("likelihood", "normal", "must be one of gaussian"),
    ("likelihood", 3, "must be one of gaussian, .* or a callable, got 3"),
    ("epochs", 0, "must be at least 1"),
    ("epochs", 1.5, COUNT),
    ("epochs", "many", COUNT),
    ("batch_size", None, COUNT),
    ("restarts", 0, "must be at least 1"),
    ("n_draws", 0, "must be at least 1"),
    ("n_draws", "all", COUNT),
    ("patience", 0, "must be at least 1"),
    ("lr", -1.0, "must be positive"),
    ("lr", None, NUMBER),
    ("lr", "small", NUMBER),
    ("lr", np.nan, "must be finite"),
    ("kl_weight", 0, "must be positive"),
    ("kl_weight", "uniform", "must be 'auto' or a positive number"),
    ("kl_weight", None, NUMBER),
    ("calibration", 1.0, r"must be a fraction of the rows in \[0, 1\)"),
    ("calibration", None, NUMBER),
    ("validation_fraction", 1.5, r"must lie in \(0, 1\)"),
    ("validation_fraction", 5, r"must lie in \(0, 1\)"),
    ("validation_fraction", None, NUMBER),
    ("ard", "yes", "must be 'auto', True or False, got 'yes'"),
    ("ard", None, "must be 'auto', True or False, got None"),
    ("early_stopping", "no", "must be True or False, got 'no'"),
    ("warm_start", None, "must be True or False, got None"),
    ("verbose", "no", "must be True or False"),
    ("checkpoint", 3, "must be a path or None"),
    ("activation", "sine", "must be one of relu, tanh"),
    ("engine", "fast", "must be one of auto, svi"),
    ("device", "abacus", "must be a torch device"),
    ("random_state", -1, r"must be None, an integer in \[0, 2\*\*32\)"),
    ("random_state", "now", "must be None, an integer"),
]


@pytest.mark.parametrize("stops", [False, True])
@pytest.mark.parametrize(("argument", "value", "message"), REFUSED)
def test_an_invalid_parameter_is_named_in_one_line(argument, value, message, stops, friedman):
    model = BBBRegressor(**QUICK_ESTIMATOR | {"early_stopping": stops, argument: value})
    with pytest.raises((TypeError, ValueError), match=f"^`{argument}` {message}") as raised:
        model.fit(*friedman)
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize(("argument", "value"), [("n_draws", 0), ("lr", "small"), ("hidden", 0)])
def test_a_classifier_checks_its_parameters_in_further_fits_too(argument, value, iris):
    model = BBBClassifier(**QUICK_ESTIMATOR | {"warm_start": True}).fit(*iris)
    model.set_params(**{argument: value})
    for method in (model.fit, model.partial_fit):
        with pytest.raises((TypeError, ValueError), match=f"^`{argument}` must be"):
            method(*iris)


def test_numbers_of_numpy_and_lists_are_accepted(friedman):
    numpy = {
        "epochs": np.int64(60),
        "lr": np.float32(0.01),
        "hidden": np.array([5]),
        "early_stopping": np.bool_(False),
        "prior": priors.ScaleMixture(0.5, 1.0, 0.1),
    }
    model = BBBRegressor(**QUICK_ESTIMATOR | numpy).fit(*friedman)
    plain = BBBRegressor(**QUICK_ESTIMATOR | {"hidden": [5], "lr": float(np.float32(0.01))})
    plain.fit(*friedman)
    np.testing.assert_array_equal(model.predict(friedman[0]), plain.predict(friedman[0]))


def test_any_kind_of_random_state_gives_a_seed():
    assert draw_seed(3) == draw_seed(np.int64(3)) == draw_seed(np.random.RandomState(3))
    assert draw_seed(np.random.default_rng(3)) == draw_seed(np.random.default_rng(3))
    generator = np.random.default_rng(3)
    assert draw_seed(generator) != draw_seed(generator)
    assert draw_seed(None) != draw_seed(None)
