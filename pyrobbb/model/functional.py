"""Calling a module with other parameter values, or in evaluation mode."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager

from torch import Tensor, nn


class FunctionalCall:
    """Calls a module with other values in place of its parameters.

    It does what `torch.func.functional_call` does, but looks up the parameters only once. A lookup
    in every call would take a sixth of the step time of a small network.

    Parameters
    ----------
    net : nn.Module
    names : iterable of str
        Names of the parameters to replace.
    """

    def __init__(self, net: nn.Module, names: Iterable[str]) -> None:
        parameters = dict(net.named_parameters())
        replaced = {id(parameters[name]): name for name in names}
        self._net = net
        self._slots = [  # a tied parameter has several slots
            (module._parameters, key, replaced[id(parameter)])
            for module in net.modules()
            for key, parameter in module._parameters.items()
            if id(parameter) in replaced
        ]

    def __call__(self, values: Mapping[str, Tensor], x: Tensor) -> Tensor:
        """Call the module on x."""
        originals = [parameters[key] for parameters, key, _ in self._slots]
        try:
            for parameters, key, name in self._slots:
                parameters[key] = values[name]  # type: ignore[assignment]  # need not be a Parameter
            return self._net(x)
        finally:
            for (parameters, key, _), original in zip(self._slots, originals, strict=True):
                parameters[key] = original


@contextmanager
def evaluating(module: nn.Module) -> Iterator[None]:
    """Put a module into evaluation mode, and restore the mode of each submodule at the end."""
    modes = {part: part.training for part in module.modules()}
    try:
        module.eval()
        yield
    finally:
        for part, training in modes.items():
            part.training = training
