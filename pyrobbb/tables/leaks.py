"""Leaks: columns that are nearly a function of the target, and may be unknown before it."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from ..columns.encoding import Categorical, Date
from .schema import Schema

__all__ = ["notes_on_leaks"]

MIN_ROWS = 20
"""With fewer rows, a column may order or separate the target by chance."""
MIN_RANK_CORRELATION = 0.999
MAX_UNEXPLAINED = 0.001
"""Largest share of the rows, or of the variance of the target, that a leak leaves unexplained."""
MIN_ROWS_PER_CATEGORY = 10


def notes_on_leaks(schema: Schema, x: np.ndarray, y: np.ndarray) -> list[str]:
    """Return a note for each column that alone nearly determines the target.

    That is a number whose rank correlation with the target exceeds 0.999, as of a logarithm of it,
    or of which each class has a range of its own, as of the score that a grade was given for; and
    categories that leave less than 0.001 of the variance of the target, or of the rows, open.
    Dates are left out: a target that rises with time is no leak.

    Parameters
    ----------
    schema : Schema
    x : ndarray of shape (n, n_inputs)
        Inputs, as encoded by the schema.
    y : ndarray of shape (n,)
        Numbers, or labels of classes.
    """
    if len(y) < MIN_ROWS:
        return []
    is_class = schema.task == "classification"
    target = np.unique(y, return_inverse=True)[1] if is_class else y
    notes = []
    for name, is_categorical, inputs in _columns(schema, x):
        if is_categorical:
            reason = _of_categories(inputs, target, is_class)
        else:
            reason = _of_classes(inputs, target) if is_class else _of_numbers(inputs, target)
        if reason:
            notes.append(
                f"Column {name!r} nearly determines the target {schema.target_name!r} ({reason}). "
                f"If it is not known before the target, --drop {name!r} leaves it out."
            )
    return notes


def _columns(schema: Schema, x: np.ndarray) -> Iterator[tuple[str, bool, np.ndarray]]:
    """Return name, kind and inputs of numbers, shape (n,), and of categories, shape (n, k)."""
    start = 0
    for column in schema.columns:
        inputs = x[:, start : start + len(column.inputs)]
        start += len(column.inputs)
        if isinstance(column, Categorical):
            yield column.name, True, inputs
        elif not isinstance(column, Date) and not (column.has_missing and inputs[:, 1].any()):
            yield column.name, False, inputs[:, 0]


def _of_numbers(values: np.ndarray, target: np.ndarray) -> str:
    import pandas as pd

    ranks = pd.DataFrame({"values": values, "target": target}).rank()
    correlation = float(ranks.corr().iloc[0, 1])
    is_leak = abs(correlation) > MIN_RANK_CORRELATION
    return f"rank correlation {correlation:.4f}" if is_leak else ""


def _of_classes(values: np.ndarray, target: np.ndarray) -> str:
    """Return a reason if nearly all rows, ordered by the values, are in one block per class."""
    import pandas as pd

    ordered = target[np.lexsort((target, values))]
    n_classes, n_blocks = len(np.unique(target)), 1 + int((ordered[1:] != ordered[:-1]).sum())
    counts = pd.DataFrame({"value": values, "target": target}).value_counts()
    n_tied = len(target) - int(counts.groupby("value").max().sum())  # with rows of another class
    is_leak = n_blocks - n_classes + n_tied <= MAX_UNEXPLAINED * len(target)
    return "each class has a range of its own" if is_leak else ""


def _of_categories(inputs: np.ndarray, target: np.ndarray, is_class: bool) -> str:
    counts = inputs.sum(0)
    if counts.min() < MIN_ROWS_PER_CATEGORY:
        return ""
    sums = inputs.T @ (np.eye(target.max() + 1)[target] if is_class else target[:, None])
    if is_class:
        unexplained = 1 - sums.max(1).sum() / len(target)
        reason = "each category has one class"
    else:
        between = (sums[:, 0] ** 2 / counts).sum() - target.sum() ** 2 / len(target)
        unexplained = 1 - between / max(len(target) * target.var(), 1e-300)
        reason = "each category has one value"
    return reason if unexplained < MAX_UNEXPLAINED else ""
