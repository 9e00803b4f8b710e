"""A posterior on disk: what the header and the tensors of its folder mean.

Loading runs no code from the folder.
"""

from __future__ import annotations

import copy
import dataclasses
import os
import reprlib
from collections.abc import Callable, Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch
from pyro.infer.autoguide import AutoNormal
from torch import Tensor

from .._core.random_state import seeded
from .._core.state_dicts import check_shapes, equal_tensors, load_tensors, with_prefix
from ..fitted import FitSettings, FittedChain, History
from ..model.guides import MeanFieldGuide, auto_normal
from ..model.mlp import mlp, mlp_spec
from ..model.network import BayesianNetwork
from .folders import read_folder, write_folder
from .specs import PARTS, build, check_spec, custom_names, describe, name_of, shapes_of
from .strict_json import as_json, check_fields, prefix_errors

GUIDES: dict[str, Callable[[BayesianNetwork, Tensor], Any]] = {
    "mean_field": MeanFieldGuide,
    "auto_normal": lambda network, x: auto_normal(network),
}
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

REALS = [torch.float64, torch.float32, torch.int64, torch.int32]


def write(
    path: str | os.PathLike[str],
    chains: Sequence[FittedChain],
    *,
    extra: Mapping[str, Any] | None = None,
    tensors: Mapping[str, Tensor] | None = None,
) -> None:
    """Write a posterior to a folder, replacing an older one there atomically.

    Parameters
    ----------
    path : path-like
    chains : sequence of FittedChain
        At least one; they may differ in their tensors and settings only.
    extra : mapping, optional
        Further values to store, of what JSON can hold; `read_extra` returns them.
    tensors : mapping of str to Tensor, optional
        Further tensors to store.

    Raises
    ------
    TypeError, ValueError
        If a part of it cannot be stored.
    FileExistsError
        If the path is a file, or a folder that holds other things.
    OSError
        If the folder cannot be written; it is then as it was.
    """
    if not chains:
        raise ValueError("`chains` must hold at least one fit, got none.")
    described, named = _describe_chain(chains[0])
    for i, chain in enumerate(chains[1:], 1):
        other, others_named = _describe_chain(chain)
        differing = [name for name, value in other.items() if value != described[name]]
        if differing or not equal_tensors(named, others_named):
            raise ValueError(
                f"`chains` must have one {', '.join(differing) or 'prior'} to be saved together: "
                f"chain {i} has another than chain 0."
            )
    settings = [as_json("settings", chain.settings, _name_callable) for chain in chains]
    n_data = settings[0].get("n_data")
    described["data"]["n_data"] = n_data if type(n_data) is int and n_data > 0 else None
    header = {
        "versions": {name: version(name) for name in ("pyrobbb", "torch", "pyro-ppl")},
        "n_chains": len(chains),
        **described,
        "settings": settings,
        "extra": as_json("extra", extra or {}),
    }
    named |= {f"extra.{name}": tensor for name, tensor in (tensors or {}).items()}
    for i, chain in enumerate(chains):
        named |= {f"chain-{i}.{name}": tensor for name, tensor in _tensors_of(chain).items()}
    for name, tensor in named.items():
        if not isinstance(tensor, Tensor) or tensor.layout != torch.strided:
            kind = tensor.layout if isinstance(tensor, Tensor) else type(tensor).__name__
            raise TypeError(f"{name!r} must be a dense tensor to be saved, got {kind}.")
    write_folder(path, header, named)


def read(
    path: str | os.PathLike[str], network: BayesianNetwork | None = None
) -> tuple[FittedChain, ...]:
    """Read the chains that `write` stored.

    Parameters
    ----------
    path : path-like
    network : BayesianNetwork, optional
        Required unless the module is an `mlp` and prior and likelihood are pyrobbb's: code is not
        stored. The stored values are loaded into it.

    Raises
    ------
    FileNotFoundError, ValueError
        If the folder is not there, is damaged, or does not fit `network`.
    """
    header, tensors = _read_checked(path)
    name = repr(str(Path(path)))
    if network is None:
        _check_complete(name, header)
    chains = []
    for i, settings in enumerate(header["settings"]):
        stored = with_prefix(tensors, f"chain-{i}.")
        with prefix_errors(f"`path` {name} is damaged"):
            _check_names(stored)
        if network is None:
            with prefix_errors(f"`path` {name} is damaged"):
                own = _rebuild(header, tensors, stored)
                chains.append(_read_chain(header, stored, own, settings))
        else:
            with prefix_errors(f"`network` does not fit `path` {name}"):
                own = network if i == 0 else copy.deepcopy(network)
                _check_same(own, header, tensors, stored)
                chains.append(_read_chain(header, stored, own, settings))
    return tuple(chains)


