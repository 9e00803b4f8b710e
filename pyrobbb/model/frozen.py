"""Frozen parameters: neither drawn nor learned, and shared between copies of a network."""

from __future__ import annotations

import copy
from collections.abc import Iterable
from typing import Any, TypeVar

from torch import nn

from .network import BayesianNetwork

Copied = TypeVar("Copied")


def frozen_parameters(network: BayesianNetwork) -> dict[str, nn.Parameter]:
    """Return the parameters of a network's module that no fit changes, by name."""
    bayesian = {name for name, _ in network.bayesian_parameters()}
    return {
        name: parameter
        for name, parameter in network.net.named_parameters()
        if not parameter.requires_grad and name not in bayesian
    }


def copy_without_frozen(value: Copied, networks: Iterable[BayesianNetwork]) -> Copied:
    """Return a deep copy that shares the frozen parameters of some networks with the original.

    Only those of modules without other parameters are shared: `reset_parameters` of a module
    changes all that it has.

    Parameters
    ----------
    value : object
        A network, or a container of networks and guides.
    networks : iterable of BayesianNetwork
        The networks in it.
    """
    memo: dict[int, Any] = {}
    for network in networks:
        frozen = {id(parameter) for parameter in frozen_parameters(network).values()}
        for module in network.net.modules():
            direct = list(module.parameters(recurse=False))
            if all(id(parameter) in frozen for parameter in direct):
                memo |= {id(parameter): parameter for parameter in direct}
    return copy.deepcopy(value, memo)
