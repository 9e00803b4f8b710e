"""The fingerprint of a fit: everything that its result depends on, as JSON values.

It is compared when a fit is resumed from a checkpoint, and between the processes of a fit. Numbers
and names are kept as they are. Callables, modules and data are kept as a name and a digest of their
code and content; callbacks as one of their code and their constants, because a recording callback
changes during the fit.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeGuard

import numpy as np
from pyro.infer import ELBO
from torch import Tensor, nn

from .._core.digests import NoDigestError, digest, digest_of_constants
from ..fitted import FitSettings
from ..model.network import BayesianNetwork
from ..storage.specs import name_of
from .batches import BatchSource
from .config import FitConfig

STARTING_VALUES = "starting values of the network"
LOCAL = ("callbacks", "first batch of x", "files of x")
"""Entries that differ between the processes of a fit: rank 0 calls the callbacks, each process has
its own loader, and copies of a file have different times."""


def fingerprint_of(
    config: FitConfig,
    settings: FitSettings,
    networks: Sequence[BayesianNetwork],
    guides: Sequence[Any],
    validation: Sequence[Any],
    data: BatchSource,
    seed: int,
) -> dict[str, Any]:
    """Return the fingerprint of a fit before its first step.

    Parameters
    ----------
    config : FitConfig
    settings : FitSettings
    networks, guides : sequence
        One per chain, with their starting values.
    validation : sequence
        The validation data, x and y; empty without.
    data : BatchSource
    seed : int
        Of the first chain.
    """
    network = networks[0]
    shapes = [(n, tuple(p.shape), p.requires_grad) for n, p in network.net.named_parameters()]
    start = [tensors_of(chain.network, chain.guide) for chain in config.initial_chains if chain]
    code = [network.net, shapes]
    return {
        **settings,
        "engine": config.engine,
        "objective": _objective(config.objective),
        "estimator": getattr(config.elbo, "estimator", "reparam"),
        "guide": config.guide if isinstance(config.guide, str) else name_of(config.guide),
        "schedule": _described(config.schedule),
        "optimizer": _described(config.optimizer_and_lr[0]),
        "kl_weight": _described(config.kl_weight),
        "clip_norm": config.clip_norm,
        "patience": config.patience,
        "restarts": len(networks),
        "seed": seed,
        "dtype": str(network.bayesian_parameters()[0][1].dtype).removeprefix("torch."),
        "network": _described(network.net, lambda _: digest(code, with_parameters=False)),
        "prior": _described(network.prior),
        "likelihood": _described(network.likelihood),
        **({} if network.select is None else {"output": _described(network.select.part)}),
        "start": _described(start) if start else None,
        STARTING_VALUES: _described(list(map(tensors_of, networks, guides))),
        "validation": _described(list(validation)) if validation else None,
        "callbacks": _described(config.callback_list, digest_of_constants),
        **{name: _described(part) for name, part in data.content().items()},
    }


def tensors_of(network: BayesianNetwork, guide: Any) -> dict[str, Tensor]:
    """Return all tensors of a network and its guide by name."""
    named = [*network.net.named_parameters(), *network.net.named_buffers()]
    if isinstance(guide, nn.Module):
        named += [(f"guide.{name}", tensor) for name, tensor in guide.named_parameters()]
    return {name: tensor.detach() for name, tensor in named}


def _objective(objective: Any) -> Any:
    if not isinstance(objective, ELBO):
        return objective
    state = dict(vars(objective))
    state.pop("max_plate_nesting", None)  # Pyro counts the plates when the objective is first used
    return _described(objective, lambda _: digest((type(objective), state)))


def _described(value: Any, digest_of: Callable[[Any], str] = digest) -> Any:
    """Return a number or name as it is, and anything else as a name and a digest, or why not."""
    if value is None or isinstance(value, bool | int | str):
        return value
    if isinstance(value, float | np.number):
        return float(value)
    described: dict[str, str | None] = {"name": name_of(value)}
    try:
        return {**described, "digest": digest_of(value)}
    except NoDigestError as error:
        return {**described, "digest": None, "reason": str(error)}


def is_digested(entry: Any) -> TypeGuard[Mapping[str, Any]]:
    """Return whether an entry is that of a callable, a module or data."""
    return isinstance(entry, dict)


def difference_between(
    stored: Mapping[str, Any], now: Mapping[str, Any], *, is_vouched: bool = False
) -> str | None:
    """Return a phrase for the first difference of this fit from a stored one, if there is one.

    Parameters
    ----------
    stored, now : mapping
        Fingerprints.
    is_vouched : bool
        Whether the digests are not compared.
    """
    for name in (*now, *stored):
        entry, other = stored.get(name), now.get(name)
        if is_vouched and is_digested(entry) and is_digested(other):
            continue
        for part in (entry, other):
            if is_digested(part) and part.get("digest") is None:
                return f"its {name!r} cannot be compared, because it holds {part.get('reason')}"
        if entry == other:
            continue
        if is_digested(entry) and is_digested(other) and entry["name"] == other["name"]:
            return f"its {name!r} differs from that of this fit in code or values"
        return f"its {name!r} is {_shown(entry)}, that of this fit {_shown(other)}"
    return None


def _shown(entry: Any) -> str:
    return repr(entry["name"] if is_digested(entry) else entry)


def check_processes_agree(fingerprints: Sequence[Mapping[str, Any]]) -> None:
    """Raise unless all processes have called `fit` with the same arguments, rows and weights.

    Parameters
    ----------
    fingerprints : sequence of mapping
        Ordered by rank.
    """
    first, *others = fingerprints
    for rank, other in enumerate(others, 1):
        for name in (*first, *other):
            entry, mine = first.get(name), other.get(name)
            if name in LOCAL or entry == mine:
                continue
            found = f"{name!r} is {_shown(entry)} in process 0 and {_shown(mine)} in process {rank}"
            if is_digested(entry) and is_digested(mine) and entry["name"] == mine["name"]:
                found = f"{name!r} differs between process 0 and process {rank}"
            remedy = "For independent fits: processes='alone'"
            if name == STARTING_VALUES:
                remedy = "Seed the initial weights (torch.manual_seed), or load them"
            raise ValueError(
                "All processes must call fit with the same arguments, rows and initial weights: "
                f"{found}. {remedy}."
            )
