"""Schema: how a table becomes the matrix and the target of a fit; decided once, told in words."""

from __future__ import annotations

import dataclasses
import difflib
import math
import warnings
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from .cells import EXACT, Cells
from .encoding import NEARLY_ALL, Categorical, Column, Dropped, Numeric, Tally, is_constant, judge
from .errors import TableError

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["Schema", "Task"]

Task = Literal["regression", "classification"]
Label = int | float | str

MAX_INPUTS = 2000
LEAST_ROWS = 5
FEW_CLASSES = 10
"""Whole numbers with at most so many distinct values are guessed to be classes."""


@dataclass(frozen=True)
class Schema:
    """How a table becomes a matrix of float64 and a target.

    Attributes
    ----------
    target_name : str
    task : {"regression", "classification"}
    classes : tuple of int, float or str
        Sorted labels of a classification; empty for a regression.
    columns : tuple of Numeric or Categorical
        Those that are used, in the order of the table of the fit.
    dropped : tuple of Dropped
        Those that are not, and why.
    notes : tuple of str
        All that was decided and is worth a word, dropped columns among it.
    """

    target_name: str
    task: Task
    classes: tuple[Label, ...]
    columns: tuple[Column, ...]
    dropped: tuple[Dropped, ...] = ()
    notes: tuple[str, ...] = ()

    @classmethod
    def of(
        cls,
        frame: pd.DataFrame,
        target: str,
        task: Task | None = None,
        *,
        drop: Collection[str] = (),
        categorical: Collection[str] = (),
    ) -> Schema:
        """Decide what the columns of a table are.

        Parameters
        ----------
        frame : DataFrame
            Typed values, or strings as `TableFile.read` gives them.
        target : str
            The column to predict. Rows that miss it are left out.
        task : {"regression", "classification"}, optional
            None: guessed from the values, which a note says.
        drop : collection of str
            Columns to leave out.
        categorical : collection of str
            Columns of categories even if they hold numbers.

        Raises
        ------
        TableError
            If the table cannot be learnt from.
        """
        names = [str(name) for name in frame.columns]
        _check_names(names, target, drop, categorical)
        frame, n_left_out = _with_target(frame, target)
        notes = [f"{n_left_out} rows miss the target and are left out."] if n_left_out > 1 else []
        notes += ["1 row misses the target and is left out."] if n_left_out == 1 else []
        if len(frame) < LEAST_ROWS:
            raise TableError(
                f"holds {len(frame)} row{'s' * (len(frame) != 1)} with a target; at least "
                f"{LEAST_ROWS} are needed for a fit."
            )
        outcome = Cells(frame[target])
        task, classes, told = _judge_target(outcome, task)
        notes += told
        columns: list[Column] = []
        dropped: list[Dropped] = []
        for name in names:
            if name == target:
                continue
            if name in drop:
                dropped.append(Dropped(name, "by --drop"))
                continue
            cells = Cells(frame[name])
            found, told = judge(cells, is_categorical=name in categorical)
            if not isinstance(found, Dropped) and _are_equal(cells, outcome):
                found, told = Dropped(name, "the target once more"), []
            notes += told
            if isinstance(found, Dropped):
                dropped.append(found)
            else:
                columns.append(found)
        notes += [f"Column {own.name!r} is left out: {own.reason}." for own in dropped]
        schema = cls(target, task, classes, tuple(columns), tuple(dropped), ())
        n_inputs = len(schema.inputs)
        if not columns:
            reasons = "; ".join(f"{own.name!r} ({own.reason})" for own in dropped[:5])
            raise TableError(
                f"has no column to predict {target!r} from. Left out: {reasons or 'none'}."
            )
        _check_width(n_inputs)
        if n_inputs > len(frame):
            notes.append(f"There are more inputs ({n_inputs}) than rows ({len(frame)}).")
        return dataclasses.replace(schema, notes=tuple(notes))

    @property
    def inputs(self) -> list[str]:
        """Names of the columns of the matrix."""
        return [name for column in self.columns for name in column.inputs]

    def with_target(self, frame: pd.DataFrame) -> tuple[pd.DataFrame, int]:
        """Give the rows whose target is not missing, and how many there are besides."""
        if self.target_name not in frame.columns:
            raise TableError(f"has no column {self.target_name!r}, which is the target.")
        return _with_target(frame, self.target_name)

    def encode(self, frame: pd.DataFrame, tally: Tally | None = None) -> np.ndarray:
        """Make the matrix.

        Parameters
        ----------
        frame : DataFrame
            With all the columns used, in any order; others are ignored.
        tally : Tally, optional
            Counts what is unknown or missing, over several calls. None: it is warned of.

        Returns
        -------
        ndarray of shape (n, n_inputs)
        """
        missing = [column.name for column in self.columns if column.name not in frame.columns]
        if missing:
            names = ", ".join(map(repr, missing[:10])) + (", ..." if len(missing) > 10 else "")
            raise TableError(
                f"has no column {names}, which the model was fitted with. Add "
                f"{'it' if len(missing) == 1 else 'them'}, with empty cells where unknown."
            )
        own = Tally() if tally is None else tally
        parts = [column.encode(Cells(frame[column.name]), own) for column in self.columns]
        if tally is None:
            for line in own.lines():
                warnings.warn(line, stacklevel=2)
        return np.concatenate(parts, axis=1, dtype=np.float64)

    def target(self, frame: pd.DataFrame) -> np.ndarray:
        """Make the target; no row may miss it, see `with_target`.

        Returns
        -------
        ndarray of shape (n,)
            Of floats, or of class labels.
        """
        cells = Cells(frame[self.target_name])
        if not cells.is_present.all():
            raise cells.error(int((~cells.is_present).argmax()), "is no target; leave the row out.")
        if self.task == "regression":
            is_bad = ~cells.is_number
            if is_bad.any():
                raise cells.error(int(is_bad.argmax()), "is no number, as the target must be.")
            cells.check_range(cells.numbers)
            return cells.numbers
        known = {_name_of(label): label for label in self.classes}
        for i, name in enumerate(cells.labels):
            if name not in known:
                raise cells.error(
                    i, f"is none of the classes of the fit: {', '.join(list(known)[:10])}."
                )
        dtype: Any = object if isinstance(self.classes[0], str) else None
        labels = np.array([known[name] for name in cells.labels], dtype=dtype)
        return labels.astype(str) if dtype is object else labels

    def unused(self, names: Sequence[str]) -> list[str]:
        """Give the columns of another table that the fit did not have."""
        had = {self.target_name, *(own.name for own in (*self.columns, *self.dropped))}
        return [name for name in names if name not in had]

    def to_dict(self) -> dict[str, Any]:
        """Give it as plain data, strict JSON."""
        columns = [{"kind": type(own).__name__, **dataclasses.asdict(own)} for own in self.columns]
        for column in columns:
            if "categories" in column:
                column["categories"] = list(column["categories"])
        return {
            "target": self.target_name,
            "task": self.task,
            "classes": list(self.classes),
            "columns": columns,
            "dropped": [dataclasses.asdict(own) for own in self.dropped],
            "notes": list(self.notes),
        }

    @classmethod
    def from_dict(cls, stored: Mapping[str, Any]) -> Schema:
        """Read what `to_dict` gave.

        Raises
        ------
        ValueError
            If it is something else.
        """
        try:
            found = cls(
                stored["target"],
                stored["task"],
                tuple(stored["classes"]),
                tuple(_column_of(own) for own in stored["columns"]),
                tuple(Dropped(**own) for own in stored["dropped"]),
                tuple(stored["notes"]),
            )
            is_sound = _is_sound(found)
        except (AttributeError, KeyError, TypeError, ValueError) as error:
            raise ValueError(
                f"The stored description of the table is damaged ({type(error).__name__}: {error})."
            ) from error
        if not is_sound:
            raise ValueError("The stored description of the table is damaged.")
        return found


