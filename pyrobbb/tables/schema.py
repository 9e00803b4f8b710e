"""Schema: how a table becomes the inputs and the target of a fit, decided once and stored."""

from __future__ import annotations

import dataclasses
import difflib
import math
import warnings
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from .cells import Cells, count_of
from .dates import CYCLES, LAYOUTS
from .encoding import Categorical, Column, Date, Dropped, EncodingReport, Numeric
from .errors import TableError
from .inference import infer_column
from .notation import check_decimal_points, unlike_fit
from .number_format import PLAIN, NumberFormat
from .target import Label, Task, infer_target, label_of

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["MAX_INPUTS", "Schema", "check_names"]

MAX_INPUTS = 2000
MIN_ROWS = 5
MAX_NAMES = 10


@dataclass(frozen=True)
class Schema:
    """How a table becomes a float64 matrix of inputs and a target.

    Attributes
    ----------
    target_name : str
    task : {"regression", "classification"}
    classes : tuple of int, float or str
        Sorted labels of a classification; empty for a regression.
    columns : tuple of Numeric, Date or Categorical
        Columns that are used, in the order of the table.
    dropped : tuple of Dropped
        Columns that are left out, with the reasons.
    notes : tuple of str
        All decisions that the user should know about, including dropped columns.
    target_format : NumberFormat
        How the numbers of the target are written.
    """

    target_name: str
    task: Task
    classes: tuple[Label, ...]
    columns: tuple[Column, ...]
    dropped: tuple[Dropped, ...] = ()
    notes: tuple[str, ...] = ()
    target_format: NumberFormat = PLAIN

    @classmethod
    def of(
        cls,
        frame: pd.DataFrame,
        target: str,
        task: Task | None = None,
        *,
        drop: Collection[str] = (),
        categorical: Collection[str] = (),
        decimal: Literal[".", ","] | None = None,
    ) -> Schema:
        """Return the schema inferred from a table.

        Parameters
        ----------
        frame : DataFrame
            Typed values, or strings as returned by `TableFile.read`.
        target : str
            The column to predict. Rows without it are left out.
        task : {"regression", "classification"}, optional
            None: inferred from the target, with a note.
        drop : collection of str
            Columns to leave out.
        categorical : collection of str
            Columns that are categorical even if they hold numbers.
        decimal : {".", ","}, optional
            Decimal separator of cells that are strings. None: inferred for each column, with a note
            unless all cells are written like -1234.5. Cells that may be two numbers are refused.

        Raises
        ------
        TableError
            If no model can be fitted to the table.
        """
        _check_decimal(decimal)
        names = [str(name) for name in frame.columns]
        check_names(names, target, drop, categorical)
        drop, categorical = set(drop), set(categorical)
        frame, n_left_out = _rows_with_target(frame, target)
        notes = []
        if n_left_out:
            notes.append(f"Left out: {count_of(n_left_out, 'row')} without a target.")
        if len(frame) < MIN_ROWS:
            raise TableError(
                f"has {count_of(len(frame), 'row')} with a target; a fit needs at least {MIN_ROWS}."
            )
        target_cells = Cells(frame[target])
        task, classes, target_notes, target_format = infer_target(target_cells, task, decimal)
        target_cells = target_cells.in_format(target_format)
        notes += target_notes
        columns: list[Column] = []
        dropped: list[Dropped] = []
        column_notes: list[str] = []
        numbers = [target_cells] if task == "regression" else []
        for name in names:
            if name == target:
                continue
            if name in drop:
                dropped.append(Dropped(name, "excluded by --drop"))
                continue
            cells = Cells(frame[name])
            column, further = infer_column(
                cells, is_categorical=name in categorical, decimal=decimal
            )
            if isinstance(column, Numeric):
                cells = cells.in_format(column.number_format)
                numbers.append(cells)
            if not isinstance(column, Dropped) and _are_equal(cells, target_cells):
                column, further = Dropped(name, "a copy of the target"), []
            column_notes += further
            if isinstance(column, Dropped):
                dropped.append(column)
            else:
                columns.append(column)
        if decimal is None:
            check_decimal_points(numbers)
        left_out = [f"Column {column.name!r} is left out: {column.reason}." for column in dropped]
        notes += [*left_out, *column_notes, *_note_on_categories(columns)]
        if not columns:
            reasons = "; ".join(f"{column.name!r} ({column.reason})" for column in dropped[:5])
            raise TableError(
                f"has no column to predict {target!r} from. Left out: {reasons or 'none'}."
            )
        n_inputs = sum(len(column.inputs) for column in columns)
        _check_width(n_inputs)
        if n_inputs > len(frame):
            notes.append(f"There are more inputs ({n_inputs}) than rows ({len(frame)}).")
        return cls(
            target, task, classes, tuple(columns), tuple(dropped), tuple(notes), target_format
        )

    @property
    def inputs(self) -> list[str]:
        """Names of the columns of the input matrix."""
        return [name for column in self.columns for name in column.inputs]

    def with_decimal(self, decimal: Literal[".", ","] | None) -> Schema:
        """Return the schema for a table with another decimal separator; None: that of the fit."""
        _check_decimal(decimal)
        if decimal is None:
            return self
        columns = [
            dataclasses.replace(column, number_format=column.number_format.with_decimal(decimal))
            if isinstance(column, Numeric)
            else column
            for column in self.columns
        ]
        return dataclasses.replace(
            self,
            columns=tuple(columns),
            target_format=self.target_format.with_decimal(decimal),
        )

    def with_target(self, frame: pd.DataFrame) -> tuple[pd.DataFrame, int]:
        """Return the rows whose target is not missing, and the number of the others."""
        if self.target_name not in frame.columns:
            raise TableError(f"has no column {self.target_name!r}, which is the target.")
        return _rows_with_target(frame, self.target_name)

    def encode(self, frame: pd.DataFrame, report: EncodingReport | None = None) -> np.ndarray:
        """Return the input matrix.

        Parameters
        ----------
        frame : DataFrame
            With all columns that are used, in any order; others are ignored.
        report : EncodingReport, optional
            Counts of unseen categories and imputed values, updated in place. None: issue a
            warning about them.

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
        parts = [column.encode(Cells(frame[column.name]), counted) for column in self.columns]
        if report is None:
            for message in counted.messages():
                warnings.warn(message, stacklevel=2)
        return np.concatenate(parts, axis=1, dtype=np.float64)

    def target(self, frame: pd.DataFrame) -> np.ndarray:
        """Return the target of rows without missing targets; see `with_target`.

        Returns
        -------
        ndarray of shape (n,)
            Floats for a regression, class labels for a classification.

        Raises
        ------
        TableError
            If a cell is missing, is not a number, or is not one of the classes.
        """
        cells = Cells(frame[self.target_name]).in_format(self.target_format)
        if not cells.is_present.all():
            i = int((~cells.is_present).argmax())
            raise cells.error(i, "cannot be a target; leave the row out.")
        if self.task == "regression":
            if not cells.is_number.all():
                raise unlike_fit(cells, ~cells.is_number)
            cells.check_range(cells.numbers)
            return cells.numbers
        classes = {label_of(value): value for value in self.classes}
        for i, label in enumerate(cells.labels):
            if label not in classes:
                raise cells.error(
                    i, f"is not one of the classes of the fit: {', '.join(list(classes)[:10])}."
                )
        values = [classes[label] for label in cells.labels]
        return np.array(values, dtype=str if isinstance(self.classes[0], str) else None)

    def unused(self, names: Sequence[str]) -> list[str]:
        """Return the columns of another table that were not in the table of the fit."""
        known = {self.target_name, *(column.name for column in (*self.columns, *self.dropped))}
        return [name for name in names if name not in known]

    def to_dict(self) -> dict[str, Any]:
        """Return the schema as plain data for strict JSON."""
        columns = [
            {"kind": type(column).__name__, **dataclasses.asdict(column)} for column in self.columns
        ]
        for column in columns:
            for name in ("categories", "cycles"):
                if name in column:
                    column[name] = list(column[name])
        return {
            "target": self.target_name,
            "task": self.task,
            "classes": list(self.classes),
            "columns": columns,
            "dropped": [dataclasses.asdict(column) for column in self.dropped],
            "notes": list(self.notes),
            "target_format": dataclasses.asdict(self.target_format),
        }

    @classmethod
    def from_dict(cls, stored: Mapping[str, Any]) -> Schema:
        """Return the schema from the plain data that `to_dict` returned.

        Raises
        ------
        ValueError
            If the data is damaged.
        """
        try:
            schema = cls(
                stored["target"],
                stored["task"],
                tuple(stored["classes"]),
                tuple(_column_from_dict(column) for column in stored["columns"]),
                tuple(Dropped(**column) for column in stored["dropped"]),
                tuple(stored["notes"]),
                NumberFormat(**stored.get("target_format", {})),
            )
            is_valid = _is_valid(schema)
        except (AttributeError, KeyError, TypeError, ValueError) as error:
            raise ValueError(
                f"The stored schema of the table is damaged ({type(error).__name__}: {error})."
            ) from error
        if not is_valid:
            raise ValueError("The stored schema of the table is damaged.")
        return schema


def check_names(
    names: Sequence[str], target: str, drop: Collection[str], categorical: Collection[str]
) -> None:
    """Raise unless a table has the columns that the options of a fit name."""
    known = set(names)
    for option, given in (("target", [target]), ("drop", drop), ("categorical", categorical)):
        for name in given:
            if name not in known:
                similar = difflib.get_close_matches(name, names[:MAX_INPUTS], n=3, cutoff=0.5)
                similar = similar or [other for other in names if other.lower() == name.lower()]
                shown = ", ".join(map(repr, similar or names[:10]))
                more = ", ..." if len(names) > 10 else ""
                hint = f"did you mean {shown}?" if similar else f"it has {shown}{more}"
                raise TableError(f"has no column {name!r} (--{option}); {hint}")
    if target in drop:
        raise TableError(f"column {target!r} is the target and cannot be dropped with --drop.")
    _check_width(len(names) - 1 - len(set(drop)))


def _check_decimal(decimal: str | None) -> None:
    if decimal not in (None, ".", ","):
        raise TableError(f"`decimal` must be '.' or ',', got {decimal!r}.")


def _check_width(n_inputs: int) -> None:
    if n_inputs > MAX_INPUTS:
        raise TableError(
            f"has {n_inputs} inputs, but a fit takes at most {MAX_INPUTS}: with more, a Bayesian "
            "network learns too slowly. Leave columns out with --drop."
        )


def _rows_with_target(frame: pd.DataFrame, target: str) -> tuple[pd.DataFrame, int]:
    is_present = Cells(frame[target]).is_present
    return (frame, 0) if is_present.all() else (frame[is_present], int((~is_present).sum()))


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


def _is_valid(schema: Schema) -> bool:
    names = [
        schema.target_name,
        *(column.name for column in (*schema.columns, *schema.dropped)),
    ]
    return (
        schema.task in ("regression", "classification")
        and (len(schema.classes) >= 2) == (schema.task == "classification")
        and all(isinstance(label, int | float | str) for label in schema.classes)
        and bool(schema.columns)
        and all(isinstance(name, str) for name in names)
        and len(set(names)) == len(names)
        and all(_is_valid_column(column) for column in schema.columns)
    )


def _is_valid_column(column: Column) -> bool:
    if isinstance(column, Date):
        has_names = column.layout in LAYOUTS and all(name in CYCLES for name in column.cycles)
        return has_names and _is_finite(column.median)
    if isinstance(column, Numeric):
        return _is_finite(column.median)
    return all(isinstance(category, str) for category in column.categories)


def _is_finite(value: object) -> bool:
    return isinstance(value, int | float) and math.isfinite(value)
