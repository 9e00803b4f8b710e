"""Estimators on disk."""

import pickle

import joblib
import numpy as np
import pytest
from support import QUICK_ESTIMATOR

from pyrobbb import BBBClassifier, BBBRegressor, Posterior, likelihoods, priors


@pytest.mark.parametrize("format", ["folder", "pickle", "joblib"])
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
