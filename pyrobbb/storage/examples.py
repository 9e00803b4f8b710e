"""The first row of x on disk: its tensors, and their structure if there are several."""

from __future__ import annotations

import reprlib
from collections.abc import Mapping
from typing import Any

from torch import Tensor

from .._core.trees import Inputs, arrays_of, lists_as_tuples, unflatten
from .strict_json import as_json, check_fields

SCHEMA: dict[str, type | tuple[type, ...]] = {"shape": list, "dtype": str}
"""Fields of the schema of an array."""
EXAMPLE = "example"
"""Name of the tensor; those of several arrays are ``example.0``, ``example.1``, ..."""


def is_example(name: str) -> bool:
    """Return whether a tensor of a chain has the name of an array of the example."""
    kind, _, number = name.partition(".")
    return kind == EXAMPLE and (number.isdecimal() or name == EXAMPLE)


def example_tensors(example: Inputs) -> dict[str, Tensor]:
    """Return the arrays of the example by the names that they have on disk."""
    if isinstance(example, Tensor):
        return {EXAMPLE: example}
    return {f"{EXAMPLE}.{i}": tensor for i, tensor in enumerate(arrays_of(example))}


def row_schema(rows: Tensor) -> dict[str, Any]:
    """Return the shape and dtype of a row."""
    return {"shape": list(rows.shape[1:]), "dtype": str(rows.dtype).removeprefix("torch.")}


def inputs_schema(x: Inputs) -> dict[str, Any]:
    """Return the schema of a row; for several arrays, those of all and how they are nested.

    In ``structure``, lists stand for tuples, and numbers for the arrays.
    """
    if isinstance(x, Tensor):
        return row_schema(x)
    arrays = arrays_of(x)
    structure = as_json("structure", unflatten(range(len(arrays)), x))
    return {"structure": structure, "arrays": [row_schema(array) for array in arrays]}


def check_inputs_schema(where: str, schema: Mapping[str, Any]) -> None:
    """Raise a ValueError unless a value is a schema as `inputs_schema` returns it."""
    if "structure" not in schema:
        check_fields(where, schema, SCHEMA)
        return
    check_fields(where, schema, {"structure": (dict, list), "arrays": list})
    for array in schema["arrays"]:
        check_fields(where, array, SCHEMA)
    numbers = arrays_of(lists_as_tuples(schema["structure"]))
    if numbers != list(range(len(schema["arrays"]))):
        raise ValueError(
            f"'structure' in its {where} must number {len(schema['arrays'])} arrays, got "
            f"{reprlib.repr(numbers)}."
        )


def read_example(schema: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> Any:
    """Return the example that has a schema, from the tensors of a chain; raise if it has another.

    Parameters
    ----------
    schema : mapping
        As checked by `check_inputs_schema`.
    tensors : mapping of str to Tensor
    """
    stored = {name: tensor for name, tensor in tensors.items() if is_example(name)}
    names = [EXAMPLE]
    if "structure" in schema:
        names = [f"{EXAMPLE}.{i}" for i in range(len(schema["arrays"]))]
    if sorted(stored) != sorted(names):
        raise ValueError(f"its tensors must contain {', '.join(map(repr, names))}, a row of x.")
    if "structure" not in schema:
        return stored[EXAMPLE]
    return unflatten([stored[name] for name in names], lists_as_tuples(schema["structure"]))
