"""Schema: how a table becomes the inputs and the target of a fit, decided once and stored."""

from __future__ import annotations

import dataclasses
import difflib
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from .._core.display import count_of
from ..columns.cells import Cells
from ..columns.encoder import (
    MAX_INPUTS,
    ColumnEncoder,
    check_decimal,
    check_stored,
    check_width,
    refused_if_damaged,
)
from ..columns.encoding import Column, Dropped, EncodingReport
from ..columns.errors import TableError
from ..columns.notation import unlike_fit
from ..columns.number_format import PLAIN, NumberFormat
from ..columns.remedies import COMMAND_LINE
from .target import Label, Task, infer_target, label_of

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["Schema", "check_names"]

MIN_ROWS = 5


@dataclass(frozen=True)
class Schema:
    """How a table becomes a float64 matrix of inputs and a target.

    Attributes
    ----------
    target_name : str
    task : {"regression", "classification"}
    classes : tuple of int, float or str
        Sorted labels of a classification; empty for a regression.
    encoder : ColumnEncoder
        How the other columns become inputs.
    target_notes : tuple of str
        Decisions about the target.
    target_format : number format
        How the numbers of the target are written: ``decimal`` separator, ``grouping`` of thousands,
        and ``affix``, such as a currency or a unit.
    """

    target_name: str
    task: Task
    classes: tuple[Label, ...]
    encoder: ColumnEncoder
    target_notes: tuple[str, ...] = ()
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
        check_decimal(decimal)
        names = [str(name) for name in frame.columns]
        check_names(names, target, drop, categorical)
        frame, n_left_out = _rows_with_target(frame, target)
        notes = []
        if n_left_out:
            notes.append(f"Left out: {count_of(n_left_out, 'row')} without a target.")
        if len(frame) < MIN_ROWS:
            raise TableError(
                f"has {count_of(len(frame), 'row')} with a target; a fit needs at least {MIN_ROWS}."
            )
        cells = Cells(frame[target])
        task, classes, further, target_format = infer_target(cells, task, decimal)
        cells = cells.in_format(target_format)
        encoder = ColumnEncoder.of(
            frame,
            drop=dict.fromkeys(drop, "excluded by --drop"),
            categorical=categorical,
            decimal=decimal,
            target=cells,
            beside=[cells] if task == "regression" else [],
            remedies=COMMAND_LINE,
        )
        return cls(target, task, classes, encoder, (*notes, *further), target_format)

    @property
    def columns(self) -> tuple[Column, ...]:
        """Columns that are used as inputs, in the order of the table."""
        return self.encoder.columns

    @property
    def dropped(self) -> tuple[Dropped, ...]:
        """Columns that are left out, with the reasons."""
        return self.encoder.dropped

    @property
    def notes(self) -> tuple[str, ...]:
        """All decisions that the user should know about, including dropped columns."""
        return (*self.target_notes, *self.encoder.notes)

    @property
    def inputs(self) -> list[str]:
        """Names of the columns of the input matrix."""
        return self.encoder.inputs

    def with_decimal(self, decimal: Literal[".", ","] | None) -> Schema:
        """Return the schema for a table with another decimal separator; None: that of the fit."""
        check_decimal(decimal)
        if decimal is None:
            return self
        return dataclasses.replace(
            self,
            encoder=self.encoder.with_decimal(decimal),
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
        return self.encoder.encode(frame, report, remedies=COMMAND_LINE)

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
        known = {self.target_name, *self.encoder.names}
        return [name for name in names if name not in known]

    def to_dict(self) -> dict[str, Any]:
        """Return the schema as plain data for strict JSON."""
        return {
            "target": self.target_name,
            "task": self.task,
            "classes": list(self.classes),
            **self.encoder.to_dict(),
            "target_notes": list(self.target_notes),
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
        with refused_if_damaged():
            encoder = ColumnEncoder.from_dict(stored)
            schema = cls(
                stored["target"],
                stored["task"],
                tuple(stored["classes"]),
                encoder,
                tuple(stored.get("target_notes", ())),  # among the others in earlier versions
                NumberFormat(**stored.get("target_format", {})),
            )
            check_stored(schema._is_valid())
        return schema

    def _is_valid(self) -> bool:
        return (
            self.task in ("regression", "classification")
            and (len(self.classes) >= 2) == (self.task == "classification")
            and all(isinstance(label, int | float | str) for label in self.classes)
            and isinstance(self.target_name, str)
            and self.target_name not in self.encoder.names
        )


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
    check_width(len(names) - 1 - len(set(drop)))


def _rows_with_target(frame: pd.DataFrame, target: str) -> tuple[pd.DataFrame, int]:
    is_present = Cells(frame[target]).is_present
    return (frame, 0) if is_present.all() else (frame[is_present], int((~is_present).sum()))
