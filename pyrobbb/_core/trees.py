"""Structured inputs: an array, or tuples and mappings of arrays, with one dimension of rows.

What a module takes as input is a tree in the sense of `torch.utils._pytree`: its nodes are tuples
and dicts, its leaves arrays whose first dimension indexes the rows. A single array is a tree with
one leaf. All operations on rows are here, so that no other module asks how many leaves there are.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeAlias

import numpy as np
import torch
from torch import Tensor
from torch.utils import _pytree as pytree

from .arrays import ArrayLike, as_tensor
from .messages import shown

Inputs: TypeAlias = "Tensor | tuple[Inputs, ...] | dict[str, Inputs]"
"""A tensor, or nested tuples and dicts of tensors, all of shape (n, ...)."""
InputsLike = Any
"""As `Inputs`, with arrays of any kind and any mappings."""


def as_inputs(name: str, x: InputsLike) -> Inputs:
    """Convert inputs to tensors, or raise an error that locates the invalid value.

    Parameters
    ----------
    name : str
        Name of the argument, for messages.
    x : array-like of shape (n, ...), or nested tuples and mappings of them

    Returns
    -------
    Inputs
        As `as_tensor` returns each array.

    Raises
    ------
    TypeError, ValueError
        If an array is invalid, there is none, or they differ in their number of rows.
    """
    tree = structured(name, x)
    tensors = [as_tensor(of_array, leaf) for of_array, leaf in named_arrays(name, tree)]
    tree = unflatten(tensors, tree)
    check_equal_rows(name, tree)
    return tree


def structured(name: str, x: InputsLike) -> InputsLike:
    """Return inputs as nested tuples and dicts, with arrays as they are.

    A tuple that holds an array or a mapping is a node; one of numbers, and any list, is an array.
    """
    if isinstance(x, Mapping):
        for key in x:
            if not isinstance(key, str):
                raise TypeError(f"`{name}` must have strings as keys, got {shown(key)}.")
        return {key: structured(f"{name}[{key!r}]", value) for key, value in x.items()}
    if isinstance(x, tuple):
        if not _holds_arrays(x):
            return list(x)
        return tuple(structured(f"{name}[{i}]", value) for i, value in enumerate(x))
    return x


def lists_as_tuples(x: Any) -> Any:
    """Return nested lists, tuples and dicts with tuples in place of the lists."""
    if isinstance(x, dict):
        return {key: lists_as_tuples(value) for key, value in x.items()}
    return tuple(map(lists_as_tuples, x)) if isinstance(x, list | tuple) else x


def is_structured(x: InputsLike) -> bool:
    """Return whether inputs are a mapping, or a tuple that holds arrays."""
    return isinstance(x, Mapping) or (isinstance(x, tuple) and _holds_arrays(x))


def is_memory_mapped(x: InputsLike) -> bool:
    """Return whether an array is that of a file, `numpy.memmap`."""
    return any(isinstance(array, np.memmap) for array in arrays_of(structured("x", x)))


def _holds_arrays(values: tuple[Any, ...]) -> bool:
    return any(is_structured(value) or len(getattr(value, "shape", ())) > 0 for value in values)


def _is_leaf(value: Any) -> bool:
    return type(value) is not dict and type(value) is not tuple


def arrays_of(x: InputsLike) -> list[Any]:
    """Return the arrays of inputs, in order."""
    return [x] if isinstance(x, Tensor) else pytree.tree_leaves(x, is_leaf=_is_leaf)


def unflatten(leaves: Sequence[Any], like: InputsLike) -> Any:
    """Return arrays, or other leaves, in the structure of other inputs."""
    return pytree.tree_unflatten(leaves, pytree.tree_structure(like, is_leaf=_is_leaf))


def map_arrays(function: Callable[..., Any], x: InputsLike, *others: InputsLike) -> Any:
    """Apply a function to each array, and to those in its place in other inputs."""
    if isinstance(x, Tensor):
        return function(x, *others)
    return pytree.tree_map(function, x, *others, is_leaf=_is_leaf)


def named_arrays(name: str, x: InputsLike) -> list[tuple[str, Any]]:
    """Return the arrays with their names, such as ``x['mask']`` or ``x[0]``; ``x`` if x is one."""
    pairs, _ = pytree.tree_flatten_with_path(x, is_leaf=_is_leaf)
    return [(name + pytree.keystr(path), leaf) for path, leaf in pairs]


def labelled_arrays(name: str, x: InputsLike) -> dict[str, Any]:
    """Return the arrays by names without brackets, such as ``x.mask`` or ``x.0``."""
    pairs, _ = pytree.tree_flatten_with_path(x, is_leaf=_is_leaf)
    labels = [
        ".".join([name, *(str(getattr(key, "key", getattr(key, "idx", ""))) for key in path)])
        for path, _ in pairs
    ]
    if len(set(labels)) < len(labels):  # keys with dots
        return dict(named_arrays(name, x))
    return {label: array for label, (_, array) in zip(labels, pairs, strict=True)}


def n_rows(x: InputsLike) -> int:
    """Return the number of rows."""
    return len(arrays_of(x)[0])


def rows_of(x: InputsLike, index: Any) -> Any:
    """Return each array at an index: a slice, a row, or the indices of rows."""
    return map_arrays(lambda leaf: leaf[index], x)


def split(x: Inputs, size: int) -> list[Any]:
    """Return consecutive parts of at most `size` rows."""
    parts = zip(*(leaf.split(size) for leaf in arrays_of(x)), strict=True)
    return [unflatten(part, x) for part in parts]


def concatenate(parts: Sequence[Inputs]) -> Any:
    """Return consecutive parts as one."""
    if len(parts) == 1:
        return parts[0]
    return map_arrays(lambda *leaves: torch.cat(leaves), *parts)


def clone(x: Inputs) -> Any:
    """Return a copy."""
    return map_arrays(torch.clone, x)


def row_size(x: Inputs) -> int:
    """Return the number of elements of a row."""
    return sum(leaf[0].numel() for leaf in arrays_of(x))


def row_bytes(x: InputsLike) -> int:
    """Return the number of bytes of a row."""
    return sum(
        # A data frame has one dtype per column.
        getattr(getattr(array, "dtype", None), "itemsize", 8) * math.prod(np.shape(array)[1:])
        for array in arrays_of(x)
    )


def device_of(x: Inputs) -> torch.device:
    """Return the device."""
    device: torch.device = arrays_of(x)[0].device
    return device


def describe_rows(x: Inputs) -> str:
    """Return the shapes and dtypes of a row in words, for messages."""
    if isinstance(x, Tensor):
        return f"rows of shape {tuple(x.shape[1:])} and dtype {x.dtype}"
    named = [f"{n} {tuple(t.shape[1:])} {t.dtype}" for n, t in named_arrays("x", x)]
    return "rows of " + ", ".join(named[:4]) + (" and others" if len(named) > 4 else "")


def tensors_in(output: Any) -> list[Tensor]:
    """Return the tensors in what a module has returned: nested tuples, lists and mappings."""
    return [leaf for leaf in pytree.tree_leaves(output) if isinstance(leaf, Tensor)]


def check_equal_rows(name: str, x: InputsLike) -> None:
    """Raise unless there is an array, and all have the same number of rows."""
    if not (named := named_arrays(name, x)):
        raise ValueError(f"`{name}` holds no array, got {shown(x)}: pass at least one.")
    first = named[0]
    for of_array, leaf in named:
        if not hasattr(leaf, "__len__") or np.shape(leaf) == ():
            raise ValueError(f"`{of_array}` must have a row per observation, got {shown(leaf)}.")
        if len(leaf) != len(first[1]):
            raise ValueError(
                f"`{of_array}` has {len(leaf)} rows where `{first[0]}` has {len(first[1])}: pass a "
                "row per observation in each."
            )


def check_same_length(x: InputsLike, y: ArrayLike) -> None:
    """Raise unless `x` and `y` have the same number of rows."""
    if n_rows(x) != len(y):
        raise ValueError(
            f"`x` and `y` must have the same number of rows, got {n_rows(x)} and {len(y)}."
        )
