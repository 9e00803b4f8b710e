"""Conversion of arrays to tensors and back, and validation of arguments."""

from __future__ import annotations

import contextlib
import itertools
import math
import numbers
from typing import Any

import numpy as np
import torch
from torch import Tensor

ArrayLike = Any
"""A tensor, a NumPy array, a pandas or polars frame or series, or nested lists of numbers."""


def as_tensor(name: str, value: ArrayLike) -> Tensor:
    """Convert data to a tensor, or raise an error that locates the invalid value.

    Parameters
    ----------
    name : str
        Name of the argument, for messages.
    value : array-like of shape (n, ...)
        Numbers, at least one row, all of them finite.

    Returns
    -------
    Tensor of shape (n, ...)
        A tensor is returned unchanged, without its graph; NumPy data keep their dtype.

    Raises
    ------
    TypeError
        If the values are not numbers.
    ValueError
        If there are no rows, or if a value is NaN or infinite.
    """
    tensor = _without_graph(value) if isinstance(value, Tensor) else _from_array(name, value)
    if tensor.is_complex():
        raise TypeError(f"`{name}` must hold real numbers, got {tensor.dtype}.")
    if tensor.dim() == 0:
        raise ValueError(f"`{name}` must have a row per observation, got the number {value}.")
    if tensor.numel() == 0:
        raise ValueError(
            f"`{name}` is empty: it has shape {tuple(tensor.shape)}. Pass at least one row."
        )
    if tensor.is_floating_point():
        _check_finite(name, tensor)
    return tensor


def _without_graph(tensor: Tensor) -> Tensor:
    """Return a tensor that steps of a fit can use: no part of a graph, nor of inference mode."""
    if tensor.is_inference() and not torch.is_inference_mode_enabled():
        return tensor.clone()
    return tensor.detach() if tensor.requires_grad else tensor


def supports_float64(device: torch.device) -> bool:
    """Return whether a device supports double precision; Apple GPUs do not."""
    return device.type != "mps"


def to_numpy(values: ArrayLike) -> np.ndarray[Any, Any]:
    """Return values as a NumPy array; tensors may be on any device."""
    return values.detach().cpu().numpy() if isinstance(values, Tensor) else np.asarray(values)


def check_number(argument: str, value: float) -> None:
    """Raise unless the value of an argument is a finite number."""
    if isinstance(value, bool) or not isinstance(value, numbers.Real):
        raise TypeError(f"`{argument}` must be a number, got {value!r}.")
    if not math.isfinite(value):
        raise ValueError(f"`{argument}` must be finite, got {value}.")


def check_positive(argument: str, value: float) -> None:
    """Raise unless the value of an argument is a finite number above 0."""
    check_number(argument, value)
    if value <= 0:
        raise ValueError(f"`{argument}` must be positive, got {value}.")


def check_count(argument: str, value: int, *, least: int = 1) -> None:
    """Raise unless the value of an argument is an integer of at least `least`."""
    if isinstance(value, bool) or not isinstance(value, numbers.Integral):
        raise TypeError(f"`{argument}` must be a whole number, got {value!r}.")
    if value < least:
        raise ValueError(f"`{argument}` must be at least {least}, got {value}.")


def check_same_length(x: Any, y: Any) -> None:
    """Raise unless `x` and `y` have the same number of rows."""
    if len(x) != len(y):
        raise ValueError(
            f"`x` and `y` must have the same number of rows, got {len(x)} and {len(y)}."
        )


def _from_array(name: str, value: ArrayLike) -> Tensor:
    if value is None:
        raise TypeError(f"`{name}` must be an array of numbers, got None.")
    try:
        array = np.asarray(value)
    except ValueError as error:
        raise ValueError(f"`{name}` is ragged: its rows differ in length ({error}).") from None
    if array.dtype == object and not any(isinstance(v, str | bytes) for v in array.flat):
        with contextlib.suppress(TypeError, ValueError):  # numbers stored as objects are accepted
            array = array.astype(np.float64)
    if array.dtype.kind not in "buif":
        not_numbers = (v for v in array.flat if not isinstance(v, numbers.Real))
        first = next(itertools.chain(not_numbers, array.flat), None)
        raise TypeError(
            f"`{name}` must hold numbers, got {array.dtype} (such as {str(first)!r}). Encode it: "
            "class labels as 0, 1, 2, ..., other categories as one-hot columns."
        )
    if array.dtype.kind == "u" and array.dtype.itemsize > 1:
        if array.size and array.max() > np.iinfo(np.int64).max:
            raise ValueError(f"`{name}` holds {array.max()}, which is too large for an integer.")
        array = array.astype(np.int64)  # torch has few operations for wide unsigned integers
    if array.dtype.kind == "f" and array.dtype.itemsize > 8:
        array = array.astype(np.float64)
    # Copy, because torch does not accept reversed views, read-only memory or other byte orders.
    return torch.from_numpy(array.astype(array.dtype.newbyteorder("="), order="C"))


def _check_finite(name: str, tensor: Tensor) -> None:
    bad = ~torch.isfinite(tensor)
    if bad.any():
        row, *column = torch.nonzero(bad)[0].tolist()
        where = f"row {row}" + (f", column {', '.join(map(str, column))}" if column else "")
        raise ValueError(
            f"`{name}` has {int(bad.sum())} value(s) that are NaN or infinite, the first at "
            f"{where}. Drop those rows or fill them in."
        )


def like(original: ArrayLike, result: Tensor) -> Any:
    """Return a result in the array type of the input: a tensor for a tensor, else a NumPy array."""
    return result.detach() if isinstance(original, Tensor) else to_numpy(result)


def kind_of(original: ArrayLike) -> ArrayLike:
    """Return an empty array of the input's type, for `like`, so that the input need not be kept."""
    return torch.empty(0) if isinstance(original, Tensor) else np.empty(0)
