"""Proper scoring rules and calibration of predictions. Lower is better unless stated otherwise.

y has a row for each predicted row, in the shape and the units of the prediction, such as (n, 1).
Classes are scored by their indices: for labels y of a `BBBClassifier`, pass
``numpy.searchsorted(classifier.classes_, y)``.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from ._core.arrays import ArrayLike, as_count, to_numpy
from .prediction import ClassificationPrediction, Prediction, RegressionPrediction

CRPS_LEVELS = 200


def nll(prediction: Prediction, y: ArrayLike) -> float:
    """Return the mean negative log predictive density, in nats per row."""
    return -float(_array(prediction.log_prob(y)).mean())


def rmse(prediction: RegressionPrediction, y: ArrayLike) -> float:
    """Return the root mean squared error of the predictive mean, in the units of y."""
    mean = _array(prediction.mean)
    return float(np.sqrt(((mean - _observed(y, mean)) ** 2).mean()))


def coverage(prediction: RegressionPrediction, y: ArrayLike, level: float = 0.9) -> float:
    """Return the fraction of observations inside the central interval; ideally `level`."""
    lower, upper = map(_array, prediction.interval(level))
    y = _observed(y, lower)
    return float(((lower <= y) & (y <= upper)).mean())


def crps(
    prediction: RegressionPrediction,
    y: ArrayLike,
    n_levels: int = CRPS_LEVELS,
    *,
    from_draws: bool = False,
) -> float:
    """Return the mean continuous ranked probability score (CRPS), in the units of y.

    Computed as twice the pinball loss, averaged over evenly spaced quantiles of the mixture. With
    `from_draws`, they are those of draws of y, which takes a small part of the time.

    References
    ----------
    Gneiting and Raftery (2007), "Strictly Proper Scoring Rules", section 4.2.
    """
    n_levels = as_count("n_levels", n_levels)
    levels = (np.arange(n_levels) + 0.5) / n_levels
    quantiles = _array(prediction.quantile(levels, from_draws=from_draws))
    error = _observed(y, quantiles[0]) - quantiles
    tau = levels.reshape(-1, *[1] * (error.ndim - 1))
    return float(2 * np.maximum(tau * error, (tau - 1) * error).mean())


def energy_score(prediction: RegressionPrediction, y: ArrayLike, seed: int | None = None) -> float:
    """Return the mean energy score in the units of y; for a single column, it is the CRPS.

    Estimated from draws of y. Distances between draws are those between their two halves.

    References
    ----------
    Gneiting and Raftery (2007), "Strictly Proper Scoring Rules", section 4.3.
    """
    draws = _array(prediction.sample(seed))
    if len(draws) < 2:
        raise ValueError(f"`prediction` needs at least 2 draws, got {len(draws)}.")
    observed = _observed(y, draws[0])
    rows = observed.shape[0]
    half = len(draws) // 2

    def distance(difference: np.ndarray) -> float:
        return float(
            np.linalg.norm(difference.reshape((-1, rows, observed[0].size)), axis=-1).mean()
        )

    return distance(draws - observed) - 0.5 * distance(draws[:half] - draws[half : 2 * half])


def error_rate(prediction: ClassificationPrediction, y: ArrayLike) -> float:
    """Return the fraction of rows whose most probable class is not y."""
    label = _array(prediction.label)
    return float((label != _observed(y, label)).mean())


def brier(prediction: ClassificationPrediction, y: ArrayLike) -> float:
    """Return the mean squared distance of the probabilities from the one-hot y, in [0, 2].

    A binary likelihood is scored as two classes.

    References
    ----------
    Brier (1950), "Verification of Forecasts Expressed in Terms of Probability".
    """
    probs, y = _class_probs(prediction, y)
    return float(((probs - np.eye(probs.shape[1])[y]) ** 2).sum(1).mean())


def ece(prediction: ClassificationPrediction, y: ArrayLike, n_bins: int = 15) -> float:
    """Return the expected calibration error of the most probable class, in bins of equal width.

    References
    ----------
    Guo et al. (2017), "On Calibration of Modern Neural Networks", equation 3.
    """
    _, gaps, shares = reliability(prediction, y, n_bins)
    return float((np.abs(gaps) * shares).sum())


def reliability(
    prediction: ClassificationPrediction, y: ArrayLike, n_bins: int = 15
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return the confidence and the calibration gap of the most probable class, per bin.

    Returns
    -------
    confidence, gap, share : ndarrays of shape (n_filled_bins,)
        Mean confidence of each non-empty bin, accuracy minus confidence, and fraction of all rows.
    """
    n_bins = as_count("n_bins", n_bins)
    probs, y = _class_probs(prediction, y)
    confidence, correct = probs.max(1), probs.argmax(1) == y
    bins = np.minimum((confidence * n_bins).astype(int), n_bins - 1)
    counts = np.bincount(bins, minlength=n_bins)
    filled = counts > 0
    mean_confidence = np.bincount(bins, confidence, n_bins)[filled] / counts[filled]
    accuracy = np.bincount(bins, correct, n_bins)[filled] / counts[filled]
    return mean_confidence, accuracy - mean_confidence, counts[filled] / len(y)


