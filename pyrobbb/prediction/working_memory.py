"""The memory that a network needs for a row."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn

from .._core.global_state import ordinary_modes
from .._core.random_state import seeded
from ..model.functional import FunctionalCall


def bytes_per_row(net: nn.Module, example: Tensor) -> tuple[int, int]:
    """Estimate the bytes of one row under one draw: of all activations, and of the output.

    Parameters
    ----------
    net : nn.Module
    example : Tensor of shape (n, ...)
        One row, or all rows if the network needs them.

    Returns
    -------
    per_row, per_output : int
    """
    sizes: list[int] = []

    def record(module: nn.Module, inputs: Any, output: Any) -> None:
        tensors = output if isinstance(output, tuple) else (output,)
        sizes.extend(t.numel() * t.element_size() for t in tensors if isinstance(t, Tensor))

    with ordinary_modes(grad=False), seeded(0):
        call = FunctionalCall(net, (), training=False)
        for module in call.module.modules():  # a copy, which no other thread runs
            module._forward_hooks[-1] = record
        output = call({}, example)
    per_output = output.numel() * output.element_size()
    return max(sum(sizes) // len(example), 1), max(per_output // len(example), 1)
