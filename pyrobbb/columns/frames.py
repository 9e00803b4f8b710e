"""Data frames of other libraries as one of pandas, and whether one holds only numbers."""

from __future__ import annotations

import numbers
from typing import TYPE_CHECKING, Any

from .errors import TableError

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["as_pandas", "holds_numbers"]


def as_pandas(frame: Any) -> pd.DataFrame | None:
    """Return a frame of pandas or polars as one of pandas, with strings as names of its columns.

    Returns
    -------
    DataFrame or None
        None: it is no data frame. The memory of a frame of pandas is shared.

    Raises
    ------
    TableError
        If two columns have the same name.
    """
    import pandas as pd

    if hasattr(frame, "get_columns") and hasattr(frame, "schema"):
        series = frame.get_columns()
        frame = pd.DataFrame({column.name: _of_polars(column) for column in series})
    if not isinstance(frame, pd.DataFrame):
        return None
    names = [str(name) for name in frame.columns]
    for name in names:
        if names.count(name) > 1:
            raise TableError(f"has more than one column {name!r}: rename one of them.")
    return frame if names == list(frame.columns) else frame.set_axis(names, axis=1)


def holds_numbers(frame: pd.DataFrame) -> bool:
    """Return whether all cells of a frame are numbers, or booleans, and none is missing."""
    return all(_are_numbers(frame.iloc[:, i]) for i in range(frame.shape[1]))


def _are_numbers(column: pd.Series) -> bool:
    from pandas.api.types import is_bool_dtype, is_numeric_dtype

    if column.isna().any():
        return False
    if is_numeric_dtype(column.dtype) or is_bool_dtype(column.dtype):
        return True
    is_object = column.dtype == object
    return is_object and all(isinstance(cell, numbers.Number) for cell in column)


def _of_polars(column: Any) -> Any:
    import pandas as pd

    if column.dtype.is_numeric():
        return column.to_numpy()  # NaN where a number is missing
    kind = str(column.dtype)
    is_category = kind.startswith(("Categorical", "Enum"))
    return pd.Series(column.to_list(), dtype="category" if is_category else object)
