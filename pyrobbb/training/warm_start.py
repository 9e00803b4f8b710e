"""Where a fit starts that takes up from an earlier posterior."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

import torch
from torch import Tensor

from ..model.guides import MeanFieldGuide
from ..model.network import BayesianNetwork
from ..posterior.posterior import Posterior


def chains_of(start: Posterior, restarts: int) -> tuple[Posterior, ...]:
    """Give the single fits of a posterior, of which each is the start of one.

    Raises
    ------
    TypeError, ValueError
        If it is no posterior, it is pruned, or `restarts` is neither 1 nor the number of its
        chains.
    """
    if not isinstance(start, Posterior):
        raise TypeError(f"`start` must be a Posterior, got {type(start).__name__}.")
    chains = start.chains or (start,)
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


def take_up(start: Posterior, network: BayesianNetwork, guide: Callable[..., Any]) -> None:
    """Set what is learnt, and the buffers of the module, to the values of an earlier fit.

    Parameters
    ----------
    start : Posterior
        Of a single fit; it is not changed.
    network, guide
        Are changed in place. The prior may be another than that of `start`.

    Raises
    ------
    ValueError
        If kinds of guides, sites, point parameters, buffers or their shapes differ.
    """
    before = start.guide
    if type(before) is not type(guide):
        raise ValueError(
            f"`start` has a {type(before).__name__}, but `guide` makes a {type(guide).__name__}: "
            "choose the `guide` that `start` was fitted with."
        )
    points = dict(network.point_parameters())
    pairs = [
        *_pairs("sites of the guide", _by_site(before), _by_site(guide)),
        *_pairs(
            "point parameters of the network",
            # What was a point may be frozen by now, and the other way round.
            {name: p for name, p in start.network.net.named_parameters() if name in points},
            points,
        ),
        *_pairs(
            "buffers of the network",
            dict(start.network.net.named_buffers()),
            dict(network.net.named_buffers()),
        ),
    ]
    with torch.no_grad():
        for own, value in pairs:
            own.copy_(value)


def _by_site(guide: Any) -> dict[str, Tensor]:
    """Give views of a guide's parameters, named by their sites."""
    if not isinstance(guide, MeanFieldGuide):
        return dict(guide.named_parameters())
    parts = {"loc": guide.split(guide.loc.detach()), "rho": guide.split(guide.rho.detach())}
    return {f"{site}.{part}": v for part, values in parts.items() for site, v in values.items()}


def _pairs(
    what: str, before: Mapping[str, Tensor], now: Mapping[str, Tensor]
) -> Iterable[tuple[Tensor, Tensor]]:
    """Pair tensors of the same names, or say which differ."""
    shapes = [{name: tuple(t.shape) for name, t in tensors.items()} for tensors in (before, now)]
    if shapes[0] != shapes[1]:
        name = next(n for n in (*now, *before) if shapes[0].get(n) != shapes[1].get(n))
        had, has = (own.get(name, "none") for own in shapes)
        raise ValueError(
            f"`start` must fit the network: of the {what}, {name!r} has the shape {has}, in "
            f"`start` {had}."
        )
    return [(now[name], before[name]) for name in now]
