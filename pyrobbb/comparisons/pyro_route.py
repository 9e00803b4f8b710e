"""Loss and gradients of a guide at fixed noise, computed by Pyro and by the fused ELBO."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from pyro.infer import ELBO, Trace_ELBO
from pyro.infer.autoguide import AutoNormal
from pyro.poutine.messenger import Messenger
from torch import Tensor

from ..elbo.fused_loss import FusedLoss
from ..likelihoods import base_of
from ..model.guides import MeanFieldGuide
from ..model.network import BayesianNetwork


@dataclass(frozen=True)
class LossAndGradients:
    """The loss and its gradients with respect to loc and rho, each flat.

    Attributes
    ----------
    loss : ndarray of shape (1,)
    d_loc, d_rho : ndarray of shape (n_weights,)
    """

    loss: np.ndarray
    d_loc: np.ndarray
    d_rho: np.ndarray

    def by_quantity(self) -> dict[str, np.ndarray]:
        """Return the three quantities by name."""
        return {
            "loss": self.loss,
            "gradient of loc": self.d_loc,
            "gradient of rho": self.d_rho,
        }


class FixedNoise(Messenger):
    """Makes a guide use fixed standard normal noise, however it draws its normal sites."""

    def __init__(self, noise: Mapping[str, Tensor]) -> None:
        super().__init__()
        self._noise = noise

    def _pyro_sample(self, msg: Any) -> None:
        name = msg["name"].removesuffix("_unconstrained")
        if msg["value"] is not None or name not in self._noise:
            return
        base = base_of(msg["fn"])
        transforms = []
        if isinstance(base, torch.distributions.TransformedDistribution):
            base, transforms = base_of(base.base_dist), base.transforms
        if isinstance(base, torch.distributions.Normal):
            value = base.loc + base.scale * self._noise[name]
            for transform in transforms:
                value = transform(value)
            msg["value"], msg["done"] = value, True


def draw_noise(guide: MeanFieldGuide) -> dict[str, Tensor]:
    """Draw standard normal noise for each site."""
    return guide.split(torch.randn_like(guide.loc))


def parameters_of(
    guide: MeanFieldGuide | AutoNormal, order: Mapping[str, Any]
) -> tuple[list[Tensor], list[Tensor]]:
    """Return the tensors of loc and of rho, in the order of the sites."""
    if isinstance(guide, AutoNormal):
        return (
            [guide.locs.get_parameter(f"{name}_unconstrained") for name in order],
            [guide.scales.get_parameter(f"{name}_unconstrained") for name in order],
        )
    return [guide.loc], [guide.rho]


def flatten(tensors: list[Tensor]) -> np.ndarray:
    """Concatenate tensors into a flat array."""
    return torch.cat([tensor.detach().flatten() for tensor in tensors]).cpu().numpy()


def by_pyro(
    network: BayesianNetwork,
    guide: MeanFieldGuide | AutoNormal,
    x: Tensor,
    y: Tensor,
    noise: Mapping[str, Tensor],
    elbo: ELBO | None = None,
) -> LossAndGradients:
    """Compute loss and gradients by an ELBO of Pyro; None: `Trace_ELBO`."""
    with FixedNoise(noise):
        loss = (elbo or Trace_ELBO()).differentiable_loss(network, guide, x, y)
    loss.backward()
    locs, rhos = parameters_of(guide, noise)
    gradients = [
        flatten([p.grad for p in parameters if p.grad is not None]) for parameters in (locs, rhos)
    ]
    guide.zero_grad()  # SVI would add to them
    return LossAndGradients(np.array([loss.item()]), gradients[0], gradients[1])


def by_fused_elbo(
    network: BayesianNetwork,
    guide: MeanFieldGuide,
    x: Tensor,
    y: Tensor,
    noise: Mapping[str, Tensor],
) -> LossAndGradients:
    """Compute loss and gradients by the fused ELBO; raise CannotFuseError if it cannot."""
    loss = FusedLoss(network, guide)
    points = tuple(point.detach() for _, point in network.point_parameters())
    flat = torch.cat([value.flatten() for value in noise.values()])
    with torch.no_grad():
        step = loss((guide.loc, guide.rho), points, flat, x, y)
    loss_value = np.array([(step.nll + step.kl).item()])
    return LossAndGradients(loss_value, flatten([step.d_loc]), flatten([step.d_rho]))
