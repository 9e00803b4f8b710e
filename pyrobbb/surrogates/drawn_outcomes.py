"""DrawnOutcomes: what a fixed number of draws of the weights predict, differentiable in x."""

from __future__ import annotations

import copy
import logging
from collections.abc import Sequence
from typing import Any

import pyro.distributions as dist
import torch
from torch import Tensor, nn

from .._core.arrays import supports_float64
from .._core.messages import first_line
from .._core.random_state import seeded
from ..export import Units
from ..likelihoods import base_of
from ..model.observation import distribution_given
from ..prediction.sampling import Source, join

logger = logging.getLogger(__name__)


class DrawnOutcomes(nn.Module):
    """The mean of y given x under each of a fixed number of draws of the weights.

    Parameters
    ----------
    sources : sequence of Source
        Their draws are concatenated.
    example : Tensor of shape (1, d)
        A row of x in the units of the networks.
    units : Units
        Relation of x and y to those of the networks.
    seed : int
        Of the noise of y.
    """

    def __init__(self, sources: Sequence[Source], example: Tensor, units: Units, seed: int) -> None:
        super().__init__()
        self.chains = nn.ModuleList(_DrawnChain(source, example) for source in sources)
        self._units, self._seed = units, seed
        self._use_double_precision(example)

    @property
    def n_draws(self) -> int:
        """Number of draws."""
        return sum(len(chain) for chain in self._chains)

    @property
    def _chains(self) -> list[Any]:
        return list(self.chains)

    def forward(self, x: Tensor, *, noise: bool = False) -> Tensor:
        """Return the outcomes under all draws.

        Parameters
        ----------
        x : Tensor of shape (n, d)
        noise : bool
            Whether y is drawn, with the same seed in each call, instead of its mean.

        Returns
        -------
        Tensor of shape (n_draws, n, m)
        """
        parts = [
            self._outcomes(chain.distribution(self._inputs(x)), noise) for chain in self._chains
        ]
        return torch.cat(parts).to(x)

    def of_draws(self, index: Tensor, x: Tensor) -> Tensor:
        """Return the means of y under some of the draws, each at inputs of its own.

        Parameters
        ----------
        index : Tensor of shape (k,), int64
        x : Tensor of shape (k, n, d)

        Returns
        -------
        Tensor of shape (k, n, m)
        """
        parts, order, start = [], [], 0
        for chain in self._chains:
            (mine,) = torch.where((index >= start) & (index < start + len(chain)))
            if len(mine):
                distribution = chain.distribution(self._inputs(x[mine]), index[mine] - start)
                parts.append(self._outcomes(distribution, noise=False))
                order.append(mine)
            start += len(chain)
        return torch.cat(parts)[torch.cat(order).argsort()].to(x)

    def _inputs(self, x: Tensor) -> Tensor:
        like = next(self._chains[0].buffers())
        return self._units.scaled_inputs(x.to(like.device)).to(like.dtype)

    def _outcomes(self, base: Any, noise: bool) -> Tensor:
        """Return y or its mean in the units of the user, shape (k, n, m)."""
        units = self._units
        if units.log_bounds is not None:
            device = base.loc.device
            lower, upper = (bound.to(device) for bound in units.log_bounds)
            loc, scale = units.loc.to(device), units.scale.to(device)
            mean = base.loc.clamp(lower, upper)
            base = dist.LogNormal(loc + scale * mean, scale * base.scale)
        if noise:
            with seeded(self._seed):
                y = base.rsample() if base.has_rsample else base.sample()
        else:
            y = base.mean
        y = y.flatten(2) if y.dim() > 2 else y[..., None]
        if units.log_bounds is not None:
            return y
        return units.loc.to(y.device) + units.scale.to(y.device) * y

    def _use_double_precision(self, example: Tensor) -> None:
        """Convert networks and draws, as optimizers of BoTorch expect, unless the module fails."""
        before = example.dtype
        if not supports_float64(example.device):
            return
        self.to(torch.float64)
        try:
            with torch.no_grad():
                self._chains[0].distribution(example.double())
        except Exception as error:
            self.to(before)
            logger.info(
                "The BoTorch model stays in %s: its module fails in double precision (%s).",
                str(before).removeprefix("torch."),
                first_line(error),
            )


class _DrawnChain(nn.Module):
    """A fitted network under draws of its weights, which are buffers."""

    def __init__(self, source: Source, example: Tensor) -> None:
        super().__init__()
        self.network = copy.deepcopy(source.network).requires_grad_(False)
        draws = join(source.draws(example), source.n_draws)
        weights = {name for name, _ in source.network.bayesian_parameters()}
        used = weights | source.network.latents_of(draws).keys()
        self._names = [name for name in draws if name in used]
        self._n_draws = source.n_draws
        for i, name in enumerate(self._names):
            self.register_buffer(f"draws_{i}", draws[name].detach().clone())

    def __len__(self) -> int:
        return self._n_draws

    def distribution(self, x: Tensor, index: Tensor | None = None) -> Any:
        """Return the distribution of y at x, (n, d), or at x of shape (k, n, d) of some draws."""
        network: Any = self.network
        draws = {name: getattr(self, f"draws_{i}") for i, name in enumerate(self._names)}
        if index is not None:
            draws = {name: value[index] for name, value in draws.items()}
        output = network.output(draws, x, x_per_draw=index is not None)
        latents = network.latents_of(draws)
        return base_of(distribution_given(network.likelihood, output, latents))
