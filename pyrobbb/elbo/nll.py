"""The negative log-likelihood of a network at values of its latent sites."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

from torch import Tensor
from torch.distributions import biject_to

from .._core.trees import Inputs
from ..likelihoods import Conditional, as_observed, check_shape
from ..model.flat_guide import FlatGuide
from ..model.functional import FunctionalCall
from ..model.network import BayesianNetwork


@dataclass(frozen=True)
class NllGradients:
    """An estimate of the expected nll, and the gradients of its sum over draws.

    Attributes
    ----------
    nll : Tensor of shape (*lead,) or (*lead, n_particles)
        In nats, multiplied by `weight`.
    d_draw : Tensor of shape (*lead, n_latent) or (*lead, n_particles, n_latent)
        Gradient with respect to the draw loc + scale * z, which determines those with respect
        to loc and scale.
    d_points : tuple of Tensor of shape (*lead, *parameter)
        Gradients with respect to the point parameters.
    d_loc, d_scale : Tensor of shape (*lead, n_latent), optional
        Gradients with respect to loc and scale that do not pass through the draw. None: there are
        none.
    """

    nll: Tensor
    d_draw: Tensor
    d_points: tuple[Tensor, ...]
    d_loc: Tensor | None = None
    d_scale: Tensor | None = None

    def add_to(self, d_loc: Tensor, d_scale: Tensor) -> tuple[Tensor, Tensor]:
        """Add the gradients that do not pass through the draw to those that do."""
        if self.d_loc is None or self.d_scale is None:
            return d_loc, d_scale
        return d_loc + self.d_loc, d_scale + self.d_scale


class NllEstimator(Protocol):
    """An estimator of the expected nll of a batch under the guide."""

    def __call__(
        self,
        loc: Tensor,
        scale: Tensor,
        noise: Tensor,
        u: Tensor,
        points: tuple[Tensor, ...],
        x: Inputs,
        y: Tensor,
        weight: float | Tensor,
        row_weight: Tensor | None,
    ) -> NllGradients:
        """Compute ``weight * nll`` and its gradients.

        Parameters
        ----------
        loc, scale : Tensor of shape (*lead, n_latent)
        noise : Tensor of shape (*lead, n_latent) or (*lead, n_particles, n_latent)
        u : Tensor
            The draw loc + scale * noise, in the shape of the noise.
        points : tuple of Tensor of shape (*lead, *parameter)
        x : Inputs of shape (*lead, n_rows, ...)
        y : Tensor of shape (*lead, n_rows, ...)
        weight : float or Tensor of shape ()
        row_weight : Tensor of shape (*lead, n_rows), optional
        """
        ...


class NetworkNll:
    """The nll of a network, for one draw of its latent sites or for many.

    Values of latent sites are in unconstrained space.

    Parameters
    ----------
    network : BayesianNetwork
    guide : FlatGuide
    """

    def __init__(self, network: BayesianNetwork, guide: FlatGuide) -> None:
        self.network = network
        self.split = guide.split
        self.sites = list(guide.shapes)
        self.weights = [name for name, _ in network.bayesian_parameters()]
        self.points = [name for name, _ in network.point_parameters()]
        self.scales = [scale.site for scale in network.learned_scales().values()]
        self.to_support = {
            name: biject_to(guide.supports[name])
            for name in guide.shapes
            if name not in self.weights and name not in self.scales
        }
        self._call = self._new_call()

    def with_own_module(self) -> NetworkNll:
        """Return a copy that runs another private copy of the module."""
        other = copy.copy(self)
        other._call = self._new_call()
        return other

    def _new_call(self) -> FunctionalCall:
        names = [*self.weights, *self.points]
        return FunctionalCall(self.network.net, names, select=self.network.select)

    def of_one(
        self,
        values: Mapping[str, Tensor],
        points: tuple[Tensor, ...],
        x: Inputs,
        y: Tensor,
        row_weight: Tensor | None,
    ) -> Tensor:
        """Compute the nll, shape (), of one draw of the latent sites."""
        return self.of_output(self.output_of_one(values, points, x), values, y, row_weight)

    def output_of_one(
        self, values: Mapping[str, Tensor], points: tuple[Tensor, ...], x: Inputs
    ) -> Tensor:
        """Compute the output of the network under one draw of its weights."""
        weights = {name: values[name] for name in self.weights}
        weights.update(zip(self.points, points, strict=True))
        with self.network.autocasting(x) as restored:
            return restored(self._call(weights, x))

    def of_output(
        self, output: Tensor, values: Mapping[str, Tensor], y: Tensor, row_weight: Tensor | None
    ) -> Tensor:
        """Compute the nll, shape (), of the output of one draw."""
        likelihood = self.network.likelihood
        if isinstance(likelihood, Conditional):
            latents = {name: to(values[name]) for name, to in self.to_support.items()}
            distribution = likelihood.given(output, latents)
            check_shape(likelihood, distribution.shape(), y)
        else:
            latents = {name: to(values[name])[None] for name, to in self.to_support.items()}
            distribution = self.network.distribution(output[None], latents)
            check_shape(likelihood, distribution.shape()[1:], y)
            y = y[None]
        log_prob = distribution.log_prob(as_observed(distribution, y, output.dtype))
        if row_weight is None:
            return -log_prob.sum()
        return -(log_prob.reshape((len(row_weight), -1)).sum(-1) * row_weight).sum()

    def of_many(
        self,
        values: Mapping[str, Tensor],
        points: tuple[Tensor, ...],
        x: Inputs,
        y: Tensor,
        row_weight: Tensor | None,
        *,
        x_per_draw: bool,
    ) -> Tensor:
        """Compute the nll, shape (n_draws,), of each of many draws of the latent sites."""
        draws_of_points = dict(zip(self.points, points, strict=True))
        with self.network.autocasting(x) as restored:
            output = self.network.output(values, x, draws_of_points, x_per_draw=x_per_draw)
        return self.of_outputs(restored(output), values, y, row_weight)

    def of_outputs(
        self, output: Tensor, values: Mapping[str, Tensor], y: Tensor, row_weight: Tensor | None
    ) -> Tensor:
        """Compute the nll, shape (n_draws,), of the outputs of many draws."""
        latents = {name: to(values[name]) for name, to in self.to_support.items()}
        distribution = self.network.distribution(output, latents)
        check_shape(self.network.likelihood, distribution.shape()[1:], y[0])
        log_prob = distribution.log_prob(as_observed(distribution, y, output.dtype))
        if row_weight is not None:
            log_prob = log_prob * row_weight
        return -log_prob.sum(-1)
