"""Fit of a model to a table on disk."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Collection
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, Literal

from ..columns.cells import count_of
from ..columns.errors import UserError, prefix_errors
from .compressed import MAX_EXPANSION
from .reader import TableFile
from .schema import Schema, check_names
from .target import Task
from .writer import check_model_folder

if TYPE_CHECKING:
    from ..estimators import BBBClassifier, BBBRegressor
    from .model import TableModel

__all__ = ["TableFit", "fit_table"]


@dataclass(frozen=True, eq=False)
class TableFit:
    """Result of `fit_table`.

    Attributes
    ----------
    model : TableModel
    n_rows : int
        Number of rows that the model was fitted to.
    seconds : float
        Duration of the fit, without reading the table.
    notes : tuple of str
        What was detected and inferred from the table.
    """

    model: TableModel
    n_rows: int
    seconds: float
    notes: tuple[str, ...]


def fit_table(
    path: str | os.PathLike[str],
    target: str,
    out: str | os.PathLike[str],
    *,
    task: Task | None = None,
    likelihood: str = "auto",
    drop: Collection[str] = (),
    categorical: Collection[str] = (),
    encoding: str | None = None,
    delimiter: str | None = None,
    decimal: Literal[".", ","] | None = None,
    max_expansion: int = MAX_EXPANSION,
    on_note: Callable[[str], None] | None = None,
    on_start: Callable[[str], None] | None = None,
    **options: Any,
) -> TableFit:
    """Read a table, fit a model to it and save the model.

    Parameters
    ----------
    path : path-like
        csv, tsv (also .gz) or parquet file.
    target : str
        Column to predict.
    out : path-like
        Folder for the model. Of several processes started by torchrun, only rank 0 writes.
    task : {"regression", "classification"}, optional
        None: inferred from the target; a regression if a likelihood is given for numbers.
    likelihood : str
        Likelihood of a regression; see `BBBRegressor`.
    drop, categorical : collection of str
        Columns to leave out, and columns whose numbers are codes of categories; see `Schema.of`.
    encoding, delimiter
        Format of a text file; see `TableFile.of`.
    decimal : {".", ","}, optional
        Decimal separator of cells that are strings; see `Schema.of`.
    max_expansion : int
        How many times its size a compressed file may expand to; see `TableFile.of`.
    on_note : callable, optional
        Called with each note as soon as it is known, before the fit begins.
    on_start : callable, optional
        Called with a line about what is fitted, after all checks.
    **options
        Further parameters of `BBBRegressor` or `BBBClassifier`.

    Returns
    -------
    TableFit

    Raises
    ------
    UserError
        If the table cannot be read or learnt from, or the folder cannot be written.
    ValueError, TypeError
        If an option is invalid; see `BBBRegressor.fit`.
    """
    check_model_folder(out)
    table = TableFile.of(path, encoding=encoding, delimiter=delimiter, max_expansion=max_expansion)
    notes: list[str] = []

    def note(lines: Collection[str]) -> None:
        notes.extend(lines)
        if on_note is not None:
            for line in lines:
                on_note(line)

    note(table.notes)
    with prefix_errors(table.path):
        check_names(table.columns, target, drop, categorical)
        frame = table.read()
        infer = partial(
            Schema.of, frame, target, drop=drop, categorical=categorical, decimal=decimal
        )
        schema = infer(task)
        has_numbers = not any(isinstance(label, str) for label in schema.classes)
        if task is None and likelihood != "auto" and has_numbers:
            schema = infer("regression")
        rows, _ = schema.with_target(frame)
        x, y = schema.encode(rows), schema.target(rows)
    note(schema.notes)
    if schema.task == "classification" and likelihood != "auto":
        raise UserError(f"--likelihood {likelihood} is for a regression; leave it out.")
    if on_start is not None:
        inputs = count_of(x.shape[1], "input")
        on_start(f"{schema.task} of {target!r} on {inputs}, {count_of(len(x), 'row')}")
    # Imported after all checks, because torch takes longer than they do.
    from .._core.distributed import Team
    from ..estimators import BBBClassifier, BBBRegressor
    from .model import TableModel

    started = time.perf_counter()
    estimator: BBBRegressor | BBBClassifier
    if schema.task == "regression":
        estimator = BBBRegressor(likelihood=likelihood, **options)
    else:
        estimator = BBBClassifier(**options)
    model = TableModel(estimator.fit(x, y), schema)
    if Team.current().is_rank_zero:
        model.save(out)
    return TableFit(model, len(x), time.perf_counter() - started, tuple(notes))
