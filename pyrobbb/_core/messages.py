"""Words of messages: a value that a user passed, in one short line."""

from __future__ import annotations

import difflib
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


def not_one_of(argument: str, value: Any, names: Iterable[str], *, or_else: str = "") -> str:
    """Return the message for a value that is not one of some names, with the nearest of them."""
    names = tuple(names)
    message = f"`{argument}` must be one of {', '.join(names)}{or_else}, got {shown(value)}"
    near = nearest(value, names)
    return f"{message}." if near is None else f"{message}: did you mean {near!r}?"


def nearest(word: Any, names: Iterable[str]) -> str | None:
    """Return the name that a mistyped word probably stands for, or None."""
    names = tuple(names)
    if not isinstance(word, str):
        return None
    plain = {_plain(name): name for name in reversed(names)}
    found = difflib.get_close_matches(_plain(word), plain, n=1, cutoff=0.6)
    return plain[found[0]] if found else None


def _plain(name: str) -> str:
    return name.lower().replace("-", "_").replace(" ", "_")


def first_line(error: BaseException) -> str:
    """Return the first line of an error's message, or its type, without the rest."""
    text = str(error).strip() or type(error).__name__
    line = text.splitlines()[0]
    return line if len(line) <= 2 * MAX_LENGTH else line[: 2 * MAX_LENGTH - 3] + "..."
