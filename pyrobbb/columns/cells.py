"""Cells of one column: missing values, numbers, dates and labels."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np

from .._core.display import count_of
from .errors import TableError
from .number_format import PLAIN, NumberFormat
from .remedies import COMMAND_LINE, Remedies

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["MAX_EXACT_INTEGER", "Cells", "quoted"]

# The missing values of pandas, plus the question mark of the UCI repository.
MISSING = frozenset(
    ["", "#N/A", "#NA", "<NA>", "N/A", "NA", "NULL", "NaN", "None", "n/a", "nan", "null", "?"]
)
MAX_MAGNITUDE = 1e100
"""The square of a larger number, which a standard deviation needs, may overflow."""
MAX_EXACT_INTEGER = 2**53
"""Integers up to this one are exact in floating point."""


@dataclass(frozen=True, eq=False)
class Cells:
    """The cells of one column of a table.

    Parameters
    ----------
    column : Series
        Strings or typed values. Its name is the column's name; its index locates the rows in the
        file, as described in `TableFile.chunks`.
    number_format : NumberFormat
        How numbers are written in cells that are strings.
    remedies : Remedies
        Words of the messages about the column.
    """

    column: pd.Series
    number_format: NumberFormat = PLAIN
    remedies: Remedies = COMMAND_LINE

    @property
    def name(self) -> str:
        """Name of the column."""
        return str(self.column.name)

    @cached_property
    def text(self) -> np.ndarray:
        """The cells as stripped strings; None where missing."""
        return self._map_distinct(lambda cell: cell, object)

    @cached_property
    def numbers(self) -> np.ndarray:
        """The cells as floats; NaN where missing or not a number."""
        if self._is_numeric:
            return self.column.to_numpy(dtype=np.float64, na_value=np.nan)
        return self._map_distinct(self.number_format.parse, np.float64)

    def map_text(self, function: Callable[[str], float]) -> np.ndarray:
        """Return the floats that a function returns for the cells; NaN where missing."""
        return self._map_distinct(
            lambda cell: np.nan if cell is None else function(cell), np.float64
        )

    def in_format(self, number_format: NumberFormat) -> Cells:
        """Return the cells with another format of numbers."""
        is_same = number_format == self.number_format or not self.has_strings
        return self if is_same else replace(self, number_format=number_format)

    @property
    def are_categories(self) -> bool:
        """Whether the type of the column says that it is categorical."""
        return str(self.column.dtype) == "category"

    @cached_property
    def has_strings(self) -> bool:
        """Whether any cell is a string, as opposed to a typed number or date."""
        return not self._is_numeric and any(isinstance(cell, str) for cell in self.column)

    @cached_property
    def distinct(self) -> tuple[list[str], list[int]]:
        """The distinct cells that are not missing, as strings, and how often each occurs."""
        codes, distinct = self._coded
        counts = np.bincount(codes, minlength=len(distinct)).tolist()
        pairs = [(c, n) for c, n in zip(distinct, counts, strict=True) if c is not None]
        return [cell for cell, _ in pairs], [n for _, n in pairs]

    @cached_property
    def is_present(self) -> np.ndarray:
        """Whether each cell is not missing."""
        if self._is_numeric:
            return self.column.notna().to_numpy()
        return self._map_distinct(lambda cell: cell is not None, np.bool_)

    @cached_property
    def is_number(self) -> np.ndarray:
        """Whether each cell is a number, possibly infinite."""
        return ~np.isnan(self.numbers)

    @cached_property
    def labels(self) -> np.ndarray:
        """The cells as strings that are equal for equal numbers: 1, 1.0 and 1e0 become "1"."""
        values = self.numbers
        labels = self.text.copy()
        exact = np.isfinite(values) & (np.abs(values) < MAX_EXACT_INTEGER)
        for i in np.flatnonzero(exact):
            labels[i] = _number_label(values[i])
        return labels

    @property
    def has_only_integers(self) -> bool:
        """Whether all numbers are integers."""
        values = self.numbers[self.is_number]
        return bool((np.isfinite(values) & (values == np.floor(values))).all())

    @property
    def has_inexact_integers(self) -> bool:
        """Whether any cell is an integer, in plain digits, beyond `MAX_EXACT_INTEGER`."""
        with np.errstate(invalid="ignore"):
            large = self.text[np.abs(self.numbers) > MAX_EXACT_INTEGER]
        return any(cell.lstrip("+-").isdigit() for cell in large)

    def check_range(self, values: np.ndarray) -> None:
        """Raise if a value of the column is infinite or too large to compute with."""
        with np.errstate(invalid="ignore"):
            is_bad = np.abs(values) > MAX_MAGNITUDE
        if is_bad.any():
            i = int(is_bad.argmax())
            if np.isinf(values[i]):
                raise self.error(i, "is infinite. Leave the cell empty if it is unknown.")
            raise self.error(i, f"is beyond {MAX_MAGNITUDE:g}. Rescale the column.")

    def error(self, i: int, problem: str) -> TableError:
        """Return an error about one cell, with its location in the message."""
        index = self.column.index
        place = f"{index.name or 'row'} {index[i]}, column {self.name!r}"
        return TableError(f"{place}: {quoted(self.text[i])} {problem}")

    def first_error(self, is_bad: np.ndarray, problem: str, remedy: str) -> TableError:
        """Return an error about the first bad cell, with the number of further ones."""
        n_others = int(is_bad.sum()) - 1
        others = f" ({count_of(n_others, 'more such cell')})" if n_others else ""
        return self.error(int(is_bad.argmax()), f"{problem}{others}{remedy}")

    @property
    def _is_numeric(self) -> bool:
        return self.column.dtype.kind in "iuf"

    @cached_property
    def _coded(self) -> tuple[np.ndarray, list[str | None]]:
        """The position of each cell among the distinct cells, and these as strings."""
        import pandas as pd

        cells = self.column.astype(object).to_numpy()
        if pd.api.types.infer_dtype(cells).startswith("mixed"):
            is_bool = np.array([isinstance(cell, bool | np.bool_) for cell in cells])
            cells = np.where(is_bool, cells.astype(str), cells)  # as True == 1, and False == 0
        try:
            codes, distinct = pd.factorize(cells, use_na_sentinel=False)
        except TypeError:  # unhashable cells, such as lists in parquet
            codes, distinct = np.arange(len(cells)), cells
        return codes, [_as_text(cell) for cell in distinct]

    def _map_distinct(self, function: Callable[[str | None], Any], dtype: Any) -> np.ndarray:
        """Apply a function to the distinct cells, once each."""
        codes, distinct = self._coded
        results = np.empty(len(distinct), dtype=dtype)
        for i, cell in enumerate(distinct):
            results[i] = function(cell)
        return results[codes]


def quoted(cell: str | None) -> str:
    """Return a cell for a message, on one line and shortened if long."""
    if cell is None:
        return "the empty cell"
    return repr(cell if len(cell) <= 40 else f"{cell[:37]}...")


def _as_text(cell: Any) -> str | None:
    if not isinstance(cell, str):
        if _is_na(cell):
            return None
        cell = _format_typed(cell)
    cell = cell.strip()
    is_nan = len(cell) == 4 and cell[0] in "+-" and cell[1:].lower() == "nan"
    return None if cell in MISSING or is_nan else cell


def _format_typed(cell: Any) -> str:
    """Format a typed cell as it would appear in a csv file."""
    if isinstance(cell, bool | np.bool_):
        return str(bool(cell))
    if isinstance(cell, int | np.integer):
        return str(int(cell))
    if isinstance(cell, float | np.floating):
        value = float(cell)
        return _number_label(value) if abs(value) < MAX_EXACT_INTEGER else repr(value)
    return cell.isoformat() if hasattr(cell, "isoformat") else str(cell)


def _number_label(value: float) -> str:
    return str(int(value)) if value == int(value) else repr(float(value))


def _is_na(cell: Any) -> bool:
    import pandas as pd

    is_na = pd.isna(cell)
    return bool(is_na) if np.ndim(is_na) == 0 else False
