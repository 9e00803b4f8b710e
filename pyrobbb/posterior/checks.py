"""Checks of the chains of a posterior."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from .._core.state_dicts import equal_tensors
from ..fitted import FittedChain
from ..storage.specs import model_description


def check_chains(chains: Iterable[Any]) -> tuple[FittedChain, ...]:
    """Return chains of one model as a tuple, or raise if they are none."""
    if isinstance(chains, FittedChain):
        raise TypeError("`chains` must be a sequence of FittedChain, got a FittedChain.")
    chains = tuple(chains)
    for chain in chains:
        if not isinstance(chain, FittedChain):
            raise TypeError(
                f"`chains` must be a sequence of FittedChain, got a {type(chain).__name__} in it."
            )
    if not chains:
        raise ValueError("`chains` must hold at least one FittedChain, got none.")
    first, *others = (model_description(chain.network) for chain in chains)
    for i, other in enumerate(others, 1):
        for part, (value, tensors) in first.items():
            other_value, other_tensors = other[part]
            if value != other_value or not equal_tensors(tensors, other_tensors):
                raise ValueError(
                    f"`chains` must have the same {part}: chain {i} has {other_value}, chain 0 has "
                    f"{value}."
                )
    return chains
