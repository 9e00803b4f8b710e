"""JointGuide: what guides with a joint normal distribution of all latent sites have in common."""

from __future__ import annotations

from typing import Any, ClassVar, Protocol

import pyro
import pyro.distributions as dist
import torch
from pyro.distributions.distribution import Distribution
from torch import Tensor
from torch.distributions import biject_to, register_kl

from .flat_guide import FlatGuide, Sampler
from .sites import is_real, param_site


class Joint(Protocol):
    """A joint normal distribution of the flat vector u."""

    def at(self, *noise: Tensor) -> Tensor:
        """Return the draw for standard normal noise, computed like `rsample`."""
        ...


class JointGuide(FlatGuide):
    """Base of the flat guides whose latent sites are correlated.

    As in Pyro's autoguides an auxiliary site has the joint distribution, and the latent sites are
    point masses at its draw.

    Attributes
    ----------
    auxiliary_site : str
    """

    auxiliary_site: ClassVar[str]

    def joint(self, *parameters: Tensor) -> Any:
        """Return the joint distribution of u for values of the guide's parameters."""
        raise NotImplementedError

    @property
    def distribution(self) -> Any:
        """The joint distribution of all latent sites, in unconstrained space."""
        return self.joint(*self.parameters())

    def forward(self, *args: Any, **kwargs: Any) -> dict[str, Tensor]:
        """Run the Pyro guide: draw all latent sites. The model's arguments are ignored."""
        parameters = [
            param_site(f"guide.{name}", parameter) for name, parameter in self.named_parameters()
        ]
        joint = self.joint(*parameters)
        u = pyro.sample(self.auxiliary_site, joint, infer={"is_auxiliary": True})
        return {
            name: pyro.sample(name, self._site_distribution(name, value))
            for name, value in self.split(u).items()
        }

    def sampler(self) -> Sampler:
        """Return a function that draws what `forward` draws in a plate of n draws, without Pyro."""
        joint: Joint = self.distribution

        def sample(n_draws: int, generator: torch.Generator) -> dict[str, Tensor]:
            noise = [
                self.loc.new_empty((n_draws, 1, n)).normal_(generator=generator)
                for n in self.noise_sizes
            ]
            values = self.split(joint.at(*noise)[:, 0])
            return {name: self._to_support(name)(value) for name, value in values.items()}

        return sample

    def _to_support(self, name: str) -> Any:
        return biject_to(self.supports[name])

    def _site_distribution(self, name: str, u: Tensor) -> dist.Delta:
        n_dims = len(self.shapes[name])
        if is_real(self.supports[name]):
            return PointMass(u, event_dim=n_dims)
        to_support = self._to_support(name)
        value = to_support(u)
        jacobian = to_support.log_abs_det_jacobian(u, value)
        n_summed = jacobian.dim() - (u.dim() - n_dims)
        if n_summed:
            jacobian = jacobian.sum(tuple(range(-n_summed, 0)))
        return PointMass(value, -jacobian, value.dim() - (u.dim() - n_dims))


class PointMass(dist.Delta):
    """A point mass with a log-density, which Pyro's KL divergence leaves out."""


@register_kl(PointMass, Distribution)
def _kl_of_point_mass(p: PointMass, q: Any) -> Tensor:
    return p.log_density - q.log_prob(p.v)
