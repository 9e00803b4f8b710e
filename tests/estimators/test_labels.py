"""Class labels of any type, and rows of weight 0."""

import numpy as np
import pandas as pd
import polars as pl
import pytest
from support import QUICK_ESTIMATOR

from pyrobbb import BBBClassifier
from pyrobbb.estimators.labels import as_labels, class_indices, list_labels

QUICK = QUICK_ESTIMATOR | {"epochs": 2, "hidden": (4,)}
X = np.random.default_rng(0).normal(size=(6, 2))
Y = [0, 1, 1, 0, 1, 0]
NAMES = np.array(["no", "yes"])[Y]


@pytest.mark.parametrize(
    ("labels", "classes"),
    [
        (Y, [0, 1]),
        (NAMES, ["no", "yes"]),
        (NAMES.tolist(), ["no", "yes"]),
        (NAMES.astype(object), ["no", "yes"]),
        (np.array(Y, object), [0, 1]),
        (np.array(Y, bool), [False, True]),
        (np.array(Y, bool).astype(object), [False, True]),
        (np.array(Y, float), [0.0, 1.0]),
        (np.array(Y, np.uint8), [0, 1]),
        (pd.Series(Y), [0, 1]),
        (pd.Series(Y, dtype="Int64"), [0, 1]),
        (pd.Series(Y, dtype="boolean"), [False, True]),
        (pd.Series(NAMES), ["no", "yes"]),
        (pd.Series(NAMES, dtype="category"), ["no", "yes"]),
        (pl.Series(NAMES), ["no", "yes"]),
    ],
)
def test_labels_of_any_type_keep_it(labels, classes):
    model = BBBClassifier(**QUICK).fit(X, labels)
    assert model.classes_.tolist() == classes
    assert [type(c) for c in model.classes_.tolist()] == [type(c) for c in classes]
    assert set(model.predict(X).tolist()) <= set(classes)


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        ([0, "1", 1, 0, 1, 0], "`y` must hold class labels of one type, .*, got int and str"),
        (np.array([*NAMES[:5], None]), "got NoneType and str: convert them, and drop rows without"),
        (pd.Series(NAMES).where(NAMES == "yes"), "got float and str"),
        (np.eye(2)[Y], r"`y` should be a 1d array, got an array of shape \(6, 2\) instead"),
        (3, "`y` should be a 1d array"),
        (np.where(Y, np.nan, 1.0), "Input y contains NaN"),
        (np.ma.masked_equal(Y, 1), "`y` must not be masked"),
        (np.zeros(6), "`y` must hold at least two classes, got one class"),
    ],
)
def test_labels_that_are_no_classes_are_refused(labels, message):
    with pytest.raises(ValueError, match=message):
        BBBClassifier(**QUICK).fit(X, labels)


@pytest.mark.parametrize(
    ("classes", "message"),
    [
        ([], "`classes` must hold at least two classes, got 0"),
        ([0], "`classes` must hold at least two classes, got 1"),
        ([0, 1, np.nan], "`classes` must hold class labels, got NaN"),
        ([0, 1, None], "`classes` must hold class labels of one type"),
        ([0, 1, "2"], "`classes` must hold class labels of one type"),
        ("01", "`classes` should be a 1d array"),
        ([[0, 1]], "`classes` should be a 1d array"),
        ([0, 2], "`y` must hold only classes of the first fit, .*, got 1"),
        (["0", "1"], "`y` must hold only classes of the first fit, .*, got 0"),
    ],
)
def test_classes_that_cannot_be_those_of_y_are_refused(classes, message):
    model = BBBClassifier(**QUICK)
    with pytest.raises(ValueError, match=message):
        model.partial_fit(X, Y, classes=classes)
    assert model.fit(X, NAMES).classes_.tolist() == ["no", "yes"]


@pytest.mark.parametrize(("first", "later"), [(Y, NAMES), (NAMES, Y)])
def test_further_rows_have_labels_of_the_same_type(first, later):
    model = BBBClassifier(**QUICK).partial_fit(X, first)
    with pytest.raises(ValueError, match="`y` must hold only classes of the first fit"):
        model.partial_fit(X, later)


def test_a_class_with_rows_of_weight_0_only_is_as_absent_as_its_rows():
    y = ["a", "b", "c", "a", "b", "c"]
    weight = [1.0, 1.0, 0.0, 1.0, 1.0, 0.0]
    kept = [0, 1, 3, 4]
    model = BBBClassifier(**QUICK).fit(X, y, weight)
    expected = BBBClassifier(**QUICK).fit(X[kept], np.array(y)[kept])
    np.testing.assert_array_equal(model.predict_proba(X), expected.predict_proba(X))
    with pytest.raises(ValueError, match="`y` must hold at least two classes, got one class"):
        BBBClassifier(**QUICK).fit(X, Y, Y)


def test_labels_are_found_among_the_classes():
    classes = np.array([2, 5, 9])
    assert class_indices(np.array([9, 2, 5, 5]), classes).tolist() == [2, 0, 1, 1]
    with pytest.raises(ValueError, match=r"only classes of the first fit, \[2, 5, 9\], got 10"):
        class_indices(np.array([2, 10]), classes)


def test_a_message_lists_ten_classes_at_most():
    assert list_labels(np.arange(12)) == "[0, 1, 2, 3, 4, 5, 6, 7, 8, 9] and 2 more"
    assert as_labels("y", list("ab")).tolist() == ["a", "b"]
