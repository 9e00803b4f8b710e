"""The models of the benchmark on teaching tables, as they come: from a split to a forecast."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
from scipy import optimize, stats
from sklearn.ensemble import (
    HistGradientBoostingClassifier,
    HistGradientBoostingRegressor,
    RandomForestClassifier,
    RandomForestRegressor,
)
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LinearRegression, LogisticRegression, PoissonRegressor
from sklearn.model_selection import KFold, cross_val_predict
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from forecasts import Classes, Distributed
from pyrobbb import BBBClassifier, BBBRegressor
from teaching_tables import Split
from uci_models import Units

Model = Callable[[Split], Any]
"""From a split to a forecast of its test rows, or to an estimator that has not been fitted."""
N_FOLDS = 5
N_TREES = 100


def bbb(split: Split) -> Any:
    """Return the estimator of Bayes by Backprop as it comes."""
    if split.kind == "classification":
        return BBBClassifier(random_state=split.seed)
    return BBBRegressor(random_state=split.seed)


def catboost(split: Split) -> Any:
    """Fit CatBoost, with its loss that gives a mean and a variance for numbers."""
    from catboost import CatBoostClassifier, CatBoostRegressor

    options = {"random_seed": split.seed, "thread_count": 1, "verbose": False}
    options["allow_writing_files"] = False
    if split.kind == "classification":
        model = CatBoostClassifier(**options).fit(split.x, split.y.astype(int))
        return _classes(model.predict_proba(split.x_test), model.classes_, split)
    target = Units.of(split.y)
    model = CatBoostRegressor(loss_function="RMSEWithUncertainty", **options)
    mean, variance = model.fit(split.x, target.to(split.y)).predict(split.x_test).T
    return Distributed(stats.norm(*target.back(mean, np.sqrt(variance))))


def catboost_point(split: Split) -> Any:
    """Fit CatBoost with its default loss, that of a point."""
    from catboost import CatBoostRegressor

    if split.kind == "classification":  # its default is the same
        return catboost(split)
    loss = "Poisson" if split.kind == "counts" else "RMSE"
    options = {"random_seed": split.seed, "thread_count": 1, "verbose": False}
    return _around(
        CatBoostRegressor(loss_function=loss, allow_writing_files=False, **options), split
    )


def ngboost(split: Split) -> Any:
    """Fit natural gradient boosting: a normal distribution, or probabilities of the classes."""
    from ngboost import NGBClassifier, NGBRegressor
    from ngboost.distns import k_categorical

    options = {"verbose": False, "random_state": split.seed}
    if split.kind == "classification":
        model = NGBClassifier(Dist=k_categorical(split.n_classes), **options)
        model.fit(split.x, split.y.astype(int))
        return Classes(model.predict_proba(split.x_test))
    target = Units.of(split.y)
    model = NGBRegressor(**options).fit(split.x, target.to(split.y))
    found = model.pred_dist(split.x_test).params
    return Distributed(stats.norm(*target.back(found["loc"], found["scale"])))


def hist_gradient_boosting(split: Split) -> Any:
    """Fit scikit-learn's histogram gradient boosting."""
    if split.kind == "classification":
        return _fitted_classes(HistGradientBoostingClassifier(random_state=split.seed), split)
    loss = "poisson" if split.kind == "counts" else "squared_error"
    return _around(HistGradientBoostingRegressor(loss=loss, random_state=split.seed), split)


def random_forest(split: Split) -> Any:
    """Fit scikit-learn's random forest; a leaf of one class is not certain of it."""
    if split.kind == "classification":
        forest = RandomForestClassifier(N_TREES, random_state=split.seed)
        probs = _fitted_classes(forest, split).probs
        return Classes((N_TREES * probs + 1 / split.n_classes) / (N_TREES + 1))
    return _around(RandomForestRegressor(N_TREES, random_state=split.seed), split)


def linear(split: Split) -> Any:
    """Fit a linear model: least squares, Poisson regression or logistic regression."""
    if split.kind == "classification":
        return _fitted_classes(
            make_pipeline(StandardScaler(), LogisticRegression(max_iter=10_000)), split
        )
    if split.kind == "counts":
        return _around(make_pipeline(StandardScaler(), PoissonRegressor(max_iter=1000)), split)
    return _around(make_pipeline(StandardScaler(), LinearRegression()), split)


def _around(model: Any, split: Split) -> Distributed:
    """Return a distribution around a point prediction, as wide as errors out of fold.

    A normal distribution for numbers, and a negative binomial one for counts, whose dispersion has
    the highest likelihood out of fold.
    """
    folds = KFold(N_FOLDS, shuffle=True, random_state=split.seed)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        held_out = cross_val_predict(model, split.x, split.y, cv=folds)
        mean = model.fit(split.x, split.y).predict(split.x_test)
    if split.kind == "counts":
        found = optimize.minimize_scalar(
            lambda log_n: -negative_binomial(held_out, np.exp(log_n)).logpmf(split.y).sum(),
            bounds=(-7, 7),
            method="bounded",
        )
        return Distributed(negative_binomial(mean, np.exp(found.x)))
    return Distributed(stats.norm(mean, np.sqrt(((held_out - split.y) ** 2).mean())))


def negative_binomial(mean: np.ndarray, n: float) -> Any:
    """Return a negative binomial distribution of variance mean + mean**2 / n."""
    mean = np.maximum(mean, 1e-6)
    return stats.nbinom(n, n / (n + mean))


def _fitted_classes(model: Any, split: Split) -> Classes:
    model.fit(split.x, split.y.astype(int))
    return _classes(model.predict_proba(split.x_test), model.classes_, split)


def _classes(probs: np.ndarray, classes: np.ndarray, split: Split) -> Classes:
    """Return probabilities of all classes, also of those without a row to fit."""
    found = np.zeros((len(probs), split.n_classes))
    found[:, np.asarray(classes).astype(int).reshape(-1)] = probs
    return Classes(found)


PEERS: dict[str, Model] = {
    "CatBoost": catboost,
    "CatBoost, point": catboost_point,
    "NGBoost": ngboost,
    "HistGradientBoosting": hist_gradient_boosting,
    "random forest": random_forest,
    "linear model": linear,
}
MODELS: dict[str, Model] = {"pyrobbb": bbb, **PEERS}
