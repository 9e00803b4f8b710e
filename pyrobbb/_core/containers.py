"""Numbers out of the containers of other libraries: NumPy, pandas, polars, lists of tensors."""

from __future__ import annotations

import contextlib
import math
import numbers
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from .messages import first_line, shown

INTEGER_NA = -(2**31)
MISSING = frozenset({"NoneType", "NAType", "NaTType"})
"""Types of the values that pandas, polars and lists have in place of a missing number."""


def from_container(name: str, value: Any) -> Tensor:
    """Convert numbers in any container to a tensor, whose memory is not shared.

    Parameters
    ----------
    name : str
        Name of the argument, for messages.
    value : array-like
        A missing number becomes NaN.

    Raises
    ------
    TypeError
        If the values are not numbers, or the container is not an array.
    ValueError
        If rows differ in length, numbers are masked, or one is too large.
    """
    _check_container(name, value)
    if isinstance(value, list | tuple) and value and all(isinstance(v, Tensor) for v in value):
        return _stacked(name, value)
    array = _as_array(name, value)
    check_no_integer_na(name, array if isinstance(value, list | tuple) else value)
    if array.dtype.kind == "O":
        array = _numbers_of_objects(name, array)
    if array.dtype.kind not in "buif":
        _refuse(name, array)
    if array.dtype.kind == "u" and array.dtype.itemsize > 1:
        if array.size and array.max() > np.iinfo(np.int64).max:
            raise ValueError(f"`{name}` holds {array.max()}, which is too large for an integer.")
        array = array.astype(np.int64)  # torch has few operations for wide unsigned integers
    if array.dtype.kind == "f" and array.dtype.itemsize > 8:
        array = array.astype(np.float64)
    # Copy, because torch does not accept reversed views, read-only memory or other byte orders.
    return torch.from_numpy(array.astype(array.dtype.newbyteorder("="), order="C"))


def check_no_integer_na(name: str, value: Any) -> None:
    """Raise if integers, in an array or a column of a frame, include the NA of R.

    It arrives as the lowest 32-bit integer. A column of a frame is examined by itself: as a part of
    an array, next to other columns, it may be a float.
    """
    for column, part in _columns_of(value):
        if isinstance(part, list | tuple):
            with contextlib.suppress(Exception):  # what cannot be read is refused elsewhere
                part = np.asarray(part)
        is_integer = str(getattr(part, "dtype", "")).lower().startswith(("int32", "int64"))
        if not (is_integer and np.size(part)):
            continue
        lowest = part.min()
        if type(lowest).__name__ in MISSING or lowest != INTEGER_NA:  # missing: all of them are
            continue
        cells = np.asarray(part, dtype=object)
        first = next(i for i, v in enumerate(cells.flat) if isinstance(v, int) and v == INTEGER_NA)
        index = [int(i) for i in np.unravel_index(first, cells.shape)]
        where = position(index) if column is None else f"row {index[0]}, column {column!r}"
        raise ValueError(
            f"`{name}` holds {INTEGER_NA} in {where}, which is how a missing integer (NA) of R "
            "arrives: drop those rows or fill them in."
        )


def _columns_of(value: Any) -> Iterable[tuple[Any, Any]]:
    """Return the columns of a frame with their names, or a container itself with None."""
    names = getattr(value, "columns", None)
    if names is None or not hasattr(value, "dtypes") or len(set(names)) < len(names):
        return [(None, value)]
    return ((name, value[name]) for name in names)


def position(index: Iterable[Any]) -> str:
    """Return the words for a place in an array, such as "row 3, column 1"."""
    row, *column = index
    return f"row {row}" + (f", column {', '.join(map(str, column))}" if column else "")


