"""Rows held out for early stopping, calibration and the choice of the likelihood."""

import numpy as np
import pytest
from sklearn.model_selection import cross_val_predict, train_test_split
from support import QUICK_ESTIMATOR

from pyrobbb import BBBClassifier, BBBRegressor
from pyrobbb.estimators.holdout import choose_held_out, n_held_out

STOPPED = QUICK_ESTIMATOR | {"early_stopping": True, "epochs": 5, "hidden": (4,)}
LABELS = {
    "one row of a class": [0] * 39 + [1],
    "two rows of a class": [0] * 38 + [1] * 2,
    "one row of each of two classes": [0] * 38 + [1, 2],
    "two classes of two rows": [0, 0, 1, 1],
    "a class of one row in three": [0, 0, 1],
    "twenty classes of three rows": [*range(20)] * 3,
    "thirty classes of two rows": [*range(30)] * 2,
    "as many single rows as others": [*range(10), *[0] * 10],
}


SPLITS = [
    (name, fraction)
    for name, labels in LABELS.items()
    for fraction in (0.1, 0.001, 0.45)
    if np.ceil(fraction * len(labels)) <= len(labels) - len(set(labels))
]


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize(("name", "fraction"), SPLITS)
def test_each_class_keeps_a_row_to_fit(name, fraction, seed):
    labels = np.array(LABELS[name])
    n_classes = len(np.unique(labels))
    n_held = n_held_out("`early_stopping`", fraction, len(labels), n_classes)
    fitted, held = choose_held_out(len(labels), n_held, seed, labels)
    assert len(held) == n_held
    assert sorted([*fitted, *held]) == list(range(len(labels)))
    assert set(labels[fitted]) == set(labels)


def test_the_proportions_of_the_classes_are_preserved_where_possible():
    labels = np.repeat([0, 1], [30, 10])
    fitted, held = choose_held_out(40, 8, 0, labels)
    expected = train_test_split(np.arange(40), test_size=8, random_state=0, stratify=labels)
    np.testing.assert_array_equal(np.concatenate([fitted, held]), np.concatenate(expected))
    assert np.bincount(labels[held]).tolist() == [6, 2]


@pytest.mark.parametrize("labels", [None, np.arange(40) % 2])
def test_the_seed_decides_which_rows_are_held_out(labels):
    one, other, again = (set(choose_held_out(40, 8, seed, labels)[1]) for seed in (0, 1, 0))
    assert one == again != other


@pytest.mark.parametrize("labels", LABELS.values(), ids=LABELS)
def test_early_stopping_needs_few_rows_of_a_class(labels):
    X = np.random.default_rng(0).normal(size=(len(labels), 2))
    probs = BBBClassifier(**STOPPED).fit(X, labels).predict_proba(X)
    assert probs.shape == (len(labels), len(set(labels)))
    np.testing.assert_allclose(probs.sum(1), 1)


def test_early_stopping_works_in_folds_with_few_rows_of_a_class():
    X = np.random.default_rng(0).normal(size=(40, 2))
    y = np.repeat(["rare", "common"], [3, 37])
    probs = cross_val_predict(BBBClassifier(**STOPPED), X, y, cv=3, method="predict_proba")
    assert probs.shape == (40, 2)


@pytest.mark.parametrize(
    ("labels", "options", "message"),
    [
        (
            [0, 1],
            {},
            r"holds out 1 of 2 sample\(s\), .* at least 2 to fit, one of each of the 2 cl",
        ),
        ([*range(60)], {}, r"holds out 6 of 60 sample\(s\)"),
        ([0, 1] * 5, {"validation_fraction": 0.9}, r"holds out 9 of 10 sample\(s\), a fraction of"),
    ],
)
@pytest.mark.filterwarnings("ignore:The number of unique classes is greater than 50%")
def test_too_few_rows_of_a_class_are_refused_with_a_remedy(labels, options, message):
    X = np.random.default_rng(0).normal(size=(len(labels), 2))
    with pytest.raises(ValueError, match=f"^`early_stopping` {message}.*: pass more rows"):
        BBBClassifier(**STOPPED | options).fit(X, labels)


@pytest.mark.parametrize(
    ("n", "options", "message"),
    [
        (1, {"early_stopping": True}, r"`early_stopping` holds out 1 of 1 sample\(s\)"),
        (9, {"early_stopping": True, "validation_fraction": 0.999}, "`early_stopping` holds out 9"),
        (11, {"early_stopping": True, "calibration": 0.95}, "`early_stopping` holds out 1 of 1"),
        (
            11,
            {"early_stopping": True, "calibration": 0.95, "likelihood": "auto"},
            "`early_stopping` holds out 1 of 1",
        ),
    ],
)
def test_a_regressor_refuses_before_its_first_fit(n, options, message, monkeypatch):
    monkeypatch.setattr("pyrobbb.estimators.stages.fit", None)
    monkeypatch.setattr("pyrobbb.estimators.likelihood_choice.fit", None)
    X = np.random.default_rng(0).normal(size=(n, 2))
    with pytest.raises(ValueError, match=message):
        BBBRegressor(**QUICK_ESTIMATOR | options).fit(X, X[:, 0])


@pytest.mark.parametrize("likelihood", ["auto", "gaussian"])
def test_two_rows_can_be_split(likelihood):
    X = np.array([[0.0], [1.0]])
    model = BBBRegressor(**STOPPED | {"likelihood": likelihood}).fit(X, X[:, 0])
    assert np.isfinite(model.predict(X)).all()


def test_further_rows_are_held_out_too():
    X = np.random.default_rng(0).normal(size=(40, 2))
    model = BBBRegressor(**STOPPED).partial_fit(X, X[:, 0]).partial_fit(X, X[:, 0])
    assert model.posterior_.settings.n_data == 36
    assert len(model.posterior_.history.validation_nll) == 5
