"""The notation of the numbers of a column: inferred with a note, or refused with the bad cell."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from .cells import Cells, quoted
from .errors import TableError
from .number_format import (
    PLAIN,
    AmbiguousNumberError,
    NumberFormat,
    infer_format,
    is_plain,
    nearest_format,
    split,
)

__all__ = ["check_decimal_points", "in_inferred_format", "notation_error", "unlike_fit"]


def in_inferred_format(
    cells: Cells, decimal: str | None, remedy: str = ""
) -> tuple[Cells | None, list[str]]:
    """Return the cells in the one format in which all of them are numbers, and a note about it.

    Parameters
    ----------
    cells : Cells
    decimal : {".", ","}, optional
        Decimal separator. None: inferred.
    remedy : str
        What else the user can do if the cells are ambiguous.

    Returns
    -------
    cells : Cells or None
        None: there is no such format.
    notes : list of str
        Empty if all cells are plain numbers such as -1234.5.

    Raises
    ------
    TableError
        If the cells are different numbers in different formats.
    """
    if decimal != "," or not cells.has_strings:
        if cells.is_number[cells.is_present].all():
            return cells, _note(cells)
        if not cells.has_strings:
            return None, []
    distinct, _ = cells.distinct
    try:
        number_format = infer_format(distinct, decimal)
    except AmbiguousNumberError as error:
        first, second = (f"{value:.15g}" for value in error.values[:2])
        raise cells.error(
            cells.text.tolist().index(error.cell),
            f"may be {first} or {second}: {cells.remedies.decide_decimal}{remedy}.",
        ) from error
    if number_format is None:
        return None, []
    numbers = cells.in_format(number_format)
    return numbers, _note(numbers)


def notation_error(
    cells: Cells, decimal: str | None, share: float, options: str
) -> TableError | None:
    """Return an error if this share of the cells looks like numbers, although not all are.

    Parameters
    ----------
    cells : Cells
        Cells that are not all numbers in one format.
    decimal : {".", ","}, optional
    share : float
    options : str
        What the user can do other than to correct the cell.
    """
    distinct, counts = cells.distinct
    number_format, n_alike = nearest_format(distinct, counts, decimal)
    if not n_alike or n_alike < share * sum(counts):
        return None
    numbers = cells.in_format(number_format)
    is_bad = numbers.is_present & ~numbers.is_number
    n_numbers = int(numbers.is_number.sum())
    if not n_numbers:
        problem = "is not a plain number such as 1234.5"
        return numbers.first_error(is_bad, problem, f". Rewrite the column, or use {options}.")
    words = "" if number_format == PLAIN else f" {number_format}"
    return numbers.first_error(
        is_bad,
        f"is not a number{words}",
        f", while {n_numbers} cells of the column are. Correct the cell, leave it empty, or use "
        f"{options}.",
    )


def unlike_fit(cells: Cells, is_bad: np.ndarray) -> TableError:
    """Return an error about the first bad cell: it is not a number in the format of the fit."""
    remedy = ". Correct the cell, or leave it empty."
    if cells.number_format == PLAIN and split(cells.text[int(is_bad.argmax())]) is None:
        return cells.first_error(is_bad, "is not a number", remedy)
    return cells.first_error(
        is_bad,
        f"is not a number {cells.number_format}, as in the fit",
        f"{remedy}{cells.remedies.other_decimal}",
    )


def check_decimal_points(columns: Sequence[Cells]) -> None:
    """Raise if points in a column may separate thousands, because another has decimal commas.

    Parameters
    ----------
    columns : sequence of Cells
        Columns of numbers.
    """
    comma = next((cells for cells in columns if cells.number_format.decimal == ","), None)
    if comma is None:
        return
    for cells in columns:
        if cells.number_format != PLAIN or not cells.has_strings:
            continue
        pointed = [text for text in cells.distinct[0] if "." in text]
        values = [NumberFormat(",", ".").parse(text) for text in pointed]
        if pointed and not np.isnan(values).any():
            raise cells.error(
                cells.text.tolist().index(pointed[0]),
                f"may be {PLAIN.parse(pointed[0]):.15g} or {values[0]:.15g}, as column "
                f"{comma.name!r} has decimal commas. "
                + cells.remedies.comma.format(f"{values[0]:.15g}"),
            )


def _note(numbers: Cells) -> list[str]:
    if not numbers.has_strings:
        return []
    texts, _ = numbers.distinct
    example = next((text for text in texts if not is_plain(text)), None)
    if example is None:
        return []
    value = numbers.number_format.parse(example)
    return [
        f"Column {numbers.name!r} holds numbers {numbers.number_format}: {quoted(example)} is read "
        f"as {value:.15g}."
    ]
