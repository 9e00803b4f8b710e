"""Scores of held-out rows, and the linear models beside them."""

import json
from typing import ClassVar

import numpy as np
import pandas as pd
import pytest
from scipy import stats
from sklearn.linear_model import LinearRegression, LogisticRegression, Ridge
from sklearn.metrics import roc_auc_score
from sklearn.model_selection import LeaveOneOut, cross_val_predict

from pyrobbb import estimators, scores
from pyrobbb.tables import TableModel, UserError, fit_table
from pyrobbb.tables.held_out import HeldOutScores, class_auc, score_held_out, score_prediction
from pyrobbb.tables.yardsticks import linear_classes, linear_numbers

QUICK = {"epochs": 2, "restarts": 1, "hidden": 2, "random_state": 0}
RNG = np.random.default_rng(0)
N = 60
X = RNG.normal(size=(N, 3))
Y = X @ [1.0, -2.0, 0.0] + 3 + 0.5 * RNG.normal(size=N)
LABELS = np.array(["a", "b", "c"])[np.digitize(Y, [2, 5])]


class Recorded:
    """An estimator that predicts by a linear model, and records the rows of its fits."""

    fits: ClassVar[list] = []

    def __init__(self, x, y, number):
        self.likelihood_ = None
        self.x, self.y = x, y
        Recorded.fits.append((number, x[:, 0]))

    def predict_distribution(self, x):
        if self.y.dtype.kind == "f":
            return linear_numbers(self.x, self.y, x)
        labels = np.unique(self.y, return_inverse=True)[1]
        return linear_classes(self.x, labels, x, len(np.unique(self.y)))


@pytest.fixture(autouse=True)
def no_records():
    Recorded.fits = []


@pytest.mark.parametrize("y", [Y, LABELS], ids=["numbers", "classes"])
@pytest.mark.parametrize("cv", [2, 7])
def test_each_row_is_held_out_once_and_never_seen_by_the_fit_that_predicts_it(y, cv):
    found = score_held_out(Recorded, X, y, holdout=None, cv=cv, seed=0)
    assert (found.n_rows, found.n_folds) == (N, cv)
    assert [number for number, _ in Recorded.fits] == list(range(1, cv + 1))
    seen = np.concatenate([rows for _, rows in Recorded.fits])
    assert sorted(seen) == sorted(np.repeat(X[:, 0], cv - 1))
    assert found.model == found.linear


@pytest.mark.parametrize("y", [Y, LABELS], ids=["numbers", "classes"])
def test_a_fraction_is_held_out(y):
    found = score_held_out(Recorded, X, y, holdout=0.25, cv=None, seed=0)
    ((number, rows),) = Recorded.fits
    assert (number, len(rows), found.n_rows, found.n_folds) == (1, 45, 15, 1)
    assert found.standard_error == {}


def test_folds_have_all_classes_and_never_hold_out_the_only_row_of_one():
    labels = np.array(["a"] * 40 + ["b"] * 19 + ["c"])
    found = score_held_out(Recorded, X, labels, holdout=None, cv=5, seed=0)
    assert found.n_rows == N - 1
    for _, rows in Recorded.fits:
        held = labels[~np.isin(X[:, 0], rows)]
        assert (held == "a").sum() == 8
        assert (held == "b").sum() in (3, 4)
        assert set(labels[np.isin(X[:, 0], rows)]) == {"a", "b", "c"}


def test_the_held_out_part_has_the_proportions_of_the_classes():
    labels = np.repeat(["a", "b"], [45, 15])
    score_held_out(Recorded, X, labels, holdout=0.2, cv=None, seed=0)
    ((_, rows),) = Recorded.fits
    assert (labels[~np.isin(X[:, 0], rows)] == "a").sum() == 9


@pytest.mark.parametrize("split", [{"holdout": 0.25, "cv": None}, {"holdout": None, "cv": 3}])
@pytest.mark.parametrize("y", [Y, LABELS], ids=["numbers", "classes"])
def test_the_seed_decides_on_the_parts(y, split):
    for seed in (0, 1, 1):
        score_held_out(Recorded, X, y, seed=seed, **split)
    first, second, again = np.array_split([set(rows) for _, rows in Recorded.fits], 3)
    assert not (first == second).any()
    assert (second == again).all()


@pytest.mark.parametrize("seed", range(4))
def test_a_score_that_a_fold_lacks_is_left_out(seed):
    y = np.where(np.arange(N) == 7, 5.0, 1.0)  # constant in one of the folds
    found = score_held_out(Recorded, X, y, holdout=None, cv=2, seed=seed)
    assert "R2" not in found.model
    assert found.model.keys() == found.linear.keys() == found.standard_error.keys()
    assert "RMSE" in found.model


def test_the_mean_over_folds_has_a_standard_error():
    found = score_held_out(Recorded, X, Y, holdout=None, cv=3, seed=0)
    values = []
    for _, fitted in Recorded.fits:
        is_held = ~np.isin(X[:, 0], fitted)
        prediction = linear_numbers(X[~is_held], Y[~is_held], X[is_held])
        values.append(scores.rmse(prediction, Y[is_held]))
    assert found.model["RMSE"] == pytest.approx(np.mean(values))
    assert found.standard_error["RMSE"] == pytest.approx(stats.sem(values))


