"""Mistyped names of arguments: the TypeError of Python, with the name that was probably meant."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Sequence
from typing import ParamSpec, TypeVar

from .error_pages import add_page
from .messages import nearest

P = ParamSpec("P")
R = TypeVar("R")


def suggests_arguments(
    *, of_options: Sequence[Callable[..., object]] = ()
) -> Callable[[Callable[P, R]], Callable[P, R]]:
    """Return a decorator: an unknown argument is refused with the nearest known one.

    Errors about an argument get a note with their section of the documentation. Python names the
    nearest argument from version 3.13 on, but not for the ``**options`` that a function passes on.

    Parameters
    ----------
    of_options : sequence of callable
        Functions that take the ``**options`` of the decorated one. Their arguments are known too.
    """

    def decorate(function: Callable[P, R]) -> Callable[P, R]:
        known = _keywords(function).union(*map(_keywords, of_options))

        @functools.wraps(function)
        def checked(*args: P.args, **kwargs: P.kwargs) -> R:
            for word in kwargs:
                if word not in known:
                    near = nearest(word, sorted(known))
                    hint = "" if near is None else f". Did you mean '{near}'?"
                    name = function.__qualname__
                    if function.__name__ == "__init__":
                        name = type(args[0]).__name__
                    raise TypeError(f"{name}() got an unexpected keyword argument '{word}'{hint}")
            try:
                return function(*args, **kwargs)
            except Exception as error:
                add_page(error)
                raise

        return checked

    return decorate


def _keywords(function: Callable[..., object]) -> set[str]:
    """Return the names of the arguments that can be passed by name."""
    by_name = inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY
    parameters = inspect.signature(function).parameters.values()
    return {parameter.name for parameter in parameters if parameter.kind in by_name}
