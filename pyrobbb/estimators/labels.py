"""Class labels: converted to an array of one type, and to class indices."""

from __future__ import annotations

import numbers
from typing import Any

import numpy as np
from sklearn.utils.validation import column_or_1d

MAX_LISTED = 10
"""Labels that a message lists at most."""


def as_labels(argument: str, labels: Any) -> np.ndarray:
    """Return labels as a one-dimensional array that can be sorted, or raise.

    Parameters
    ----------
    argument : str
        Name of the argument, for messages.
    labels : array-like of shape (n,) or (n, 1)
        Strings, or numbers including booleans. Objects become one of these types.
    """
    # NumPy would turn the numbers of a mixed list into strings.
    is_list = isinstance(labels, list | tuple)
    array = np.asarray(labels, dtype=object if is_list else None)
    if array.ndim != 1 and array.shape[1:] != (1,):
        raise ValueError(
            f"`{argument}` should be a 1d array, got an array of shape {array.shape} instead."
        )
    array = column_or_1d(array, warn=True)
    if array.dtype.kind != "O":
        return array
    values = array.tolist()
    if all(isinstance(value, str) for value in values):
        return np.array(values) if is_list else array
    if all(isinstance(value, numbers.Real | np.bool_) for value in values):
        return np.array(values)
    kinds = sorted({type(value).__name__.rstrip("_") for value in values})
    raise ValueError(
        f"`{argument}` must hold class labels of one type, strings or numbers, got "
        f"{' and '.join(kinds)}: convert them, and drop rows without a label."
    )


def known_classes(classes: Any) -> np.ndarray:
    """Return the sorted classes that a user lists, or raise if there are fewer than two."""
    unique = np.unique(as_labels("classes", classes))
    if unique.dtype.kind == "f" and not np.isfinite(unique).all():
        raise ValueError("`classes` must hold class labels, got NaN or infinity among them.")
    if len(unique) < 2:
        raise ValueError(
            f"`classes` must hold at least two classes, got {len(unique)}: list all that will "
            "occur."
        )
    return unique


def class_indices(labels: np.ndarray, classes: np.ndarray) -> np.ndarray:
    """Return the index of each label in the sorted classes, or raise for a label not in them."""
    if (labels.dtype.kind in "OUS") != (classes.dtype.kind in "OUS"):
        unknown = labels[:1]
    else:
        index = np.searchsorted(classes, labels).clip(max=len(classes) - 1)
        unknown = labels[classes[index] != labels]
    if len(unknown):
        raise ValueError(
            f"`y` must hold only classes of the first fit, {list_labels(classes)}, got "
            f"{unknown.tolist()[0]!r}."
        )
    return index


def list_labels(classes: np.ndarray) -> str:
    """Return the labels as text, the first ten of many."""
    shown = classes[:MAX_LISTED].tolist()
    more = len(classes) - len(shown)
    return f"{shown}" + (f" and {more} more" if more > 0 else "")
