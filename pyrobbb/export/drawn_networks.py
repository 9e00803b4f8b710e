"""DrawnNetwork: a module under a fixed number of draws of its weights, as one module of torch."""

from __future__ import annotations

import copy
from collections.abc import Mapping

import torch
from torch import Tensor, nn

from .._core.trees import Inputs
from ..model.arguments import arguments_of
from ..model.outputs import Selection


class DrawnNetwork(nn.Module):
    """A module under a fixed number of draws of its parameters, which are buffers.

    The draws are run by a loop of torch, `scan`. The exported program then holds the module once,
    whatever the number of draws, and works for modules that `torch.vmap` cannot run with a free
    number of rows.

    Parameters
    ----------
    net : nn.Module
    draws : mapping of str to Tensor of shape (n_draws, *parameter)
    select : Selection, optional
        Takes a part of the output.
    """

    def __init__(
        self, net: nn.Module, draws: Mapping[str, Tensor], select: Selection | None = None
    ) -> None:
        super().__init__()
        self.net = copy.deepcopy(net).cpu().eval().requires_grad_(False)
        self._select = select
        self._names = list(draws)
        for i, value in enumerate(draws.values()):
            self.register_buffer(f"draws_{i}", value.detach().cpu().contiguous())
        parameters = dict(self.net.named_parameters())
        for name in draws:  # these values are never used, and would be stored
            parameters[name].data = parameters[name].new_zeros(()).expand(parameters[name].shape)

    def forward(self, x: Inputs) -> Tensor:
        """Return the outputs, shape (n_draws, n, ...)."""
        from torch._higher_order_ops.scan import scan

        args, kwargs = arguments_of(self.net, x)
        draws = [getattr(self, f"draws_{i}") for i in range(len(self._names))]

        def step(carry: Tensor, draw: list[Tensor]) -> tuple[Tensor, Tensor]:
            values = dict(zip(self._names, draw, strict=True))
            output = torch.func.functional_call(self.net, values, args, kwargs)
            selected = output if self._select is None else self._select(output)
            return carry.clone(), selected.clone()

        _, outputs = scan(step, draws[0].new_zeros(()), draws)
        return outputs
