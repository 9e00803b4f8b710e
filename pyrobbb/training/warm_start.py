"""Warm starts: fits that start at the parameters of a fitted chain."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

import torch
from torch import Tensor

from ..fitted import FittedChain
from ..model.flat_guide import FlatGuide
from ..model.network import BayesianNetwork


def chains_of(start: Any, restarts: int) -> tuple[FittedChain, ...]:
    """Return the chains of an initial posterior; one fit starts from each.

    Raises
    ------
    TypeError, ValueError
        If `start` is not a posterior or is pruned, or `restarts` is neither 1 nor the number of its
        chains.
    """
    chains = start if isinstance(start, tuple) else getattr(start, "chains", None)
    if not isinstance(chains, tuple) or not all(isinstance(chain, FittedChain) for chain in chains):
        raise TypeError(f"`start` must be a Posterior, got {type(start).__name__}.")
    if restarts not in (1, len(chains)):
        raise ValueError(
            f"`restarts` must be the number of chains of `start`, {len(chains)}, got {restarts}: "
            "leave it out."
        )
    for chain in chains:
        check_not_pruned("start", chain.guide)
    return chains


def check_not_pruned(argument: str, guide: Any) -> None:
    """Raise an error if a guide has weights that are exactly 0."""
    if isinstance(guide, FlatGuide) and guide.has_points:
        raise ValueError(
            f"`{argument}` is pruned and cannot be fitted further: weights that are exactly 0 have "
            "no density, and the ELBO is minus infinity. Pass the unpruned one."
        )


def load_chain(chain: FittedChain, network: BayesianNetwork, guide: Callable[..., Any]) -> None:
    """Load the fitted parameters and buffers of a chain into a network and its guide.

    Parameters
    ----------
    chain : FittedChain
        Not changed.
    network, guide
        Changed in place. The prior may differ from that of the chain.

    Raises
    ------
    ValueError
        If the types of the guides, or the names or shapes of parameters and buffers, differ.
    """
    if type(chain.guide) is not type(guide):
        raise ValueError(
            f"`guide` must be the kind of guide that `start` was fitted with, a "
            f"{type(chain.guide).__name__}, got a {type(guide).__name__}."
        )
    net = chain.network.net
    points = dict(network.point_parameters())
    pairs = [
        *_pairs("sites of the guide", _by_site(chain.guide), _by_site(guide)),
        *_pairs(
            "point parameters of the network",
            # By name, because a point parameter of one network may be frozen in the other.
            {name: p for name, p in net.named_parameters() if name in points},
            points,
        ),
        *_pairs(
            "buffers of the network",
            dict(net.named_buffers()),
            dict(network.net.named_buffers()),
        ),
    ]
    with torch.no_grad():
        for target, value in pairs:
            target.copy_(value)


def _by_site(guide: Any) -> dict[str, Tensor]:
    """Return views of a guide's parameters, by site."""
    return guide.by_site() if isinstance(guide, FlatGuide) else dict(guide.named_parameters())


def _pairs(
    what: str, stored: Mapping[str, Tensor], targets: Mapping[str, Tensor]
) -> Iterable[tuple[Tensor, Tensor]]:
    """Return (target, stored) pairs of tensors by name; raise if a name or shape differs."""
    before = {name: tuple(tensor.shape) for name, tensor in stored.items()}
    now = {name: tuple(tensor.shape) for name, tensor in targets.items()}
    if before != now:
        name = next(n for n in (*now, *before) if before.get(n) != now.get(n))
        raise ValueError(
            f"`start` must have the same {what} as the fit: {name!r} has shape "
            f"{now.get(name, 'none')} in the fit and {before.get(name, 'none')} in `start`."
        )
    return [(targets[name], stored[name]) for name in targets]