def _check_names(
    names: Sequence[str], target: str, drop: Collection[str], categorical: Collection[str]
) -> None:
    for option, given in (("target", [target]), ("drop", drop), ("categorical", categorical)):
        for name in given:
            if name not in names:
                close = difflib.get_close_matches(name, names, n=3, cutoff=0.5)
                close = close or [own for own in names if own.lower() == name.lower()]
                known = close or names[:10]
                words = "did you mean" if close else "it has"
                raise TableError(
                    f"has no column {name!r} (--{option}); {words} {', '.join(map(repr, known))}"
                    f"{'?' if close else ', ...' if len(names) > 10 else ''}"
                )
    if target in drop:
        raise TableError(f"column {target!r} is the target, and --drop leaves it out.")
    _check_width(len(names) - 1 - len(set(drop)))


def _check_width(n_inputs: int) -> None:
    if n_inputs > MAX_INPUTS:
        raise TableError(
            f"makes {n_inputs} inputs, and a fit takes at most {MAX_INPUTS}: beyond that a "
            "Bayesian network learns little in any time. Choose columns, or --drop some."
        )


def _with_target(frame: pd.DataFrame, target: str) -> tuple[pd.DataFrame, int]:
    is_present = Cells(frame[target]).is_present
    return (frame, 0) if is_present.all() else (frame[is_present], int((~is_present).sum()))


