"""Culprits: the module of a network that cannot be exported, for messages."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import Tensor, nn

from .._core.global_state import ordinary_modes
from .._core.random_state import seeded
from .._core.trees import Inputs, tensors_in
from ..model.functional import FunctionalCall
from ..model.outputs import Selection
from .drawn_networks import DrawnNetwork


def failing_module(
    net: nn.Module, x: Inputs, export: Callable[[nn.Module, Inputs], Any]
) -> tuple[str, Exception] | None:
    """Return the first module that cannot be exported by itself, with the error; None: they can.

    Modules are tried in the order in which a call of the network completes them, so that a part is
    named before the whole.

    Parameters
    ----------
    net : nn.Module
    x : Inputs of shape (n, ...)
    export : callable
        Exports a module for an example of its input, or raises.
    """
    for name, module, inputs in _calls(net, x):
        parameters = {n: p.detach()[None].expand(2, *p.shape) for n, p in module.named_parameters()}
        try:
            drawn = (
                DrawnNetwork(module, parameters, Selection(_first))
                if parameters
                else _Alone(module)
            )
            export(drawn, inputs)
        except Exception as error:
            kind = type(module).__name__
            return (f"the module {name!r} ({kind})" if name else f"the network ({kind})"), error
    return None


def _calls(net: nn.Module, x: Inputs) -> list[tuple[str, nn.Module, Any]]:
    """Return the names, modules and inputs of the calls of a network, in their order."""
    calls: list[tuple[str, nn.Module, Any]] = []
    # The copy has the order of modules of the original, whose buffers and modes are kept.
    call = FunctionalCall(net, (), training=False)
    originals = list(net.named_modules())

    def recorder(name: str, module: nn.Module) -> Callable[..., None]:
        def record(_: nn.Module, inputs: Any, output: Any) -> None:
            is_new = all(other is not module for _, other, _ in calls)
            if is_new and inputs and all(isinstance(value, Tensor) for value in inputs):
                calls.append((name, module, inputs[0] if len(inputs) == 1 else inputs))

        return record

    for (name, module), copied in zip(originals, call.module.modules(), strict=True):
        copied._forward_hooks[-1] = recorder(name, module)
    with ordinary_modes(grad=False), seeded(0):
        call({}, x)
    if all(module is not net for _, module, _ in calls):
        calls.append(("", net, x))
    return calls


class _Alone(nn.Module):
    """A module without parameters."""

    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        self.module = module

    def forward(self, x: Any) -> Any:
        return _first(self.module(*x) if isinstance(x, tuple) else self.module(x)).clone()


def _first(output: Any) -> Tensor:
    return tensors_in(output)[0]
