"""The cells of one column: what is missing among them, what a number, what a date."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np

from .errors import TableError

if TYPE_CHECKING:
    import pandas as pd

# Those of pandas, and the question mark of the UCI repository.
MISSING = frozenset(
    ["", "#N/A", "#NA", "<NA>", "N/A", "NA", "NULL", "NaN", "None", "n/a", "nan", "null", "?"]
)
LARGEST = 1e100
"""Squares of larger numbers, of which a standard deviation is made, leave the range of floats."""
EXACT = 2**53
"""The whole numbers up to here are exact as floats."""

ISO_DATE = re.compile(r"\d{4}-\d{2}-\d{2}([T ]\d{2}:\d{2}(:\d{2}(\.\d+)?)?(Z|[+-]\d{2}:?\d{2})?)?")
# 1,234.5 and 12 % and $5: meant as numbers, and none to a computer.
DECORATED = re.compile(r"[$€£]?\s*[+-]?(\d{1,3}([,' ]\d{3})+|\d+)([.,]\d+)?\s*[%€$£]?")
OTHER_DATE = re.compile(r"\d{1,4}([./-])\d{1,2}\1\d{1,4}([T ,].*)?")


@dataclass(frozen=True, eq=False)
class Cells:
    """One column of a table.

    Parameters
    ----------
    column : Series
        Strings or typed values. Its name is the column's, its index tells the rows as in
        `TableFile.chunks`.
    """

    column: pd.Series

    @property
    def name(self) -> str:
        """Name of the column."""
        return str(self.column.name)

    @cached_property
    def text(self) -> np.ndarray:
        """The cells as strings, stripped; None where missing."""
        return self._of_distinct(lambda cell: cell, object)

    @cached_property
    def numbers(self) -> np.ndarray:
        """The cells as floats; NaN where missing, or no number."""
        if self.column.dtype.kind in "iuf":
            return self.column.to_numpy(dtype=np.float64, na_value=np.nan)
        return self._of_distinct(_as_number, np.float64)

    @cached_property
    def days(self) -> np.ndarray:
        """The cells as days since 1970-01-01, UTC; NaN where missing, or no date in ISO 8601."""
        import pandas as pd

        known = self._matches(ISO_DATE)
        days = np.full(len(self.text), np.nan)
        stamps = pd.to_datetime(
            pd.Series(self.text[known], dtype=object), format="ISO8601", utc=True, errors="coerce"
        )
        seconds = stamps - pd.Timestamp(0, tz="UTC")
        days[known] = seconds.dt.total_seconds().to_numpy() / 86_400
        return days

    @cached_property
    def is_present(self) -> np.ndarray:
        """Where a cell is not missing."""
        if self.column.dtype.kind in "iuf":
            return self.column.notna().to_numpy()
        return self._of_distinct(lambda cell: cell is not None, np.bool_)

    @cached_property
    def is_number(self) -> np.ndarray:
        """Where a cell is a number, if an infinite one."""
        return ~np.isnan(self.numbers)

    @cached_property
    def is_date(self) -> np.ndarray:
        """Where a cell is written like a date, in whatever order."""
        return self._matches(ISO_DATE) | self._matches(OTHER_DATE)

    @cached_property
    def is_decorated(self) -> np.ndarray:
        """Where a cell is a number with a sign of currency, a percent sign or commas."""
        return self._matches(DECORATED) & ~self.is_number

    @cached_property
    def labels(self) -> np.ndarray:
        """The cells as strings by which equal numbers are equal: 1, 1.0 and 1e0 all give "1"."""
        values = self.numbers
        labels = self.text.copy()
        exact = np.isfinite(values) & (np.abs(values) < EXACT)
        for i in np.flatnonzero(exact):
            labels[i] = _label(values[i])
        return labels

    @property
    def is_whole(self) -> bool:
        """Whether all numbers are whole."""
        values = self.numbers[self.is_number]
        return bool((np.isfinite(values) & (values == np.floor(values))).all())

    @property
    def is_beyond_exact(self) -> bool:
        """Whether it holds whole numbers, written out, that floats have to round."""
        with np.errstate(invalid="ignore"):
            large = self.text[np.abs(self.numbers) > EXACT]
        return any(cell.lstrip("+-").isdigit() for cell in large)

    def check_range(self, values: np.ndarray) -> None:
        """Raise for the first number that cannot be computed with."""
        with np.errstate(invalid="ignore"):
            bad = np.abs(values) > LARGEST
        if bad.any():
            i = int(bad.argmax())
            if np.isinf(values[i]):
                raise self.error(i, "is infinite. Leave the cell empty if it is not known.")
            raise self.error(i, f"is beyond {LARGEST:g}. Rescale the column.")

    def error(self, i: int, problem: str) -> TableError:
        """Make an error about one cell."""
        index = self.column.index
        where = f"{index.name or 'row'} {index[i]}, column {self.name!r}"
        return TableError(f"{where}: {shown(self.text[i])} {problem}")

    @cached_property
    def _coded(self) -> tuple[np.ndarray, list[str | None]]:
        """The distinct cells as strings, so that each is looked at once, and where they are."""
        import pandas as pd

        cells = self.column.astype(object).to_numpy()
        try:
            codes, distinct = pd.factorize(cells, use_na_sentinel=False)
        except TypeError:  # lists and the like, in parquet
            codes, distinct = np.arange(len(cells)), cells
        return codes, [_as_text(cell) for cell in distinct]

    def _of_distinct(self, function: Callable[[str | None], Any], dtype: Any) -> np.ndarray:
        codes, distinct = self._coded
        results = np.empty(len(distinct), dtype=dtype)
        for i, cell in enumerate(distinct):
            results[i] = function(cell)
        return results[codes]

    def _matches(self, pattern: re.Pattern[str]) -> np.ndarray:
        return self._of_distinct(
            lambda cell: cell is not None and pattern.fullmatch(cell) is not None, np.bool_
        )


def shown(cell: str | None) -> str:
    """Give a cell for a message, on one line and not too long."""
    if cell is None:
        return "the empty cell"
    return repr(cell if len(cell) <= 40 else f"{cell[:37]}...")


def _as_text(cell: Any) -> str | None:
    if not isinstance(cell, str):
        if _is_na(cell):
            return None
        cell = _written(cell)
    cell = cell.strip()
    is_nan = len(cell) == 4 and cell[0] in "+-" and cell[1:].lower() == "nan"
    return None if cell in MISSING or is_nan else cell


def _written(cell: Any) -> str:
    """Write a typed cell as a csv file would have it."""
    if isinstance(cell, bool | np.bool_):
        return str(bool(cell))
    if isinstance(cell, int | np.integer):
        return str(int(cell))
    if isinstance(cell, float | np.floating):
        return _label(float(cell)) if abs(float(cell)) < EXACT else repr(float(cell))
    return cell.isoformat() if hasattr(cell, "isoformat") else str(cell)


def _as_number(cell: str | None) -> float:
    # Python reads 1_000 as a number too, which no table means.
    if cell is None or "_" in cell:
        return np.nan
    try:
        return float(cell)
    except ValueError:
        return np.nan


def _label(value: float) -> str:
    return str(int(value)) if value == int(value) else repr(float(value))


def _is_na(cell: Any) -> bool:
    import pandas as pd

    found = pd.isna(cell)
    return bool(found) if np.ndim(found) == 0 else False
