"""MeanFieldGuide: a fully factorised normal guide."""

from __future__ import annotations

import math
from typing import Any

import pyro
import pyro.distributions as dist
import torch
from pyro.distributions.torch_distribution import TorchDistribution
from torch import Tensor
from torch.distributions import Independent, TransformedDistribution, biject_to, constraints

from .flat_guide import FlatGuide, Sampler, scale_of
from .sites import elementwise, is_positive, is_real, param_site


class MeanFieldGuide(FlatGuide):
    """Fully factorised normal guide, parametrised by two flat vectors.

    The scale is ``softplus(rho)`` (Blundell et al. 2015, section 3.2). Each latent site of the
    network is a view into the flat vectors. A site of constrained support (such as a noise scale)
    is normal in its unconstrained space.

    Parameters
    ----------
    network : BayesianNetwork
    x : array-like of shape (n, ...), optional
        Any input. Needed only if the likelihood is a custom callable with latent sites.
    init_scale : float, optional
        Initial standard deviation of every site, in unconstrained space. None: 0.1 / sqrt(fan_in)
        for each weight. The initial means are the module's current weights.

    Attributes
    ----------
    loc, rho : nn.Parameter of shape (n_latent,)
        Means, and the inverse softplus of the standard deviations: minus infinity for a point
        mass, such as a weight that `pyrobbb.prune` has set to 0.
    shapes : dict of str to torch.Size
        Shape of each site in unconstrained space, in the order of the flat vectors.

    Raises
    ------
    ValueError
        If `init_scale` is not positive.
    """

    kind = "mean_field"

    def forward(self, *args: Any, **kwargs: Any) -> dict[str, Tensor]:
        """Run the Pyro guide: draw every latent site. The model's arguments are ignored."""
        loc, rho = param_site("guide.loc", self.loc), param_site("guide.rho", self.rho)
        distributions = self._distributions(loc, scale_of(rho))
        return {name: pyro.sample(name, fn) for name, fn in distributions.items()}

    @property
    def distributions(self) -> dict[str, TorchDistribution]:
        """The distribution of each latent site."""
        return self._distributions(self.loc, self.scale)

    def _distributions(self, loc: Tensor, scale: Tensor) -> dict[str, TorchDistribution]:
        locs, scales = self.split(loc), self.split(scale)
        return {name: self._site_distribution(name, locs[name], scales[name]) for name in locs}

    def sampler(self) -> Sampler:
        """Return a function that draws what `forward` draws in a plate of n draws, without Pyro."""
        distributions = self.distributions
        return lambda n_draws, generator: {
            name: sample_normal(fn, n_draws, generator) for name, fn in distributions.items()
        }

    def _site_distribution(self, name: str, loc: Tensor, scale: Tensor) -> TorchDistribution:
        support = elementwise(self.supports[name])
        if is_real(support):
            return NormalOrPoint(loc, scale).to_event(loc.dim())
        if is_positive(support):
            # The same distribution as below, but torch has a closed form of the KL divergence
            # from a log-normal prior only for this class: biject_to returns exp followed by + 0.
            return dist.LogNormal(loc, scale).to_event(loc.dim())
        normal = dist.Normal(loc, scale)
        distribution = dist.TransformedDistribution(normal, [biject_to(support)])
        return distribution.to_event(len(distribution.batch_shape))


class NormalOrPoint(dist.Normal):
    """A normal distribution whose scale may be 0: then a point mass, with infinite density."""

    arg_constraints = {  # noqa: RUF012  # as declared by torch
        "loc": constraints.real,
        "scale": constraints.nonnegative,
    }

    def log_prob(self, value: Tensor) -> Tensor:
        """Compute the log-density."""
        at_point = torch.where(value == self.loc, math.inf, -math.inf)
        return torch.where(self.scale == 0, at_point, super().log_prob(value))


def sample_normal(fn: Any, n: int, generator: torch.Generator) -> Tensor:
    """Return what ``fn.sample((n,))`` draws, for a normal distribution or a transformed one."""
    match fn:
        case Independent():
            return sample_normal(fn.base_dist, n, generator)
        case TransformedDistribution():
            value = sample_normal(fn.base_dist, n, generator)
            for transform in fn.transforms:
                value = transform(value)
            return value
    shape = (n, *fn.loc.shape)
    return torch.normal(fn.loc.expand(shape), fn.scale.expand(shape), generator=generator)
