"""Priors, likelihoods and plain networks as data: what JSON holds, and tensors. No code."""

from __future__ import annotations

import dataclasses
import itertools
import reprlib
from collections.abc import Iterator, Mapping
from types import ModuleType
from typing import Any

from torch import Tensor

from .. import likelihoods, priors
from ..model.mlp import ACTIVATIONS, MLPSpec
from ..priors import ByName
from .strict_json import as_json, check_fields, prefix_errors

PARTS: dict[str, ModuleType] = {"prior": priors, "likelihood": likelihoods}


def describe(where: str, part: Any, tensors: dict[str, Tensor]) -> dict[str, Any]:
    """Describe a prior or likelihood; a callable of one's own by its name only.

    Parameters
    ----------
    where : str
        What it is called: ``"prior"`` or ``"likelihood"``.
    part : object
    tensors : dict of str to Tensor
        Takes up the tensors among its parameters. In the description stands their name.
    """

    def refer(name: str, value: Any) -> dict[str, str]:
        if not isinstance(value, Tensor):
            raise TypeError(f"`{name}` cannot be stored: it is of type {type(value).__name__}.")
        tensors[name] = value
        return {"tensor": name}

    if part is None:
        return {"type": "None"}
    if isinstance(part, ByName):
        rules = {p: describe(f"{where}[{p!r}]", own, tensors) for p, own in part.patterns.items()}
        default = describe(f"{where}.default", part.default, tensors)
        return {"type": "ByName", "patterns": rules, "default": default}
    if not any(type(part) in kinds_of(module).values() for module in PARTS.values()):
        return {"type": "custom", "name": name_of(part)}
    values = {field.name: getattr(part, field.name) for field in dataclasses.fields(part)}
    return {"type": type(part).__name__, **as_json(where, values, refer)}


def build(where: str, description: Any, tensors: Mapping[str, Tensor]) -> Any:
    """Make the prior or likelihood that a description is of.

    What is a callable of one's own is stood in for by a function that raises.

    Raises
    ------
    ValueError
        If it is the description of none, or its values are none of a prior or likelihood.
    """
    if not isinstance(description, dict) or type(description.get("type")) is not str:
        raise ValueError(
            f"its {where} must be an object with a 'type', got {reprlib.repr(description)}."
        )
    values = dict(description)
    kind = values.pop("type")
    if kind == "custom":
        check_fields(where, values, {"name": str})
        return _stand_in
    kinds = kinds_of(PARTS["likelihood" if where.startswith("likelihood") else "prior"])
    if kind not in kinds:
        raise ValueError(
            f"its {where} has the type {reprlib.repr(kind)}, must be one of {', '.join(kinds)}."
        )
    if kind == "ByName":
        check_fields(where, values, {"patterns": dict, "default": dict})
        values["patterns"] = {
            pattern: _build_rule(f"{where}[{pattern!r}]", own, tensors)
            for pattern, own in values["patterns"].items()
        }
        values["default"] = _build_rule(f"{where}.default", values["default"], tensors)
    else:
        allowed = (int, float, list, dict, type(None))
        check_fields(where, values, {f.name: allowed for f in dataclasses.fields(kinds[kind])})
        values = {name: _resolve(where, value, tensors) for name, value in values.items()}
    with prefix_errors(f"its {where}"):
        return kinds[kind](**values)


def _build_rule(where: str, description: Any, tensors: Mapping[str, Tensor]) -> Any:
    return None if description == {"type": "None"} else build(where, description, tensors)


def _resolve(where: str, value: Any, tensors: Mapping[str, Tensor]) -> Any:
    """Give a parameter as its class takes it, with the tensors that it refers to."""
    if isinstance(value, list):
        return tuple(value)
    if not isinstance(value, dict):
        return value
    if value.keys() == {"tensor"} and isinstance(value["tensor"], str):
        if value["tensor"] not in tensors:
            raise ValueError(f"its {where} has no tensor {value['tensor']!r}.")
        return tensors[value["tensor"]]
    return {name: _resolve(where, inner, tensors) for name, inner in value.items()}


def _stand_in(*args: Any) -> Any:
    raise ValueError("A callable of the user's own is not stored.")


def custom_names(description: Mapping[str, Any]) -> Iterator[str]:
    """Give the names of the callables of one's own in a description that `build` has taken."""
    if description["type"] == "custom":
        yield description["name"]
    if description["type"] == "ByName":
        for inner in (*description["patterns"].values(), description["default"]):
            yield from custom_names(inner)


def name_of(code: Any) -> str:
    """Give the name by which a callable of one's own is described."""
    return getattr(code, "__qualname__", type(code).__qualname__)


def kinds_of(module: ModuleType) -> dict[str, Any]:
    """List the classes in a module that a description can name: its dataclasses, no functions."""
    public = {name: getattr(module, name) for name in module.__all__}
    return {name: kind for name, kind in public.items() if dataclasses.is_dataclass(kind)}


def check_spec(found: Any) -> MLPSpec:
    """Make the specification of an `mlp`, nothing of whose sizes is made."""
    check_fields("'net'", found, {"n_in": int, "hidden": list, "n_out": int, "activation": str})
    sizes = [found["n_in"], *found["hidden"], found["n_out"]]
    if any(type(size) is not int or size < 1 for size in sizes):
        raise ValueError(
            f"its 'net' has the sizes {reprlib.repr(sizes)}, must be whole numbers of at least 1."
        )
    if found["activation"] not in ACTIVATIONS:
        raise ValueError(
            f"its 'net' has the 'activation' {reprlib.repr(found['activation'])}, must be one of "
            f"{', '.join(ACTIVATIONS)}."
        )
    return MLPSpec(**{**found, "hidden": tuple(found["hidden"])})


def shapes_of(spec: MLPSpec) -> dict[str, tuple[int, ...]]:
    """Give the shapes of the parameters of an `mlp` without making it."""
    sizes = itertools.pairwise([spec.n_in, *spec.hidden, spec.n_out])
    shapes: dict[str, tuple[int, ...]] = {}
    for i, (n_in, n_out) in enumerate(sizes):
        shapes |= {f"{2 * i}.weight": (n_out, n_in), f"{2 * i}.bias": (n_out,)}
    return shapes
