"""Mean-field Gaussian guides: one written by hand, one of Pyro's, started at the same place."""

from __future__ import annotations

import math
from typing import Any

import pyro
import pyro.distributions as dist
import pyro.poutine as poutine
import torch
from pyro.distributions.torch_distribution import TorchDistribution
from pyro.infer.autoguide import AutoNormal
from torch import Tensor, nn
from torch.distributions import biject_to, constraints
from torch.nn.functional import softplus

from .._core.arrays import ArrayLike, check_positive
from .network import BayesianNetwork, LatentSite, elementwise, is_real, param_site

START_SCALE = 0.1
"""Starting standard deviation of a weight, times 1 / sqrt(fan_in): small beside the weights, which
are of the order 1 / sqrt(fan_in), so that a net learns first and doubts then."""


LEAST_SCALE = 1e-15
"""Where softplus(rho) is smaller, this is the scale: float32 has no squares of scales much less."""


class MeanFieldGuide(nn.Module):
    """Fully factorised normal posterior, written by hand.

    The scale is ``softplus(rho)`` (Blundell et al. 2015, section 3.2). All parameters lie in two
    flat vectors; each latent site of the network is a view into them. A site of constrained support
    (a noise scale) is normal in its unconstrained space.

    Parameters
    ----------
    network : BayesianNetwork
    x : array-like of shape (n, ...), optional
        Some input. Needed only if the likelihood is a callable of your own with latent sites.
    init_scale : float, optional
        Starting standard deviation of every site, in unconstrained space. None: 0.1 / sqrt(fan_in)
        for each weight. The means start at the module's present weights.

    Attributes
    ----------
    loc, rho : nn.Parameter of shape (n_latent,)
        Means, and inverse softplus of the standard deviations: minus infinity for a point mass, as
        `pyrobbb.prune` leaves.
    shapes : dict of str to torch.Size
        Shape of each site in unconstrained space, in the order of the flat vectors.

    Raises
    ------
    ValueError
        If `init_scale` is not positive.
    """

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
        starts = [start_in_unconstrained_space(site, init_scale) for site in sites]
        self.shapes = {site.name: loc.shape for site, (loc, _) in zip(sites, starts, strict=True)}
        self.supports = {site.name: site.support for site in sites}
        scale = torch.cat([scale.flatten() for _, scale in starts])
        self.loc = nn.Parameter(torch.cat([loc.flatten() for loc, _ in starts]))
        self.rho = nn.Parameter(inverse_softplus(scale))

    @property
    def scale(self) -> Tensor:
        """Standard deviations, shape (n_latent,)."""
        return scale_of(self.rho)

    @property
    def has_points(self) -> bool:
        """Whether some scale is exactly 0, so that the guide has no density."""
        return bool(torch.isneginf(self.rho).any())

    def forward(self, *args: Any, **kwargs: Any) -> dict[str, Tensor]:
        """Run the Pyro guide: draw every latent site. The arguments of the model are ignored."""
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

    def split(self, flat: Tensor) -> dict[str, Tensor]:
        """Split flat values, shape (..., n_latent), into views of the sites' shapes."""
        pieces = flat.split([math.prod(shape) for shape in self.shapes.values()], dim=-1)
        return {
            name: piece.reshape((*flat.shape[:-1], *shape))
            for (name, shape), piece in zip(self.shapes.items(), pieces, strict=True)
        }

    def _site_distribution(self, name: str, loc: Tensor, scale: Tensor) -> TorchDistribution:
        support = elementwise(self.supports[name])
        if is_real(support):
            return NormalOrPoint(loc, scale).to_event(loc.dim())
        if is_positive(support):
            # The same as below, but only by this name does torch know its KL divergence from a
            # log-normal prior in closed form: biject_to gives exp and then + 0.
            return dist.LogNormal(loc, scale).to_event(loc.dim())
        normal = dist.Normal(loc, scale)
        distribution = dist.TransformedDistribution(normal, [biject_to(support)])
        return distribution.to_event(len(distribution.batch_shape))


class NormalOrPoint(dist.Normal):
    """A normal distribution whose scale may be 0: a point mass, of infinite density there."""

    arg_constraints = {  # noqa: RUF012  # as torch declares it
        "loc": constraints.real,
        "scale": constraints.nonnegative,
    }

    def log_prob(self, value: Tensor) -> Tensor:
        """Give the log-density."""
        at_point = torch.where(value == self.loc, math.inf, -math.inf)
        return torch.where(self.scale == 0, at_point, super().log_prob(value))


def auto_normal(network: BayesianNetwork, *, init_scale: float | None = None) -> AutoNormal:
    """Build Pyro's `AutoNormal` for a network, started where `MeanFieldGuide` starts.

    Its parameters stay out of Pyro's global param store, so that two guides in one process do not
    meet there. Like any autoguide it makes its parameters when it first sees data.

    Parameters
    ----------
    network : BayesianNetwork
    init_scale : float, optional
        As for `MeanFieldGuide`.
    """
    if init_scale is not None:
        check_positive("init_scale", init_scale)
    with pyro.settings.context(module_local_params=True):
        return _LocalAutoNormal(network, init_scale)


class _LocalAutoNormal(AutoNormal):
    def __init__(self, network: BayesianNetwork, init_scale: float | None) -> None:
        super().__init__(poutine.block(network, hide=["y"]))  # y is no latent, even if not given
        self._network = (network,)  # a tuple, so that it is not registered as a submodule
        self._start_scale = init_scale

    def __call__(self, *args: Any, **kwargs: Any) -> dict[str, Tensor]:
        with pyro.settings.context(module_local_params=True):
            return super().__call__(*args, **kwargs)

    def _setup_prototype(self, *args: Any, **kwargs: Any) -> None:
        super()._setup_prototype(*args, **kwargs)
        for site in self._network[0].latent_sites(*args[:1]):
            loc, scale = start_in_unconstrained_space(site, self._start_scale)
            with torch.no_grad():
                self.locs.get_parameter(f"{site.name}_unconstrained").copy_(loc)
                rho = self.scales.get_parameter(f"{site.name}_unconstrained")
                rho.copy_(inverse_softplus(scale))


def start_in_unconstrained_space(
    site: LatentSite, init_scale: float | None
) -> tuple[Tensor, Tensor]:
    """Give the mean and standard deviation at which a guide starts a site."""
    loc = biject_to(site.support).inv(site.start)
    scale = START_SCALE / math.sqrt(site.fan_in) if init_scale is None else init_scale
    return loc, torch.full_like(loc, scale)


def scale_of(rho: Tensor) -> Tensor:
    """Give the standard deviations, softplus(rho); 0 only where rho is minus infinity."""
    return softplus(rho).clamp(min=LEAST_SCALE).masked_fill(torch.isneginf(rho), 0.0)


def inverse_softplus(scale: Tensor) -> Tensor:
    """Give rho such that softplus(rho) = scale, stably for small and large scales."""
    return scale + torch.log(-torch.expm1(-scale))


def is_positive(support: constraints.Constraint | None) -> bool:
    """Say whether all that a site must be is positive."""
    bound = getattr(elementwise(support), "lower_bound", None)
    return isinstance(elementwise(support), type(constraints.positive)) and bool(bound == 0)
