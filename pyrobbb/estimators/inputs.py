"""The inputs of an estimator: an array of numbers as it is, other columns of a frame encoded."""

from __future__ import annotations

import logging
from typing import Any

import numpy as np
from sklearn.utils.validation import check_array, check_X_y, validate_data

from ..columns import ColumnEncoder
from ..columns.errors import prefix_errors
from ..columns.frames import as_pandas, holds_numbers
from .preparation import numeric_array, plain_array, refuse_times

logger = logging.getLogger(__name__)


def validate_rows(
    estimator: Any, X: Any, y: Any, *, reset: bool, **options: Any
) -> tuple[np.ndarray, Any]:
    """Return X and y as scikit-learn's `validate_data` does, the columns of a frame encoded.

    Parameters
    ----------
    estimator : BBBEstimator
    X : array-like of shape (n, n_features)
    y : array-like of shape (n, ...)
    reset : bool
        Set ``columns_``, ``n_features_in_`` and ``feature_names_in_``. False: compare with them.
    **options
        Options of `validate_data` for y.

    Returns
    -------
    X : ndarray of shape (n, n_inputs), float64
    y : ndarray
    """
    if reset:
        estimator.columns_ = _infer(X) if estimator.columns == "auto" else None
    if estimator.columns_ is None:
        return validate_data(
            estimator, numeric_array("X", X), y, reset=reset, dtype=np.float64, **options
        )
    if reset:  # names and number of the columns as they are given
        validate_data(estimator, X, reset=True, skip_check_array=True)
    x = _encode(estimator.columns_, X)
    return check_X_y(x, y, dtype=np.float64, estimator=estimator, **options)


def validate_inputs(estimator: Any, X: Any) -> np.ndarray:
    """Return the inputs of new rows, encoded as in the fit.

    Returns
    -------
    ndarray of shape (n, n_inputs), float64
    """
    if estimator.columns_ is None:
        return validate_data(estimator, numeric_array("X", X), reset=False, dtype=np.float64)
    return check_array(_encode(estimator.columns_, X), dtype=np.float64, estimator=estimator)


def n_inputs(estimator: Any) -> int:
    """Return the number of inputs of the network of an estimator."""
    encoder: ColumnEncoder | None = estimator.columns_
    return estimator.n_features_in_ if encoder is None else len(encoder.inputs)


def _infer(X: Any) -> ColumnEncoder | None:
    """Return how the columns of X are encoded; None for an array, or a frame of numbers."""
    X = plain_array("X", X)
    with prefix_errors("`X`"):
        frame = as_pandas(X)
        if frame is None or holds_numbers(frame):
            return None
        refuse_times("X", X, ("timedelta", "duration"))
        encoder = ColumnEncoder.of(frame)
    for note in encoder.notes:
        logger.info("`X`: %s", note)
    return encoder


def _encode(encoder: ColumnEncoder, X: Any) -> np.ndarray:
    with prefix_errors("`X`"):
        frame = as_pandas(plain_array("X", X))
        if frame is None:
            raise TypeError(
                "`X` must be a data frame, as in the fit, whose columns were encoded, got "
                f"{type(X).__name__}: pass a frame with the columns {_names(encoder)}."
            )
        return encoder.encode(frame)


def _names(encoder: ColumnEncoder) -> str:
    names = [column.name for column in encoder.columns]
    return ", ".join(map(repr, names[:5])) + (", ..." if len(names) > 5 else "")
