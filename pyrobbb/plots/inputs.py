"""Arguments of plots, checked: predictions, columns of numbers, labels and trees."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from .._core.arrays import ArrayLike, as_tensor, to_numpy
from ..prediction import ClassificationPrediction, RegressionPrediction

if TYPE_CHECKING:
    import xarray


def check_type(argument: str, value: Any, kind: type, remedy: str = "") -> None:
    """Raise a TypeError unless the value of an argument is an instance of a class."""
    if not isinstance(value, kind):
        raise TypeError(
            f"`{argument}` must be a {kind.__name__}, got a {type(value).__name__}"
            + (f": {remedy}." if remedy else ".")
        )


def as_column(
    argument: str, values: ArrayLike, prediction: RegressionPrediction
) -> np.ndarray[Any, Any]:
    """Return finite numbers, one for each value of a regression's prediction, as a flat array."""
    column = to_numpy(as_tensor(argument, values)).reshape(-1)
    shape = np.shape(prediction.mean)
    if column.size != np.prod(shape):
        raise ValueError(
            f"`{argument}` must hold {np.prod(shape)} numbers, one for each value of the "
            f"prediction of shape {shape}, got {column.size}"
            + (": plot one column, prediction.column(j)." if np.prod(shape[1:]) > 1 else ".")
        )
    return column


def as_class_indices(y: ArrayLike, prediction: ClassificationPrediction) -> np.ndarray[Any, Any]:
    """Return the observed classes, one for each row of a prediction, as a flat array."""
    labels = to_numpy(as_tensor("y", y)).reshape(-1)
    n_rows, n_classes = np.shape(prediction.probs)
    if len(labels) != n_rows:
        raise ValueError(
            f"`y` must hold {n_rows} classes, one for each row of the prediction, got "
            f"{len(labels)}."
        )
    wrong = ~np.isin(labels, np.arange(n_classes))
    if wrong.any():
        raise ValueError(
            f"`y` must hold class indices from 0 to {n_classes - 1}, got {labels[wrong][0]} in row "
            f"{int(wrong.argmax())}."
        )
    return labels


def check_tree(tree: Any, groups: Sequence[str]) -> None:
    """Raise unless an argument is a DataTree with these groups."""
    import xarray

    remedy = "make it with posterior.to_arviz(x, y) or pyrobbb.from_pyro(...)"
    check_type("tree", tree, xarray.DataTree, remedy)
    for group in groups:
        if group not in tree.children:
            raise ValueError(f"`tree` has no group {group!r}: {remedy}.")


def check_one_column(tree: xarray.DataTree) -> None:
    """Raise unless each observed variable has a single column."""
    for name, y in tree["observed_data"].to_dataset().items():
        if y.ndim > 1 and np.prod(y.shape[1:]) > 1:
            raise ValueError(
                f"`tree` must have one column of {name}, got {int(np.prod(y.shape[1:]))}: fit or "
                "convert one at a time."
            )
