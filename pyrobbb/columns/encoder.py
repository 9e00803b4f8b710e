"""ColumnEncoder: how the columns of a frame become inputs, decided once and stored."""

from __future__ import annotations

import contextlib
import dataclasses
import math
import warnings
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from .._core.display import Displayed, Listing, count_of
from .cells import Cells
from .dates import CYCLES, LAYOUTS
from .encoding import Categorical, Column, Date, Dropped, EncodingReport, Numeric
from .errors import TableError
from .inference import infer_column
from .notation import check_decimal_points
from .number_format import NumberFormat
from .remedies import FRAME, Remedies

if TYPE_CHECKING:
    import pandas as pd

__all__ = [
    "MAX_INPUTS",
    "ColumnEncoder",
    "check_decimal",
    "check_stored",
    "check_width",
    "refused_if_damaged",
]

MAX_INPUTS = 2000
MAX_NAMES = 10
DAMAGED = "The stored schema of the table is damaged"


@dataclass(frozen=True, repr=False)
class ColumnEncoder(Displayed):
    """How the columns of a frame become a float64 matrix of inputs.

    Attributes
    ----------
    columns : tuple
        Columns that are used, in the order of the table, each with its name and its encoding: as a
        number, as a date or as categories.
    dropped : tuple
        Columns that are left out, each with its ``name`` and the ``reason``.
    notes : tuple of str
        All decisions that the user should know about, including dropped columns.
    """

    columns: tuple[Column, ...]
    dropped: tuple[Dropped, ...] = ()
    notes: tuple[str, ...] = ()

    @classmethod
    def of(
        cls,
        frame: pd.DataFrame,
        *,
        drop: Mapping[str, str] | None = None,
        categorical: Collection[str] = (),
        decimal: Literal[".", ","] | None = None,
        target: Cells | None = None,
        beside: Sequence[Cells] = (),
        remedies: Remedies = FRAME,
    ) -> ColumnEncoder:
        """Return the encoding inferred from a frame.

        Parameters
        ----------
        frame : DataFrame
            Typed values, or strings. A column of the type ``category`` is categorical.
        drop : mapping of str to str, optional
            Columns to leave out, with the reasons.
        categorical : collection of str
            Columns that are categorical even if they hold numbers.
        decimal : {".", ","}, optional
            Decimal separator of cells that are strings. None: inferred for each column, with a note
            unless all cells are written like -1234.5. Cells that may be two numbers are refused.
        target : Cells, optional
            The target: its column, if the frame has it, and copies of it are left out.
        beside : sequence of Cells
            Further columns of numbers, whose decimal separators must suit those of the others.
        remedies : Remedies
            Words of the messages.

        Raises
        ------
        TableError
            If a cell is a mistake, the user has to decide how to treat a column, or none is left.
        """
        check_decimal(decimal)
        given = drop or {}
        columns: list[Column] = []
        dropped: list[Dropped] = []
        notes: list[str] = []
        numbers = list(beside)
        for name in map(str, frame.columns):
            if target is not None and name == target.name:
                continue
            if name in given:
                dropped.append(Dropped(name, given[name]))
                continue
            cells = Cells(frame[name], remedies=remedies)
            column, further = infer_column(
                cells, is_categorical=name in categorical, decimal=decimal
            )
            if isinstance(column, Numeric):
                cells = cells.in_format(column.number_format)
                numbers.append(cells)
            is_copy = target is not None and _are_equal(cells, target)
            if is_copy and not isinstance(column, Dropped):
                column, further = Dropped(name, "a copy of the target"), []
            notes += further
            if isinstance(column, Dropped):
                dropped.append(column)
            else:
                columns.append(column)
        if decimal is None:
            check_decimal_points(numbers)
        left_out = [f"Column {column.name!r} is left out: {column.reason}." for column in dropped]
        notes = [*left_out, *notes, *_note_on_categories(columns)]
        if not columns:
            reasons = "; ".join(f"{column.name!r} ({column.reason})" for column in dropped[:5])
            what = "y" if target is None else repr(target.name)
            raise TableError(
                f"has no column to predict {what} from. Left out: {reasons or 'none'}."
            )
        n_inputs = sum(len(column.inputs) for column in columns)
        check_width(n_inputs)
        if n_inputs > len(frame):
            notes.append(f"There are more inputs ({n_inputs}) than rows ({len(frame)}).")
        return cls(tuple(columns), tuple(dropped), tuple(notes))

    @property
    def inputs(self) -> list[str]:
        """Names of the columns of the input matrix."""
        return [name for column in self.columns for name in column.inputs]

    def with_decimal(self, decimal: Literal[".", ","]) -> ColumnEncoder:
        """Return the encoding of a frame with another decimal separator."""
        columns = [
            dataclasses.replace(column, number_format=column.number_format.with_decimal(decimal))
            if isinstance(column, Numeric)
            else column
            for column in self.columns
        ]
        return dataclasses.replace(self, columns=tuple(columns))

    def encode(
        self,
        frame: pd.DataFrame,
        report: EncodingReport | None = None,
        *,
        remedies: Remedies = FRAME,
    ) -> np.ndarray:
        """Return the input matrix.

        Parameters
        ----------
        frame : DataFrame
            With all columns that are used, in any order; others are ignored.
        report : EncodingReport, optional
            Counts of unseen categories and imputed values, updated in place. None: issue a
            warning about them.
        remedies : Remedies
            Words of the messages.

        Returns
        -------
        ndarray of shape (n, n_inputs)

        Raises
        ------
        TableError
            If a column is missing, or a cell cannot be encoded.
        """
        missing = [column.name for column in self.columns if column.name not in frame.columns]
        if missing:
            names = ", ".join(map(repr, missing[:10])) + (", ..." if len(missing) > 10 else "")
            raise TableError(
                f"has no column {names}, which the model was fitted with. Add "
                f"{'it' if len(missing) == 1 else 'them'}, with empty cells where unknown."
            )
        counted = EncodingReport() if report is None else report
        parts = [
            column.encode(Cells(frame[column.name], remedies=remedies), counted)
            for column in self.columns
        ]
        if report is None:
            for message in counted.messages():
                warnings.warn(message, stacklevel=2)
        return np.concatenate(parts, axis=1, dtype=np.float64)

    def to_dict(self) -> dict[str, Any]:
        """Return the encoding as plain data for strict JSON."""
        columns = [
            {"kind": type(column).__name__, **dataclasses.asdict(column)} for column in self.columns
        ]
        for column in columns:
            for name in ("categories", "cycles"):
                if name in column:
                    column[name] = list(column[name])
        return {
            "columns": columns,
            "dropped": [dataclasses.asdict(column) for column in self.dropped],
            "notes": list(self.notes),
        }

    @classmethod
    def from_dict(cls, stored: Mapping[str, Any]) -> ColumnEncoder:
        """Return the encoding from the plain data that `to_dict` returned.

        Raises
        ------
        ValueError
            If the data is damaged.
        """
        with refused_if_damaged():
            encoder = cls(
                tuple(_column_from_dict(column) for column in stored["columns"]),
                tuple(Dropped(**column) for column in stored["dropped"]),
                tuple(stored["notes"]),
            )
            check_stored(encoder._is_valid())
        return encoder

    @property
    def names(self) -> list[str]:
        """Names of the columns of the frame, those that are left out last."""
        return [column.name for column in (*self.columns, *self.dropped)]

    def _is_valid(self) -> bool:
        return (
            bool(self.columns)
            and all(isinstance(name, str) for name in self.names)
            and len(set(self.names)) == len(self.names)
            and all(_is_valid_column(column) for column in self.columns)
        )

    def _listing(self) -> Listing:
        used, left_out = len(self.columns), len(self.dropped)
        return Listing(
            f"ColumnEncoder: {count_of(used, 'column')} to {count_of(len(self.inputs), 'input')}"
            + (f", {left_out} left out" if left_out else ""),
            ("column", "kind", "inputs"),
            [
                *((c.name, type(c).__name__.lower(), str(len(c.inputs))) for c in self.columns),
                *((c.name, f"left out: {c.reason}", "0") for c in self.dropped),
            ],
        )


