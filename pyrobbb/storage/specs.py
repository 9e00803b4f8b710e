"""Priors, likelihoods and plain networks as JSON values and tensors. No code is stored."""

from __future__ import annotations

import dataclasses
import itertools
import reprlib
from collections.abc import Iterator, Mapping
from types import ModuleType
from typing import Any

from torch import Tensor

from .. import likelihoods, priors
from ..model.mlp import ACTIVATIONS, INPUT_SCALE, MLPSpec
from ..model.network import BayesianNetwork
from ..priors import ByName, Learned
from .strict_json import as_json, check_fields, prefix_errors

PARTS: dict[str, ModuleType] = {"prior": priors, "likelihood": likelihoods}


def describe(where: str, part: Any, tensors: dict[str, Tensor]) -> dict[str, Any]:
    """Describe a prior or likelihood by its class and parameters, a custom callable by its name.

    Parameters
    ----------
    where : str
        ``"prior"`` or ``"likelihood"``.
    part : object
    tensors : dict of str to Tensor
        The tensors among the parameters are added to it; the description refers to them by name.
    """

    def refer(name: str, value: Any) -> dict[str, Any]:
        if isinstance(value, Learned):
            numbers = as_json(name, dataclasses.asdict(value))
            return {"type": "Learned", **numbers}
        if not isinstance(value, Tensor):
            raise TypeError(f"`{name}` of type {type(value).__name__} cannot be stored.")
        tensors[name] = value
        return {"tensor": name}

    if part is None:
        return {"type": "None"}
    if isinstance(part, ByName):
        rules = {p: describe(f"{where}[{p!r}]", rule, tensors) for p, rule in part.patterns.items()}
        default = describe(f"{where}.default", part.default, tensors)
        return {"type": "ByName", "patterns": rules, "default": default}
    if not any(type(part) in classes_of(module).values() for module in PARTS.values()):
        return {"type": "custom", "name": name_of(part)}
    values = {field.name: getattr(part, field.name) for field in dataclasses.fields(part)}
    return {"type": type(part).__name__, **as_json(where, values, refer)}


def model_description(network: BayesianNetwork) -> dict[str, tuple[Any, dict[str, Tensor]]]:
    """Describe what the networks of several chains must have in common.

    Returns
    -------
    dict of str to tuple
        For ``"parameters"``, ``"prior"`` and ``"likelihood"``: a description, and its tensors.
    """
    shapes = {name: tuple(p.shape) for name, p in network.net.named_parameters()}
    described: dict[str, tuple[Any, dict[str, Tensor]]] = {"parameters": (shapes, {})}
    for part in PARTS:
        value, tensors = getattr(network, part), dict[str, Tensor]()
        try:
            described[part] = describe(part, value, tensors), tensors
        except (TypeError, ValueError):  # it cannot be stored, but it can be used
            described[part] = {"type": "custom", "name": name_of(value)}, {}
    return described


def build(where: str, description: Any, tensors: Mapping[str, Tensor]) -> Any:
    """Build a prior or likelihood from its description.

    A custom callable is replaced by a function that raises an error.

    Raises
    ------
    ValueError
        If the description, or a value in it, is invalid.
    """
    if not isinstance(description, dict) or type(description.get("type")) is not str:
        raise ValueError(
            f"its {where} must be an object with a 'type', got {reprlib.repr(description)}."
        )
    values = dict(description)
    name = values.pop("type")
    if name == "custom":
        check_fields(where, values, {"name": str})
        return _not_stored
    classes = classes_of(PARTS["likelihood" if where.startswith("likelihood") else "prior"])
    if name not in classes:
        raise ValueError(
            f"'type' in its {where} must be one of {', '.join(classes)}, got {reprlib.repr(name)}."
        )
    if name == "ByName":
        check_fields(where, values, {"patterns": dict, "default": dict})
        values["patterns"] = {
            pattern: _build_rule(f"{where}[{pattern!r}]", rule, tensors)
            for pattern, rule in values["patterns"].items()
        }
        values["default"] = _build_rule(f"{where}.default", values["default"], tensors)
    else:
        allowed = (bool, int, float, list, dict, type(None))
        check_fields(where, values, {f.name: allowed for f in dataclasses.fields(classes[name])})
        values = {name: _resolve(where, value, tensors) for name, value in values.items()}
    with prefix_errors(f"its {where}"):
        return classes[name](**values)


