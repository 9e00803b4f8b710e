"""Around: a prior centred at the weights of a trained network."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import pyro.distributions as dist
import torch
from pyro.distributions.torch_distribution import TorchDistribution
from torch import Tensor, nn

from .._core.arrays import check_positive
from .._core.messages import shown

__all__ = ["Around"]

MIN_SHARE = 1e-3
"""Least standard deviation under `relative`, as a share of that of a weight of typical size: a
weight of 0 would have none."""


@dataclass(frozen=True, eq=False)
class Around:
    """Independent normal priors centred at the weights of a trained network.

    For transfer: the posterior stays near a network that was trained elsewhere, unless the data
    contradict it. Fits start at the weights of the module that is fitted, so pass the trained one,
    or load its weights: ``BayesianNetwork(net, Around(net, 0.1))``. All restarts keep these
    weights; see `pyrobbb.fresh_start`. For a new head beside a trained body, use it in a `ByName`.

    Parameters
    ----------
    net : nn.Module, mapping of str to Tensor, or Posterior
        The trained weights by name: those of a module, of its ``state_dict()``, or the means of a
        posterior with a single chain. They are copied. Other names than those of the parameters
        that the prior is for, such as those of buffers, are ignored.
    scale : float
        Standard deviation of each weight, positive; with `relative`, in units of the absolute value
        of the weight.
    relative : bool
        Whether the standard deviation of a weight w is ``scale * abs(w)``, which is the rule of
        Krishnan et al. for the scale of a weight (their factor delta). Weights near 0 have at least
        a thousandth of the standard deviation of one at the root mean square of their parameter.

    Raises
    ------
    TypeError, ValueError
        If the weights are not tensors or not finite; when a parameter has none, or one of another
        shape.

    References
    ----------
    Krishnan, Subedar and Tickoo (2020), "Specifying weight priors in Bayesian deep neural networks
    with empirical Bayes" (MOPED).

    Examples
    --------
    >>> BayesianNetwork(net, priors.Around(net, scale=0.1))
    >>> priors.ByName({"head.*": priors.FanInNormal()}, default=priors.Around(body, scale=0.05))
    """

    net: Mapping[str, Tensor]
    scale: float = 1.0
    relative: bool = False

    def __post_init__(self) -> None:
        weights = _weights_of(self.net)
        object.__setattr__(self, "net", weights)
        check_positive("scale", self.scale)
        if not isinstance(self.relative, bool):
            raise TypeError(f"`relative` must be True or False, got {shown(self.relative)}.")
        for name, value in weights.items():
            if not bool(value.isfinite().all()):
                raise ValueError(f"`net` must be finite, got NaN or infinity for {name!r}.")

    def __call__(self, name: str, parameter: Tensor) -> TorchDistribution:
        """Return the prior of a parameter."""
        if name not in self.net:
            known = ", ".join(self.net) or "none"
            raise ValueError(
                f"`net` has no parameter {name!r}, only {known}: rename its weights, or give "
                "that parameter another prior by ByName."
            )
        loc = self.net[name].to(parameter)
        if loc.shape != parameter.shape:
            raise ValueError(
                f"`net` has {name!r} of shape {tuple(loc.shape)}, but the parameter has the shape "
                f"{tuple(parameter.shape)}: give it another prior by ByName."
            )
        return dist.Normal(loc, self._scale_at(loc)).to_event(parameter.dim())

    def _scale_at(self, loc: Tensor) -> Tensor:
        if not self.relative:
            return torch.full_like(loc, self.scale)
        typical = loc.square().mean().sqrt()
        # Of weights that are all 0, nothing is known: as for a single weight of size 1.
        typical = torch.where(typical > 0, typical, torch.ones_like(typical))
        return self.scale * torch.maximum(loc.abs(), MIN_SHARE * typical)

    def __repr__(self) -> str:
        relative = ", relative=True" if self.relative else ""
        return f"Around({', '.join(self.net)}, scale={self.scale}{relative})"


def _weights_of(net: Any) -> dict[str, Tensor]:
    """Return copies of the weights of a trained network, by name."""
    named: Any = net
    if isinstance(net, nn.Module):
        named = dict(net.named_parameters())
    elif isinstance(getattr(net, "chains", None), tuple):
        named = _means_of(net.chains)
    if not isinstance(named, Mapping) or not all(isinstance(v, Tensor) for v in named.values()):
        raise TypeError(
            "`net` must be an nn.Module, a mapping of names to tensors or a Posterior, got "
            f"{shown(net)}."
        )
    return {n: v.detach().clone() for n, v in named.items() if v.is_floating_point()}


def _means_of(chains: tuple[Any, ...]) -> Mapping[str, Tensor]:
    """Return the point parameters of a fitted chain, and the means of its other weights."""
    if len(chains) != 1:
        raise ValueError(
            f"`net` must be a posterior with a single chain, got one with {len(chains)}: choose "
            "one, Posterior(posterior.chains[:1])."
        )
    guide = chains[0].guide
    if not (hasattr(guide, "split") and hasattr(guide, "loc")):
        raise TypeError(
            f"`net` must be a posterior with a MeanFieldGuide, got a {type(guide).__name__}: pass "
            "its means as a mapping of names to tensors."
        )
    return {**dict(chains[0].network.net.named_parameters()), **guide.split(guide.loc)}