def check_decimal(decimal: str | None) -> None:
    """Raise unless a decimal separator is known."""
    if decimal not in (None, ".", ","):
        raise TableError(f"`decimal` must be '.' or ',', got {decimal!r}.")


@contextlib.contextmanager
def refused_if_damaged() -> Iterator[None]:
    """Raise a ValueError if stored data cannot be read in the block."""
    try:
        yield
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        if str(error).startswith(DAMAGED):
            raise
        raise ValueError(f"{DAMAGED} ({type(error).__name__}: {error}).") from error


def check_stored(is_valid: bool) -> None:
    """Raise unless stored data is valid."""
    if not is_valid:
        raise ValueError(f"{DAMAGED}.")


def check_width(n_inputs: int) -> None:
    """Raise if there are too many inputs to learn from."""
    if n_inputs > MAX_INPUTS:
        raise TableError(
            f"has {n_inputs} inputs, but a fit takes at most {MAX_INPUTS}: with more, a Bayesian "
            "network learns too slowly. Leave columns out."
        )


def _note_on_categories(columns: Sequence[Column]) -> list[str]:
    """Return a note on all columns with an input for each category."""
    counts = [
        f"{column.name!r} ({len(column.categories)}{', missing' * column.has_missing})"
        for column in columns
        if isinstance(column, Categorical) and not column.is_pooled
    ]
    if not counts:
        return []
    more = f" and {len(counts) - MAX_NAMES} more" if len(counts) > MAX_NAMES else ""
    shown = ", ".join(counts[:MAX_NAMES])
    return [f"Treated as categorical, with the number of categories: {shown}{more}."]


def _are_equal(cells: Cells, target: Cells) -> bool:
    if not cells.is_present.all():
        return False
    if target.is_number.all() and cells.is_number.all():
        return bool((cells.numbers == target.numbers).all())
    return bool((cells.labels == target.labels).all())


def _column_from_dict(stored: Mapping[str, Any]) -> Column:
    values = dict(stored)
    kind = values.pop("kind")
    if kind == "Date" or values.pop("is_date", False):  # Numeric in files of earlier versions
        values.pop("number_format", None)
        values.setdefault("layout", next(iter(LAYOUTS)))
        return Date(**{**values, "cycles": tuple(values.get("cycles", ()))})
    if kind == "Numeric":
        number_format = NumberFormat(**values.pop("number_format", {}))
        return Numeric(**values, number_format=number_format)
    if kind == "Categorical":
        return Categorical(**{**values, "categories": tuple(values["categories"])})
    raise ValueError(f"unknown kind of column {kind!r}")


def _is_valid_column(column: Column) -> bool:
    if isinstance(column, Date):
        has_names = column.layout in LAYOUTS and all(name in CYCLES for name in column.cycles)
        return has_names and _is_finite(column.median)
    if isinstance(column, Numeric):
        return _is_finite(column.median)
    are_distinct = len(set(column.categories)) == len(column.categories)
    return are_distinct and all(isinstance(category, str) for category in column.categories)


def _is_finite(value: object) -> bool:
    return isinstance(value, int | float) and math.isfinite(value)