def _check_container(name: str, value: Any) -> None:
    """Raise a TypeError for what NumPy would take as one object, or cannot read."""
    kind = type(value).__name__
    if value is None:
        raise TypeError(f"`{name}` must be an array of numbers, got None.")
    remedy = None
    if hasattr(value, "toarray") and hasattr(value, "nnz"):
        remedy = f"a sparse matrix ({kind}): pass `{name}.toarray()`"
    elif hasattr(value, "collect") and hasattr(value, "explain"):
        remedy = f"a {kind}: pass `{name}.collect()`"
    elif hasattr(value, "data_vars"):
        remedy = f"a {kind} of several variables: pass one, or `{name}.to_dataarray()`"
    elif isinstance(value, Mapping):
        remedy = f"a {kind}: pass its values as the columns of an array"
    elif (
        isinstance(value, set | frozenset)
        or (
            isinstance(value, Iterable)
            and not isinstance(value, Sequence)
            and hasattr(value, "send")
        )
        or isinstance(value, map | filter | zip | enumerate)
    ):
        remedy = f"a {kind}: pass a list"
    elif isinstance(value, torch.nn.Module) or callable(value):
        remedy = f"a {kind}: pass the numbers themselves"
    if remedy:
        raise TypeError(f"`{name}` must be an array of numbers, got {remedy}.")


def _stacked(name: str, rows: Sequence[Tensor]) -> Tensor:
    """Return tensors of one shape as the rows of a new one."""
    try:
        return torch.stack([row.detach() for row in rows])
    except RuntimeError as error:
        problem = "its rows differ" if len({r.shape for r in rows}) > 1 else first_line(error)
        raise ValueError(f"`{name}` is ragged: its rows differ in length ({problem}).") from None


def _as_array(name: str, value: Any) -> np.ndarray[Any, Any]:
    """Return a container as a NumPy array; raise if it has masked values."""
    holds_masked = isinstance(value, list | tuple) and any(
        isinstance(row, np.ma.MaskedArray) for row in value
    )
    try:
        array = np.ma.array(value) if holds_masked else np.asanyarray(value)
        if not isinstance(array, np.ma.MaskedArray):
            return np.asarray(array)
    except ValueError as error:
        raise ValueError(
            f"`{name}` is ragged: its rows differ in length ({first_line(error)})."
        ) from None
    except Exception as error:
        raise TypeError(
            f"`{name}` could not be read as an array of numbers: {first_line(error)}"
        ) from None
    mask = np.ma.getmaskarray(array)
    if mask.dtype.names is None and mask.any():
        raise ValueError(
            f"`{name}` has {int(mask.sum())} masked value(s), the first at "
            f"{position(np.argwhere(mask)[0].tolist())}. Drop those rows or fill them in."
        )
    return np.asarray(array.data)


def _numbers_of_objects(name: str, array: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """Return numbers that are stored as objects, with NaN where one is missing."""
    flat = [math.nan if type(v).__name__ in MISSING else v for v in array.flat]
    if any(isinstance(v, str | bytes) for v in flat):
        return array
    try:
        return np.array([float(v) for v in flat], dtype=np.float64).reshape(array.shape)
    except OverflowError:
        large = next(i for i, v in enumerate(flat) if _overflows(v))
        where = position(np.unravel_index(large, array.shape)) if array.ndim else "it"
        raise ValueError(f"`{name}` holds a number in {where} that is too large.") from None
    except (TypeError, ValueError):
        return array


def _overflows(value: Any) -> bool:
    try:
        float(value)
    except OverflowError:
        return True
    return False


def _refuse(name: str, array: np.ndarray[Any, Any]) -> None:
    """Raise a TypeError that gives an example of a value that is no number, and its place."""
    bad = [i for i, v in enumerate(array.flat) if not isinstance(v, numbers.Real)] or [0]
    example = array.flat[bad[0]] if array.size else ""
    where = f" in {position(np.unravel_index(bad[0], array.shape))}" if array.ndim else ""
    dtype = "records" if array.dtype.names else str(array.dtype)
    remedy = "Encode it: class labels as 0, 1, 2, ..., other categories as one-hot columns."
    if array.dtype.kind in "mM" or hasattr(example, "isoformat"):
        remedy = "Encode it: times as numbers, such as days since a date."
    elif array.dtype.names:
        remedy = "Pass its fields as the columns of an array."
    raise TypeError(
        f"`{name}` must hold numbers, got {dtype} (such as {shown(str(example))}){where}. {remedy}"
    )
