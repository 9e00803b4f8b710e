"""Columns of a table as inputs of a network: what each is taken to be, and how it is encoded."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np

from .cells import Cells, shown

__all__ = ["Categorical", "Column", "Dropped", "Numeric", "Tally", "judge"]

MAX_CATEGORIES = 50
NEARLY_ALL = 0.8
"""From this share of numbers on, cells that are none are mistakes and no categories."""
NEARLY_DISTINCT = 0.9
FEW_VALUES = 10
ROUNDING = 1e-12
"""Numbers that differ by less than this part of their size are equal."""
LEAST_SPREAD = 1e-100
"""Squares of smaller differences leave the range of floats."""


@dataclass
class Tally:
    """What had to be put up with in the rows that were encoded.

    Attributes
    ----------
    unknown : Counter of (column, category)
        Categories that the fit did not see.
    filled : Counter of column
        Missing numbers where the fit had none missing.
    """

    unknown: Counter[tuple[str, str]] = field(default_factory=Counter)
    filled: Counter[str] = field(default_factory=Counter)

    def lines(self, at_most: int = 5) -> Iterator[str]:
        """Give a line on each kind of thing."""
        if self.unknown:
            cases = [
                f"{column} {shown(category)} ({_rows(n)})"
                for (column, category), n in self.unknown.most_common(at_most)
            ]
            more = len(self.unknown) - len(cases)
            cases += [f"and {more} more"] if more else []
            yield f"Categories that the fit did not see count as none: {', '.join(cases)}."
        if self.filled:
            cases = [f"{column} ({_rows(n)})" for column, n in self.filled.most_common(at_most)]
            more = len(self.filled) - len(cases)
            cases += [f"and {more} more columns"] if more else []
            yield f"Missing numbers, of which the fit had none, become medians: {', '.join(cases)}."


@dataclass(frozen=True)
class Numeric:
    """A column of numbers, or of dates as days since 1970-01-01.

    Attributes
    ----------
    name : str
    median : float
        In the place of a missing number.
    has_missing : bool
        Whether the fit had missing ones; then a further input is 1 where one is missing, else 0.
    is_date : bool
    """

    name: str
    median: float
    has_missing: bool = False
    is_date: bool = False

    @property
    def inputs(self) -> list[str]:
        """Names of the inputs it makes."""
        return [self.name, f"{self.name} is missing"] if self.has_missing else [self.name]

    def encode(self, cells: Cells, tally: Tally) -> np.ndarray:
        """Give an array of shape (n, n_inputs)."""
        values = (cells.days if self.is_date else cells.numbers).copy()
        is_missing = ~cells.is_present
        is_bad = np.isnan(values) & ~is_missing
        if is_bad.any():
            kind = "no date like 2024-01-31" if self.is_date else "no number"
            raise cells.error(
                int(is_bad.argmax()),
                f"is {kind}{_and_others(is_bad)}. Correct the cell, or leave it empty.",
            )
        cells.check_range(values)
        values[is_missing] = self.median
        if self.has_missing:
            return np.column_stack([values, is_missing])
        if is_missing.any():
            tally.filled[self.name] += int(is_missing.sum())
        return values[:, None]


@dataclass(frozen=True)
class Categorical:
    """A column of categories, one input each: 1 where a row belongs to it, else 0.

    Attributes
    ----------
    name : str
    categories : tuple of str
    has_missing : bool
        Whether to be missing is a category too, the last.
    is_pooled : bool
        Whether the fit had more categories, too rare for inputs of their own.
    """

    name: str
    categories: tuple[str, ...]
    has_missing: bool = False
    is_pooled: bool = False

    @property
    def inputs(self) -> list[str]:
        """Names of the inputs it makes."""
        names = [f"{self.name} = {category}" for category in self.categories]
        return [*names, f"{self.name} is missing"] if self.has_missing else names

    def encode(self, cells: Cells, tally: Tally) -> np.ndarray:
        """Give an array of shape (n, n_inputs)."""
        positions = {category: i for i, category in enumerate(self.categories)}
        found = np.array([positions.get(label, -1) for label in cells.labels], dtype=int)
        encoded = np.zeros((len(found), len(self.inputs)))
        known = found >= 0
        encoded[known, found[known]] = 1
        is_missing = ~cells.is_present
        if self.has_missing:
            encoded[is_missing, -1] = 1
        elif is_missing.any():
            tally.unknown[self.name, "(missing)"] += int(is_missing.sum())
        if not self.is_pooled:
            unknown = cells.labels[~known & ~is_missing]
            tally.unknown.update((self.name, category) for category in unknown)
        return encoded


Column = Numeric | Categorical


@dataclass(frozen=True)
class Dropped:
    """A column that is left out.

    Attributes
    ----------
    name, reason : str
    """

    name: str
    reason: str


def judge(cells: Cells, *, is_categorical: bool = False) -> tuple[Column | Dropped, list[str]]:
    """Say what a column is to be taken for.

    Parameters
    ----------
    cells : Cells
        Of all rows of the fit.
    is_categorical : bool
        Whether it was said to be, whatever the cells look like.

    Returns
    -------
    column : Numeric, Categorical or Dropped
    notes : list of str
        What else there is to say of it.

    Raises
    ------
    TableError
        For a cell that is a mistake, or a column that only a person can judge.
    """
    n_present = int(cells.is_present.sum())
    if not n_present:
        return Dropped(cells.name, "all cells are missing"), []
    if is_categorical:
        return _categorical(cells, n_present)
    n_numbers = int(cells.is_number.sum())
    if n_numbers == n_present:
        return _numeric(cells, n_present)
    if n_numbers >= NEARLY_ALL * n_present:
        is_bad = cells.is_present & ~cells.is_number
        raise cells.error(
            int(is_bad.argmax()),
            f"is no number{_and_others(is_bad)}, while {n_numbers} cells of the column are. "
            f"Correct the cell, leave it empty, or use {_options(cells.name)}.",
        )
    if int((cells.is_number | cells.is_decorated).sum()) >= NEARLY_ALL * n_present:
        raise cells.error(
            int(cells.is_decorated.argmax()),
            f"is no plain number such as 1234.5{_and_others(cells.is_decorated)}. Rewrite the "
            f"column, or use --decimal , or {_options(cells.name)}.",
        )
    is_day = ~np.isnan(cells.days)
    if is_day.sum() == n_present:
        return _dates(cells)
    if (cells.is_date | is_day).sum() >= NEARLY_ALL * n_present:
        is_bad = cells.is_present & ~is_day
        raise cells.error(
            int(is_bad.argmax()),
            f"is no date in the order year-month-day{_and_others(is_bad)}. Write 2024-01-31, or "
            f"use {_options(cells.name)}.",
        )
    column, notes = _categorical(cells, n_present)
    if n_numbers and isinstance(column, Categorical):
        notes.append(
            f"Column {cells.name!r} mixes {n_numbers} numbers with {n_present - n_numbers} other "
            "cells: all are taken as categories."
        )
    return column, notes


def is_constant(values: np.ndarray) -> bool:
    """Say whether numbers are equal up to rounding, or to what floats can tell apart."""
    spread = values.max() - values.min()
    return bool(spread <= max(ROUNDING * np.abs(values).max(), LEAST_SPREAD))


def _numeric(cells: Cells, n_present: int) -> tuple[Column | Dropped, list[str]]:
    name, values = cells.name, cells.numbers[cells.is_number]
    cells.check_range(cells.numbers)
    # Counted as they stand there: as floats, large ones would be equal.
    n_distinct = len(set(cells.text[cells.is_present]))
    if cells.is_beyond_exact and n_distinct >= max(2, NEARLY_DISTINCT * n_present):
        return Dropped(name, "an identifier: distinct whole numbers beyond 2^53"), []
    if is_constant(values):
        where = "" if n_present == len(cells.column) else " where it is not missing"
        if values.max() != values.min():
            return Dropped(name, f"constant up to rounding{where}"), []
        return Dropped(name, f"constant{where}"), []
    notes = []
    is_whole, is_distinct = cells.is_whole, n_distinct == n_present
    if cells.is_beyond_exact:
        notes.append(f"Column {name!r} holds whole numbers beyond 2^53, which floats round.")
    elif is_whole and is_distinct and np.ptp(values) == n_present - 1:
        if _is_called_id(name):
            return Dropped(name, "an identifier: it numbers the rows"), []
        notes.append(
            f"Column {name!r} counts the rows, and is taken as a number; --drop {name!r} leaves "
            "it out."
        )
    elif is_whole and 2 < n_distinct <= FEW_VALUES:
        notes.append(
            f"Column {name!r} has {n_distinct} distinct whole numbers, and is taken as a number; "
            f"--categorical {name!r} makes them categories."
        )
    median, n_missing = float(np.median(values)), len(cells.column) - n_present
    notes += _note_on_missing(name, n_missing, f"{median:g}")
    return Numeric(name, median, n_missing > 0), notes


def _dates(cells: Cells) -> tuple[Column | Dropped, list[str]]:
    days = cells.days[cells.is_present]
    if is_constant(days):
        return Dropped(cells.name, "constant"), []
    note = f"Column {cells.name!r} holds dates, taken as days since 1970-01-01 (UTC)."
    median, n_missing = float(np.median(days)), len(cells.column) - len(days)
    notes = [note, *_note_on_missing(cells.name, n_missing, "the one in the middle")]
    return Numeric(cells.name, median, n_missing > 0, is_date=True), notes


def _categorical(cells: Cells, n_present: int) -> tuple[Column | Dropped, list[str]]:
    name, has_missing = cells.name, n_present < len(cells.column)
    counts = Counter(cells.labels[cells.is_present])
    if len(counts) == 1 and not has_missing:
        return Dropped(name, "constant"), []
    if len(counts) > 1 and len(counts) >= NEARLY_DISTINCT * n_present:
        return Dropped(name, "an identifier: nearly all cells are distinct"), []
    if len(counts) <= MAX_CATEGORIES:
        also = " and what is missing" if has_missing else ""
        note = f"Column {name!r} is taken as categories: {len(counts)}{also}."
        return Categorical(name, tuple(sorted(counts)), has_missing), [note]
    common = sorted(counts, key=lambda category: (-counts[category], category))[:MAX_CATEGORIES]
    n_rare = sum(n for category, n in counts.items() if category not in set(common))
    note = (
        f"Column {name!r} has {len(counts)} categories: the {MAX_CATEGORIES} most frequent have an "
        f"input each, the others ({_rows(n_rare)}) none."
    )
    return Categorical(name, tuple(sorted(common)), has_missing, is_pooled=True), [note]


def _note_on_missing(name: str, n_missing: int, median: str) -> list[str]:
    if not n_missing:
        return []
    return [
        f"Column {name!r} misses {_cells(n_missing)}: the median, {median}, takes their place, and "
        "a further input tells where."
    ]


def _is_called_id(name: str) -> bool:
    plain = name.lower().replace("_", " ").replace("-", " ").replace(":", " ").split()
    return bool(plain) and (
        plain[0] in ("column", "unnamed", "index", "row", "nr", "no") or plain[-1] == "id"
    )


def _options(name: str) -> str:
    return f"--categorical {name!r} or --drop {name!r}"


def _and_others(is_bad: np.ndarray) -> str:
    n_others = int(is_bad.sum()) - 1
    return f" (as {n_others} more {'is' if n_others == 1 else 'are'})" if n_others else ""


def _cells(n: int) -> str:
    return f"{n} cell" if n == 1 else f"{n} cells"


def _rows(n: int) -> str:
    return f"{n} row" if n == 1 else f"{n} rows"
