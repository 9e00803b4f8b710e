"""A fitted chain from a network and a guide that were fitted in a Pyro loop of one's own."""

from __future__ import annotations

import copy
from collections.abc import Callable, Container
from typing import Any

import numpy as np
from pyro.infer.autoguide import AutoGuide
from torch import nn

from .._core.messages import shown
from .._core.trees import InputsLike, clone
from ..fitted import FittedChain, History
from ..model.network import BayesianNetwork
from ..prediction.sampling import Source, with_present_parameters
from ..training.run import ready_to_predict


def chain_of_guide(
    network: BayesianNetwork, guide: Callable[..., Any], x: InputsLike
) -> FittedChain:
    """Return the chain of a network and its guide; see `Posterior.from_guide`."""
    if not isinstance(network, BayesianNetwork):
        raise TypeError(f"`network` must be a BayesianNetwork, got a {type(network).__name__}.")
    if isinstance(guide, type) or not callable(guide):
        raise TypeError(f"`guide` must be a fitted guide, got {shown(guide)}.")
    if isinstance(guide, AutoGuide):
        if guide.prototype_trace is None:
            raise ValueError("`guide` has not been fitted: it has never been run on x and y.")
        _check_y(guide.prototype_trace.nodes)  # its values could not be copied
    rows = network.example_of(network.prepare_inputs(x))
    fitted, guide, rows = copy.deepcopy((network, guide, clone(rows)))
    if not isinstance(guide, nn.Module):
        guide = with_present_parameters(guide, rows)
    losses, numbers = np.empty((3, 0)), np.empty((2, 0), dtype=int)
    chain = FittedChain(ready_to_predict(fitted), guide, History(*losses, *numbers), rows)
    drawn = {n: v.shape[1:] for n, v in next(Source(fitted, guide, 1, 0).draws(rows)).items()}
    for site in fitted.latent_sites(rows):
        if drawn.get(site.name) != site.start.shape:
            shape = tuple(site.start.shape)
            raise ValueError(f"`guide` must sample {site.name!r} of shape {shape}.")
    _check_y(drawn)
    return chain


def _check_y(sites: Container[str]) -> None:
    if "y" in sites:
        raise ValueError(
            "`guide` must not sample 'y': run it on x and y first, or hide y from its model, "
            "pyro.poutine.block(network, hide=['y'])."
        )
