"""Frames with strings, categories, booleans, dates and missing values, in both estimators."""

import json
import logging
import pickle

import numpy as np
import pandas as pd
import polars as pl
import pytest
import torch
from sklearn.base import clone
from sklearn.compose import make_column_transformer
from sklearn.inspection import permutation_importance
from sklearn.model_selection import cross_val_score
from stored_folders import edit, header_of
from support import QUICK_ESTIMATOR, X, Y

from pyrobbb import BBBClassifier, BBBRegressor
from pyrobbb.columns import ColumnEncoder

N = 120
RNG = np.random.default_rng(0)
FRAME = pd.DataFrame(
    {
        "size": RNG.normal(50, 10, N),
        "town": RNG.choice(["Bonn", "Ulm", "Kiel"], N),
        "rooms": pd.Categorical(RNG.integers(1, 4, N)),
        "new": RNG.random(N) > 0.5,
        "sold": pd.date_range("2023-01-01", periods=N, freq="5D"),
        "age": np.where(RNG.random(N) < 0.2, np.nan, RNG.normal(30, 5, N)),
    }
)
PRICE = FRAME["size"] / 10 + 3 * (FRAME["town"] == "Ulm") + 0.1 * RNG.normal(size=N)
IS_DEAR = np.where(PRICE.median() < PRICE, "dear", "cheap")
REGRESSOR = {**QUICK_ESTIMATOR, "likelihood": "gaussian", "hidden": (8,)}
CLASSIFIER = {**QUICK_ESTIMATOR, "hidden": (8,)}
CASES = {
    "regressor": (BBBRegressor, REGRESSOR, PRICE),
    "classifier": (BBBClassifier, CLASSIFIER, IS_DEAR),
}


@pytest.fixture(scope="module", params=CASES)
def fitted(request):
    kind, options, y = CASES[request.param]
    return kind(**options).fit(FRAME, y)


def case_of(model):
    return CASES["regressor" if isinstance(model, BBBRegressor) else "classifier"]


def outputs(model, frame):
    prediction = model.predict_distribution(frame)
    return prediction.mean if isinstance(model, BBBRegressor) else prediction.probs


def test_a_frame_is_fitted_as_the_array_that_the_encoder_makes_of_it(fitted):
    kind, options, y = case_of(fitted)
    encoded = ColumnEncoder.of(FRAME).encode(FRAME)
    plain = kind(**options).fit(encoded, y)
    np.testing.assert_array_equal(outputs(fitted, FRAME), outputs(plain, encoded))
    assert plain.columns_ is None
    assert encoded.shape[1] == plain.n_features_in_ == len(fitted.columns_.inputs)


def test_the_names_and_the_number_of_features_are_those_of_the_frame(fitted):
    assert fitted.n_features_in_ == FRAME.shape[1]
    assert fitted.feature_names_in_.tolist() == FRAME.columns.tolist()


def test_what_the_categories_tell_is_learned():
    model = BBBRegressor(**{**REGRESSOR, "epochs": 300}).fit(FRAME[:90], PRICE[:90])
    without = BBBRegressor(**{**REGRESSOR, "epochs": 300}).fit(FRAME[["size"]][:90], PRICE[:90])
    assert model.score(FRAME[90:], PRICE[90:]) > 0.8
    assert without.score(FRAME[["size"]][90:], PRICE[90:]) < 0.6


def test_new_rows_may_have_their_columns_in_another_order_and_further_ones(fitted):
    other = FRAME[FRAME.columns[::-1]].assign(note="?")
    np.testing.assert_array_equal(outputs(fitted, other), outputs(fitted, FRAME))


def test_predictions_keep_the_index_of_the_frame(fitted):
    new = FRAME.head(3).set_axis(["a", "b", "c"])
    assert fitted.predict_distribution(new).to_frame().index.tolist() == ["a", "b", "c"]


def test_unseen_categories_and_missing_values_are_predicted_with_a_warning(fitted):
    new = FRAME.head(3).copy()
    new.loc[0, "town"] = "Rome"
    new.loc[1, "size"] = np.nan
    new.loc[2, "age"] = np.nan  # some were missing in the fit
    with pytest.warns(UserWarning, match=r"unseen in the fit|imputed with the median") as caught:
        result = outputs(fitted, new)
    assert sorted(str(warning.message) for warning in caught) == [
        "Categories unseen in the fit are encoded as zeros: town 'Rome' (1 row).",
        "Missing numbers, of which the fit had none, are imputed with the median: size (1 row).",
    ]
    assert np.isfinite(result).all()


