"""Both estimators: inputs, weights, updates, and their use in scikit-learn's tools."""

import numpy as np
import pandas as pd
import polars as pl
import pytest
import torch
from scipy import sparse
from sklearn.base import clone
from sklearn.compose import ColumnTransformer
from sklearn.datasets import load_diabetes
from sklearn.exceptions import DataConversionWarning, NotFittedError
from sklearn.linear_model import LinearRegression
from sklearn.model_selection import GridSearchCV, cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder, StandardScaler
from support import QUICK_ESTIMATOR

from pyrobbb import BBBClassifier, BBBRegressor, scores

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


@pytest.mark.parametrize(
    ("estimator", "n_rows", "hidden"),
    [
        (BBBRegressor, 59, (10,)),
        (BBBRegressor, 60, (50,)),
        (BBBRegressor, 5_000, (50, 50)),
        (BBBClassifier, 59, (50,)),
    ],
)
def test_the_number_of_rows_chooses_the_hidden_layers(estimator, n_rows, hidden):
    X = np.linspace(0, 1, n_rows)[:, None]
    y = np.arange(n_rows) % 2 if estimator is BBBClassifier else X[:, 0]
    quick = {"epochs": 1, "restarts": 1, "calibration": 0, "random_state": 0}
    assert estimator(**quick).fit(X, y).hidden_ == hidden
    if n_rows == 59:  # of which more will come
        assert estimator(**quick).partial_fit(X, y, **classes_of(y)).hidden_ == (50,)


def classes_of(y):
    return {"classes": [0, 1]} if y.dtype.kind == "i" else {}


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


def test_weights_that_are_too_large_for_a_gradient_are_refused(friedman):
    X, y = friedman
    with pytest.raises(ValueError, match="`sample_weight` must have a sum of at most 1e"):
        BBBRegressor(**QUICK_ESTIMATOR).fit(X, y, np.full(len(X), 1e20))


@pytest.mark.parametrize("weight", [1e-6, 1e-30, 1e-200])
def test_rows_of_nearly_no_weight_leave_the_prior(weight, friedman):
    """The prior of the weights is normal: so are their draws, if the data count for nothing."""
    X, y = friedman
    options = QUICK_ESTIMATOR | {"hidden": (), "prior": "normal", "epochs": 600}
    model = BBBRegressor(**options).fit(X, y, np.full(len(X), weight))
    weights = model.posterior_.draws(2000, seed=0)["0.weight"]
    assert weights.mean(0).abs().max() < 0.2
    assert (weights.std(0) - 1).abs().max() < 0.2


def test_rows_with_larger_weights_have_more_influence():
    X = np.zeros((40, 1))
    y = np.repeat([0.0, 1.0], 20)
    model = BBBRegressor(**QUICK_ESTIMATOR | {"epochs": 1000}).fit(X, y, np.repeat([3.0, 1.0], 20))
    assert abs(model.predict([[0.0]])[0] - 0.25) < 0.1


@pytest.mark.parametrize("argument", ["X", "y", "sample_weight"])
def test_masked_values_are_refused_rather_than_read(argument, friedman):
    X, y = friedman
    data = {"X": X, "y": y, "sample_weight": np.ones(len(X))}
    data[argument] = np.ma.masked_greater(data[argument], 0.9)
    with pytest.raises(
        ValueError, match=rf"`{argument}` must not be masked, got .* with \d+ masked"
    ):
        BBBRegressor(**QUICK_ESTIMATOR).fit(**data)


def test_an_array_whose_mask_is_empty_is_plain(friedman):
    X, y = (np.ma.masked_invalid(array) for array in friedman)
    masked, plain = (BBBRegressor(**QUICK_ESTIMATOR).fit(*d).predict(X) for d in ((X, y), friedman))
    np.testing.assert_array_equal(masked, plain)


@pytest.mark.parametrize("frame", [pd.DataFrame, pl.DataFrame])
@pytest.mark.parametrize("kind", ["datetime64[us]", "timedelta64[us]"])
def test_dates_are_refused_rather_than_read_as_numbers(frame, kind):
    days = np.arange(10).astype(kind)
    model = BBBRegressor(**QUICK_ESTIMATOR, columns="passthrough")
    with pytest.raises(TypeError, match=r"`X` must hold numbers, got .*: convert dates"):
        model.fit(frame({"a": np.arange(10.0), "b": days}), np.arange(10))
    with pytest.raises(TypeError, match="`y` must hold numbers, got"):
        BBBRegressor(**QUICK_ESTIMATOR).fit(np.arange(10.0)[:, None], days)
    fitted = BBBRegressor(**QUICK_ESTIMATOR).fit(np.arange(10.0)[:, None], np.arange(10))
    with pytest.raises(TypeError, match="`X` must hold numbers, got"):
        fitted.predict(frame({"x": days}))


