"""Reading a posterior from a folder. No code from the folder is run."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor, nn

from .._core.global_state import isolated_from_pyro
from .._core.random_state import seeded
from .._core.state_dicts import check_shapes, equal_tensors, load_tensors, with_prefix
from .._core.trees import Inputs, map_arrays
from ..fitted import FitSettings, FittedChain, History
from ..model.frozen import copy_without_frozen
from ..model.guides import DenseGuide, FlatGuide, named_guide
from ..model.mlp import mlp, mlp_spec
from ..model.network import BayesianNetwork
from .examples import inputs_schema, read_example
from .folder_reading import read_folder
from .format import (
    build_part,
    check_chain_tensors,
    check_finite,
    check_header,
    target_schema,
)
from .frozen import with_frozen
from .specs import PARTS, custom_names, describe, parse_mlp_spec, shapes_of
from .strict_json import prefix_errors


def read(
    path: str | os.PathLike[str], network: BayesianNetwork | nn.Module | None = None
) -> tuple[FittedChain, ...]:
    """Read the chains that `write` stored.

    Parameters
    ----------
    path : path-like
    network : BayesianNetwork or nn.Module, optional
        Required unless the module is an `mlp` without frozen parameters that are not stored, and
        prior and likelihood are pyrobbb's: code is not stored. The stored values are loaded into
        it. For a module alone, prior and likelihood are rebuilt.

    Raises
    ------
    FileNotFoundError
        If there is no folder, or no posterior in it.
    ValueError
        If the folder is damaged or does not match `network`.
    """
    header, tensors = _read_checked(path)
    name = repr(str(Path(path)))
    if network is None or not isinstance(network, BayesianNetwork):
        _check_complete(name, header, tensors, network)
    if network is not None and not isinstance(network, BayesianNetwork):
        with prefix_errors(f"`network` does not fit `path` {name}"):
            parts = (build_part(part, header, tensors)[0] for part in PARTS)
            network = BayesianNetwork(network, *parts)
    chains = []
    for i, settings in enumerate(header["settings"]):
        stored = with_prefix(tensors, f"chain-{i}.")
        with prefix_errors(f"`path` {name} is damaged"):
            check_chain_tensors(stored)
        if network is None:
            with prefix_errors(f"`path` {name} is damaged"):
                rebuilt = _rebuild(header, tensors, stored)
                chains.append(_read_chain(header, stored, rebuilt, settings))
        else:
            with prefix_errors(f"`network` does not fit `path` {name}"):
                loaded = network if i == 0 else copy_without_frozen(network, [network])
                whole = {n: t for n, t in stored.items() if not n.startswith(("net.", "frozen."))}
                parameters, hashes = (with_prefix(stored, part) for part in ("net.", "frozen."))
                parameters = with_frozen(loaded, parameters, hashes)
                whole |= {f"net.{n}": tensor for n, tensor in parameters.items()}
                _check_same(loaded, header, tensors, whole)
                chains.append(_read_chain(header, whole, loaded, settings))
    return tuple(chains)


def read_extra(path: str | os.PathLike[str]) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """Read the `extra` and `tensors` that were passed to `write`.

    Raises
    ------
    FileNotFoundError
        If there is no folder, or no posterior in it.
    ValueError
        If the folder is damaged.
    """
    header, tensors = _read_checked(path)
    return header["extra"], with_prefix(tensors, "extra.")


def _read_checked(path: str | os.PathLike[str]) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """Read a folder and perform all checks that do not need a network."""
    header, tensors = read_folder(path)
    with prefix_errors(f"`path` {str(Path(path))!r} is damaged"):
        check_header(header, tensors)
    return header, tensors


def _check_complete(
    name: str, header: Mapping[str, Any], tensors: Mapping[str, Tensor], net: nn.Module | None
) -> None:
    """Raise unless the network can be rebuilt without code, or around a module."""
    missing = [f"the {part} {custom!r}" for part in PARTS for custom in custom_names(header[part])]
    if header["net"] is None and net is None:
        missing.insert(0, "a module that is not a plain `mlp`")
    if missing:
        remedy = "`network`" if net is None else "a BayesianNetwork as `network`"
        raise ValueError(
            f"`path` {name} has {' and '.join(missing)}, and code is not stored: pass {remedy}."
        )
    frozen = [n for n in tensors if n.startswith("chain-0.frozen.")]
    if frozen and net is None:
        raise ValueError(
            f"`path` {name} was saved without its {len(frozen)} frozen parameters: pass the module "
            "as `network`, or save it with frozen=True."
        )


def _rebuild(
    header: Mapping[str, Any], tensors: Mapping[str, Tensor], stored: Mapping[str, Tensor]
) -> BayesianNetwork:
    spec = parse_mlp_spec(header["net"])
    # Checked before anything is allocated: the sizes in a header are not trusted.
    check_shapes("net", shapes_of(spec), with_prefix(stored, "net."))
    net = mlp(**dataclasses.asdict(spec), seed=0)
    load_tensors("net", net, with_prefix(stored, "net."))
    return BayesianNetwork(net, *(build_part(part, header, tensors)[0] for part in PARTS))


def _check_same(
    network: BayesianNetwork,
    header: Mapping[str, Any],
    tensors: Mapping[str, Tensor],
    stored: Mapping[str, Tensor],
) -> None:
    """Raise unless a network has the prior, the likelihood and the module that are stored."""
    for part in PARTS:
        used: dict[str, Tensor] = {}
        description = describe(part, getattr(network, part), used)
        if description != header[part]:
            raise ValueError(
                f"its {part} is {description}, that of the stored posterior {header[part]}."
            )
        if not equal_tensors(used, build_part(part, header, tensors)[1]):
            raise ValueError(
                f"its {part} has parameter values that differ from those of the stored posterior."
            )
    shapes = {name: tuple(tensor.shape) for name, tensor in network.net.state_dict().items()}
    check_shapes("net", shapes, with_prefix(stored, "net."))
    spec = mlp_spec(network.net) if network.select is None else None
    if None not in (spec, header["net"]) and spec != parse_mlp_spec(header["net"]):
        raise ValueError(f"its net is {spec}, the stored one {parse_mlp_spec(header['net'])}.")


def _read_chain(
    header: Mapping[str, Any],
    stored: Mapping[str, Tensor],
    network: BayesianNetwork,
    settings: Mapping[str, Any],
) -> FittedChain:
    """Load the tensors of a chain into a network, and rebuild its guide and history."""
    load_tensors("net", network.net, with_prefix(stored, "net."))
    for parameter, values in network.net.named_parameters():
        check_finite(f"net.{parameter}", values.detach())  # buffers may hold anything
    network.eval()  # in training mode, building the guide would update the buffers of batch norm
    data, device = header["data"], next(network.net.parameters()).device
    example = map_arrays(lambda array: array.to(device), read_example(data["x"], stored))
    schemas = {"x": inputs_schema(example), "y": target_schema(network, example)}
    for name, schema in schemas.items():
        if data[name] != schema and (name == "x" or data[name] is not None):
            raise ValueError(
                f"a row of {name} is {schema} here and {data[name]} in posterior.json."
            )
    guide = _read_guide(header["guide"], with_prefix(stored, "guide."), network, example)
    history = {name: np.asarray(value) for name, value in with_prefix(stored, "history.").items()}
    return FittedChain(
        network, guide, History(**history), example, FitSettings.from_mapping(settings)
    )


def _read_guide(
    name: str, tensors: Mapping[str, Tensor], network: BayesianNetwork, example: Inputs
) -> Any:
    if name == DenseGuide.kind:
        guide: Any = DenseGuide(network, _number_of_blocks(network, tensors), example)
        load_tensors("guide", guide, tensors, exact=True)
        return guide
    guide = named_guide(name, network, example, rank=1)
    if isinstance(guide, FlatGuide):
        # The rank is not trusted unless the tensor really has a row for each latent value.
        factor = tensors.get("cov_factor")
        if factor is not None and factor.dim() == 2 and len(factor) == len(guide.loc):
            guide = named_guide(name, network, example, rank=factor.shape[1])
    else:
        with isolated_from_pyro(), seeded(0):
            guide(example)  # it creates its parameters when it first runs
    load_tensors("guide", guide, tensors, exact=True)
    return guide


def _number_of_blocks(network: BayesianNetwork, tensors: Mapping[str, Tensor]) -> int:
    """Return the number of blocks of a `DenseGuide`, checked before the guide is allocated."""
    rows = tensors.get("cov_tril")
    n = sum(weight.numel() for _, weight in network.bayesian_parameters())
    if rows is None or rows.dim() != 2 or not len(rows) >= rows.shape[1] > 0 or len(rows) < n:
        found = "none" if rows is None else tuple(rows.shape)
        raise ValueError(f"its guide's 'cov_tril' must have a row for each weight, got {found}.")
    return len(rows) // rows.shape[1]