def _build_rule(where: str, description: Any, tensors: Mapping[str, Tensor]) -> Any:
    return None if description == {"type": "None"} else build(where, description, tensors)


def _resolve(where: str, value: Any, tensors: Mapping[str, Tensor]) -> Any:
    """Convert a JSON value to a constructor argument: look up tensors, make lists tuples."""
    if isinstance(value, list):
        return tuple(value)
    if not isinstance(value, dict):
        return value
    if value.get("type") == "Learned":
        check_fields(where, value, {"type": str, "median": (int, float), "log_sd": (int, float)})
        with prefix_errors(f"its {where}"):
            return Learned(value["median"], value["log_sd"])
    if value.keys() == {"tensor"} and isinstance(value["tensor"], str):
        if value["tensor"] not in tensors:
            raise ValueError(f"its {where} has no tensor {value['tensor']!r}.")
        return tensors[value["tensor"]]
    return {name: _resolve(where, inner, tensors) for name, inner in value.items()}


def _not_stored(*args: Any) -> Any:
    raise ValueError("A custom callable is not stored.")


def custom_names(description: Mapping[str, Any]) -> Iterator[str]:
    """Yield the names of the custom callables in a valid description."""
    if description["type"] == "custom":
        yield description["name"]
    if description["type"] == "ByName":
        for inner in (*description["patterns"].values(), description["default"]):
            yield from custom_names(inner)


def name_of(code: Any) -> str:
    """Return the name by which a custom callable is described."""
    return getattr(code, "__qualname__", type(code).__qualname__)


def classes_of(module: ModuleType) -> dict[str, Any]:
    """Return the classes of a module that a description may name: its public dataclasses."""
    public = {name: getattr(module, name) for name in module.__all__}
    return {name: value for name, value in public.items() if dataclasses.is_dataclass(value)}


def parse_mlp_spec(value: Any) -> MLPSpec:
    """Return the specification of an `mlp` without building it: its sizes are not trusted."""
    fields = {"n_in": int, "hidden": list, "n_out": int, "activation": str, "input_scale": bool}
    if isinstance(value, dict):  # files of earlier versions do not have it
        value = {"input_scale": False, **value}
    check_fields("'net'", value, fields)
    sizes = [value["n_in"], *value["hidden"], value["n_out"]]
    if any(type(size) is not int or size < 1 for size in sizes):
        raise ValueError(
            "the sizes in its 'net' must be whole numbers of at least 1, got "
            f"{reprlib.repr(sizes)}."
        )
    if value["activation"] not in ACTIVATIONS:
        raise ValueError(
            f"'activation' in its 'net' must be one of {', '.join(ACTIVATIONS)}, got "
            f"{reprlib.repr(value['activation'])}."
        )
    return MLPSpec(**{**value, "hidden": tuple(value["hidden"])})


def shapes_of(spec: MLPSpec) -> dict[str, tuple[int, ...]]:
    """Return the shapes of the parameters of an `mlp` without building it."""
    sizes = itertools.pairwise([spec.n_in, *spec.hidden, spec.n_out])
    shapes: dict[str, tuple[int, ...]] = {}
    if spec.input_scale:
        shapes[f"{INPUT_SCALE}.log_scale"] = (spec.n_in,)
    for i, (n_in, n_out) in enumerate(sizes):
        shapes |= {f"{2 * i}.weight": (n_out, n_in), f"{2 * i}.bias": (n_out,)}
    return shapes
