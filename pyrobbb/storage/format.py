"""The format of a stored posterior: the fields of its header and the tensors of its chains."""

from __future__ import annotations

import dataclasses
import reprlib
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from .._core.random_state import seeded
from .._core.state_dicts import with_prefix
from ..fitted import History
from ..model.network import BayesianNetwork
from .specs import PARTS, build, describe, parse_mlp_spec
from .strict_json import check_fields

GUIDES = ("mean_field", "auto_normal")
FIELDS: dict[str, type | tuple[type, ...]] = {
    "format": int,
    "versions": dict,
    "n_chains": int,
    "net": (dict, type(None)),
    "prior": dict,
    "likelihood": dict,
    "guide": str,
    "data": dict,
    "settings": list,
    "extra": dict,
    "tensors": dict,
}

INTEGERS = (torch.int64, torch.int32)
REALS = (torch.float64, torch.float32, *INTEGERS)


def check_header(header: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> None:
    """Raise a ValueError unless a header is valid and each tensor belongs to a part of it."""
    check_fields("posterior.json", header, FIELDS)
    check_fields("'versions'", header["versions"], dict.fromkeys(header["versions"], str))
    settings = header["settings"]
    if not settings or len(settings) != header["n_chains"]:
        raise ValueError(
            "'n_chains' in its posterior.json must be the number of 'settings', at least 1, got "
            f"{header['n_chains']} and {len(settings)} 'settings'."
        )
    if not all(isinstance(entry, dict) for entry in settings):
        raise ValueError("its 'settings' must be a list of objects.")
    if header["guide"] not in GUIDES:
        raise ValueError(
            f"'guide' in its posterior.json must be one of {', '.join(GUIDES)}, got "
            f"{reprlib.repr(header['guide'])}."
        )
    if header["net"] is not None:
        parse_mlp_spec(header["net"])
    _check_data(header["data"])
    prefixes = ("extra.", *(f"chain-{i}." for i in range(len(settings))))
    known = {name for name in tensors if name.startswith(prefixes)}
    for part in PARTS:
        known |= build_part(part, header, tensors)[1].keys()
    if tensors.keys() - known:
        raise ValueError(
            f"its tensors contain {min(tensors.keys() - known)!r}, which belongs to no part of it."
        )


def _check_data(data: dict[str, Any]) -> None:
    check_fields("'data'", data, {"x": dict, "y": (dict, type(None)), "n_data": (int, type(None))})
    for name in ("x", "y"):
        if data[name] is not None:
            check_fields(f"'data.{name}'", data[name], {"shape": list, "dtype": str})
    if data["n_data"] is not None and data["n_data"] < 1:
        raise ValueError(f"'n_data' in its 'data' must be at least 1, got {data['n_data']}.")


def build_part(
    part: str, header: Mapping[str, Any], tensors: Mapping[str, Tensor]
) -> tuple[Any, dict[str, Tensor]]:
    """Build the prior or the likelihood, and return it with the tensors it uses."""
    candidates = {name: tensor for name, tensor in tensors.items() if name.startswith(part)}
    built = build(part, header[part], candidates)
    used: dict[str, Tensor] = {}
    describe(part, built, used)
    return built, used


def check_chain_tensors(tensors: Mapping[str, Tensor]) -> None:
    """Raise a ValueError unless the tensors of a chain have the names of its parts."""
    for name in tensors:
        if name != "example" and not name.startswith(("net.", "guide.", "history.")):
            raise ValueError(f"its tensors contain {name!r}, which belongs to no part of a chain.")
    if "example" not in tensors or tensors["example"].dim() < 1 or not len(tensors["example"]):
        raise ValueError("its tensors must contain 'example', a row of x.")
    check_history(with_prefix(tensors, "history."))


def check_history(values: Mapping[str, Tensor]) -> None:
    """Raise a ValueError unless the values are those of a `History`."""
    names = [field.name for field in dataclasses.fields(History)]
    if sorted(values) != sorted(names):
        raise ValueError(f"its history must hold {', '.join(names)}, got {', '.join(values)}.")
    n_steps = len(values["nelbo"].flatten())
    for name, value in values.items():
        if value.dim() != 1 or (name != "validation_nll" and len(value) != n_steps):
            raise ValueError(
                f"its history's {name!r} must have shape ({n_steps},), got {tuple(value.shape)}."
            )
        kind, allowed = ("integers", INTEGERS) if name == "epoch" else ("real numbers", REALS)
        if value.dtype not in allowed:
            raise ValueError(f"its history's {name!r} must hold {kind}, got {value.dtype}.")


def row_schema(rows: Tensor) -> dict[str, Any]:
    """Return the shape and dtype of a row."""
    return {"shape": list(rows.shape[1:]), "dtype": str(rows.dtype).removeprefix("torch.")}


def target_schema(network: BayesianNetwork, example: Tensor) -> dict[str, Any] | None:
    """Return the shape and dtype of a row of y, if the network determines them."""
    try:
        with seeded(0):
            return row_schema(network.targets_like(example))
    except Exception:  # a custom module or likelihood may not accept a single row
        return None