def _judge_target(cells: Cells, task: Task | None) -> tuple[Task, tuple[Label, ...], list[str]]:
    name, n_rows = cells.name, len(cells.column)
    n_numbers, notes = int(cells.is_number.sum()), []
    counts = Counter(cells.labels.tolist())
    if n_numbers == n_rows:
        cells.check_range(cells.numbers)
        if is_constant(cells.numbers):
            raise TableError(
                f"column {name!r}, the target, is constant ({next(iter(counts))}) up to what can "
                "be told apart: there is nothing to predict. Rescale it, or take another."
            )
    if task is None:
        if n_numbers < n_rows and cells.is_date.sum() >= NEARLY_ALL * n_rows:
            i = int(cells.is_date.argmax())
            raise cells.error(i, "is a date, and a target is a number or a class. Make it one.")
        if NEARLY_ALL * n_rows <= n_numbers < n_rows:
            raise cells.error(
                int((~cells.is_number).argmax()),
                "is no number, while most of the target are. Correct the cell, leave it empty, or "
                "use --task classification.",
            )
        task, why = _guess(cells, len(counts), n_numbers == n_rows)
        notes.append(f"The task is taken to be {task}: the target {name!r} {why}.")
    if task == "classification":
        classes = _classes(cells, counts)
        rare = [str(own) for own, n in counts.items() if n == 1]
        if rare:
            notes.append(f"Some classes have a single row: {', '.join(rare[:5])}.")
        return task, classes, notes
    if n_numbers < n_rows:
        raise cells.error(
            int((~cells.is_number).argmax()),
            "is no number, which a regression needs. Correct the cell, leave it empty, or use "
            "--task classification.",
        )
    if cells.is_beyond_exact:
        notes.append(f"The target {name!r} holds whole numbers beyond 2^53: floats round them.")
    return task, (), notes


def _classes(cells: Cells, counts: Mapping[str, int]) -> tuple[Label, ...]:
    """Give the sorted classes: of numbers if all are, of strings otherwise."""
    name, n_rows = cells.name, len(cells.column)
    if len(counts) == 1:
        raise TableError(
            f"column {name!r}, the target, has one class, {next(iter(counts))!r}: there is nothing "
            "to tell apart."
        )
    if len(counts) > n_rows / 2:
        raise TableError(
            f"column {name!r}, the target, has {len(counts)} classes in {n_rows} rows: too many to "
            "learn. Is it an identifier, or --task regression?"
        )
    if not cells.is_number.all() or (np.abs(cells.numbers) >= EXACT).any():
        return tuple(sorted(counts))
    values = sorted(map(float, counts))
    is_whole = all(value.is_integer() for value in values)
    return tuple(map(int, values)) if is_whole else tuple(values)


def _guess(cells: Cells, n_distinct: int, is_numbers: bool) -> tuple[Task, str]:
    if not is_numbers:
        return "classification", f"holds {n_distinct} distinct words"
    other = "--task regression makes it one"
    is_few = n_distinct <= min(FEW_CLASSES, len(cells.column) / 5)
    if n_distinct <= 2 or (cells.is_whole and is_few):
        return "classification", f"has {n_distinct} distinct numbers ({other})"
    return "regression", f"holds numbers, {n_distinct} distinct"


def _are_equal(cells: Cells, outcome: Cells) -> bool:
    if not cells.is_present.all():
        return False
    if outcome.is_number.all() and cells.is_number.all():
        return bool((cells.numbers == outcome.numbers).all())
    return bool((cells.labels == outcome.labels).all())


def _name_of(label: Label) -> str:
    """Give the string that `Cells.labels` has for a class."""
    if isinstance(label, float) and label.is_integer():
        return str(int(label))
    return label if isinstance(label, str) else repr(label)


def _column_of(stored: Mapping[str, Any]) -> Column:
    values = dict(stored)
    kind = values.pop("kind")
    if kind == "Numeric":
        return Numeric(**values)
    if kind == "Categorical":
        return Categorical(**{**values, "categories": tuple(values["categories"])})
    raise ValueError(f"it has a column of kind {kind!r}")


def _is_sound(schema: Schema) -> bool:
    names = [schema.target_name, *(own.name for own in (*schema.columns, *schema.dropped))]
    return (
        schema.task in ("regression", "classification")
        and (len(schema.classes) >= 2) == (schema.task == "classification")
        and all(isinstance(label, int | float | str) for label in schema.classes)
        and bool(schema.columns)
        and all(isinstance(name, str) for name in names)
        and len(set(names)) == len(names)
        and all(_is_sound_column(column) for column in schema.columns)
    )


def _is_sound_column(column: Column) -> bool:
    if isinstance(column, Numeric):
        return isinstance(column.median, int | float) and math.isfinite(column.median)
    return all(isinstance(category, str) for category in column.categories)