@pytest.mark.parametrize("dtype", ["Int64", "Int32", "UInt8", "int64[pyarrow]", "Float64"])
def test_a_row_whose_only_integer_is_missing_is_predicted_as_in_a_batch(dtype):
    rooms = pd.array([None if i % 5 == 0 else i % 7 for i in range(N)], dtype=dtype)
    frame = FRAME[["size", "town"]].assign(rooms=rooms)
    model = BBBRegressor(**REGRESSOR).fit(frame, PRICE)
    assert "rooms is missing" in model.columns_.inputs
    expected = model.predict(frame)[:10]
    found = [model.predict(frame[i : i + 1])[0] for i in range(10)]
    np.testing.assert_allclose(found, expected, rtol=1e-5)
    none = BBBRegressor(**REGRESSOR).fit(frame.assign(rooms=pd.array([None] * N, dtype)), PRICE)
    assert [column.name for column in none.columns_.dropped] == ["rooms"]


@pytest.mark.parametrize("method", ["predict", "predict_distribution"])
def test_an_array_is_refused_where_a_frame_was_fitted(method, fitted):
    message = r"^`X` must be a data frame, as in the fit, .* got ndarray: pass a frame with the col"
    with pytest.raises(TypeError, match=message):
        getattr(fitted, method)(FRAME.to_numpy())


def test_a_missing_column_and_a_bad_cell_are_named(fitted):
    with pytest.raises(ValueError, match=r"^`X`: has no column 'town', which the model was fitted"):
        fitted.predict(FRAME.drop(columns="town"))
    with pytest.raises(ValueError, match=r"^`X`: row 1, column 'size': 'big' is not a number"):
        fitted.predict(FRAME.head(2).assign(size=["40", "big"]))


@pytest.mark.parametrize("kind", CASES)
@pytest.mark.parametrize("container", [pd.DataFrame, pl.DataFrame])
def test_a_frame_of_numbers_alone_gives_the_bits_of_an_array(kind, container):
    estimator, options, _ = CASES[kind]
    y = Y[:, 0] > 0 if kind == "classifier" else Y[:, 0]
    flags = X[:, 0] > 0
    single = X[:, 1].astype(np.float32)
    frame = container({"a": X[:, 0], "b": single, "c": np.arange(23), "d": flags})
    array = np.column_stack([X[:, 0], single, np.arange(23), flags])
    one, other = (estimator(**options).fit(x, y) for x in (frame, array))
    assert one.columns_ is None
    np.testing.assert_array_equal(outputs(one, frame), outputs(other, array))
    passed = estimator(**options, columns="passthrough").fit(frame, y)
    np.testing.assert_array_equal(outputs(passed, frame), outputs(other, array))


def test_objects_that_are_numbers_are_numbers():
    model = BBBRegressor(**REGRESSOR).fit(pd.DataFrame(X, dtype=object), Y[:, 0])
    assert model.columns_ is None


@pytest.mark.parametrize(
    ("frame", "message"),
    [
        (FRAME[["town"]], "could not convert string to float"),
        (FRAME[["age"]], "contains NaN"),
        (FRAME[["sold"]], "`X` must hold numbers, got datetime64"),
    ],
)
def test_passthrough_takes_numbers_alone(frame, message):
    with pytest.raises((TypeError, ValueError), match=message):
        BBBRegressor(columns="passthrough").fit(frame, PRICE)


def test_polars_is_read_like_pandas(fitted):
    frame = pl.DataFrame(
        {
            name: column.astype(str).to_list() if name == "rooms" else column.to_list()
            for name, column in FRAME.items()
        }
    ).with_columns(pl.col("rooms").cast(pl.Categorical), pl.col("age").fill_nan(None))
    np.testing.assert_array_equal(outputs(fitted, frame), outputs(fitted, FRAME))
    kind, options, y = case_of(fitted)
    assert kind(**{**options, "epochs": 1}).fit(frame, y).columns_ == fitted.columns_


@pytest.mark.parametrize("copy", ["save", "pickle", "clone"])
def test_a_copy_predicts_the_same(copy, fitted, tmp_path):
    if copy == "save":
        fitted.save(tmp_path / "model")
        again = type(fitted).load(tmp_path / "model")
    elif copy == "pickle":
        again = pickle.loads(pickle.dumps(fitted))
    else:
        again = clone(fitted).fit(FRAME, case_of(fitted)[2])
    assert again.columns_ == fitted.columns_
    assert again.get_params() == fitted.get_params()
    assert again.feature_names_in_.tolist() == FRAME.columns.tolist()
    np.testing.assert_array_equal(outputs(again, FRAME), outputs(fitted, FRAME))


@pytest.mark.parametrize(
    ("old", "new"),
    [
        (', "Ulm"', ""),
        ('"Ulm"', '"Kiel"'),
        ('"kind": "Date"', '"kind": "Eval"'),
        ('"name": "town"', '"name": "size"'),
        ('"n_features": 6', '"n_features": 7'),
        ('"columns": "auto"', '"columns": "all"'),
    ],
)
def test_stored_columns_that_do_not_match_the_network_are_refused(old, new, fitted, tmp_path):
    folder = tmp_path / "model"
    fitted.save(folder)
    text = json.dumps(header_of(folder)["extra"])
    assert old in text
    edit(folder, extra=json.loads(text.replace(old, new)))
    with pytest.raises(ValueError, match="is damaged: its estimator cannot be rebuilt"):
        type(fitted).load(folder)


