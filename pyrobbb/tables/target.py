"""Inference of the task and the classes from the target column."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import Literal

import numpy as np

from ..columns.cells import MAX_EXACT_INTEGER, Cells
from ..columns.dates import days_by_layout, nearest_layout
from ..columns.errors import TableError
from ..columns.inference import NEARLY_ALL, is_constant
from ..columns.notation import in_inferred_format, notation_error
from ..columns.number_format import NumberFormat

__all__ = ["Label", "Task", "infer_target", "label_of"]

Task = Literal["regression", "classification"]
Label = int | float | str

OPTION = "--task classification"
MOST = 0.5
"""If at least this share of the target looks like numbers, the others are regarded as mistakes."""
FEW_CLASSES = 10
"""Integers with at most this many distinct values are inferred to be classes, unless they look like
counts: of at least `FEWEST_COUNTS` values, the largest is at most `RARE` times as frequent as the
most frequent one, which is in the lowest third."""
FEWEST_COUNTS, RARE = 5, 0.1


def infer_target(
    cells: Cells, task: Task | None = None, decimal: str | None = None
) -> tuple[Task, tuple[Label, ...], list[str], NumberFormat]:
    """Return the task, the classes, notes for the user, and how the numbers are written.

    Parameters
    ----------
    cells : Cells
        The target column, without missing cells.
    task : {"regression", "classification"}, optional
        None: inferred from the values, with a note.
    decimal : {".", ","}, optional
        Decimal separator. None: inferred.

    Returns
    -------
    task : {"regression", "classification"}
    classes : tuple of int, float or str
        Sorted; empty for a regression.
    notes : list of str
    number_format : NumberFormat

    Raises
    ------
    TableError
        If the column cannot be the target of the task.
    """
    name, n_rows = cells.name, len(cells.column)
    notes: list[str] = []
    if task != "classification":
        numbers, notes = in_inferred_format(cells, decimal, ", or use --task classification")
        cells = cells if numbers is None else numbers
    n_numbers = int(cells.is_number.sum())
    counts = Counter(cells.labels.tolist())
    if n_numbers == n_rows:
        cells.check_range(cells.numbers)
        if is_constant(cells.numbers):
            raise TableError(
                f"column {name!r}, the target, is constant ({next(iter(counts))}) up to rounding: "
                "there is nothing to predict. Rescale it, or choose another."
            )
    if task is None:
        task, reason = _infer_task(cells, len(counts), decimal)
        notes.append(f"The task is inferred to be {task}: the target {name!r} {reason}.")
    if task == "classification":
        classes = _classes(cells, counts)
        rare = [str(label) for label, n in counts.items() if n == 1]
        if rare:
            notes.append(f"Some classes have a single row: {', '.join(rare[:5])}.")
        return task, classes, notes, cells.number_format
    if n_numbers < n_rows:
        raise notation_error(cells, decimal, MOST, OPTION) or cells.error(
            int((~cells.is_number).argmax()),
            "is not a number, which a regression needs. Correct the cell, leave it empty, or use "
            f"{OPTION}.",
        )
    if cells.has_inexact_integers:
        notes.append(
            f"The target {name!r} holds integers beyond 2^53, which floating point cannot "
            "represent exactly."
        )
    return task, (), notes, cells.number_format


def label_of(value: Label) -> str:
    """Return the string that `Cells.labels` has for a class."""
    if isinstance(value, float) and value.is_integer():
        return str(int(value))
    return value if isinstance(value, str) else repr(value)


def _infer_task(cells: Cells, n_distinct: int, decimal: str | None) -> tuple[Task, str]:
    n_rows, n_numbers = len(cells.column), int(cells.is_number.sum())
    if n_numbers < n_rows:
        _, is_date = nearest_layout(days_by_layout(cells))
        if is_date.sum() >= NEARLY_ALL * n_rows:
            raise cells.error(
                int(is_date.argmax()),
                "is a date, but a target must be a number or a class. Convert the column.",
            )
        error = notation_error(cells, decimal, MOST, OPTION)
        if error is not None:
            raise error
        return "classification", f"holds {n_distinct} distinct strings"
    if _are_counts(cells):
        largest = int(cells.numbers.max())
        return "regression", f"holds counts up to {largest} (--task classification overrides this)"
    is_few = n_distinct <= min(FEW_CLASSES, n_rows / 5)
    if n_distinct <= 2 or (cells.has_only_integers and is_few):
        reason = f"has {n_distinct} distinct numbers (--task regression overrides this)"
        return "classification", reason
    return "regression", f"holds {n_distinct} distinct numbers"


def _are_counts(cells: Cells) -> bool:
    """Return whether integers from 0 or 1 up become rarer from the most frequent one on.

    Codes of classes rarely do: the largest would have to be rare, and the smallest frequent.
    """
    if not cells.has_only_integers or cells.numbers.min() not in (0, 1):
        return False
    values, n = np.unique(cells.numbers, return_counts=True)
    mode = int(n.argmax())
    is_skewed = mode <= (len(values) - 1) / 3 and n[-1] <= RARE * n[mode]
    return bool(len(values) >= FEWEST_COUNTS and is_skewed)


def _classes(cells: Cells, counts: Mapping[str, int]) -> tuple[Label, ...]:
    """Return the sorted classes: numbers if all of them are, strings otherwise."""
    name, n_rows = cells.name, len(cells.column)
    if len(counts) == 1:
        raise TableError(
            f"column {name!r}, the target, has a single class, {next(iter(counts))!r}: there is "
            "nothing to predict."
        )
    if len(counts) > n_rows / 2:
        raise TableError(
            f"column {name!r}, the target, has {len(counts)} classes in {n_rows} rows, which is "
            "too many to learn. Is it an identifier, or should the task be --task regression?"
        )
    if not cells.is_number.all() or (np.abs(cells.numbers) >= MAX_EXACT_INTEGER).any():
        return tuple(sorted(counts))
    values = sorted(map(float, counts))
    are_integers = all(value.is_integer() for value in values)
    return tuple(map(int, values)) if are_integers else tuple(values)
