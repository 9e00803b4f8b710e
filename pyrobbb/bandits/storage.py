"""Bandit agents on disk: the folder of their posterior, with what else they need to go on."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from .. import storage
from ..posterior.posterior import Posterior
from ..storage.specs import PARTS, custom_names, describe
from ..storage.strict_json import check_fields, prefix_errors

FIELDS: dict[str, type | tuple[type, ...]] = {
    "class": str,
    "arguments": dict,
    "n_acted": int,
    "n_seen": int,
}


@dataclass(frozen=True)
class Stored:
    """What is stored of an agent.

    Attributes
    ----------
    arguments : dict
        Of its constructor, but for prior and likelihood, which are the posterior's.
    n_acted, n_seen : int
        How often it has acted and observed.
    tensors : dict of str to Tensor
        Its memory, and the state of its optimiser.
    posterior : Posterior
    """

    arguments: dict[str, Any]
    n_acted: int
    n_seen: int
    tensors: dict[str, Tensor]
    posterior: Posterior


def write(path: str | os.PathLike[str], kind: str, stored: Stored) -> None:
    """Write an agent of a class into a folder, in the place of an older one.

    Raises
    ------
    TypeError
        If the prior or the likelihood is a callable of your own: code is not stored.
    """
    network = stored.posterior.network
    for part in PARTS:
        if any(custom_names(describe(part, getattr(network, part), {}))):
            raise TypeError(
                f"`{part}` is a callable of your own, and code is not stored: save "
                "agent.posterior alone."
            )
    description = {
        "class": kind,
        "arguments": stored.arguments,
        "n_acted": stored.n_acted,
        "n_seen": stored.n_seen,
    }
    storage.write(
        path, stored.posterior.chains, extra={"bandit": description}, tensors=stored.tensors
    )


def read(path: str | os.PathLike[str], kind: str) -> Stored:
    """Read an agent of a class.

    Raises
    ------
    FileNotFoundError, ValueError
        If the folder is not there, is damaged, or holds no agent of this class.
    """
    name = repr(os.fspath(path))
    extra, tensors = storage.read_extra(path)
    if "bandit" not in extra:
        raise ValueError(
            f"`path` {name} holds a posterior but no bandit agent: read it by Posterior.load."
        )
    with prefix_errors(f"`path` {name} is damaged"):
        found = check_fields("'bandit'", extra["bandit"], FIELDS)
        for count in ("n_acted", "n_seen"):
            if found[count] < 0:
                raise ValueError(f"its 'bandit' has the {count!r} {found[count]}, must be >= 0.")
    if found["class"] != kind:
        raise ValueError(f"`path` {name} holds a {found['class']}, no {kind}.")
    return Stored(
        found["arguments"], found["n_acted"], found["n_seen"], tensors, Posterior.load(path)
    )


def fill(own: Mapping[str, Tensor], stored: Mapping[str, Tensor]) -> None:
    """Copy stored tensors over an agent's own, of the same names, shapes and dtypes."""
    if own.keys() != stored.keys():
        odd = min(own.keys() ^ stored.keys())
        raise ValueError(f"its tensor {odd!r} is {'missing' if odd in own else 'of no use'}.")
    for name, tensor in own.items():
        there = stored[name]
        if tensor.shape != there.shape or tensor.dtype != there.dtype:
            raise ValueError(
                f"its tensor {name!r} has shape {tuple(there.shape)} and {there.dtype}, must have "
                f"{tuple(tensor.shape)} and {tensor.dtype}."
            )
        tensor.copy_(there)
