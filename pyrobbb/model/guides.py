"""Mean-field Gaussian guides with the same initial values: `MeanFieldGuide` and AutoNormal."""

from __future__ import annotations

import itertools
import math
from typing import Any
from weakref import WeakKeyDictionary

import pyro
import pyro.distributions as dist
import pyro.poutine as poutine
import torch
from pyro.distributions.torch_distribution import TorchDistribution
from pyro.infer.autoguide import AutoNormal
from pyro.nn import PyroModule
from torch import Tensor, nn
from torch.distributions import biject_to, constraints
from torch.nn.functional import softplus

from .._core.arrays import ArrayLike, check_positive
from .jit import is_compiled_by_pyro
from .network import BayesianNetwork
from .sites import LatentSite, elementwise, is_positive, is_real, param_site

INIT_SCALE = 0.1
"""Initial standard deviation of a weight, in units of 1 / sqrt(fan_in). It is small relative to the
weights themselves, which are of that order, so that noise does not hinder early training."""

MIN_SCALE = 1e-15
"""Lower bound of softplus(rho): in float32 the square of a much smaller scale is 0."""


class MeanFieldGuide(nn.Module):
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


def auto_normal(network: BayesianNetwork, *, init_scale: float | None = None) -> AutoNormal:
    """Return Pyro's `AutoNormal` for a network, with the initial values of `MeanFieldGuide`.

    Its parameters are not in Pyro's global param store, so that two guides in one process do not
    share them. Like any autoguide, it creates its parameters when it is first called on data.

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


_COUNTER = itertools.count()
_NUMBERS: WeakKeyDictionary[AutoNormal, int] = WeakKeyDictionary()
"""Numbers of guides in Pyro's param store, which outlives them; a copy has another number."""


class _LocalAutoNormal(AutoNormal):
    def __init__(self, network: BayesianNetwork, init_scale: float | None) -> None:
        super().__init__(poutine.block(network, hide=["y"]))  # y is not latent, even if not given
        self._network = (network,)  # a tuple, so that it is not registered as a submodule
        self._given_scale = init_scale  # `_init_scale` is an attribute of AutoNormal

    def __call__(self, *args: Any, **kwargs: Any) -> dict[str, Tensor]:
        if is_compiled_by_pyro():  # it needs the param store, in which the names must be unique
            number = _NUMBERS.setdefault(self, next(_COUNTER))
            for name, part in self.named_modules():
                if isinstance(part, PyroModule):
                    part._pyro_name = f"auto_normal.{number}.{name}"
            return super().__call__(*args, **kwargs)
        with pyro.settings.context(module_local_params=True):
            return super().__call__(*args, **kwargs)

    def _setup_prototype(self, *args: Any, **kwargs: Any) -> None:
        with pyro.settings.context(module_local_params=True):
            super()._setup_prototype(*args, **kwargs)
        for site in self._network[0].latent_sites(*args[:1]):
            loc, scale = initial_loc_and_scale(site, self._given_scale)
            with torch.no_grad():
                self.locs.get_parameter(f"{site.name}_unconstrained").copy_(loc)
                rho = self.scales.get_parameter(f"{site.name}_unconstrained")
                rho.copy_(inverse_softplus(scale))


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
