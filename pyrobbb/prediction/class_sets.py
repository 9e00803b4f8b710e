"""Sets of classes: the adaptive prediction sets of conformal classification."""

from __future__ import annotations

import numpy as np

from .calibration import MAX_LEVEL


def set_levels(probs: np.ndarray, u: np.ndarray) -> np.ndarray:
    """Return the level of the smallest adaptive prediction set that contains each class.

    A set takes classes from the most probable one on, until their probabilities sum to its level;
    the last one is included at random, so that the probability of the set is exactly its level if
    the probabilities are correct. The set of level t consists of the classes whose level is at
    most t.

    Parameters
    ----------
    probs : ndarray of shape (n, n_classes)
        Probabilities of the classes.
    u : ndarray of shape (n,)
        Uniform numbers in [0, 1), one for each row.

    Returns
    -------
    ndarray of shape (n, n_classes)
        The probability of all more probable classes, plus `u` times that of the class itself. Of
        equally probable classes, the first comes first.

    References
    ----------
    Romano, Sesia and Candes (2020), "Classification with valid and adaptive coverage", equation 5.
    """
    order = np.argsort(-probs, axis=1, kind="stable")
    ordered = np.take_along_axis(probs, order, axis=1)
    ordered = ordered.cumsum(1) - (1 - u[:, None]) * ordered
    levels = np.empty_like(ordered)
    np.put_along_axis(levels, order, ordered, axis=1)
    return levels.clip(0, MAX_LEVEL)
