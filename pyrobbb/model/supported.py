"""Checks that a module, its parameters and their priors can become a Pyro model."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

import pyro.poutine as poutine
import torch
from pyro.nn import PyroModule
from torch import Tensor, nn
from torch.nn.parameter import is_lazy

from .._core.global_state import global_state_locked, isolated_from_pyro
from .._core.messages import shown
from ..priors import Prior, scale_family
from .callables import called, check_distribution
from .scales import prior_at_start
from .sites import is_real

DTYPES = (torch.float32, torch.float64)


def check_module(net: nn.Module) -> None:
    """Raise a ValueError if a module cannot be called with other values of its parameters."""
    for name, module in net.named_modules():
        where = f"`net` has {type(module).__name__}" + (f" at {name!r}" if name else "")
        if isinstance(module, torch.jit.ScriptModule):
            raise ValueError(
                f"{where}, which is compiled for its own parameters: pass the module from which "
                "torch.jit made it."
            )
        for attribute in ("module", "_orig_mod"):  # data-parallel wrappers, torch.compile
            if _wraps(module, attribute):
                raise ValueError(
                    f"{where}, a wrapper that runs its own copies of a module: pass "
                    f"net.{f'{name}.' if name else ''}{attribute}."
                )
        if isinstance(module, PyroModule):
            raise ValueError(
                f"{where}, a PyroModule, whose sites the guide would not have: pass modules of "
                "torch.nn, and priors for their parameters as `prior`."
            )
        if isinstance(module, nn.Embedding | nn.EmbeddingBag):
            if module.max_norm is not None:
                raise ValueError(
                    f"{where} with `max_norm`, which changes its weights in each call: set "
                    "max_norm=None, or make it frozen (requires_grad=False)."
                )
            if module.sparse:
                raise ValueError(
                    f"{where} with sparse gradients, but the gradient of a posterior is dense: set "
                    "sparse=False."
                )


def check_parameters(parameters: Iterable[tuple[str, Tensor]]) -> None:
    """Raise a ValueError unless all parameters have one dtype, float32 or float64."""
    first: tuple[str, Tensor] | None = None
    for name, parameter in parameters:
        if parameter.dtype not in DTYPES:
            raise ValueError(
                f"`net` has the parameter {name!r} in {parameter.dtype}: convert the module by "
                "net.float() or net.double(); lower precision in the module: "
                "fit(..., autocast=torch.bfloat16)."
            )
        if first is None:
            first = name, parameter
        elif (parameter.dtype, parameter.device) != (first[1].dtype, first[1].device):
            raise ValueError(
                f"`net` has the parameter {first[0]!r} in {first[1].dtype} on {first[1].device} "
                f"and {name!r} in {parameter.dtype} on {parameter.device}: give all of them one "
                "dtype and device, such as by net.float()."
            )


def has_prior(prior: Prior, name: str, parameter: nn.Parameter, reserved: Iterable[str]) -> bool:
    """Return whether a parameter is Bayesian, after checks of the parameter and its prior.

    Parameters
    ----------
    prior : Prior
    name : str
    parameter : nn.Parameter
    reserved : iterable of str
        Names of the model's other sites.
    """
    if is_lazy(parameter):
        raise ValueError(
            f"`net` has the lazy parameter {name!r}: run the module once on some rows first."
        )
    if name in reserved:
        raise ValueError(
            f"`net` has a parameter named {name!r}, which is the name of another site of the "
            "model: rename the parameter."
        )
    if not parameter.requires_grad or parameter.numel() == 0:
        return False
    if parameter.is_complex():
        check_parameters([(name, parameter)])
    if parameter._backward_hooks:
        raise ValueError(
            f"`net` has a gradient hook on its parameter {name!r}, which would not be called for "
            "draws of it: remove the hook."
        )
    with global_state_locked(), poutine.block():
        distribution = called("prior", repr(name), prior_at_start, prior, name, parameter)
    if distribution is not None:
        check_prior(distribution, name, parameter)
    return distribution is not None


def check_priors_are_fixed(prior: Any, parameters: Iterable[tuple[str, nn.Parameter]]) -> None:
    """Raise a ValueError if a prior has latent sites or learnable tensors, or is random.

    A guide of the weights would not include them. It includes the learned scales of
    `pyrobbb.priors`.
    """
    for name, parameter in parameters:
        if scale_family(prior, name):
            continue
        with isolated_from_pyro(), poutine.trace() as tracer:
            one = prior(name, parameter)
        with isolated_from_pyro():
            other = prior(name, parameter)
        learnable = any(tensor.requires_grad for tensor in _tensors_of(one))
        if site := next(iter(tracer.trace.nodes), None):
            found = f"the Pyro site {site!r}"
        elif learnable:
            found = "a tensor that requires a gradient"
        elif not torch.equal(*(p.log_prob(parameter.detach()) for p in (one, other))):
            found = "other random numbers in each call"
        else:
            continue
        raise ValueError(
            f"`prior` has {found} for {name!r}, which would not be inferred: a prior must be "
            "fixed, so pass numbers, or scale='learned' to one of pyrobbb.priors."
        )


def check_prior(prior: Any, name: str, parameter: Tensor) -> None:
    """Raise unless a prior is a distribution over all real tensors of a parameter's shape."""
    check_distribution("prior", prior, repr(name), " or None")
    if not is_real(prior.support):
        raise ValueError(
            f"`prior` must return a distribution over all real numbers for {name!r}, got "
            f"{type(prior).__name__} with the support {shown(prior.support)}."
        )
    if prior.event_shape != parameter.shape or prior.batch_shape:
        raise ValueError(
            f"`prior` must return a distribution with the event shape of {name!r}, "
            f"{tuple(parameter.shape)}, got batch shape {tuple(prior.batch_shape)} and event "
            f"shape {tuple(prior.event_shape)}: end it in .expand(parameter.shape)"
            ".to_event(parameter.dim())."
        )


def _tensors_of(distribution: Any) -> Iterator[Tensor]:
    for value in vars(distribution).values():
        if isinstance(value, Tensor):
            yield value
        elif isinstance(value, torch.distributions.Distribution):
            yield from _tensors_of(value)


def _wraps(module: nn.Module, attribute: str) -> bool:
    """Return whether a module is a wrapper of torch that replicates or compiles the one inside."""
    wrappers = ("torch.nn.parallel", "torch._dynamo", "torch.distributed")
    is_of_torch = type(module).__module__.startswith(wrappers)
    return is_of_torch and isinstance(getattr(module, attribute, None), nn.Module)


def without_graphs(module: nn.Module) -> dict[int, Any]:
    """Return a memo for `copy.deepcopy` with detached copies of the module's computed tensors.

    A tensor that `forward` or a hook has left in an attribute belongs to a graph, and torch does
    not copy it.
    """
    memo: dict[int, Any] = {}
    for part in module.modules():
        for value in vars(part).values():
            for tensor in _computed(value):
                memo[id(tensor)] = tensor.detach().clone()
    return memo


def _computed(value: Any) -> Iterator[Tensor]:
    if isinstance(value, Tensor):
        if value.grad_fn is not None:
            yield value
    elif isinstance(value, dict):
        for item in value.values():
            yield from _computed(item)
    elif isinstance(value, list | tuple):
        for item in value:
            yield from _computed(item)
