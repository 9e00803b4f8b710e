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
from .._core.trees import Inputs
from ..fitted import History
from ..model.guides import STORED_GUIDES
from ..model.network import BayesianNetwork
from .examples import SCHEMA, check_inputs_schema, is_example, row_schema
from .specs import PARTS, build, describe, parse_mlp_spec
from .strict_json import check_fields

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

SETTINGS: dict[str, tuple[tuple[type, ...], float]] = {
    **dict.fromkeys(("epochs", "batch_size", "n_particles", "n_processes"), ((int,), 1)),
    "n_data": ((int,), 0),
    **dict.fromkeys(("engine", "objective", "autocast", "processes"), ((str,), 0)),
    "kl_weight": ((str, int, float), 0),
    "kl_warmup": ((int, float), 0),
    "lr": ((int, float), 0),
    "seed": ((int,), 0),
    "is_weighted": ((bool,), 0),
}
"""Types and least values of the settings of a fit; other settings are the caller's notes."""

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
    if header["guide"] not in STORED_GUIDES:
        raise ValueError(
            f"'guide' in its posterior.json must be one of {', '.join(STORED_GUIDES)}, got "
            f"{reprlib.repr(header['guide'])}."
        )
    if header["net"] is not None:
        parse_mlp_spec(header["net"])
    _check_data(header["data"])
    for entry in settings:
        _check_settings(entry)
    for name, tensor in tensors.items():
        if name.startswith(("prior", "likelihood")):
            check_finite(name, tensor)
    prefixes = ("extra.", *(f"chain-{i}." for i in range(len(settings))))
    known = {name for name in tensors if name.startswith(prefixes)}
    for part in PARTS:
        known |= build_part(part, header, tensors)[1].keys()
    if tensors.keys() - known:
        raise ValueError(
            f"its tensors contain {min(tensors.keys() - known)!r}, which belongs to no part of it."
        )


def _check_settings(settings: Mapping[str, Any]) -> None:
    """Raise unless the settings of a fit have the types of `FitSettings`."""
    for name, (types, least) in SETTINGS.items():
        value = settings.get(name)
        is_number = not isinstance(value, str)
        if value is None or (type(value) in types and not (is_number and value < least)):
            continue
        raise ValueError(f"{name!r} in its 'settings' is invalid: {reprlib.repr(value)}.")


def _check_data(data: dict[str, Any]) -> None:
    check_fields("'data'", data, {"x": dict, "y": (dict, type(None)), "n_data": (int, type(None))})
    check_inputs_schema("'data.x'", data["x"])
    if data["y"] is not None:
        check_fields("'data.y'", data["y"], SCHEMA)
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
        if not is_example(name) and not name.startswith(("net.", "frozen.", "guide.", "history.")):
            raise ValueError(f"its tensors contain {name!r}, which belongs to no part of a chain.")
    examples = [tensor for name, tensor in tensors.items() if is_example(name)]
    if not examples or any(tensor.dim() < 1 or not len(tensor) for tensor in examples):
        raise ValueError("its tensors must contain 'example', a row of x.")
    check_history(with_prefix(tensors, "history."))
    for name, tensor in tensors.items():
        if name.startswith(("guide.", "example", "history.nelbo", "history.nll", "history.kl")):
            # The rho of a weight that has been pruned is minus infinity.
            check_finite(name, tensor, may_be_neginf=name == "guide.rho")


def check_finite(name: str, tensor: Tensor, *, may_be_neginf: bool = False) -> None:
    """Raise a ValueError unless all values of a tensor are finite."""
    if not tensor.is_floating_point():
        return
    is_good = tensor.isfinite() | tensor.isneginf() if may_be_neginf else tensor.isfinite()
    if not bool(is_good.all()):
        raise ValueError(
            f"its tensor {name!r} holds {int((~is_good).sum())} values that are NaN or infinite."
        )


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


def target_schema(network: BayesianNetwork, example: Inputs) -> dict[str, Any] | None:
    """Return the shape and dtype of a row of y, if the network determines them."""
    try:
        with seeded(0):
            return row_schema(network.targets_like(example))
    except Exception:  # a custom module or likelihood may not accept a single row
        return None
