"""Conversion of arrays to tensors and back, and validation of arguments."""

from __future__ import annotations

import logging
import math
import numbers
from typing import Any

import numpy as np
import torch
from torch import Tensor

from .containers import from_container, position
from .messages import shown

logger = logging.getLogger(__name__)

ArrayLike = Any
"""A tensor, a NumPy array, a pandas or polars frame or series, or nested lists of numbers."""

LIMITED_DTYPES = frozenset(
    dtype
    for name, dtype in vars(torch).items()
    if isinstance(dtype, torch.dtype) and name.startswith("float8")
)
"""Dtypes of storage, in which torch computes next to nothing."""
MAX_COUNT = 2**63 - 1  # the largest integer of torch


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
    tensor = _plain(name, value) if isinstance(value, Tensor) else from_container(name, value)
    if tensor.is_complex():
        raise TypeError(f"`{name}` must hold real numbers, got {tensor.dtype}.")
    if tensor.dim() == 0:
        raise ValueError(
            f"`{name}` must have a row per observation, got the number {shown(value)}."
        )
    if tensor.numel() == 0:
        raise ValueError(
            f"`{name}` is empty: it has shape {tuple(tensor.shape)}. Pass at least one row."
        )
    if tensor.is_floating_point():
        _check_finite(name, tensor)
    return tensor


def converted(name: str, tensor: Tensor, dtype: torch.dtype) -> Tensor:
    """Return finite numbers in another dtype; raise if one is too large for it.

    A log line says if integers lose digits, so that different ones may become equal.
    """
    result = tensor.to(dtype)
    if not dtype.is_floating_point or tensor.dtype in (dtype, torch.bool):
        return result
    if tensor.is_floating_point():
        overflows = result.isinf()
        if bool(overflows.any()):
            first = torch.nonzero(overflows)[0].tolist()
            raise ValueError(
                f"`{name}` holds {float(tensor[tuple(first)]):g} in {position(first)}, which is "
                f"too large for {dtype}: rescale it, or use a network and dtype=torch.float64."
            )
    elif bool((result.to(tensor.dtype) != tensor).any()):
        logger.warning(
            "`%s` holds integers that %s rounds, such as %d: subtract an offset or rescale them.",
            name,
            dtype,
            int(tensor[result.to(tensor.dtype) != tensor][0]),
        )
    return result


def _plain(name: str, tensor: Tensor) -> Tensor:
    """Return a tensor that steps of a fit can use: no part of a graph, nor of inference mode.

    Raises
    ------
    TypeError
        If torch does not compute with it as with dense numbers.
    """
    is_empty = type(tensor) is Tensor and tensor.is_meta  # a subclass may hold values elsewhere
    for is_kind, words, remedy in (
        (is_empty, "on the meta device, which has no values", "pass one with values"),
        (tensor.is_nested, "nested", "pad or stack its rows"),
        (tensor.is_quantized, "quantised", "pass `tensor.dequantize()`"),
        (tensor.layout != torch.strided, "sparse", "pass `tensor.to_dense()`"),
        (tensor.dtype in LIMITED_DTYPES, f"of {tensor.dtype}", "pass `tensor.float()`"),
    ):
        if is_kind:
            raise TypeError(f"`{name}` must be a dense tensor, got one that is {words}: {remedy}.")
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
        raise TypeError(f"`{argument}` must be a number, got {shown(value)}.")
    if not math.isfinite(value):
        raise ValueError(f"`{argument}` must be finite, got {value}.")


def check_positive(argument: str, value: float) -> None:
    """Raise unless the value of an argument is a finite number above 0."""
    check_number(argument, value)
    if value <= 0:
        raise ValueError(f"`{argument}` must be positive, got {shown(value)}.")


def check_probability(argument: str, value: float) -> None:
    """Raise unless the value of an argument is a number strictly between 0 and 1."""
    check_number(argument, value)
    if not 0 < value < 1:
        raise ValueError(f"`{argument}` must be a probability in (0, 1), got {shown(value)}.")


def as_count(argument: str, value: Any, *, least: int = 1) -> int:
    """Return the value of an argument as an integer, or raise; see `check_count`.

    A whole number of type float is accepted: R has no other kind unless one asks for it.
    """
    if isinstance(value, numbers.Real) and not isinstance(value, numbers.Integral):
        value = int(float(value)) if float(value).is_integer() else value
    check_count(argument, value, least=least)
    return int(value)


def check_count(argument: str, value: int, *, least: int = 1) -> None:
    """Raise unless the value of an argument is an integer of at least `least`."""
    if isinstance(value, bool) or not isinstance(value, numbers.Integral):
        raise TypeError(f"`{argument}` must be a whole number, got {shown(value)}.")
    if value < least:
        raise ValueError(f"`{argument}` must be at least {least}, got {shown(value)}.")
    if value > MAX_COUNT:
        raise ValueError(f"`{argument}` must be below 2**63, got {shown(value)}.")


def _check_finite(name: str, tensor: Tensor) -> None:
    bad = ~torch.isfinite(tensor)
    if bad.any():
        raise ValueError(
            f"`{name}` has {int(bad.sum())} value(s) that are NaN or infinite, the first at "
            f"{position(torch.nonzero(bad)[0].tolist())}. Drop those rows or fill them in."
        )


def like(original: ArrayLike, result: Tensor) -> Any:
    """Return a result in the array type of the input: a tensor for a tensor, else a NumPy array."""
    return result.detach() if isinstance(original, Tensor) else to_numpy(result)


def kind_of(original: ArrayLike) -> ArrayLike:
    """Return an empty array of the input's type, for `like`, so that the input need not be kept."""
    return torch.empty(0) if isinstance(original, Tensor) else np.empty(0)
