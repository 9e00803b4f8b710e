"""Inference of what a column holds from its cells: numbers, dates, categories or identifiers."""

from __future__ import annotations

from collections import Counter

import numpy as np

from .._core.display import count_of
from .cells import Cells, quoted
from .dates import LAYOUTS, cycles_in, days_by_layout, infer_layouts, nearest_layout
from .encoding import Categorical, Column, Date, Dropped, Numeric
from .notation import in_inferred_format, notation_error

__all__ = ["NEARLY_ALL", "infer_column", "is_constant"]

MAX_CATEGORIES = 50
NEARLY_ALL = 0.8
"""If at least this share of cells is of one kind, the others are regarded as mistakes."""
NEARLY_DISTINCT = 0.9
FEW_VALUES = 10
ROUNDING = 1e-12
"""Numbers are equal if their relative difference is at most this."""
MIN_SPREAD = 1e-100
"""The square of a smaller difference underflows."""


def infer_column(
    cells: Cells, *, is_categorical: bool = False, decimal: str | None = None
) -> tuple[Column | Dropped, list[str]]:
    """Return how a column is encoded, or why it is left out.

    Parameters
    ----------
    cells : Cells
        All rows of the fit.
    is_categorical : bool
        Whether the user declared the column categorical.
    decimal : {".", ","}, optional
        Decimal separator. None: inferred.

    Returns
    -------
    column : Numeric, Date, Categorical or Dropped
    notes : list of str
        Decisions that the user should know about.

    Raises
    ------
    TableError
        If a cell is a mistake, or the user has to decide how to treat the column.
    """
    n_present = int(cells.is_present.sum())
    if not n_present:
        return Dropped(cells.name, "all cells are missing"), []
    if is_categorical or cells.are_categories:
        return _infer_categorical(cells, n_present)
    options = cells.remedies.either(cells.name)
    numbers, notes = in_inferred_format(cells, decimal, f", or use {options}")
    if numbers is not None:
        column, further = _infer_numeric(numbers, n_present)
        return column, [*notes, *further]
    error = notation_error(cells, decimal, NEARLY_ALL, options)
    if error is not None:
        raise error
    dates = _infer_dates(cells)
    if dates is not None:
        return dates
    column, notes = _infer_categorical(cells, n_present)
    n_numbers = int(cells.is_number.sum())
    if n_numbers and isinstance(column, Categorical):
        notes.append(
            f"Column {cells.name!r} mixes {n_numbers} numbers with {n_present - n_numbers} other "
            "cells: all are treated as categories."
        )
    return column, notes


def is_constant(values: np.ndarray) -> bool:
    """Return whether numbers are equal up to floating-point precision."""
    spread = values.max() - values.min()
    return bool(spread <= max(ROUNDING * np.abs(values).max(), MIN_SPREAD))


def _infer_numeric(cells: Cells, n_present: int) -> tuple[Column | Dropped, list[str]]:
    name, values = cells.name, cells.numbers[cells.is_number]
    remedies = cells.remedies
    cells.check_range(cells.numbers)
    # Counted as strings, because large integers may become equal as floats.
    n_distinct = len(set(cells.text[cells.is_present]))
    if cells.has_inexact_integers and n_distinct >= max(2, NEARLY_DISTINCT * n_present):
        return Dropped(name, "an identifier: distinct integers beyond 2^53"), []
    if is_constant(values):
        where = "" if n_present == len(cells.column) else " except where it is missing"
        if values.max() != values.min():
            return Dropped(name, f"constant up to rounding{where}"), []
        return Dropped(name, f"constant{where}"), []
    notes = []
    has_only_integers = cells.has_only_integers
    if cells.has_inexact_integers:
        notes.append(
            f"Column {name!r} holds integers beyond 2^53, which floating point cannot "
            "represent exactly."
        )
    elif has_only_integers and n_distinct == n_present and np.ptp(values) == n_present - 1:
        if _is_named_like_id(name):
            return Dropped(name, "an identifier: it numbers the rows"), []
        notes.append(
            f"Column {name!r} numbers the rows, and is treated as a number; "
            f"{remedies.drop.format(repr(name))} leaves it out."
        )
    elif has_only_integers and 2 < n_distinct <= FEW_VALUES:
        notes.append(
            f"Column {name!r} has {n_distinct} distinct integers, and is treated as a number; "
            f"{remedies.categories.format(repr(name))} makes it categorical."
        )
    median, n_missing = float(np.median(values)), len(cells.column) - n_present
    notes += _note_on_missing(name, n_missing, f"the median, {median:g}")
    return Numeric(name, median, n_missing > 0, number_format=cells.number_format), notes


