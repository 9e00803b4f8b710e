"""Optimisers: those that `fit` accepts, and Adam as one kernel call over flat vectors."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import pyro.optim
import torch
from torch import Tensor, nn

from .._core.messages import shown
from .._core.state_dicts import copy_tensors
from .optimizer_state import pack_state, unpack_state

OptimizerFactory = Callable[..., torch.optim.Optimizer]
"""``(parameters, lr=...) -> torch.optim.Optimizer``, such as a class of torch.optim."""


def as_factory(optimizer: Any, lr: float) -> tuple[OptimizerFactory, float]:
    """Return the factory of the optimiser and the learning rate, which a Pyro optimiser may set.

    Raises
    ------
    TypeError
        If it is neither a factory of torch optimisers nor a Pyro optimiser.
    """
    if isinstance(optimizer, pyro.optim.PyroOptim):
        options = optimizer.pt_optim_args
        if isinstance(optimizer, pyro.optim.PyroLRScheduler) or not isinstance(options, dict):
            raise TypeError(
                "`optimizer` must be a Pyro optimiser with one set of options for all parameters, "
                "such as pyro.optim.ClippedAdam({'lr': 0.01}); set a schedule by `schedule`."
            )
        if options.get("lrd", 1.0) != 1.0:
            raise TypeError(
                f"`optimizer` has lrd={options['lrd']}, but `fit` sets the learning rate by "
                "`schedule`: leave lrd out."
            )
        rest = {name: value for name, value in options.items() if name != "lr"}
        return functools.partial(optimizer.pt_optim_constructor, **rest), options.get("lr", lr)
    if not callable(optimizer) or isinstance(optimizer, torch.optim.Optimizer):
        raise TypeError(
            f"`optimizer` must be a class such as torch.optim.Adam, got {shown(optimizer)}: "
            "`fit` passes the parameters to it."
        )
    return optimizer, lr


class FlatAdam:
    """Adam or AdamW over a few flat tensors, as one kernel call.

    The same update as ``torch.optim.Adam(fused=True)`` without its bookkeeping, which on a small
    network takes as long as the update itself.

    Parameters
    ----------
    tensors : sequence of Tensor
        Updated in place.
    settings : dict
        betas, eps and weight_decay, as in torch.optim.
    decoupled : bool
        Whether the weight decay is AdamW's.

    References
    ----------
    Kingma and Ba (2015), algorithm 1; Loshchilov and Hutter (2019) for AdamW.
    """

    def __init__(
        self, tensors: Sequence[Tensor], settings: dict[str, Any], *, decoupled: bool = False
    ) -> None:
        self.tensors = list(tensors)
        self.beta1, self.beta2 = (float(beta) for beta in settings["betas"])
        self.eps = float(settings["eps"])
        self.weight_decay = float(settings["weight_decay"])
        self.decoupled = decoupled
        self.first = [torch.zeros_like(tensor) for tensor in self.tensors]
        self.second = [torch.zeros_like(tensor) for tensor in self.tensors]
        self.n_steps = 0
        self._counts = [torch.zeros((), device=t.device) for t in self.tensors]

    def step(self, gradients: Sequence[Tensor], lr: float) -> None:
        """Update the tensors by one step."""
        update = torch._fused_adamw_ if self.decoupled else torch._fused_adam_
        for count in self._counts:  # the kernel expects the number of this step
            count.fill_(self.n_steps + 1)
        update(
            self.tensors,
            list(gradients),
            self.first,
            self.second,
            [],
            self._counts,
            lr=lr,
            beta1=self.beta1,
            beta2=self.beta2,
            weight_decay=self.weight_decay,
            eps=self.eps,
            amsgrad=False,
            maximize=False,
        )
        self.n_steps += 1

    def state_dict(self) -> dict[str, Tensor]:
        """Return the moments and the number of steps."""
        moments = {"first": self.first, "second": self.second}
        named = {f"{n}.{i}": t for n, tensors in moments.items() for i, t in enumerate(tensors)}
        return {**named, "n_steps": torch.tensor(self.n_steps)}

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """Restore a state returned by `state_dict`."""
        own, stored = self.state_dict(), dict(state)
        n_steps = stored.pop("n_steps")
        del own["n_steps"]
        copy_tensors(stored, own)
        self.n_steps = int(n_steps)


class TorchOptimizer:
    """Any torch optimiser, with the interface of `FlatAdam`."""

    def __init__(self, tensors: Sequence[Tensor], factory: OptimizerFactory) -> None:
        self.tensors = [nn.Parameter(tensor) for tensor in tensors]
        self._optimizer = factory(self.tensors, lr=1.0)

    def step(self, gradients: Sequence[Tensor], lr: float) -> None:
        """Update the tensors by one step."""
        for group in self._optimizer.param_groups:
            group["lr"] = lr
        for parameter, gradient in zip(self.tensors, gradients, strict=True):
            parameter.grad = gradient
        self._optimizer.step()

    def state_dict(self) -> dict[str, Tensor]:
        """Return the state of the torch optimiser."""
        return pack_state(self._optimizer)

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """Restore a state returned by `state_dict`."""
        unpack_state(self._optimizer, state)


def flat_optimizer(
    tensors: Sequence[Tensor], factory: OptimizerFactory
) -> FlatAdam | TorchOptimizer:
    """Return an optimiser that updates flat tensors in place as that of the factory would."""
    settings = adam_settings(factory, tensors)
    if settings is not None:
        return FlatAdam(tensors, settings, decoupled=settings["decoupled"])
    return TorchOptimizer(tensors, factory)


def adam_settings(factory: OptimizerFactory, tensors: Sequence[Tensor]) -> dict[str, Any] | None:
    """Return the settings of a factory's Adam or AdamW, if `FlatAdam` can replace it.

    Parameters
    ----------
    factory : callable
    tensors : sequence of Tensor
        The tensors to update.

    Returns
    -------
    dict or None
        betas, eps, weight_decay, and whether the weight decay is decoupled. None for other
        optimisers, and for options or dtypes that `FlatAdam` does not support.
    """
    if factory is torch.optim.Adam or factory is torch.optim.AdamW:
        # An instance would import torch's compiler, which takes as long as importing all of torch.
        kind: type = factory
        settings = {n: p.default for n, p in inspect.signature(kind).parameters.items()}
    else:
        optimizer = factory([nn.Parameter(tensor) for tensor in tensors], lr=1.0)
        kind, settings = type(optimizer), optimizer.param_groups[0]
    if kind not in (torch.optim.Adam, torch.optim.AdamW):
        return None
    if settings["amsgrad"] or settings["maximize"]:
        return None
    if any(tensor.dtype not in (torch.float32, torch.float64) for tensor in tensors):
        return None
    kept = {name: settings[name] for name in ("betas", "eps", "weight_decay")}
    return {**kept, "decoupled": kind is torch.optim.AdamW}
