"""Fit of a model to a table on disk."""

from __future__ import annotations

import dataclasses
import os
import time
from collections.abc import Callable, Collection
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from .._core.display import count_of
from ..columns.errors import TableError, UserError, prefix_errors
from .compressed import MAX_EXPANSION
from .leaks import notes_on_leaks
from .reader import TableFile
from .schema import Schema, check_names
from .target import Task
from .writer import check_model_folder

if TYPE_CHECKING:
    from ..estimators import BBBClassifier, BBBRegressor
    from .held_out import HeldOutScores
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
        Duration of all fits, without reading the table.
    notes : tuple of str
        What was detected and inferred from the table.
    scores : scores of held-out rows, or None
        As for `TableModel.held_out`; None unless requested by `holdout` or `cv`.
    """

    model: TableModel
    n_rows: int
    seconds: float
    notes: tuple[str, ...]
    scores: HeldOutScores | None = None


def fit_table(
    path: str | os.PathLike[str],
    target: str,
    out: str | os.PathLike[str],
    *,
    task: Task | None = None,
    likelihood: str = "auto",
    holdout: float | None = None,
    cv: int | None = None,
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
    holdout : float, optional
        Fraction of the rows, in (0, 1), to score a further fit on, which has not seen them.
    cv : int, optional
        Number of folds, at least 2: cross-validation in place of `holdout`. The model that is
        returned and saved is fitted to all rows, and columns are encoded by all rows.
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
        Called with a line about what is fitted, after all checks, and with one before each of
        several fits; without ``verbose``, also before each of their stages.
    **options
        Further parameters of `BBBRegressor` or `BBBClassifier`.

    Returns
    -------
    TableFit

    Raises
    ------
    UserError
        If the table cannot be read or learned from, or the folder cannot be written.
    ValueError, TypeError
        If an option is invalid; see `BBBRegressor`.
    """
    check_model_folder(out)
    _check_split(holdout, cv)
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
        if cv is not None and cv > len(y):
            raise TableError(f"has {count_of(len(y), 'row')}, fewer than the {cv} folds of --cv.")
    leaks = notes_on_leaks(schema, x, y)
    schema = dataclasses.replace(schema, target_notes=(*leaks, *schema.target_notes))
    note(schema.notes)
    if schema.task == "classification" and likelihood != "auto":
        raise UserError(f"--likelihood {likelihood} is for a regression; leave it out.")
    n_fits = 1 + (cv or (holdout is not None))

    def announce(line: str) -> None:
        if on_start is not None:
            on_start(line)

    fits = "" if n_fits == 1 else f", {n_fits} fits"
    inputs = count_of(x.shape[1], "input")
    announce(f"{schema.task} of {target!r} on {inputs}, {count_of(len(x), 'row')}{fits}")
    # Imported after all checks, because torch takes longer than they do.
    from .._core.distributed import Team
    from .._core.progress import stages_reported_to
    from ..estimators import BBBClassifier, BBBRegressor
    from .held_out import score_held_out
    from .model import TableModel

    def fit(x: np.ndarray, y: np.ndarray, number: int) -> BBBRegressor | BBBClassifier:
        """Return an estimator fitted to rows; the last of all is that of all rows."""
        own = dict(options)
        if n_fits > 1:
            announce(f"fit {number} of {n_fits}, to {count_of(len(x), 'row')}")
            if own.get("checkpoint") is not None:
                own["checkpoint"] = Path(own["checkpoint"]) / f"of-{n_fits}-fit-{number}"
        if schema.task == "regression":
            return BBBRegressor(likelihood=likelihood, **own).fit(x, y)
        return BBBClassifier(**own).fit(x, y)

    started = time.perf_counter()
    scores = None
    is_bar_shown = options.get("verbose", False)
    with stages_reported_to(None if is_bar_shown else announce):
        if n_fits > 1:
            seed = options.get("random_state") or 0
            scores = score_held_out(fit, x, y, holdout=holdout, cv=cv, seed=seed)
        model = TableModel(fit(x, y, n_fits), schema, scores)
    if Team.current().is_rank_zero:
        model.save(out)
    return TableFit(model, len(x), time.perf_counter() - started, tuple(notes), scores)


def _check_split(holdout: float | None, cv: int | None) -> None:
    if holdout is not None and cv is not None:
        raise UserError("--holdout and --cv are two ways to score a fit; choose one.")
    if holdout is not None and not 0 < holdout < 1:
        raise UserError(f"--holdout must be a fraction of the rows in (0, 1), got {holdout:g}.")
    if cv is not None and cv < 2:
        raise UserError(f"--cv must be a number of folds, at least 2, got {cv}.")
