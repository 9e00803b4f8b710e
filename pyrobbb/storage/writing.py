"""Writing a posterior to a folder."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Mapping, Sequence
from importlib.metadata import version
from typing import Any

import torch
from torch import Tensor

from .._core.state_dicts import equal_tensors
from ..fitted import FittedChain, History
from ..model.guides import STORED_GUIDES, kind_of
from ..model.mlp import mlp_spec
from .examples import example_tensors, inputs_schema
from .folders import write_folder
from .format import check_history, target_schema
from .frozen import hash_of_tensor, stored_apart
from .specs import PARTS, describe, name_of
from .strict_json import as_json


def write(
    path: str | os.PathLike[str],
    chains: Sequence[FittedChain],
    *,
    frozen: bool = False,
    extra: Mapping[str, Any] | None = None,
    tensors: Mapping[str, Tensor] | None = None,
) -> None:
    """Write a posterior to a folder, replacing an older one there atomically.

    Parameters
    ----------
    path : path-like
    chains : sequence of FittedChain
        At least one; they may differ in their tensors and settings only.
    frozen : bool
        Whether frozen parameters are stored. Otherwise a hash of each is, and `read` needs the
        module.
    extra : mapping, optional
        Further JSON values to store, which `read_extra` returns.
    tensors : mapping of str to Tensor, optional
        Further tensors to store.

    Raises
    ------
    TypeError, ValueError
        If a part of a chain cannot be stored.
    FileExistsError
        If the path is a file, or a folder with other contents.
    OSError
        If the folder cannot be written; it is then unchanged.
    """
    if not chains:
        raise ValueError("`chains` must hold at least one chain, got none.")
    described, named = _describe_chain(chains[0])
    for i, chain in enumerate(chains[1:], 1):
        other, other_named = _describe_chain(chain)
        differing = [name for name, value in other.items() if value != described[name]]
        if differing or not equal_tensors(named, other_named):
            raise ValueError(
                f"`chains` must have the same {', '.join(differing) or 'prior'} to be saved "
                f"together: chain {i} differs from chain 0."
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
        named |= {
            f"chain-{i}.{name}": tensor for name, tensor in _tensors_of(chain, frozen).items()
        }
    for name, tensor in named.items():
        if not isinstance(tensor, Tensor) or tensor.layout != torch.strided:
            kind = tensor.layout if isinstance(tensor, Tensor) else type(tensor).__name__
            raise TypeError(f"{name!r} must be a dense tensor to be saved, got {kind}.")
    write_folder(path, header, named)


def _describe_chain(chain: FittedChain) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """Return the chain's entries in the header, and the tensors of prior and likelihood."""
    network, guide, history = chain.network, chain.guide, chain.history
    kind = kind_of(guide)
    if kind is None:
        raise TypeError(
            f"A guide of type {type(guide).__name__} cannot be saved: only guides of "
            f"pyrobbb can, {', '.join(STORED_GUIDES)}. Save its state_dict() yourself."
        )
    if not isinstance(history, History):
        raise TypeError(f"`history` must be a History to be saved, got {type(history).__name__}.")
    check_history({name: torch.as_tensor(value) for name, value in vars(history).items()})
    spec = mlp_spec(network.net) if network.select is None else None
    named: dict[str, Tensor] = {}
    described = {
        "net": None if spec is None else as_json("net", dataclasses.asdict(spec)),
        **{part: describe(part, getattr(network, part), named) for part in PARTS},
        "guide": kind,
        "data": {"x": inputs_schema(chain.example), "y": target_schema(network, chain.example)},
    }
    return described, named


def _tensors_of(chain: FittedChain, frozen: bool) -> dict[str, Tensor]:
    guide: Any = chain.guide
    left_out = {} if frozen else stored_apart(chain.network)
    tensors = {
        f"net.{name}": tensor
        for name, tensor in chain.network.net.state_dict().items()
        if name not in left_out
    }
    tensors |= {f"frozen.{name}": hash_of_tensor(tensor) for name, tensor in left_out.items()}
    tensors |= {f"guide.{name}": tensor for name, tensor in guide.state_dict().items()}
    tensors |= {f"history.{name}": torch.as_tensor(v) for name, v in vars(chain.history).items()}
    return tensors | example_tensors(chain.example)


def _name_callable(where: str, value: Any) -> str:
    return name_of(value) if callable(value) else as_json(where, value)  # raises the error
