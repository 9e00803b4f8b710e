"""The latent sites of a network's Pyro model: their supports and initial values."""

from __future__ import annotations

import weakref
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import pyro
import pyro.poutine as poutine
import torch
from pyro.distributions.torch_distribution import TorchDistribution
from pyro.infer.autoguide.initialization import InitMessenger
from pyro.poutine.runtime import effectful
from torch import Tensor, nn
from torch.distributions import biject_to, constraints

from .._core.arrays import supports_float64
from .._core.global_state import global_state_locked
from ..likelihoods import base_of
from .jit import is_compiled_by_pyro


@dataclass(frozen=True)
class LatentSite:
    """A latent Pyro site of a network, with its initial value for a guide.

    Attributes
    ----------
    name : str
    start : Tensor
        Initial value for a guide, in the constrained space of the site: the current value of a
        weight, or the prior median of a learned scale or of a latent site of the likelihood.
    support : constraint
    fan_in : int
        Number of inputs to one unit (see `pyrobbb.priors.fan_in`); 1 for a site that is no weight.
    """

    name: str
    start: Tensor
    support: constraints.Constraint
    fan_in: int


def param_site(name: str, parameter: nn.Parameter) -> Tensor:
    """Register a parameter with Pyro's handlers, but not in the global param store."""
    if is_compiled_by_pyro():
        # The only parameters that it knows are those of the param store. Their names must be unique
        # there.
        stored: Tensor = pyro.param(f"{name}.{id(parameter)}", parameter)
        return stored
    value = parameter.view_as(parameter)
    value.unconstrained = weakref.ref(parameter)  # type: ignore[attr-defined]  # SVI updates it
    register = effectful(lambda *_, **__: value, type="param")
    return register(name, constraint=constraints.real, name=name)


def elementwise(support: constraints.Constraint | None) -> constraints.Constraint | None:
    """Return the constraint on a single element of a site."""
    while isinstance(support, constraints.independent):
        support = support.base_constraint
    return support


def is_real(support: constraints.Constraint | None) -> bool:
    """Return whether a site is unconstrained."""
    # Compared by type, because a copied guide has copies of the constraints.
    return isinstance(elementwise(support), type(constraints.real))


def is_positive(support: constraints.Constraint | None) -> bool:
    """Return whether the only constraint on a site is that it is positive."""
    bound = getattr(elementwise(support), "lower_bound", None)
    return isinstance(elementwise(support), type(constraints.positive)) and bool(bound == 0)


def start_of(prior: TorchDistribution) -> Tensor:
    """Return a deterministic initial value: the prior median where it has a closed form."""
    base, device = base_of(prior), _device_of(prior)
    dtype = torch.float64 if device is None or supports_float64(device) else torch.float32
    try:
        start = base.icdf(torch.full(base.batch_shape, 0.5, dtype=dtype, device=device))
    except NotImplementedError:
        to_support = biject_to(prior.support)
        start = to_support(torch.zeros(to_support.inverse_shape(prior.shape()), device=device))
    return start.detach()


def at_start(likelihood: Callable[[Tensor], TorchDistribution]) -> Callable[..., TorchDistribution]:
    """Return a likelihood whose latent sites have their initial values."""
    # Pyro's init functions would draw from the caller's random state.
    return InitMessenger(lambda site: start_of(site["fn"]))(likelihood)


def traced_latents(
    likelihood: Callable[[Tensor], TorchDistribution], output: Tensor
) -> Mapping[str, TorchDistribution]:
    """Return the priors of the latent sites that a likelihood draws for an output."""
    with global_state_locked(), poutine.block():
        trace = poutine.trace(at_start(likelihood)).get_trace(output)
    return {name: site["fn"] for name, site in trace.iter_stochastic_nodes()}


def _device_of(distribution: Any) -> torch.device | None:
    """Return the device of a distribution's parameters."""
    for value in vars(distribution).values():
        if isinstance(value, Tensor):
            return value.device
        if isinstance(value, torch.distributions.Distribution):
            return _device_of(value)
    return None
