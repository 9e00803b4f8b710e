"""The tensors of modules, by name: compared with stored ones, and filled from them."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn


def with_prefix(tensors: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    """Give the tensors whose names begin with a prefix, without it."""
    return {n.removeprefix(prefix): t for n, t in tensors.items() if n.startswith(prefix)}


def equal_tensors(some: Mapping[str, Tensor], others: Mapping[str, Tensor]) -> bool:
    """Say whether two sets of named tensors are the same."""
    return some.keys() == others.keys() and all(
        torch.equal(tensor.cpu(), others[name].cpu()) for name, tensor in some.items()
    )


def check_shapes(
    what: str, own: Mapping[str, tuple[int, ...]], stored: Mapping[str, Tensor]
) -> None:
    """Raise a ValueError unless stored tensors have the names and shapes of a module's own."""
    for name in (*own, *sorted(stored)):  # safetensors has no order
        here = own.get(name, "none")
        there = tuple(stored[name].shape) if name in stored else "none"
        if here != there:
            raise ValueError(
                f"its {what}'s {name!r} has shape {here} here and {there} in the stored tensors."
            )


def load_tensors(
    what: str, module: nn.Module, stored: Mapping[str, Tensor], *, exact: bool = False
) -> None:
    """Fill a module from stored tensors of its names and shapes.

    Parameters
    ----------
    what : str
        What the module is called in the message.
    module : Module
    stored : mapping of str to Tensor
    exact : bool
        Whether a module of one dtype keeps it; otherwise it takes the one that is stored.
    """
    own = module.state_dict()
    check_shapes(what, {name: tuple(tensor.shape) for name, tensor in own.items()}, stored)
    mine, theirs = (
        {tensor.dtype for tensor in some.values() if tensor.is_floating_point()}
        for some in (own, stored)
    )
    if len(mine) == len(theirs) == 1 and not exact:  # a net of one dtype may take another
        module.to(theirs.pop())
    for name, tensor in module.state_dict().items():
        if tensor.dtype != stored[name].dtype:
            raise ValueError(
                f"its {what}'s {name!r} is {tensor.dtype} here and {stored[name].dtype} in the "
                "stored tensors."
            )
    module.load_state_dict(dict(stored))
