"""Estimators on disk."""

import math
import pickle

import joblib
import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from stored_folders import edit, edit_tensors, header_of, tensors_file
from support import QUICK_ESTIMATOR

from pyrobbb import BBBClassifier, BBBRegressor, Posterior, likelihoods, priors


@pytest.mark.parametrize(
    "format", ["folder", "pickle", pytest.param("joblib", marks=pytest.mark.slow)]
)
@pytest.mark.parametrize("kind", ["regressor", "classifier"])
def test_a_loaded_estimator_equals_the_saved_one(kind, format, tmp_path, request, friedman, iris):
    model = request.getfixturevalue(kind)
    X, _ = friedman if kind == "regressor" else iris
    if format == "folder":
        model.save(tmp_path / "model")
        back = type(model).load(tmp_path / "model")
    elif format == "pickle":
        back = pickle.loads(pickle.dumps(model))
    else:
        joblib.dump(model, tmp_path / "model.joblib")
        back = joblib.load(tmp_path / "model.joblib")
    assert back.get_params() == model.get_params()
    np.testing.assert_array_equal(back.predict(X), model.predict(X))
    if kind == "regressor":
        assert model.calibration_ is not None
        np.testing.assert_array_equal(back.predict_quantiles(X), model.predict_quantiles(X))
    else:
        assert back.temperature_ == model.temperature_
        np.testing.assert_array_equal(back.predict_proba(X), model.predict_proba(X))
        np.testing.assert_array_equal(back.predict_set(X), model.predict_set(X))
    back.partial_fit(X[:50], model.predict(X[:50]))


def test_the_posterior_can_be_loaded_from_the_folder(regressor, friedman, tmp_path):
    X, y = friedman
    regressor.save(tmp_path / "model")
    posterior = Posterior.load(tmp_path / "model")
    x, target = regressor.standardised(X, y)
    loaded, fitted = (
        p.predict(x, seed=0).log_prob(target) for p in (posterior, regressor.posterior_)
    )
    np.testing.assert_array_equal(loaded, fitted)


def test_priors_and_likelihoods_of_pyrobbb_are_stored(friedman, tmp_path):
    model = BBBRegressor(
        **QUICK_ESTIMATOR, prior=priors.Laplace(0.3), likelihood=likelihoods.StudentT(df=5.0)
    ).fit(*friedman)
    model.save(tmp_path / "model")
    back = BBBRegressor.load(tmp_path / "model")
    assert back.get_params() == model.get_params()
    assert back.likelihood_ == likelihoods.StudentT(df=5.0)


def test_another_kind_of_estimator_is_rejected(regressor, tmp_path):
    regressor.save(tmp_path / "model")
    with pytest.raises(ValueError, match="must hold a BBBClassifier, got a BBBRegressor"):
        BBBClassifier.load(tmp_path / "model")


def test_a_custom_callable_is_not_stored(friedman, tmp_path):
    model = BBBRegressor(**QUICK_ESTIMATOR, prior=lambda name, p: priors.Normal()(name, p)).fit(
        *friedman
    )
    with pytest.raises(
        TypeError, match="`prior` must be one of pyrobbb's to be stored, got a custom"
    ):
        model.save(tmp_path / "model")
    assert not (tmp_path / "model").exists()


PARAMETERS = {
    "n_draws": [1.5, "200", 0, 10**9, None],
    "batch_size": [0, "128", 2.0],
    "restarts": [0, [4]],
    "epochs": ["many", 0, 1.5],
    "lr": [0.0, -1.0, "0.1"],
    "kl_weight": ["uniform", None],
    "calibration": ["0.1"],
    "hidden": [[0], ["8"], "wide", 8, {"a": 1}],
    "activation": ["softsign", 3],
    "engine": ["fast", 3],
    "ard": ["yes", None],
    "early_stopping": ["yes", 0.5],
    "random_state": ["0", -1, 0.5],
    "patience": [0, None],
}


@pytest.mark.parametrize(("name", "value"), [(n, v) for n, vs in PARAMETERS.items() for v in vs])
def test_a_stored_parameter_is_checked_like_an_argument(regressor, tmp_path, name, value):
    regressor.save(tmp_path / "model")
    extra = header_of(tmp_path / "model")["extra"]
    extra["estimator"]["params"][name] = value
    edit(tmp_path / "model", extra=extra)
    with pytest.raises(ValueError, match=rf"`path` '.*model' is damaged: .*`{name}` must be"):
        BBBRegressor.load(tmp_path / "model")


DESCRIPTIONS = {
    "n_features": [0, "4", 3, 10**9],
    "seed": [-1, "0"],
    "hidden": [[3], ["8"], []],
    "feature_names": [["a"], [1, 2, 3, 4]],
    "y_shape": [[0], ["a"], [2]],
    "calibration": [{"share": [0, 1], "level": [1, 0]}, {"share": [0, 1]}, 3],
}


