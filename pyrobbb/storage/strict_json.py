"""JSON, strictly: values that it can hold, and objects that have the fields they must have."""

from __future__ import annotations

import json
import math
import numbers
import reprlib
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import numpy as np

KINDS = {
    dict: "an object",
    list: "a list",
    str: "a string",
    int: "a whole number",
    float: "a number",
    bool: "true or false",
    type(None): "null",
}


def as_json(where: str, value: Any, other: Callable[[str, Any], Any] | None = None) -> Any:
    """Give a value as what JSON has, so that it is read as it was written.

    Numbers of NumPy become Python's, and tuples become lists.

    Parameters
    ----------
    where : str
        What the value is called in the message.
    value : object
    other : callable, optional
        ``(where, value) -> value``, for all that JSON has not; by default a TypeError is raised.

    Raises
    ------
    TypeError, ValueError
        If JSON has nothing of the kind: the message says which value.
    """
    if value is None or isinstance(value, bool | str):
        return value
    if isinstance(value, np.bool_):
        return bool(value)
    if isinstance(value, numbers.Integral):
        return int(value)
    if isinstance(value, numbers.Real):
        if not math.isfinite(value):
            raise ValueError(f"`{where}` is {value}, which JSON cannot hold: it must be finite.")
        return float(value)
    if isinstance(value, Mapping):
        for name in value:
            if not isinstance(name, str):
                raise TypeError(f"`{where}` has the key {name!r}: the keys must be strings.")
        return {n: as_json(f"{where}[{n!r}]", v, other) for n, v in value.items()}
    if isinstance(value, list | tuple):
        return [as_json(f"{where}[{i}]", v, other) for i, v in enumerate(value)]
    if other is not None:
        return other(where, value)
    raise TypeError(
        f"`{where}` is of type {type(value).__name__}, which JSON cannot hold: it must be a "
        "number, a string, None, or a list or mapping of such."
    )


def parse_object(where: str, content: bytes) -> dict[str, Any]:
    """Read a JSON object; a ValueError says what is wrong with it."""
    try:
        found = json.loads(content.decode(), parse_constant=_finite, parse_float=_finite)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"its {where} is no JSON ({error}).") from error
    if not isinstance(found, dict):
        raise ValueError(f"its {where} must be an object, got {reprlib.repr(found)}.")
    return found


def _finite(text: str) -> float:
    number = float(text)
    if not math.isfinite(number):
        raise ValueError(f"it holds the number {text}")
    return number


def check_fields(
    where: str, found: Any, kinds: Mapping[str, type | tuple[type, ...]]
) -> dict[str, Any]:
    """Give an object back if it has the given fields, of the given types, and no others.

    Parameters
    ----------
    where : str
        What the object is called in the message.
    found : object
        What stands there.
    kinds : mapping of str to type or tuple of types

    Raises
    ------
    ValueError
    """
    if not isinstance(found, dict):
        raise ValueError(f"its {where} must be an object, got {reprlib.repr(found)}.")
    for name, kind in kinds.items():
        allowed = kind if isinstance(kind, tuple) else (kind,)
        if name not in found:
            raise ValueError(f"its {where} has no field {name!r}.")
        if type(found[name]) not in allowed:
            must = " or ".join(KINDS[one] for one in allowed)
            raise ValueError(
                f"its {where} has the {name!r} {reprlib.repr(found[name])}, must be {must}."
            )
    unknown = found.keys() - kinds.keys()
    if unknown:
        raise ValueError(f"its {where} has the unknown field {min(unknown)!r}.")
    return found


@contextmanager
def prefix_errors(culprit: str) -> Iterator[None]:
    """Turn whatever wrong values bring about into a ValueError that begins with the culprit."""
    try:
        yield
    except (TypeError, ValueError, OverflowError, RuntimeError) as error:
        raise ValueError(f"{culprit}: {error}") from error
