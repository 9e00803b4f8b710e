"""Warm starts: a fit that begins at the values of a fitted chain."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

import torch
from torch import Tensor

from ..fitted import FittedChain
from ..model.guides import MeanFieldGuide
from ..model.network import BayesianNetwork


def chains_of(start: Any, restarts: int) -> tuple[FittedChain, ...]:
    """Return the chains of an initial posterior, each of which one fit starts from.

    Raises
    ------
    TypeError, ValueError
        If `start` is not a posterior, it is pruned, or `restarts` is neither 1 nor the number of
        its chains.
    """
    chains = start if isinstance(start, tuple) else getattr(start, "chains", None)
    if not isinstance(chains, tuple) or not all(isinstance(own, FittedChain) for own in chains):
        raise TypeError(f"`start` must be a Posterior, got {type(start).__name__}.")
    if restarts not in (1, len(chains)):
        raise ValueError(
            f"`restarts` must be the number of chains of `start`, {len(chains)}, got {restarts}: "
            "leave it out."
        )
    if any(isinstance(own.guide, MeanFieldGuide) and own.guide.has_points for own in chains):
        raise ValueError(
            "`start` is pruned and cannot be fitted further: weights that are exactly 0 have no "
            "density, and the ELBO is minus infinity. Start from the posterior before `prune`."
        )
    return chains


def load_chain(chain: FittedChain, network: BayesianNetwork, guide: Callable[..., Any]) -> None:
    """Load the fitted parameters of a chain, and the buffers of its module, into another.

    Parameters
    ----------
    chain : FittedChain
        Not changed.
    network, guide
        Changed in place. The prior may differ from that of the chain.

    Raises
    ------
    ValueError
        If the kinds of guides, sites, point parameters, buffers or their shapes differ.
    """
    if type(chain.guide) is not type(guide):
        raise ValueError(
            f"`start` has a {type(chain.guide).__name__}, but `guide` makes a "
            f"{type(guide).__name__}: choose the `guide` that `start` was fitted with."
        )
    net = chain.network.net
    points = dict(network.point_parameters())
    pairs = [
        *_pairs("sites of the guide", _by_site(chain.guide), _by_site(guide)),
        *_pairs(
            "point parameters of the network",
            # By name, as a point parameter of the one may be frozen in the other.
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
    """Return views of a guide's parameters, named by their sites."""
    if not isinstance(guide, MeanFieldGuide):
        return dict(guide.named_parameters())
    parts = {"loc": guide.split(guide.loc.detach()), "rho": guide.split(guide.rho.detach())}
    return {f"{site}.{part}": v for part, values in parts.items() for site, v in values.items()}


def _pairs(
    what: str, before: Mapping[str, Tensor], now: Mapping[str, Tensor]
) -> Iterable[tuple[Tensor, Tensor]]:
    """Pair tensors of the same names, or raise an error that names one that differs."""
    shapes = [{name: tuple(t.shape) for name, t in tensors.items()} for tensors in (before, now)]
    if shapes[0] != shapes[1]:
        name = next(n for n in (*now, *before) if shapes[0].get(n) != shapes[1].get(n))
        had, has = (own.get(name, "none") for own in shapes)
        raise ValueError(
            f"`start` must fit the network: of the {what}, {name!r} has the shape {has}, in "
            f"`start` {had}."
        )
    return [(now[name], before[name]) for name in now]