def test_the_ridge_regression_predicts_with_its_leave_one_out_variance():
    prediction = linear_numbers(X, Y, X)
    standardised = (X - X.mean(0)) / X.std(0)
    by_alpha = {}
    for alpha in np.logspace(-3, 4, 15):
        left_out = cross_val_predict(Ridge(alpha), standardised, Y, cv=LeaveOneOut())
        by_alpha[alpha] = ((Y - left_out) ** 2).mean()
    alpha = min(by_alpha, key=by_alpha.get)
    expected = Ridge(alpha).fit(standardised, Y).predict(standardised)
    np.testing.assert_allclose(prediction.mean, expected)
    np.testing.assert_allclose(prediction.sd, by_alpha[alpha] ** 0.5, rtol=1e-6)
    assert prediction.mean == pytest.approx(LinearRegression().fit(X, Y).predict(X), abs=0.2)


@pytest.mark.parametrize("excess", [0.0, 1.0])
def test_counts_are_predicted_by_distributions_of_counts(excess):
    rng = np.random.default_rng(0)
    rate = np.exp(1 + 0.3 * X[:, 0]) * rng.gamma(1 / (excess + 1e-9), excess + 1e-9, N)
    y = rng.poisson(rate).astype(float)
    prediction = linear_numbers(X, y, X, is_count=True)
    density = np.exp(prediction.log_prob(np.zeros(N)))
    assert ((density > 0) & (density < 1)).all()
    total = sum(np.exp(prediction.log_prob(np.full(N, float(k)))) for k in range(300))
    np.testing.assert_allclose(total, 1, rtol=1e-4)
    of_normal = linear_numbers(X, y, X)
    np.testing.assert_allclose(prediction.mean, np.maximum(of_normal.mean, 1e-3))
    variance = max(of_normal.sd[0] ** 2, prediction.mean.mean())
    assert (prediction.sd**2).mean() == pytest.approx(variance)


def test_the_logistic_regression_is_that_of_scikit_learn():
    index = np.unique(LABELS, return_inverse=True)[1]
    standardised = (X - X.mean(0)) / X.std(0)
    expected = LogisticRegression(max_iter=500).fit(standardised, index)
    found = linear_classes(X, index, X, 3)
    np.testing.assert_allclose(found.probs, expected.predict_proba(standardised), atol=2e-6)
    unseen = linear_classes(X, index, X, 4).probs
    assert (unseen[:, 3] > 0).all()


@pytest.mark.parametrize("n_classes", [2, 3])
def test_the_auc_is_that_of_scikit_learn(n_classes):
    y = np.arange(N) % n_classes
    probs = RNG.dirichlet(np.ones(n_classes), N)
    given = probs[:, 1] if n_classes == 2 else probs
    assert class_auc(probs, y) == pytest.approx(roc_auc_score(y, given, multi_class="ovr"))
    assert np.isnan(class_auc(probs, np.zeros(N, int)))


def test_a_score_that_is_not_defined_is_left_out():
    assert "R2" not in score_prediction(linear_numbers(X, Y, X), np.ones(N))


def test_scores_are_stored_with_the_model(tmp_path):
    table = pd.DataFrame(X, columns=["p", "q", "r"]).assign(y=Y)
    table.to_csv(tmp_path / "t.csv", index=False)
    lines = []
    options = {**QUICK, "likelihood": "gaussian", "on_start": lines.append}
    fitted = fit_table(tmp_path / "t.csv", "y", tmp_path / "m", cv=2, **options)
    assert fitted.n_rows == N
    assert fitted.scores.n_rows == N
    fits = [line.split(",")[0] for line in lines if line.startswith("fit ")]
    assert fits == [f"fit {i} of 3" for i in (1, 2, 3)]
    assert TableModel.load(tmp_path / "m").held_out == fitted.scores
    again = fit_table(tmp_path / "t.csv", "y", tmp_path / "n", **QUICK, likelihood="gaussian")
    assert again.scores is TableModel.load(tmp_path / "n").held_out is None
    x = fitted.model.schema.encode(table)
    np.testing.assert_array_equal(
        again.model.estimator.predict(x), fitted.model.estimator.predict(x)
    )


def test_stored_scores_may_be_infinite_but_not_damaged():
    found = HeldOutScores(3, 1, {"NLL": np.inf}, {"NLL": 1.0}, {})
    stored = json.loads(json.dumps(found.to_dict(), allow_nan=False))
    assert np.isnan(HeldOutScores.from_dict(stored).model["NLL"])
    for damage in ({"model": {}}, {"n_rows": "many"}, {"linear": [1]}):
        with pytest.raises(ValueError, match="The stored held-out scores are damaged"):
            HeldOutScores.from_dict({**stored, **damage})
    with pytest.raises(ValueError, match="The stored held-out scores are damaged"):
        HeldOutScores.from_dict({})


@pytest.mark.parametrize(
    ("split", "message"),
    [
        ({"holdout": 1.0}, "--holdout must be a fraction of the rows in"),
        ({"holdout": -0.1}, "--holdout must be a fraction of the rows in"),
        ({"cv": 1}, "--cv must be a number of folds, at least 2, got 1"),
        ({"cv": 61}, "t.csv: has 60 rows, fewer than the 61 folds of --cv."),
        ({"cv": 2, "holdout": 0.5}, "--holdout and --cv are two ways to score a fit"),
    ],
)
def test_a_split_that_cannot_be_made_is_refused_before_the_fit(
    tmp_path, monkeypatch, split, message
):
    monkeypatch.setattr(estimators.BBBRegressor, "fit", None)
    pd.DataFrame(X).assign(y=Y).to_csv(tmp_path / "t.csv", index=False)
    with pytest.raises(UserError, match=message):
        fit_table(tmp_path / "t.csv", "y", tmp_path / "m", **QUICK, **split)
    assert [path.name for path in tmp_path.iterdir()] == ["t.csv"]
