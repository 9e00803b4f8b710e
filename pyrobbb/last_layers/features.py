"""The features of a network: the inputs of its last linear layer."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from .._core.arrays import supports_float64
from .._core.messages import shown
from .._core.trees import Inputs, clone, split
from ..model.arguments import call_module
from ..model.functional import evaluating
from ..model.outputs import Selection

ROWS_PER_CALL = 1024
MAX_WEIGHTS = 2**13
"""Largest dense covariance: 0.5 GiB in float64, of which an inversion needs about four."""


@dataclass(frozen=True, eq=False)
class LastLayer:
    """The last linear layer of a module.

    Attributes
    ----------
    net : nn.Module
    layer : nn.Linear
        A part of `net`, whose output is that of `net`.
    name : str
    rows_at_once : int
        Rows that the module is run on at a time.
    """

    net: nn.Module
    layer: nn.Linear
    name: str
    rows_at_once: int = ROWS_PER_CALL

    @property
    def parameters(self) -> list[str]:
        """Names of the weight and the bias, if there is one."""
        prefix = f"{self.name}." if self.name else ""
        return [prefix + name for name, _ in self.layer.named_parameters()]

    @property
    def n_features(self) -> int:
        """Number of values per row, including the constant 1 of the bias."""
        return self.layer.in_features + (self.layer.bias is not None)

    def by_unit(self, values: Mapping[str, Tensor]) -> Tensor:
        """Return values of the weight and the bias by unit, shape (n_units, n_features)."""
        n_units = self.layer.out_features
        return torch.cat([values[name].reshape(n_units, -1) for name in self.parameters], 1)

    def in_flat_order(self, mean: Tensor, covariance: Tensor) -> tuple[Tensor, Tensor]:
        """Return moments of all weights, by unit, in the order weight, bias.

        Parameters
        ----------
        mean : Tensor of shape (1, n)
        covariance : Tensor of shape (1, n, n)
        """
        units = torch.arange(mean.shape[-1], device=mean.device)
        units = units.reshape(self.layer.out_features, self.n_features)
        d = self.layer.in_features
        order = torch.cat([units[:, :d].flatten(), units[:, d:].flatten()])
        return mean[:, order], covariance[:, order][:, :, order]

    @torch.no_grad()
    def features(self, x: Inputs) -> Iterator[Tensor]:
        """Yield the features of some rows at a time, with a column of ones for the bias.

        Parameters
        ----------
        x : Inputs of shape (n, ...)

        Yields
        ------
        Tensor of shape (m, n_features), float64
        """
        seen: list[Tensor] = []
        with evaluating(self.net):
            for rows in split(x, self.rows_at_once):
                handle = self.layer.register_forward_pre_hook(lambda _, args: seen.append(args[0]))
                try:
                    call_module(self.net, clone(rows))
                finally:
                    handle.remove()
                values = seen.pop()
                device = values.device if supports_float64(values.device) else "cpu"
                values = values.to(device, torch.float64)
                if self.layer.bias is not None:
                    values = torch.cat([values, values.new_ones((len(values), 1))], 1)
                yield values


def copied(net: nn.Module) -> nn.Module:
    """Return a copy of a module that shares its frozen parameters."""
    memo: dict[int, Any] = {id(p): p for p in net.parameters() if not p.requires_grad}
    return copy.deepcopy(net, memo)


@torch.no_grad()
def last_layer_of(net: nn.Module, x: Inputs, select: Selection | None = None) -> str:
    """Return the name of the linear layer whose output is that of a module.

    Parameters
    ----------
    net : nn.Module
    x : Inputs of shape (n, ...)
        Some rows.
    select : Selection, optional
        Takes a part of the output.

    Raises
    ------
    ValueError
        If there is no such layer, or it is called more than once or has no plain weight.
    """
    calls: list[tuple[nn.Module, Any, Any]] = []
    linears = [module for module in net.modules() if isinstance(module, nn.Linear)]
    handles = [
        module.register_forward_hook(lambda m, args, out: calls.append((m, args[0], out)))
        for module in linears
    ]
    try:
        with evaluating(net):
            output = call_module(net, clone(x))
            output = output if select is None else select(output)
    finally:
        for handle in handles:
            handle.remove()
    if not calls:
        raise ValueError("`network` must end in a linear layer, got a module without nn.Linear.")
    last, features, value = calls[-1]
    name = {id(m): n for n, m in net.named_modules()}[id(last)]
    if value.shape != output.shape or not torch.equal(value, output):
        raise ValueError(
            f"`network` must end in a linear layer, but its output is not that of {name!r}, its "
            "last nn.Linear: leave out what follows it."
        )
    if features.dim() != 2:
        raise ValueError(
            f"`network` must have features of shape (n, d) before its last layer {name!r}, got "
            f"{tuple(features.shape)}."
        )
    if sum(call[0] is last for call in calls) > 1 or set(last._parameters) - {"weight", "bias"}:
        raise ValueError(f"`network` must call its last layer {name!r} once.")
    if "weight" not in dict(last.named_parameters()):
        raise ValueError(
            f"`network` must end in a plain nn.Linear, got {shown(last)} with a parametrisation."
        )
    return name
