"""State dicts of modules: comparison with stored tensors, and loading."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn


def with_prefix(tensors: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    """Return the tensors whose names begin with a prefix, keyed without the prefix."""
    return {n.removeprefix(prefix): t for n, t in tensors.items() if n.startswith(prefix)}


def equal_tensors(first: Mapping[str, Tensor], second: Mapping[str, Tensor]) -> bool:
    """Return whether two sets of named tensors are equal."""
    return first.keys() == second.keys() and all(
        torch.equal(tensor.cpu(), second[name].cpu()) for name, tensor in first.items()
    )


def check_shapes(
    what: str, expected: Mapping[str, tuple[int, ...]], stored: Mapping[str, Tensor]
) -> None:
    """Raise a ValueError unless stored tensors have the names and shapes of a module."""
    for name in (*expected, *sorted(stored)):  # safetensors does not preserve order
        shape = expected.get(name, "none")
        stored_shape = tuple(stored[name].shape) if name in stored else "none"
        if shape != stored_shape:
            raise ValueError(
                f"its {what}'s {name!r} has shape {shape} here and {stored_shape} in the stored "
                "tensors."
            )


def load_tensors(
    what: str, module: nn.Module, stored: Mapping[str, Tensor], *, exact: bool = False
) -> None:
    """Load stored tensors into a module that has the same names and shapes.

    Parameters
    ----------
    what : str
        Name of the module, for messages.
    module : Module
    stored : mapping of str to Tensor
    exact : bool
        Whether the dtypes must match. Otherwise a module of a single dtype is converted to
        that of the stored tensors.
    """
    current = module.state_dict()
    check_shapes(what, {name: tuple(tensor.shape) for name, tensor in current.items()}, stored)
    dtypes, stored_dtypes = (
        {tensor.dtype for tensor in tensors.values() if tensor.is_floating_point()}
        for tensors in (current, stored)
    )
    if len(dtypes) == len(stored_dtypes) == 1 and not exact:
        module.to(stored_dtypes.pop())
    for name, tensor in module.state_dict().items():
        if tensor.dtype != stored[name].dtype:
            raise ValueError(
                f"its {what}'s {name!r} is {tensor.dtype} here and {stored[name].dtype} in the "
                "stored tensors."
            )
    module.load_state_dict(dict(stored))


def copy_tensors(stored: Mapping[str, Tensor], target: Mapping[str, Tensor]) -> None:
    """Copy stored tensors into tensors of the same names, shapes and dtypes."""
    if stored.keys() != target.keys():
        name = min(stored.keys() ^ target.keys())
        raise ValueError(f"its tensor {name!r} is {'missing' if name in target else 'unknown'}.")
    for name, tensor in target.items():
        source = stored[name]
        if tensor.shape != source.shape or tensor.dtype != source.dtype:
            raise ValueError(
                f"its tensor {name!r} has shape {tuple(source.shape)} and {source.dtype}, must "
                f"have {tuple(tensor.shape)} and {tensor.dtype}."
            )
        tensor.copy_(source)
