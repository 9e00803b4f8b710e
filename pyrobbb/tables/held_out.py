"""Scores on rows that a model was not fitted to, beside those of a linear model."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from .. import scores
from .._core.display import count_of
from ..prediction import ClassificationPrediction, Prediction, RegressionPrediction
from .yardsticks import MIN_VARIANCE, are_counts, linear_classes, linear_numbers

__all__ = [
    "HeldOutScores",
    "class_auc",
    "explained_variance",
    "score_held_out",
    "score_prediction",
]


@dataclass(frozen=True)
class HeldOutScores:
    """Scores on rows that a model was not fitted to.

    Attributes
    ----------
    n_rows : int
        Number of rows that were scored.
    n_folds : int
        Number of parts of the table that were held out in turn, each with a fit of its own.
    model, linear : mapping of str to float
        The mean of each score over the folds: of the network, and of a ridge or logistic regression
        of the same inputs.
    standard_error : mapping of str to float
        Standard error of the mean of the model's scores; empty for a single fold.
    """

    n_rows: int
    n_folds: int
    model: Mapping[str, float]
    linear: Mapping[str, float]
    standard_error: Mapping[str, float]

    @property
    def title(self) -> str:
        """On which rows the scores were computed."""
        folds = "" if self.n_folds == 1 else f" in {self.n_folds} folds"
        return f"{count_of(self.n_rows, 'held-out row')}{folds}"

    def to_dict(self) -> dict[str, Any]:
        """Return the scores as plain data, None where a score is not finite."""
        return {
            name: {key: v if math.isfinite(v) else None for key, v in value.items()}
            if isinstance(value, dict)
            else value
            for name, value in asdict(self).items()
        }

    @classmethod
    def from_dict(cls, stored: Mapping[str, Any]) -> HeldOutScores:
        """Return the scores from the plain data that `to_dict` returned, or raise a ValueError."""
        try:
            model, linear, error = (
                {str(key): math.nan if v is None else float(v) for key, v in stored[name].items()}
                for name in ("model", "linear", "standard_error")
            )
            found = cls(int(stored["n_rows"]), int(stored["n_folds"]), model, linear, error)
        except (AttributeError, KeyError, TypeError, ValueError) as problem:
            raise ValueError(f"The stored held-out scores are damaged ({problem}).") from problem
        if found.model.keys() != found.linear.keys() or error.keys() - model.keys():
            raise ValueError("The stored held-out scores are damaged.")
        return found


def score_held_out(
    fit: Callable[[np.ndarray, np.ndarray, int], Any],
    x: np.ndarray,
    y: np.ndarray,
    *,
    holdout: float | None,
    cv: int | None,
    seed: int,
) -> HeldOutScores:
    """Fit to parts of the rows, and score the predictions of the others.

    Parameters
    ----------
    fit : callable
        Returns an estimator fitted to the rows x and y that it is passed with the number of the
        fold, from 1.
    x : ndarray of shape (n, n_inputs)
    y : ndarray of shape (n,)
        Numbers, or labels of classes, whose proportions are the same in all parts as far as
        possible. The only row of a class is never held out.
    holdout : float, optional
        Fraction of the rows to hold out, in (0, 1).
    cv : int, optional
        Number of parts that are held out in turn. One of the two is given.
    seed : int
    """
    labels = None if y.dtype.kind == "f" else np.unique(y, return_inverse=True)[1]
    if cv is None:
        assert holdout is not None
        parts = _single_part(len(y), holdout, seed, labels)
    else:
        parts = _folds(len(y), cv, seed, labels)
    of_model, of_linear, n_rows = [], [], 0
    for i, (fitted, held) in enumerate(parts, 1):
        estimator = fit(x[fitted], y[fitted], i)
        prediction = estimator.predict_distribution(x[held])
        linear: Prediction
        if labels is None:
            observed = y[held]
            is_count = are_counts(estimator.likelihood_)
            linear = linear_numbers(x[fitted], y[fitted], x[held], is_count=is_count)
        else:
            observed, n_classes = labels[held], int(labels.max()) + 1
            linear = linear_classes(x[fitted], labels[fitted], x[held], n_classes)
        of_model.append(score_prediction(prediction, observed))
        of_linear.append(score_prediction(linear, observed))
        n_rows += len(held)
    model, error = _mean(of_model)
    return HeldOutScores(n_rows, len(of_model), model, _mean(of_linear)[0], error)


def score_prediction(prediction: Prediction, y: np.ndarray) -> dict[str, float]:
    """Return the main scores of a prediction, by their names.

    There is no R2 of a constant y, and no AUC of a single class.

    Parameters
    ----------
    prediction : RegressionPrediction or ClassificationPrediction
    y : ndarray of shape (n,)
        Numbers, or indices of classes.
    """
    if isinstance(prediction, RegressionPrediction):
        return {
            "RMSE": scores.rmse(prediction, y),
            **({"R2": explained_variance(prediction, y)} if y.var() > 0 else {}),
            "NLL": scores.nll(prediction, y),
            "90 % coverage": scores.coverage(prediction, y),
        }
    assert isinstance(prediction, ClassificationPrediction)
    auc = class_auc(np.asarray(prediction.probs), y)
    return {
        "error": scores.error_rate(prediction, y),
        "NLL": scores.nll(prediction, y),
        "Brier": scores.brier(prediction, y),
        **({} if math.isnan(auc) else {"AUC": auc}),
    }


def explained_variance(prediction: RegressionPrediction, y: np.ndarray) -> float:
    """Return R2, the share of the variance of y that the predicted mean explains; 1 is best."""
    return 1 - scores.rmse(prediction, y) ** 2 / max(float(y.var()), MIN_VARIANCE)


def class_auc(probs: np.ndarray, y: np.ndarray) -> float:
    """Return the area under the ROC curve, averaged over the classes that y has rows in and out of.

    Each class against all others; for two classes, both areas are equal. 1 is best, and 0.5 is
    chance. NaN if y has a single class.

    Parameters
    ----------
    probs : ndarray of shape (n, n_classes)
    y : ndarray of shape (n,)
        Indices of classes.
    """
    present = np.unique(y)
    if len(present) < 2:
        return math.nan
    return float(np.mean([scores.auroc(probs[y != k, k], probs[y == k, k]) for k in present]))


def _single_part(
    n_rows: int, holdout: float, seed: int, labels: np.ndarray | None
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    from ..estimators.holdout import choose_held_out, n_held_out

    n_classes = 1 if labels is None else int(labels.max()) + 1
    n_held = n_held_out("`holdout`", holdout, n_rows, n_classes)
    yield choose_held_out(n_rows, n_held, seed, labels)


def _folds(
    n_rows: int, cv: int, seed: int, labels: np.ndarray | None
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    order = np.random.default_rng(seed).permutation(n_rows)
    is_single = np.zeros(n_rows, bool)
    if labels is not None:
        # The rows of a class are dealt to the folds in turn: no fold has all of them.
        order = order[np.argsort(labels[order], kind="stable")]
        is_single = np.bincount(labels)[labels] == 1
    fold = np.empty(n_rows, int)
    fold[order] = np.arange(n_rows) % cv
    for k in range(cv):
        is_held = (fold == k) & ~is_single
        if is_held.any():
            yield np.flatnonzero(~is_held), np.flatnonzero(is_held)


def _mean(folds: Sequence[Mapping[str, float]]) -> tuple[dict[str, float], dict[str, float]]:
    """Return the mean of each score over the folds, and its standard error if there are several."""
    common = [name for name in folds[0] if all(name in fold for fold in folds)]
    values = {name: np.array([fold[name] for fold in folds]) for name in common}
    mean = {name: float(of.mean()) for name, of in values.items()}
    if len(folds) == 1:
        return mean, {}
    with np.errstate(over="ignore", invalid="ignore"):  # an NLL after a fit to a constant y
        return mean, {n: float(of.std(ddof=1) / math.sqrt(len(of))) for n, of in values.items()}
