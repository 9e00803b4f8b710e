"""Encoding of columns as inputs of a network, and a report on unseen and imputed values."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np

from .._core.display import count_of
from .cells import Cells, quoted
from .dates import CYCLES, LAYOUTS, days_of
from .notation import unlike_fit
from .number_format import PLAIN, NumberFormat

__all__ = ["Categorical", "Column", "Date", "Dropped", "EncodingReport", "Numeric"]


@dataclass
class EncodingReport:
    """Unseen categories and imputed values in the rows that were encoded.

    Attributes
    ----------
    unseen : Counter of (column, category)
        Categories that did not occur in the fit.
    imputed : Counter of column
        Missing numbers in columns without missing numbers in the fit.
    """

    unseen: Counter[tuple[str, str]] = field(default_factory=Counter)
    imputed: Counter[str] = field(default_factory=Counter)

    def messages(self, max_cases: int = 5) -> Iterator[str]:
        """Return one message for the unseen categories and one for the imputed values."""
        if self.unseen:
            cases = [
                f"{column} {quoted(category)} ({count_of(n, 'row')})"
                for (column, category), n in self.unseen.most_common(max_cases)
            ]
            n_more = len(self.unseen) - len(cases)
            cases += [f"and {n_more} more"] if n_more else []
            yield f"Categories unseen in the fit are encoded as zeros: {', '.join(cases)}."
        if self.imputed:
            cases = [
                f"{column} ({count_of(n, 'row')})"
                for column, n in self.imputed.most_common(max_cases)
            ]
            n_more = len(self.imputed) - len(cases)
            cases += [f"and {count_of(n_more, 'more column')}"] if n_more else []
            yield (
                "Missing numbers, of which the fit had none, are imputed with the median: "
                f"{', '.join(cases)}."
            )


@dataclass(frozen=True)
class Numeric:
    """A column of numbers.

    Attributes
    ----------
    name : str
    median : float
        Replacement for missing numbers.
    has_missing : bool
        Whether numbers were missing in the fit. If so, an indicator input is 1 where a number is
        missing and 0 elsewhere.
    number_format : NumberFormat
        How the numbers are written.
    """

    name: str
    median: float
    has_missing: bool = False
    number_format: NumberFormat = PLAIN

    @property
    def inputs(self) -> list[str]:
        """Names of the inputs of the network."""
        return [self.name, f"{self.name} is missing"] if self.has_missing else [self.name]

    def encode(self, cells: Cells, report: EncodingReport) -> np.ndarray:
        """Return the inputs, an array of shape (n, n_inputs)."""
        cells = cells.in_format(self.number_format)
        values = cells.numbers.copy()
        is_missing = ~cells.is_present
        is_bad = np.isnan(values) & ~is_missing
        if is_bad.any():
            raise unlike_fit(cells, is_bad)
        cells.check_range(values)
        values[is_missing] = self.median
        return _with_missing(self, [values], is_missing, report)


@dataclass(frozen=True)
class Date:
    """A column of dates: days since 1970-01-01, and a sine and a cosine for each cycle.

    Attributes
    ----------
    name : str
    median : float
        Replacement for missing dates, in days.
    layout : str
        Key of `dates.LAYOUTS`.
    cycles : tuple of str
        Keys of `dates.CYCLES`.
    has_missing : bool
        As for `Numeric`.
    """

    name: str
    median: float
    layout: str
    cycles: tuple[str, ...] = ()
    has_missing: bool = False

    @property
    def inputs(self) -> list[str]:
        """Names of the inputs of the network."""
        names = [f"{self.name} {cycle}, {wave}" for cycle in self.cycles for wave in ("sin", "cos")]
        return [self.name, *names, *([f"{self.name} is missing"] if self.has_missing else [])]

    def encode(self, cells: Cells, report: EncodingReport) -> np.ndarray:
        """Return the inputs, an array of shape (n, n_inputs)."""
        days, is_missing = days_of(cells, self.layout), ~cells.is_present
        is_bad = np.isnan(days) & ~is_missing
        if is_bad.any():
            raise cells.first_error(
                is_bad,
                f"is not a date such as {LAYOUTS[self.layout].example}",
                ". Correct the cell, or leave it empty.",
            )
        days[is_missing] = self.median
        angles = [2 * np.pi * CYCLES[cycle](days) for cycle in self.cycles]
        waves = [wave(angle) for angle in angles for wave in (np.sin, np.cos)]
        return _with_missing(self, [days, *waves], is_missing, report)


def _with_missing(
    column: Numeric | Date, inputs: list[np.ndarray], is_missing: np.ndarray, report: EncodingReport
) -> np.ndarray:
    """Return the inputs of imputed cells, with the indicator if the column has one."""
    if column.has_missing:
        inputs = [*inputs, is_missing]
    elif is_missing.any():
        report.imputed[column.name] += int(is_missing.sum())
    return np.column_stack(inputs)


@dataclass(frozen=True)
class Categorical:
    """A column of categories, one-hot encoded.

    Attributes
    ----------
    name : str
    categories : tuple of str
    has_missing : bool
        Whether missing cells form an additional, last category.
    is_pooled : bool
        Whether the fit had further categories that were too rare to get an input.
    """

    name: str
    categories: tuple[str, ...]
    has_missing: bool = False
    is_pooled: bool = False

    @property
    def inputs(self) -> list[str]:
        """Names of the inputs of the network."""
        names = [f"{self.name} = {category}" for category in self.categories]
        return [*names, f"{self.name} is missing"] if self.has_missing else names

    def encode(self, cells: Cells, report: EncodingReport) -> np.ndarray:
        """Return the inputs, an array of shape (n, n_inputs)."""
        positions = {category: i for i, category in enumerate(self.categories)}
        index = np.array([positions.get(label, -1) for label in cells.labels], dtype=int)
        encoded = np.zeros((len(index), len(self.inputs)))
        is_known = index >= 0
        encoded[is_known, index[is_known]] = 1
        is_missing = ~cells.is_present
        if self.has_missing:
            encoded[is_missing, -1] = 1
        elif is_missing.any():
            report.unseen[self.name, "(missing)"] += int(is_missing.sum())
        if not self.is_pooled:
            unseen = cells.labels[~is_known & ~is_missing]
            report.unseen.update((self.name, category) for category in unseen)
        return encoded


Column = Numeric | Date | Categorical


@dataclass(frozen=True)
class Dropped:
    """A column that is left out.

    Attributes
    ----------
    name, reason : str
    """

    name: str
    reason: str
