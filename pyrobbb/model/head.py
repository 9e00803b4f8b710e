"""Heads: a network on the features of its trunk."""

from __future__ import annotations

import logging
import weakref
from typing import Any

import torch
from torch import nn

from .._core.trees import Inputs
from .network import BayesianNetwork
from .trunk import Split, find_split, is_varied, split_at
from .vectorized import VectorizedCall

logger = logging.getLogger(__name__)

_SPLITS: weakref.WeakKeyDictionary[BayesianNetwork, tuple[nn.Module, Split | None]] = (
    weakref.WeakKeyDictionary()
)


def split_of(network: BayesianNetwork, x: Inputs) -> Split | None:
    """Return the split of a network's module at its trunk for predictions, if it has one.

    The trunk is the one named by the network, or is found. The result is remembered.

    Parameters
    ----------
    network : BayesianNetwork
    x : Inputs of shape (n, ...)
    """
    known = _SPLITS.get(network)
    if known is None or known[0] is not network.net:
        if network.trunk is None and not is_varied(x):
            return None
        drawn = [name for name, _ in network.bayesian_parameters()]
        split = _split(network, drawn, x)
        known = _SPLITS[network] = network.net, split
        if split is not None:
            logger.info("The trunk %s runs once for all draws.", ", ".join(split.parts))
    return known[1]


def frozen_split_of(network: BayesianNetwork, x: Inputs) -> Split:
    """Return the split of a network's module at a trunk without parameters to fit.

    Raises
    ------
    ValueError
        If there is none.
    """
    learned = [n for n, _ in (*network.bayesian_parameters(), *network.point_parameters())]
    split = _split(network, learned, x)
    if split is None:
        raise ValueError(
            "`cache_features` needs a frozen trunk: submodules without parameters to fit, whose "
            "output is all that the rest of the network is computed from. Freeze them "
            "(requires_grad_(False)), and name them by BayesianNetwork(..., trunk=...)."
        )
    return split


def head_network(network: BayesianNetwork, split: Split) -> BayesianNetwork:
    """Return a network that is the head of another, with the same priors and tensors.

    Its inputs are the features of the split.
    """
    head = type(network).__new__(type(network))
    vars(head).update(vars(network))
    head._modules = dict(network._modules)
    head.net, head.trunk = split.head, None
    head._decisions = {}
    head._vectorized = VectorizedCall(head.select)
    return head


def whole_network(head: BayesianNetwork, network: BayesianNetwork) -> BayesianNetwork:
    """Return a network with the trunk of one and the head of another.

    Parameters
    ----------
    head : BayesianNetwork
        A fitted copy of a `head_network` of `network`.
    network : BayesianNetwork
        Changed: the parameters and buffers of the head become its own.
    """
    tensors: dict[str, Any] = dict(head.net.named_parameters(remove_duplicate=False))
    tensors |= dict(head.net.named_buffers(remove_duplicate=False))
    for name, tensor in tensors.items():
        owner, _, key = name.rpartition(".")
        module: Any = network.net.get_submodule(owner)
        (module._parameters if key in module._parameters else module._buffers)[key] = tensor
    return network


def _split(network: BayesianNetwork, learned: list[str], x: Inputs) -> Split | None:
    if network.trunk is not None:
        return split_at(network.net, network.trunk, learned, x, network.select)
    with torch.no_grad():
        return find_split(network.net, learned, x, network.select)