def test_tensors_are_read_also_if_they_carry_a_graph(friedman):
    X, y = friedman
    expected = BBBRegressor(**QUICK_ESTIMATOR).fit(X, y).predict(X)
    tensors = [torch.tensor(array, requires_grad=True) for array in friedman]
    model = BBBRegressor(**QUICK_ESTIMATOR).fit(*tensors)
    np.testing.assert_array_equal(model.predict(tensors[0]), expected)


@pytest.mark.parametrize("method", ["diagnose", "to_arviz", "standardised", "score"])
def test_what_needs_a_fit_names_it(method, friedman):
    with pytest.raises(NotFittedError, match="is not fitted yet"):
        getattr(BBBRegressor(), method)(*friedman)


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


@pytest.mark.parametrize("first", [(100,), (100, 1)])
@pytest.mark.parametrize("second", [(100,), (100, 1)])
@pytest.mark.parametrize("method", ["fit", "partial_fit"])
def test_a_further_fit_accepts_y_as_a_column_or_a_vector(first, second, method, friedman):
    X, y = friedman[0][:100], friedman[1][:100]
    model = BBBRegressor(**QUICK_ESTIMATOR | {"warm_start": True}).fit(X, y.reshape(first))
    before = model.predict(X).ravel()
    getattr(model.set_params(epochs=1, lr=1e-9), method)(X, y.reshape(second))
    assert model.predict(X).shape == second
    np.testing.assert_allclose(model.predict(X).ravel(), before, rtol=1e-4)
    assert len(model.standardised(X, y.reshape(first))[1]) == 100
    with pytest.raises(ValueError, match=r"`y` must have 1 target\(s\) as in the first fit, got 2"):
        getattr(model, method)(X, np.stack([y, y], 1))


@pytest.mark.parametrize("method", ["fit", "partial_fit"])
@pytest.mark.parametrize(
    ("options", "rows", "message"),
    [
        ({"early_stopping": True}, slice(1), "`early_stopping` holds out"),  # and two targets
        ({"n_draws": 0}, slice(None), "`n_draws` must be at least 1"),
        ({"device": "abacus"}, slice(None), "`device` must be a torch device"),
    ],
)
def test_an_estimator_whose_fit_fails_stays_as_it_was(options, rows, message, method, friedman):
    X, y = friedman
    model = BBBRegressor(**QUICK_ESTIMATOR).fit(X, y)
    expected = model.predict(X)
    more = np.stack([y, y], 1) if method == "fit" else y
    with pytest.raises(ValueError, match=message):
        getattr(model.set_params(**options), method)(X[rows], more[rows])
    model.set_params(n_draws=QUICK_ESTIMATOR["n_draws"])
    np.testing.assert_array_equal(model.predict(X), expected)
    unfitted = BBBRegressor(**QUICK_ESTIMATOR | options)
    with pytest.raises(ValueError, match=message):
        getattr(unfitted, method)(X[rows], y[rows])
    assert vars(unfitted) == unfitted.get_params()


def test_a_further_fit_of_a_classifier_accepts_a_column(iris):
    X, y = iris
    model = BBBClassifier(**QUICK_ESTIMATOR | {"warm_start": True}).fit(X, y)
    with pytest.warns(DataConversionWarning, match="column-vector y"):
        model.set_params(epochs=1, lr=1e-9).fit(X, y[:, None])
    assert model.predict(X).shape == (150,)


@pytest.mark.parametrize("method", ["fit", "partial_fit"])
@pytest.mark.parametrize(
    ("argument", "value"),
    [("hidden", (7,)), ("restarts", 2), ("likelihood", "student_t")],
)
def test_a_further_fit_refuses_parameters_that_the_posterior_fixes(
    argument, value, method, friedman
):
    model = BBBRegressor(**QUICK_ESTIMATOR | {"warm_start": True, "hidden": (4,)}).fit(*friedman)
    model.set_params(**{argument: value})
    with pytest.raises(ValueError, match=f"`{argument}` must stay .* when a fit is continued"):
        getattr(model, method)(*friedman)
    model.set_params(warm_start=False).fit(*friedman)


@pytest.mark.slow
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
