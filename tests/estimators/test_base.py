"""Both estimators: the rules of scikit-learn, inputs, weights and updates."""

import numpy as np
import pandas as pd
import polars as pl
import pytest
from scipy import sparse
from sklearn.base import clone
from sklearn.compose import ColumnTransformer
from sklearn.datasets import load_diabetes
from sklearn.exceptions import NotFittedError
from sklearn.linear_model import LinearRegression
from sklearn.model_selection import GridSearchCV, cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder, StandardScaler
from sklearn.utils.estimator_checks import parametrize_with_checks
from support import QUICK_ESTIMATOR

from pyrobbb import BBBClassifier, BBBRegressor, scores


@parametrize_with_checks([BBBRegressor(**QUICK_ESTIMATOR), BBBClassifier(**QUICK_ESTIMATOR)])
def test_estimators_pass_the_checks_of_scikit_learn(estimator, check):
    check(estimator)


# Inputs


@pytest.mark.parametrize("frame", [pd.DataFrame, pl.DataFrame])
def test_column_names_are_kept_and_checked(frame):
    data = load_diabetes(as_frame=True).frame[:100]
    X, y = frame(data.drop(columns="target").to_dict("list")), data["target"].to_numpy()
    model = BBBRegressor(**QUICK_ESTIMATOR).fit(X, y)
    assert model.feature_names_in_.tolist() == list(X.columns)
    np.testing.assert_array_equal(model.predict(X), model.predict(frame(X)))
    with pytest.raises(ValueError, match="feature names"):
        model.predict(frame({f"{name}_": X[name] for name in X.columns}))


def test_sparse_input_is_rejected_with_a_remedy():
    with pytest.raises(TypeError, match="toarray"):
        BBBRegressor(**QUICK_ESTIMATOR).fit(sparse.eye(5).tocsr(), np.arange(5.0))


def test_rows_of_weight_0_are_ignored(friedman):
    X, y = friedman
    weight = np.ones(len(X))
    weight[100:] = 0
    some = BBBRegressor(**QUICK_ESTIMATOR).fit(X[:100], y[:100]).predict(X)
    outliers = np.where(weight > 0, y, 1e6)
    np.testing.assert_array_equal(
        some, BBBRegressor(**QUICK_ESTIMATOR).fit(X, outliers, weight).predict(X)
    )


def test_rows_with_larger_weights_have_more_influence():
    X = np.zeros((40, 1))
    y = np.repeat([0.0, 1.0], 20)
    model = BBBRegressor(**QUICK_ESTIMATOR | {"epochs": 1000}).fit(X, y, np.repeat([3.0, 1.0], 20))
    assert abs(model.predict([[0.0]])[0] - 0.25) < 0.1


@pytest.mark.parametrize(
    ("argument", "value", "message"),
    [
        ("prior", "flat", "`prior` must be one of mixture, normal"),
        ("likelihood", "normal", "`likelihood` must be one of gaussian"),
        ("hidden", (0,), "`hidden`"),
        ("restarts", 0, "`restarts`"),
        ("lr", -1.0, "`lr`"),
        ("validation_fraction", 1.5, "`validation_fraction` must lie in"),
        ("calibration", 1.0, r"`calibration` must be a fraction of the rows in \[0, 1\)"),
    ],
)
def test_an_invalid_parameter_is_named_in_the_error(argument, value, message, friedman):
    model = BBBRegressor(**QUICK_ESTIMATOR | {argument: value, "early_stopping": True})
    with pytest.raises(ValueError, match=message):
        model.fit(*friedman)


# In scikit-learn's pipelines and searches


def test_an_estimator_works_in_pipelines_searches_and_cross_validation(friedman):
    X, y = friedman
    pipeline = make_pipeline(StandardScaler(), BBBRegressor(**QUICK_ESTIMATOR))
    assert cross_val_score(pipeline, X, y, cv=3).mean() > 0.5
    search = GridSearchCV(pipeline, {"bbbregressor__hidden": [(5,), (20, 20)]}, cv=2).fit(X, y)
    assert search.best_params_["bbbregressor__hidden"] in [(5,), (20, 20)]


def test_an_estimator_accepts_the_output_of_a_column_transformer():
    rng = np.random.default_rng(0)
    frame = pd.DataFrame({"size": rng.normal(size=200), "kind": rng.choice(["a", "b"], 200)})
    y = frame["size"] + 3 * (frame["kind"] == "b")
    columns = ColumnTransformer([("kind", OneHotEncoder(), ["kind"])], remainder="passthrough")
    model = make_pipeline(columns, BBBRegressor(**QUICK_ESTIMATOR)).fit(frame, y)
    assert model.score(frame, y) > 0.9


def test_a_clone_is_unfitted_and_has_the_same_parameters(regressor):
    copy = clone(regressor)
    assert copy.get_params() == regressor.get_params()
    with pytest.raises(NotFittedError):
        copy.predict([[0.0] * 5])


def test_fits_with_the_same_random_state_are_equal(friedman):
    X, y = friedman
    first, second = (BBBRegressor(**QUICK_ESTIMATOR).fit(X, y).predict(X) for _ in range(2))
    np.testing.assert_array_equal(first, second)
    other = BBBRegressor(**QUICK_ESTIMATOR | {"random_state": 1}).fit(X, y).predict(X)
    assert (first != other).any()


# Further rows


def test_a_warm_start_continues_from_the_last_fit(friedman):
    X, y = friedman
    model = BBBRegressor(**QUICK_ESTIMATOR | {"warm_start": True, "epochs": 300}).fit(X, y)
    before = model.score(X, y)
    model.set_params(epochs=1, lr=1e-6).fit(X, y)
    assert model.score(X, y) == pytest.approx(before, abs=0.02)
    model.set_params(warm_start=False).fit(X, y)
    assert model.score(X, y) < before - 0.1


def test_partial_fits_come_close_to_a_single_fit():
    rng = np.random.default_rng(0)
    X = rng.normal(size=(400, 3))
    y = X @ [1.0, -2.0, 0.5] + 0.5 * rng.normal(size=400)
    options = {"hidden": (), "prior": "normal", "restarts": 2, "random_state": 0}
    parts = BBBRegressor(**options)
    for rows in np.split(np.arange(400), 4):
        parts.partial_fit(X[rows], y[rows])
    one, last = (BBBRegressor(**options, epochs=2000).fit(X[i:], y[i:]) for i in (0, 300))
    new = rng.normal(size=(50, 3))
    mean, sd = parts.predict(new), parts.predict_distribution(new).epistemic_sd
    assert abs(mean - one.predict(new)).max() < 0.1
    ratio = sd / one.predict_distribution(new).epistemic_sd
    assert 0.7 < ratio.mean() < 1.3
    assert (last.predict_distribution(new).epistemic_sd / sd).mean() > 1.5
    truth = LinearRegression().fit(X, y).predict(new)
    assert abs(mean - truth).max() < 0.15


# The posterior


def test_the_posterior_can_be_diagnosed_and_exported(regressor, friedman):
    X, y = friedman
    quick = BBBRegressor(**QUICK_ESTIMATOR).fit(X, y)
    assert "more epochs" in quick.diagnose(X, y)["ELBO"].value
    assert "posterior" in quick.to_arviz(X, y, n_draws=20).children
    assert scores.coverage(regressor.predict_distribution(X), y) > 0.8
