"""Rows of a table that have a target, encoded for a fit or for a measurement."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from .._core.display import count_of
from ..columns.encoding import EncodingReport
from ..columns.errors import TableError, prefix_errors
from .reader import TableFile
from .schema import Schema

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["Examples", "read_examples"]


@dataclass(frozen=True, eq=False)
class Examples:
    """Rows of a table that have a target.

    Attributes
    ----------
    frame : DataFrame
    x : ndarray of shape (n, n_inputs)
    y : ndarray of shape (n,)
    notes : tuple of str
        What was detected in the file, unseen categories, imputed values, rows without a target.
    """

    frame: pd.DataFrame
    x: np.ndarray
    y: np.ndarray
    notes: tuple[str, ...] = ()


def read_examples(schema: Schema, table: TableFile) -> Examples:
    """Read and encode the rows of a table that have a target.

    Parameters
    ----------
    schema : Schema
    table : TableFile

    Raises
    ------
    TableError
        If no row has a target, or a row cannot be read or encoded.
    """
    with prefix_errors(table.path):
        frame, n_left_out = schema.with_target(table.read())
        if not len(frame):
            raise TableError(f"has no row with a target {schema.target_name!r}.")
        report = EncodingReport()
        x, y = schema.encode(frame, report), schema.target(frame)
    notes = [*table.notes, *report.messages()]
    if n_left_out:
        notes.append(f"Left out: {count_of(n_left_out, 'row')} without a target.")
    return Examples(frame, x, y, tuple(notes))