def adaptive_ece(prediction: ClassificationPrediction, y: ArrayLike, n_bins: int = 15) -> float:
    """Return the expected calibration error of the most probable class, in bins of equal size.

    Bins of equal width hold few rows where confidence is low, and most rows share one bin.

    References
    ----------
    Nguyen and O'Connor (2015), "Posterior calibration and exploratory analysis for natural language
    processing models", section 3.2.
    """
    n_bins = as_count("n_bins", n_bins)
    probs, y = _class_probs(prediction, y)
    confidence, correct = probs.max(1), probs.argmax(1) == y
    gap = (correct - confidence)[np.argsort(confidence, kind="stable")]
    bins = np.array_split(gap, min(n_bins, len(gap)))
    return float(sum(abs(part.sum()) for part in bins) / len(gap))


def risk_coverage(
    prediction: Prediction, y: ArrayLike, uncertainty: ArrayLike | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """Return the risk of the most certain rows, for each number of them.

    A model that may abstain predicts these rows only.

    Parameters
    ----------
    prediction : Prediction
    y : array-like of shape (n, ...)
    uncertainty : array-like of shape (n,), optional
        By which rows are ordered. None: 1 - the probability of the most probable class, or the
        predictive standard deviation. For y of several columns: their mean variance.

    Returns
    -------
    coverage, risk : ndarrays of shape (n,)
        Fraction of the rows, k / n, and the error rate of the k most certain ones, or the mean
        squared error. Equally certain rows count as their mean.

    References
    ----------
    El-Yaniv and Wiener (2010), "On the foundations of noise-free selective classification". Geifman
    and El-Yaniv (2017), "Selective classification for deep neural networks".
    """
    if isinstance(prediction, ClassificationPrediction):
        probs, y = _class_probs(prediction, y)
        loss, default = (probs.argmax(1) != y).astype(float), 1 - probs.max(1)
    elif isinstance(prediction, RegressionPrediction):
        mean = _array(prediction.mean)
        loss = ((mean - _observed(y, mean)) ** 2).reshape(len(mean), -1).mean(1)
        default = (_array(prediction.sd) ** 2).reshape(len(mean), -1).mean(1)
    else:
        raise TypeError(f"`prediction` must be a Prediction, got {type(prediction).__name__}.")
    key = default if uncertainty is None else _array(uncertainty)
    if key.shape != loss.shape:
        raise ValueError(
            f"`uncertainty` must have one number for each of the {len(loss)} rows, got shape "
            f"{key.shape}."
        )
    _, group, counts = np.unique(key, return_inverse=True, return_counts=True)
    expected = (np.bincount(group, loss) / counts)[group]
    numbers = np.arange(1, len(loss) + 1)
    return numbers / len(loss), expected[np.argsort(key, kind="stable")].cumsum() / numbers


def aurc(prediction: Prediction, y: ArrayLike, uncertainty: ArrayLike | None = None) -> float:
    """Return the area under the risk-coverage curve: the mean of the risk over all coverages.

    It is low if predictions are right, and if those that are wrong are the uncertain ones.

    Parameters
    ----------
    prediction, y, uncertainty
        As for `risk_coverage`.

    References
    ----------
    Geifman, Uziel and El-Yaniv (2019), "Bias-reduced uncertainty estimation for deep neural
    classifiers".
    """
    return float(risk_coverage(prediction, y, uncertainty)[1].mean())


def auroc(inside: Prediction | ArrayLike, outside: Prediction | ArrayLike) -> float:
    """Return the probability that a row from outside is more uncertain than one from inside.

    It is the area under the ROC curve of the uncertainty as a detector of out-of-distribution rows:
    1 is best, and 0.5 is chance. Higher is better.

    Parameters
    ----------
    inside, outside : Prediction, or array-like of shape (n,)
        Predictions of rows from the distribution of the data, and of rows from another one; or
        their uncertainties. The uncertainty of a predicted class is its entropy, and of a
        regression the epistemic standard deviation.

    References
    ----------
    Hendrycks and Gimpel (2017), "A baseline for detecting misclassified and out-of-distribution
    examples in neural networks".
    """
    inner, outer = np.sort(_uncertainty("inside", inside)), _uncertainty("outside", outside)
    below = np.searchsorted(inner, outer, "left") + np.searchsorted(inner, outer, "right")
    return float(below.mean() / (2 * len(inner)))


def fpr95(inside: Prediction | ArrayLike, outside: Prediction | ArrayLike) -> float:
    """Return the false positive rate of a detector that detects 95 % of the rows from outside.

    It is the fraction of the rows from inside whose uncertainty reaches the threshold, the highest
    that at least 95 % of the rows from outside reach. 0 is best, and 0.95 is chance.

    Parameters
    ----------
    inside, outside
        As for `auroc`.
    """
    inner, outer = _uncertainty("inside", inside), _uncertainty("outside", outside)
    n_detected = int(np.ceil(0.95 * len(outer) * (1 - 1e-12)))
    threshold = np.sort(outer)[::-1][n_detected - 1]
    return float((inner >= threshold).mean())


def pit(prediction: RegressionPrediction, y: ArrayLike, n_levels: int = 999) -> np.ndarray:
    """Return the probability integral transform of each observation: uniform if calibrated.

    Returns
    -------
    ndarray of the shape of y
        Fraction of evenly spaced quantiles below the observation.
    """
    levels = np.arange(1, n_levels + 1) / (n_levels + 1)
    quantiles = _array(prediction.quantile(levels))
    return (quantiles < _observed(y, quantiles[0])).mean(0)


def coverage_curve(prediction: RegressionPrediction, y: ArrayLike, levels: ArrayLike) -> np.ndarray:
    """Return the coverage of the central intervals of several levels, shape (n_levels,)."""
    return np.array([coverage(prediction, y, float(level)) for level in np.asarray(levels)])


def compare_log_densities(
    log_density: np.ndarray, weight: np.ndarray | None = None
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Compare models by their log densities of the same rows.

    Parameters
    ----------
    log_density : ndarray of shape (n_models, n_rows)
    weight : ndarray of shape (n_rows,), optional

    Returns
    -------
    mean, standard_error : ndarray of shape (n_models,)
        The mean log density of each model, and the standard error of its difference from the best.
    is_level : ndarray of bool, shape (n_models,)
        Whether the difference is within one standard error.
    """
    mean = np.average(log_density, axis=1, weights=weight)
    difference = log_density[np.argmax(mean)] - log_density
    gap = np.average(difference, axis=1, weights=weight)
    variance = np.average((difference - gap[:, None]) ** 2, axis=1, weights=weight)
    error = np.sqrt(variance / max(log_density.shape[1] - 1, 1))
    return mean, error, gap <= error


def _uncertainty(name: str, rows: Prediction | ArrayLike) -> np.ndarray:
    """Return the uncertainty of rows, shape (n,), from their prediction or as it is given."""
    if isinstance(rows, ClassificationPrediction):
        values = _array(rows.entropy)
    elif isinstance(rows, RegressionPrediction):
        values = _array(rows.epistemic_sd) ** 2
    else:
        try:
            values = _array(rows)
        except (TypeError, ValueError):
            raise TypeError(
                f"`{name}` must be a Prediction or an array of numbers, got {type(rows).__name__}: "
                "pass that of `predict`, or of an estimator's `predict_distribution`."
            ) from None
        if values.ndim != 1:
            raise ValueError(f"`{name}` must have one number per row, got shape {values.shape}.")
    if not values.size or np.isnan(values).any():
        raise ValueError(f"`{name}` must hold at least one row, and no NaN.")
    return values.reshape(len(values), -1).mean(1)


def _class_probs(prediction: ClassificationPrediction, y: ArrayLike) -> tuple[np.ndarray, Any]:
    """Return probabilities, shape (n, K), and labels, shape (n,); two columns for binary y."""
    probs, label = _array(prediction.probs), _array(prediction.label)
    y = _observed(y, label)
    if probs.shape == label.shape:
        probs = np.stack([1 - probs, probs], -1)
    return probs.reshape(-1, probs.shape[-1]), y.reshape(-1).astype(int)


def _observed(y: ArrayLike, predicted: np.ndarray) -> np.ndarray:
    """Return observations as an array; raise if NumPy would broadcast them, or if they are text."""
    try:
        observed = _array(y)
    except (TypeError, ValueError):
        raise TypeError(
            "`y` must hold numbers, got text or objects: pass the index of each class, for a "
            "BBBClassifier numpy.searchsorted(classifier.classes_, y)."
        ) from None
    if observed.shape != predicted.shape:
        raise ValueError(
            f"`y` must have the shape of the prediction, {predicted.shape}, got {observed.shape}: "
            "pass it in the shape used for the fit."
        )
    return observed


def _array(values: ArrayLike) -> np.ndarray:
    return to_numpy(values).astype(np.float64)