def read_extra(path: str | os.PathLike[str]) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """Read the `extra` and `tensors` that were passed to `write`.

    Raises
    ------
    FileNotFoundError, ValueError
        If the folder is not there, or is damaged.
    """
    header, tensors = _read_checked(path)
    return header["extra"], with_prefix(tensors, "extra.")


# Writing


def _describe_chain(chain: FittedChain) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """Return the entries of the header, and the tensors of prior and likelihood."""
    network, guide, history = chain.network, chain.guide, chain.history
    # A subclass of our guide may draw differently, which the stored tensors would not show.
    if type(guide) is not MeanFieldGuide and not isinstance(guide, AutoNormal):
        raise TypeError(
            f"A guide of type {type(guide).__name__} cannot be saved: only MeanFieldGuide and "
            "auto_normal can. Save its state_dict() yourself."
        )
    if not isinstance(history, History):
        raise TypeError(f"`history` must be a History to be saved, got {type(history).__name__}.")
    _check_history({name: torch.as_tensor(value) for name, value in vars(history).items()})
    spec = mlp_spec(network.net)
    named: dict[str, Tensor] = {}
    described = {
        "net": None if spec is None else as_json("net", dataclasses.asdict(spec)),
        **{part: describe(part, getattr(network, part), named) for part in PARTS},
        "guide": "auto_normal" if isinstance(guide, AutoNormal) else "mean_field",
        "data": {"x": _schema(chain.example), "y": _schema_of_y(network, chain.example)},
    }
    return described, named


def _tensors_of(chain: FittedChain) -> dict[str, Tensor]:
    guide: Any = chain.guide
    tensors = {f"net.{name}": tensor for name, tensor in chain.network.net.state_dict().items()}
    tensors |= {f"guide.{name}": tensor for name, tensor in guide.state_dict().items()}
    tensors |= {f"history.{name}": torch.as_tensor(v) for name, v in vars(chain.history).items()}
    return tensors | {"example": chain.example}


def _name_callable(where: str, value: Any) -> str:
    if callable(value):
        return name_of(value)
    return as_json(where, value)  # raises the error that names the value


def _schema(rows: Tensor) -> dict[str, Any]:
    return {"shape": list(rows.shape[1:]), "dtype": str(rows.dtype).removeprefix("torch.")}


def _schema_of_y(network: BayesianNetwork, example: Tensor) -> dict[str, Any] | None:
    try:
        with seeded(0):
            return _schema(network.targets_like(example))
    except Exception:  # a custom module or likelihood may not accept a single row
        return None


# Reading


def _read_checked(path: str | os.PathLike[str]) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """Read a folder and make all checks that need no network."""
    header, tensors = read_folder(path)
    with prefix_errors(f"`path` {str(Path(path))!r} is damaged"):
        check_fields("posterior.json", header, FIELDS)
        check_fields("'versions'", header["versions"], dict.fromkeys(header["versions"], str))
        settings = header["settings"]
        if not settings or len(settings) != header["n_chains"]:
            raise ValueError(
                f"its posterior.json has the 'n_chains' {header['n_chains']} and 'settings' of "
                f"{len(settings)} chain(s), must be as many of both, at least 1."
            )
        if not all(isinstance(own, dict) for own in settings):
            raise ValueError("its 'settings' must be a list of objects.")
        if header["guide"] not in GUIDES:
            raise ValueError(
                f"its posterior.json has the 'guide' {reprlib.repr(header['guide'])}, must be one "
                f"of {', '.join(GUIDES)}."
            )
        if header["net"] is not None:
            check_spec(header["net"])
        _check_data(header["data"])
        known = {name for name in tensors if name.startswith(("extra.", *_prefixes(header)))}
        for part in PARTS:
            known |= _build_part(part, header, tensors)[1].keys()
        if tensors.keys() - known:
            raise ValueError(
                f"its tensors hold {min(tensors.keys() - known)!r}, which belongs to no part of it."
            )
    return header, tensors


def _prefixes(header: Mapping[str, Any]) -> list[str]:
    return [f"chain-{i}." for i in range(len(header["settings"]))]


def _build_part(
    part: str, header: Mapping[str, Any], tensors: Mapping[str, Tensor]
) -> tuple[Any, dict[str, Tensor]]:
    """Build the prior or the likelihood, and return it with the tensors it uses."""
    own = {name: tensor for name, tensor in tensors.items() if name.startswith(part)}
    built = build(part, header[part], own)
    named: dict[str, Tensor] = {}
    describe(part, built, named)
    return built, named


