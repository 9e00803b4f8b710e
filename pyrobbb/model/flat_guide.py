"""FlatGuide: what guides over one flat vector of all latent sites have in common."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import ClassVar, Self, TypeAlias

import torch
from torch import Tensor, nn
from torch.distributions import biject_to
from torch.nn.functional import softplus

from .._core.arrays import ArrayLike, check_positive
from .network import BayesianNetwork
from .sites import LatentSite

INIT_SCALE = 0.1
"""Initial standard deviation of a weight, in units of 1 / sqrt(fan_in). It is small relative to the
weights themselves, which are of that order, so that noise does not hinder early training."""

MIN_SCALE = 1e-15
"""Lower bound of softplus(rho): in float32 the square of a much smaller scale is 0."""


Sampler: TypeAlias = Callable[[int, torch.Generator], dict[str, Tensor]]
"""``(n_draws, generator)`` -> the values of the latent sites, each of shape (n_draws, *site)."""


class FlatGuide(nn.Module):
    """Base of the normal guides over one flat vector of all latent sites, in unconstrained space.

    A draw is ``u = loc + scale * z`` with ``scale = softplus(rho)``, where z is standard normal
    noise, or is mixed from it linearly. Each latent site is a view into u, transformed to the
    site's support. The parameters of the guide, in the order of `parameters()`, are `loc`, `rho`
    and those of the mixing.

    The fused loss, the engines, storage and warm starts use what this class declares, so that they
    do not depend on the kind of guide. A subclass of a subclass is a custom guide: it may draw
    differently, which its parameters do not show.

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
    kind : str
        The value of `fit`'s argument `guide` that selects it.
    loc, rho : nn.Parameter of shape (n_latent,)
    shapes : dict of str to torch.Size
        Shape of each site in unconstrained space, in the order of the flat vectors.
    supports : dict of str to constraint
    """

    kind: ClassVar[str]

    def __init__(
        self,
        network: BayesianNetwork,
        x: ArrayLike | None = None,
        *,
        init_scale: float | None = None,
    ) -> None:
        super().__init__()
        if init_scale is not None:
            check_positive("init_scale", init_scale)
        sites = network.latent_sites(x)
        starts = [initial_loc_and_scale(site, init_scale) for site in sites]
        self.shapes = {site.name: loc.shape for site, (loc, _) in zip(sites, starts, strict=True)}
        self.supports = {site.name: site.support for site in sites}
        self.init_scale = init_scale
        scale = torch.cat([scale.flatten() for _, scale in starts])
        self.loc = nn.Parameter(torch.cat([loc.flatten() for loc, _ in starts]))
        self.rho = nn.Parameter(inverse_softplus(scale))

    @property
    def scale(self) -> Tensor:
        """Factors of z in a draw, softplus(rho), shape (n_latent,)."""
        return scale_of(self.rho)

    @property
    def sd(self) -> Tensor:
        """Marginal standard deviations of u, shape (n_latent,)."""
        return self.scale

    @property
    def rank(self) -> int | None:
        """Rank of the part of the covariance that is not diagonal, if the guide has one."""
        return None

    @property
    def is_mean_field(self) -> bool:
        """Whether z is the noise itself, so that all latent values are independent."""
        return self.rank is None

    @property
    def has_points(self) -> bool:
        """Whether some scale is exactly 0, so that the guide has no density."""
        return bool(torch.isneginf(self.rho).any())

    @property
    def noise_sizes(self) -> list[int]:
        """Sizes of the pieces of noise of a draw, in the order in which `forward` draws them."""
        return [shape.numel() for shape in self.shapes.values()]

    def mixed(self, noise: Tensor, *factors: Tensor) -> Tensor:
        """Compute z from standard normal noise of shape (..., sum of `noise_sizes`).

        Parameters
        ----------
        noise : Tensor
        *factors : Tensor
            The parameters of the mixing, possibly with leading dimensions.
        """
        return noise

    def drawn(self, values: Sequence[Tensor], noise: Tensor) -> dict[str, Tensor]:
        """Compute the draws of all sites, in unconstrained space, from parameters and noise."""
        loc, rho, *factors = values
        return self.split(loc + scale_of(rho) * self.mixed(noise, *factors))

    def sampler(self) -> Sampler:
        """Return a function that draws what `forward` draws in a plate of n draws, without Pyro."""
        raise NotImplementedError

    def split(self, flat: Tensor) -> dict[str, Tensor]:
        """Split flat values, shape (..., n_latent), into views of the sites' shapes."""
        pieces = flat.split([math.prod(shape) for shape in self.shapes.values()], dim=-1)
        return {
            name: piece.reshape((*flat.shape[:-1], *shape))
            for (name, shape), piece in zip(self.shapes.items(), pieces, strict=True)
        }

    def renewed(self, network: BayesianNetwork, x: ArrayLike | None = None) -> Self:
        """Return a new guide like this one for a network, with initial values."""
        return type(self)(network, x=x, init_scale=self.init_scale)

    def by_site(self) -> dict[str, Tensor]:
        """Return views of the parameters, named ``"site.parameter"``."""
        views = {}
        for name, parameter in self.named_parameters():
            rows = parameter.detach().split([shape.numel() for shape in self.shapes.values()])
            for (site, shape), part in zip(self.shapes.items(), rows, strict=True):
                views[f"{site}.{name}"] = part.reshape((*shape, *parameter.shape[1:]))
        return views


def initial_loc_and_scale(site: LatentSite, init_scale: float | None) -> tuple[Tensor, Tensor]:
    """Return the initial mean and standard deviation of a site, in unconstrained space."""
    loc = biject_to(site.support).inv(site.start)
    scale = INIT_SCALE / math.sqrt(site.fan_in) if init_scale is None else init_scale
    return loc, torch.full_like(loc, scale)


def scale_of(rho: Tensor) -> Tensor:
    """Compute the standard deviations, softplus(rho); 0 only where rho is minus infinity."""
    return softplus(rho).clamp(min=MIN_SCALE).masked_fill(torch.isneginf(rho), 0.0)


def inverse_softplus(scale: Tensor) -> Tensor:
    """Compute rho such that softplus(rho) = scale, stably for small and large scales."""
    return scale + torch.log(-torch.expm1(-scale))
