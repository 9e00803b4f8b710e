"""Strict JSON: values that are read back as they were written, and objects with known fields."""

from __future__ import annotations

import json
import math
import numbers
import reprlib
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import numpy as np

TYPE_NAMES = {
    dict: "an object",
    list: "a list",
    str: "a string",
    int: "a whole number",
    float: "a number",
    bool: "true or false",
    type(None): "null",
}


def as_json(where: str, value: Any, default: Callable[[str, Any], Any] | None = None) -> Any:
    """Convert a value to JSON types.

    NumPy numbers become Python numbers, and tuples become lists.

    Parameters
    ----------
    where : str
        Name of the value in error messages.
    value : object
    default : callable, optional
        ``(where, value) -> value``, for values without a JSON type. None: a TypeError is raised.

    Raises
    ------
    TypeError, ValueError
        If a value has no JSON type or is not finite.
    """
    if value is None or isinstance(value, bool | str):
        return value
    if isinstance(value, np.bool_):
        return bool(value)
    if isinstance(value, numbers.Integral):
        return int(value)
    if isinstance(value, numbers.Real):
        if not math.isfinite(value):
            raise ValueError(f"`{where}` must be finite to be stored as JSON, got {value}.")
        return float(value)
    if isinstance(value, Mapping):
        for name in value:
            if not isinstance(name, str):
                raise TypeError(f"`{where}` must have strings as keys, got {name!r}.")
        return {n: as_json(f"{where}[{n!r}]", v, default) for n, v in value.items()}
    if isinstance(value, list | tuple):
        return [as_json(f"{where}[{i}]", v, default) for i, v in enumerate(value)]
    if default is not None:
        return default(where, value)
    raise TypeError(
        f"`{where}` must be a number, a string, None, or a list or mapping of such values to be "
        f"stored as JSON, got {type(value).__name__}."
    )


def parse_object(where: str, content: bytes) -> dict[str, Any]:
    """Parse a JSON object, or raise a ValueError that describes what is invalid."""
    try:
        value = json.loads(content.decode(), parse_constant=_finite, parse_float=_finite)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"its {where} is not valid JSON ({error}).") from error
    if not isinstance(value, dict):
        raise ValueError(f"its {where} must be an object, got {reprlib.repr(value)}.")
    return value


def _finite(text: str) -> float:
    number = float(text)
    if not math.isfinite(number):
        raise ValueError(f"it contains the number {text}")
    return number


def check_fields(
    where: str, value: Any, types: Mapping[str, type | tuple[type, ...]]
) -> dict[str, Any]:
    """Return an object after checking that it has exactly the required fields and types.

    Parameters
    ----------
    where : str
        Name of the object in error messages.
    value : object
    types : mapping of str to type or tuple of types

    Raises
    ------
    ValueError
        If a field is missing, unknown or of the wrong type.
    """
    if not isinstance(value, dict):
        raise ValueError(f"its {where} must be an object, got {reprlib.repr(value)}.")
    for name, expected in types.items():
        allowed = expected if isinstance(expected, tuple) else (expected,)
        if name not in value:
            raise ValueError(f"its {where} has no field {name!r}.")
        if type(value[name]) not in allowed:
            raise ValueError(
                f"{name!r} in its {where} must be {' or '.join(TYPE_NAMES[t] for t in allowed)}, "
                f"got {reprlib.repr(value[name])}."
            )
    unknown = value.keys() - types.keys()
    if unknown:
        raise ValueError(f"its {where} has the unknown field {min(unknown)!r}.")
    return value


@contextmanager
def prefix_errors(prefix: str) -> Iterator[None]:
    """Convert every error caused by invalid values to a ValueError that begins with a prefix."""
    try:
        yield
    except (TypeError, ValueError, OverflowError, RuntimeError) as error:
        raise ValueError(f"{prefix}: {error}") from error