def _infer_dates(cells: Cells) -> tuple[Column | Dropped, list[str]] | None:
    """Return how a column of dates is encoded, or why it is left out; None if it holds others."""
    days_in, name = days_by_layout(cells), cells.name
    layouts = infer_layouts(days_in, cells.is_present)
    if len(layouts) > 1:
        reason = (
            f"{quoted(cells.text[cells.is_present][0])} may be {' or '.join(layouts)}; write dates "
            "as 2024-01-31 to use the column"
        )
        return Dropped(name, reason), []
    if not layouts:
        layout, is_date = nearest_layout(days_in)
        is_other = cells.is_present & ~is_date
        n_present = int(cells.is_present.sum())
        if is_date.sum() < NEARLY_ALL * n_present:
            return None
        reason = (
            f"{is_date.sum()} of {count_of(n_present, 'cell')} are dates such as "
            f"{LAYOUTS[layout].example}, but {quoted(cells.text[is_other][0])} is not; correct or "
            "empty such cells to use the column"
        )
        return Dropped(name, reason), []
    days = days_in[layouts[0]][cells.is_present]
    if is_constant(days):
        return Dropped(name, "constant"), []
    cycles = cycles_in(days)
    waves = f", and cycles: {', '.join(cycles)}" if cycles else ""
    note = f"Column {name!r} holds dates, encoded as days since 1970-01-01 (UTC){waves}."
    if layouts[0] != next(iter(LAYOUTS)):
        note += f" They are read as {layouts[0]}."
    median, n_missing = float(np.median(days)), len(cells.column) - len(days)
    notes = [note, *_note_on_missing(name, n_missing, "the median date")]
    return Date(name, median, layouts[0], cycles, n_missing > 0), notes


def _infer_categorical(cells: Cells, n_present: int) -> tuple[Column | Dropped, list[str]]:
    name, has_missing = cells.name, n_present < len(cells.column)
    counts = Counter(cells.labels[cells.is_present])
    if len(counts) == 1 and not has_missing:
        return Dropped(name, "constant"), []
    if len(counts) > 1 and len(counts) >= NEARLY_DISTINCT * n_present:
        return Dropped(name, "an identifier: nearly all cells are distinct"), []
    if len(counts) <= MAX_CATEGORIES:
        return Categorical(name, tuple(sorted(counts)), has_missing), []
    common = sorted(counts, key=lambda category: (-counts[category], category))[:MAX_CATEGORIES]
    n_rare = sum(n for category, n in counts.items() if category not in set(common))
    note = (
        f"Column {name!r} has {len(counts)} categories: the {MAX_CATEGORIES} most frequent have an "
        f"input each, the others ({count_of(n_rare, 'row')}) have none."
    )
    return Categorical(name, tuple(sorted(common)), has_missing, is_pooled=True), [note]


def _note_on_missing(name: str, n_missing: int, replacement: str) -> list[str]:
    if not n_missing:
        return []
    return [
        f"Column {name!r} has {count_of(n_missing, 'missing cell')}, imputed with {replacement}; "
        "a further input indicates where."
    ]


def _is_named_like_id(name: str) -> bool:
    words = name.lower().replace("_", " ").replace("-", " ").replace(":", " ").split()
    return bool(words) and (
        words[0] in ("column", "unnamed", "index", "row", "nr", "no") or words[-1] == "id"
    )
