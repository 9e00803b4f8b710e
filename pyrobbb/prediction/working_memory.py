"""The memory that a network needs for a row."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import Tensor, nn

from .._core.global_state import ordinary_modes
from .._core.random_state import seeded
from .._core.trees import Inputs, tensors_in
from ..model.functional import FunctionalCall
from ..model.outputs import Selection
from ..model.sequential import layers_of
from ..model.trunk import Split


def bytes_per_row(
    net: nn.Module, example: Inputs, select: Selection | None = None
) -> tuple[int, int]:
    """Estimate the bytes of one row under one draw: of all activations, and of the output.

    Parameters
    ----------
    net : nn.Module
    example : Inputs of shape (n, ...)
        One row, or all rows if the network needs them.
    select : Selection, optional
        Takes a part of the output.

    Returns
    -------
    per_row, per_output : int
    """
    sizes, record = _recorder()
    layers = layers_of(net, select)
    if layers is not None and isinstance(example, Tensor):  # runs in threads as it is
        with ordinary_modes(grad=False):
            output = example
            for _, layer in layers:
                output = layer(output)
                record(layer, (), output)
        record(net, (), output)
        return _per_row(sizes, output)
    with ordinary_modes(grad=False), seeded(0):
        call = FunctionalCall(net, (), training=False, select=select)
        for module in call.module.modules():  # a copy, which no other thread runs
            module._forward_hooks[-1] = record
        output = call({}, example)
    return _per_row(sizes, output)


def features_and_bytes_per_row(split: Split, example: Inputs) -> tuple[Tensor, int]:
    """Return the features of a row, and the bytes of all activations of the trunk for it.

    Parameters
    ----------
    split : Split
    example : Inputs of shape (1, ...)
    """
    sizes, record = _recorder()
    features = split.features(example, record=record)
    return features, _per_row(sizes, features)[0]


def _recorder() -> tuple[list[int], Callable[..., None]]:
    """Return a list, and a forward hook that appends the bytes of a module's output to it."""
    sizes: list[int] = []

    def record(module: nn.Module, inputs: Any, output: Any) -> None:
        sizes.extend(t.numel() * t.element_size() for t in tensors_in(output))

    return sizes, record


def _per_row(sizes: list[int], output: Tensor) -> tuple[int, int]:
    n = len(output)
    return max(sum(sizes) // n, 1), max(output.numel() * output.element_size() // n, 1)