def _check_data(data: dict[str, Any]) -> None:
    check_fields("'data'", data, {"x": dict, "y": (dict, type(None)), "n_data": (int, type(None))})
    for name in ("x", "y"):
        if data[name] is not None:
            check_fields(f"'data.{name}'", data[name], {"shape": list, "dtype": str})
    if data["n_data"] is not None and data["n_data"] < 1:
        raise ValueError(f"its 'data' has the 'n_data' {data['n_data']}, must be at least 1.")


def _check_complete(name: str, header: Mapping[str, Any]) -> None:
    lacking = [f"the {part} {own!r}" for part in PARTS for own in custom_names(header[part])]
    if header["net"] is None:
        lacking.insert(0, "a module that is no plain `mlp`")
    if lacking:
        raise ValueError(
            f"`path` {name} holds {' and '.join(lacking)}, and code is not stored: pass `network`."
        )


def _check_names(stored: Mapping[str, Tensor]) -> None:
    for name in stored:
        if name != "example" and not name.startswith(("net.", "guide.", "history.")):
            raise ValueError(f"its tensors hold {name!r}, which belongs to no part of a chain.")
    if "example" not in stored or stored["example"].dim() < 1 or len(stored["example"]) != 1:
        raise ValueError("its tensors must hold 'example', one row of x.")
    _check_history(with_prefix(stored, "history."))


def _rebuild(
    header: Mapping[str, Any], tensors: Mapping[str, Tensor], stored: Mapping[str, Tensor]
) -> BayesianNetwork:
    spec = check_spec(header["net"])
    # Checked before anything is allocated: the sizes in a header may be arbitrary.
    check_shapes("net", shapes_of(spec), with_prefix(stored, "net."))
    net = mlp(spec.n_in, spec.hidden, spec.n_out, spec.activation, seed=0)
    load_tensors("net", net, with_prefix(stored, "net."))
    return BayesianNetwork(net, *(_build_part(part, header, tensors)[0] for part in PARTS))


def _check_same(
    network: BayesianNetwork,
    header: Mapping[str, Any],
    tensors: Mapping[str, Tensor],
    stored: Mapping[str, Tensor],
) -> None:
    for part in PARTS:
        named: dict[str, Tensor] = {}
        given = describe(part, getattr(network, part), named)
        if given != header[part]:
            raise ValueError(f"it has the {part} {given}, the stored posterior {header[part]}.")
        if not equal_tensors(named, _build_part(part, header, tensors)[1]):
            raise ValueError(f"its {part} has other values than that of the stored posterior.")
    own = {name: tuple(tensor.shape) for name, tensor in network.net.state_dict().items()}
    check_shapes("net", own, with_prefix(stored, "net."))
    spec = mlp_spec(network.net)
    if None not in (spec, header["net"]) and spec != check_spec(header["net"]):
        raise ValueError(f"its net is {spec}, the stored one {check_spec(header['net'])}.")


def _read_chain(
    header: Mapping[str, Any],
    stored: Mapping[str, Tensor],
    network: BayesianNetwork,
    settings: Mapping[str, Any],
) -> FittedChain:
    """Load a chain's tensors into a network, and rebuild its guide and history."""
    load_tensors("net", network.net, with_prefix(stored, "net."))
    network.eval()  # in training mode, building the guide would update the buffers of batch norm
    example = stored["example"].to(next(network.net.parameters()).device)
    data = header["data"]
    for name, own in (("x", _schema(example)), ("y", _schema_of_y(network, example))):
        if data[name] != own and (name == "x" or data[name] is not None):
            raise ValueError(f"a row of {name} is {own} here and {data[name]} in posterior.json.")
    guide = GUIDES[header["guide"]](network, example)
    if isinstance(guide, AutoNormal):  # it creates its parameters when it first runs
        with seeded(0):
            guide(example)
    load_tensors("guide", guide, with_prefix(stored, "guide."), exact=True)
    history = {name: np.asarray(value) for name, value in with_prefix(stored, "history.").items()}
    return FittedChain(
        network, guide, History(**history), example, FitSettings.from_mapping(settings)
    )


def _check_history(values: Mapping[str, Tensor]) -> None:
    names = [field.name for field in dataclasses.fields(History)]
    if sorted(values) != sorted(names):
        raise ValueError(f"its history must hold {', '.join(names)}, got {', '.join(values)}.")
    n_steps = len(values["nelbo"].flatten())
    for name, value in values.items():
        if value.dim() != 1 or (name != "validation_nll" and len(value) != n_steps):
            raise ValueError(
                f"its history's {name!r} must have shape ({n_steps},), got {tuple(value.shape)}."
            )
        whole = name == "epoch"
        if value.dtype not in ([torch.int64, torch.int32] if whole else REALS):
            raise ValueError(f"its history's {name!r} must not be {value.dtype}.")
