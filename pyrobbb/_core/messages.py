"""Words of messages: a value that a user passed, in one short line."""

from __future__ import annotations

import reprlib
from collections.abc import Iterable
from typing import Any

MAX_LENGTH = 80
"""Characters of a value in a message."""

_SHORT = reprlib.Repr()
_SHORT.maxstring = _SHORT.maxlong = MAX_LENGTH - 10
_SHORT.maxother = 10_000  # cut below, by naming the type
_SHORT.maxlist = _SHORT.maxtuple = _SHORT.maxset = _SHORT.maxfrozenset = _SHORT.maxdict = 4


def shown(value: Any) -> str:
    """Return a value in one short line: its repr if that is short, otherwise its type and size.

    Messages name an argument and what was found. The repr of an array, a module, a distribution or
    a data frame would bury that in many lines.
    """
    try:
        text = _SHORT.repr(value)
    except Exception:  # an int of thousands of digits, or an object with a broken __repr__
        text = ""
    if text and "\n" not in text and len(text) <= MAX_LENGTH:
        return text
    shape = getattr(value, "shape", None)
    if isinstance(shape, tuple):
        return f"a {type(value).__name__} of shape {tuple(shape)}"
    if isinstance(value, list | tuple | set | frozenset | dict):
        return f"a {type(value).__name__} of length {len(value)}"
    return f"a {type(value).__name__}"


def is_one_of(value: Any, names: Iterable[str]) -> bool:
    """Return whether a value is one of some names; comparing an array with them would raise."""
    return isinstance(value, str) and value in tuple(names)


def first_line(error: BaseException) -> str:
    """Return the first line of an error's message, or its type, without the rest."""
    text = str(error).strip() or type(error).__name__
    line = text.splitlines()[0]
    return line if len(line) <= 2 * MAX_LENGTH else line[: 2 * MAX_LENGTH - 3] + "..."
