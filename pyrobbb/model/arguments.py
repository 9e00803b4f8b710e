"""How inputs are passed to a module: as its positional arguments, its keywords, or as one."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from functools import lru_cache
from typing import Any

from torch import Tensor, nn

from .._core.trees import Inputs


def call_module(net: nn.Module, x: Inputs) -> Any:
    """Call a module on inputs.

    A tensor is its only argument. A tuple is its positional arguments, and a mapping its keywords,
    if the signature of `forward` accepts them; otherwise the tuple or the mapping is one argument.
    For a `forward` that accepts both, ``(mapping,)`` is the mapping as one argument.

    Parameters
    ----------
    net : nn.Module
    x : Inputs

    Raises
    ------
    TypeError
        If `forward` accepts neither.
    """
    if isinstance(x, Tensor):
        return net(x)
    args, kwargs = arguments_of(net, x)
    return net(*args, **kwargs)


def arguments_of(net: nn.Module, x: Inputs) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """Return inputs as positional arguments and keywords of a module; see `call_module`."""
    if isinstance(x, Tensor):
        return (x,), {}
    parts = tuple(x) if isinstance(x, dict) else len(x)
    function = getattr(net.forward, "__func__", net.forward)
    if not _takes_apart(function, function is not net.forward, parts):
        return (x,), {}
    return ((), x) if isinstance(x, dict) else (x, {})


@lru_cache(maxsize=256)
def _takes_apart(
    function: Callable[..., Any], is_method: bool, parts: tuple[str, ...] | int
) -> bool:
    """Return whether a function takes keywords, or a number of arguments, rather than just one."""
    try:
        signature = inspect.signature(function)
    except (TypeError, ValueError):  # a function that is not written in Python
        return True
    first = (None,) * is_method
    several = (None,) * parts if isinstance(parts, int) else ()
    named = {} if isinstance(parts, int) else dict.fromkeys(parts)
    if _binds(signature, *first, *several, **named):
        return True
    if _binds(signature, *first, None):
        return False
    if isinstance(parts, int):
        raise TypeError(f"a tuple of {parts} is neither its arguments nor the only one")
    raise TypeError(
        f"a mapping of {', '.join(parts)} is neither its keywords nor its only argument"
    )


def forward_arguments(net: nn.Module) -> str:
    """Return the arguments of `forward` in words, for messages."""
    try:
        parameters = inspect.signature(net.forward).parameters.values()
    except (TypeError, ValueError):
        return "(...)"
    return "(" + ", ".join(str(parameter).partition(":")[0] for parameter in parameters) + ")"


def _binds(signature: inspect.Signature, /, *args: Any, **kwargs: Any) -> bool:
    try:
        signature.bind(*args, **kwargs)
    except TypeError:
        return False
    return True
