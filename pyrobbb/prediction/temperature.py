"""Temperature scaling: probabilities of classes corrected by one number, from held-out rows."""

from __future__ import annotations

import numpy as np

MAX_LOG_TEMPERATURE = 3.0
"""Temperatures are sought between exp(-3) = 0.05 and exp(3) = 20."""
PRIOR_SD = 0.3
"""Standard deviation of the prior of the logarithm of the temperature. Without it, a few held-out
rows that are all classified correctly would make every probability 0 or 1."""
ERRORS_BELOW_1, ERRORS_ABOVE_1 = 2.0, 1.0
"""Gain, in standard errors, from which a temperature below or above 1 is used. Errors that are too
rare for a few held-out rows cost most where probabilities are too extreme. On inner splits of
training rows, one standard error for both and a standard deviation of 0.5 had a higher log loss."""


def fit_temperature(probs: np.ndarray, y: np.ndarray, weight: np.ndarray | None = None) -> float:
    """Return the temperature with the lowest log loss on held-out rows; 1 if it hardly helps.

    It is a mode of the posterior under a log-normal prior around 1. It helps if the mean log loss
    of the rows falls by more than two standard errors, or by one if it is above 1.

    Parameters
    ----------
    probs : ndarray of shape (n, n_classes)
        Probabilities predicted for held-out rows.
    y : ndarray of shape (n,)
        Indices of their classes.
    weight : ndarray of shape (n,), optional
        Weight of each row; only the ratios matter.

    Returns
    -------
    float
        Temperature of `ClassificationPrediction.tempered`.

    References
    ----------
    Guo, Pleiss, Sun and Weinberger (2017), "On calibration of modern neural networks", section 4.2.
    """
    from scipy.optimize import minimize_scalar
    from scipy.special import logsumexp

    if len(y) < 2:  # no standard error
        return 1.0
    log_probs = np.log(probs.clip(min=np.finfo(probs.dtype).tiny))
    share = np.ones(len(y)) if weight is None else weight
    share = share / share.sum()

    def log_loss(log_temperature: float) -> np.ndarray:
        scaled = log_probs / np.exp(log_temperature)
        return logsumexp(scaled, axis=1) - scaled[np.arange(len(y)), y]

    best = minimize_scalar(
        lambda t: len(y) * (share @ log_loss(t)) + 0.5 * (t / PRIOR_SD) ** 2,
        bounds=(-MAX_LOG_TEMPERATURE, MAX_LOG_TEMPERATURE),
        method="bounded",
    ).x
    gain = log_loss(0.0) - log_loss(best)
    mean = share @ gain
    standard_error = np.sqrt(share**2 @ (gain - mean) ** 2)
    n_errors = ERRORS_BELOW_1 if best < 0 else ERRORS_ABOVE_1
    return float(np.exp(best)) if mean > n_errors * standard_error else 1.0
