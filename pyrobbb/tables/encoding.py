"""Encoding of columns as inputs of a network, and a report on unseen and imputed values."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np

from .cells import Cells, count_of, quoted
from .notation import unlike_fit
from .number_format import PLAIN, NumberFormat

__all__ = ["Categorical", "Column", "Dropped", "EncodingReport", "Numeric"]


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
    """A column of numbers, or of dates as days since 1970-01-01.

    Attributes
    ----------
    name : str
    median : float
        Replacement for missing numbers.
    has_missing : bool
        Whether numbers were missing in the fit. If so, an indicator input is 1 where a number is
        missing and 0 elsewhere.
    is_date : bool
    number_format : NumberFormat
        How the numbers are written.
    """

    name: str
    median: float
    has_missing: bool = False
    is_date: bool = False
    number_format: NumberFormat = PLAIN

    @property
    def inputs(self) -> list[str]:
        """Names of the inputs of the network."""
        return [self.name, f"{self.name} is missing"] if self.has_missing else [self.name]

    def encode(self, cells: Cells, report: EncodingReport) -> np.ndarray:
        """Return the inputs, an array of shape (n, n_inputs)."""
        cells = cells.in_format(self.number_format)
        values = (cells.days if self.is_date else cells.numbers).copy()
        is_missing = ~cells.is_present
        is_bad = np.isnan(values) & ~is_missing
        if is_bad.any():
            if not self.is_date:
                raise unlike_fit(cells, is_bad)
            raise cells.first_error(
                is_bad,
                "is not a date such as 2024-01-31",
                ". Correct the cell, or leave it empty.",
            )
        cells.check_range(values)
        values[is_missing] = self.median
        if self.has_missing:
            return np.column_stack([values, is_missing])
        if is_missing.any():
            report.imputed[self.name] += int(is_missing.sum())
        return values[:, None]


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