def test_a_warm_start_and_partial_fits_keep_the_encoding():
    model = BBBRegressor(**REGRESSOR, warm_start=True).fit(FRAME[:80], PRICE[:80])
    columns = model.columns_
    new = FRAME[80:].assign(town="Rome")
    with pytest.warns(UserWarning, match=r"unseen in the fit are encoded as zeros: town 'Rome'"):
        model.fit(new, PRICE[80:])
    assert model.columns_ is columns
    with pytest.warns(UserWarning, match="unseen in the fit"):
        model.partial_fit(new, PRICE[80:])
    assert model.columns_ is columns
    plain = model.set_params(warm_start=False).fit(FRAME[["size"]], PRICE)
    assert plain.columns_ is None
    assert plain.predict(FRAME[["size"]]).shape == (N,)


def test_a_fit_that_fails_leaves_the_encoding(fitted):
    before = fitted.columns_
    with pytest.raises(ValueError, match="has no column to predict y from"):
        fitted.fit(FRAME[["town"]].assign(town="Ulm"), PRICE)
    assert fitted.columns_ is before


def test_columns_that_are_left_out_are_logged(caplog):
    frame = FRAME[["size", "town"]].assign(name=[f"house {i}" for i in range(N)], country="DE")
    with caplog.at_level(logging.INFO, logger="pyrobbb"):
        model = BBBRegressor(**{**REGRESSOR, "epochs": 1}).fit(frame, PRICE)
    assert "`X`: Column 'name' is left out: an identifier: nearly all cells are distinct." in (
        caplog.messages
    )
    assert [column.name for column in model.columns_.dropped] == ["name", "country"]


@pytest.mark.parametrize(
    ("frame", "message"),
    [
        (
            FRAME.assign(age=FRAME["sold"] - FRAME["sold"][0]),
            "`X` must hold numbers, got timedelta64",
        ),
        (FRAME.assign(size=np.inf), "^`X`: row 0, column 'size': 'inf' is infinite"),
        (FRAME.set_axis(["a", "a", *"bcde"], axis=1), "^`X`: has more than one column 'a': rename"),
        (FRAME.assign(age=[-(2**31)] * N), "`X` holds -2147483648 in row 0, column 'age'"),
        (FRAME.head(0), "^`X`: has no column to predict y from"),
    ],
)
def test_frames_that_cannot_be_encoded_are_refused(frame, message):
    with pytest.raises((TypeError, ValueError), match=message):
        BBBRegressor().fit(frame, PRICE[: len(frame)])


def test_columns_without_names_are_encoded_by_position():
    frame = FRAME[["size", "town"]].set_axis([0, 1], axis=1)
    model = BBBRegressor(**REGRESSOR).fit(frame, PRICE)
    assert model.columns_.inputs == ["0", "1 = Bonn", "1 = Kiel", "1 = Ulm"]
    assert not hasattr(model, "feature_names_in_")
    assert np.isfinite(model.predict(frame)).all()


def test_tools_of_scikit_learn_take_such_frames():
    model = BBBRegressor(**REGRESSOR)
    assert np.isfinite(cross_val_score(model, FRAME, PRICE, cv=2)).all()
    transformed = make_column_transformer(
        ("passthrough", ["town", "size"]), verbose_feature_names_out=False
    ).set_output(transform="pandas")
    model.fit(transformed.fit_transform(FRAME), PRICE)
    found = permutation_importance(model, FRAME[["town", "size"]], PRICE, n_repeats=2)
    assert (found.importances_mean > 0.1).all()


def test_diagnosis_and_trees_take_the_frame():
    model = BBBRegressor(**REGRESSOR).fit(FRAME, PRICE)
    x, _ = model.standardised(FRAME, PRICE)
    assert x.shape == (N, len(model.columns_.inputs))
    assert "0.weight" in model.to_arviz(FRAME, PRICE, n_draws=20)["posterior"].data_vars


def test_sets_of_classes_are_those_of_the_encoded_rows():
    encoded = ColumnEncoder.of(FRAME).encode(FRAME)
    sets = [
        BBBClassifier(**CLASSIFIER).fit(x, IS_DEAR).predict_set(x, 0.8) for x in (FRAME, encoded)
    ]
    np.testing.assert_array_equal(*sets)


@pytest.mark.slow
def test_an_exported_program_takes_the_encoded_rows(tmp_path):
    model = BBBRegressor(**REGRESSOR).fit(FRAME, PRICE)
    model.export(tmp_path / "model.pt2")
    program = torch.export.load(tmp_path / "model.pt2").module()
    mean = program(torch.from_numpy(model.columns_.encode(FRAME.head(5))))["mean"]
    np.testing.assert_allclose(mean, model.predict(FRAME.head(5)), rtol=1e-5)