@pytest.mark.parametrize(("name", "value"), [(n, v) for n, vs in DESCRIPTIONS.items() for v in vs])
def test_a_stored_attribute_that_does_not_fit_is_refused(regressor, tmp_path, name, value):
    regressor.save(tmp_path / "model")
    extra = header_of(tmp_path / "model")["extra"]
    extra["estimator"][name] = value
    edit(tmp_path / "model", extra=extra)
    with pytest.raises(ValueError, match=r"`path` '.*model' is damaged: "):
        BBBRegressor.load(tmp_path / "model")


CLASSIFIER_DESCRIPTIONS = {
    "temperature": [0.0, -1.0, "1", None, 1e400],
    "calibration": [{"share": [0, 1], "level": [1, 0]}, {"level": [0, 1]}, 3],
}


@pytest.mark.parametrize(
    ("name", "value"), [(n, v) for n, vs in CLASSIFIER_DESCRIPTIONS.items() for v in vs]
)
def test_a_stored_calibration_of_classes_is_checked(classifier, tmp_path, name, value):
    classifier.save(tmp_path / "model")
    extra = header_of(tmp_path / "model")["extra"]
    extra["estimator"][name] = value
    edit(tmp_path / "model", extra=extra)
    with pytest.raises(ValueError, match=r"`path` '.*model' is damaged: "):
        BBBClassifier.load(tmp_path / "model")


def test_a_classifier_stored_without_calibration_predicts_as_the_mixture(
    classifier, iris, tmp_path
):
    classifier.save(tmp_path / "model")
    extra = header_of(tmp_path / "model")["extra"]
    for name in ("temperature", "calibration"):
        del extra["estimator"][name]
    del extra["estimator"]["params"]["calibration"]
    edit(tmp_path / "model", extra=extra)
    back = BBBClassifier.load(tmp_path / "model")
    assert (back.temperature_, back.calibration_) == (1.0, None)
    mixture = classifier.predict_distribution(iris[0]).tempered(1.0)
    np.testing.assert_array_equal(back.predict_proba(iris[0]), mixture.probs)


LABELS = {
    "too long": {"dtype": "<U1000000000", "values": ["a", "b", "c"]},
    "another dtype": {"dtype": "<i8", "values": ["a", "b", "c"]},
    "too large": {"dtype": "|u1", "values": [0, 1, 300]},
    "truncated": {"dtype": "<U1", "values": ["aa", "ab", "ac"]},
    "twice": {"dtype": "<U1", "values": ["a", "a", "b"]},
    "too few": {"dtype": "<U1", "values": ["a", "b"]},
    "one": {"dtype": "<U1", "values": ["a"]},
    "nested": {"dtype": "O", "values": [["a"], ["b"], ["c"]]},
    "dates": {"dtype": "<M8[s]", "values": [0, 1, 2]},
    "code": {"dtype": "V8", "values": ["a", "b", "c"]},
    "no dtype": {"dtype": "evil", "values": ["a", "b", "c"]},
    "no list": {"dtype": "O", "values": "abc"},
}


@pytest.mark.parametrize("name", LABELS)
def test_class_labels_are_checked(classifier, tmp_path, name):
    classifier.save(tmp_path / "model")
    extra = header_of(tmp_path / "model")["extra"]
    extra["estimator"]["classes"] = LABELS[name]
    edit(tmp_path / "model", extra=extra)
    with pytest.raises(ValueError, match=r"`path` '.*model' is damaged: its estimator cannot"):
        BBBClassifier.load(tmp_path / "model")


@pytest.mark.parametrize("scaling", ["input_scaling_", "target_scaling_"])
@pytest.mark.parametrize(
    ("part", "change"),
    [
        ("loc", lambda t: t[:0]),
        ("loc", lambda t: torch.cat([t, t])),
        ("scale", lambda t: t[:0]),
        ("scale", lambda t: t.sum()),
        ("scale", lambda t: -t),
        ("scale", lambda t: 0 * t),
        ("loc", lambda t: t * math.nan),
        ("scale", lambda t: t * math.inf),
        ("loc", lambda t: t.float()),
        ("loc", lambda t: t.long()),
    ],
)
def test_a_scaling_that_does_not_fit_is_refused(regressor, tmp_path, scaling, part, change):
    regressor.save(tmp_path / "model")
    tensors = load_file(tensors_file(tmp_path / "model"))
    name = f"extra.{scaling}.{part}"
    edit_tensors(tmp_path / "model", **{name: change(tensors[name]).clone()})
    with pytest.raises(ValueError, match=r"`path` '.*model' is damaged: its estimator cannot"):
        BBBRegressor.load(tmp_path / "model")
