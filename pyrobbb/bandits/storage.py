"""Bandit agents on disk: the folder of the posterior, with the rest of the state as extra data."""

from __future__ import annotations

import os
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
class StoredAgent:
    """The stored state of an agent.

    Attributes
    ----------
    arguments : dict
        Arguments of its constructor, except for prior and likelihood, which the posterior has.
    n_acted, n_seen : int
        Numbers of its actions and observations.
    tensors : dict of str to Tensor
        Its replay buffer, and the state of its optimizer.
    posterior : Posterior
    """

    arguments: dict[str, Any]
    n_acted: int
    n_seen: int
    tensors: dict[str, Tensor]
    posterior: Posterior


def write(path: str | os.PathLike[str], kind: str, stored: StoredAgent) -> None:
    """Write an agent of class `kind` into a folder, replacing any agent in it.

    Raises
    ------
    TypeError
        If the prior or the likelihood is a custom callable: code is not stored.
    """
    network = stored.posterior.network
    for part in PARTS:
        if any(custom_names(describe(part, getattr(network, part), {}))):
            raise TypeError(
                f"`{part}` must be one of pyrobbb's to be stored, got a custom callable: save "
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


def read(path: str | os.PathLike[str], kind: str) -> StoredAgent:
    """Read an agent of class `kind`.

    Raises
    ------
    FileNotFoundError, ValueError
        If the folder does not exist, is damaged, or holds no agent of this class.
    """
    name = repr(os.fspath(path))
    extra, tensors = storage.read_extra(path)
    if "bandit" not in extra:
        raise ValueError(
            f"`path` {name} holds a posterior but no bandit agent: read it with Posterior.load."
        )
    with prefix_errors(f"`path` {name} is damaged"):
        fields = check_fields("'bandit'", extra["bandit"], FIELDS)
        for count in ("n_acted", "n_seen"):
            if fields[count] < 0:
                raise ValueError(f"its 'bandit' has the {count!r} {fields[count]}, must be >= 0.")
    if fields["class"] != kind:
        raise ValueError(f"`path` {name} must hold a {kind}, got a {fields['class']}.")
    posterior = Posterior.load(path)
    if len(posterior.chains) != 1:
        raise ValueError(
            f"`path` {name} is damaged: an agent has one chain, got {len(posterior.chains)}."
        )
    return StoredAgent(fields["arguments"], fields["n_acted"], fields["n_seen"], tensors, posterior)
