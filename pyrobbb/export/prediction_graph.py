"""PredictionGraph: all that a prediction computes from x, as one module of torch."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from .._core.trees import Inputs, map_arrays
from ..likelihoods import Likelihood, base_of
from ..model.observation import distribution_given
from ..prediction.sampling import FixedDraws, Source, join
from .drawn_networks import DrawnNetwork
from .families import Family
from .units import Units


class PredictionGraph(nn.Module):
    """Computes the outputs of a prediction from x, with fixed draws of the weights.

    Parameters
    ----------
    sources : sequence of Source or FixedDraws
        Their draws are concatenated.
    example : Inputs of shape (n, ...)
        In the units of the networks.
    family : Family
    units : Units
    levels : sequence of float
        Corrected probabilities of the quantiles.
    """

    def __init__(
        self,
        sources: Sequence[Source | FixedDraws],
        example: Inputs,
        family: Family,
        units: Units,
        levels: Sequence[float],
    ) -> None:
        super().__init__()
        self._family, self._units, self._levels = family, units, tuple(levels)
        networks, latents = [], []
        for source in sources:
            network = source.network
            draws = join(source.draws(example), source.n_draws)
            weights = {name: draws[name] for name, _ in network.bayesian_parameters()}
            networks.append(DrawnNetwork(network.net, weights, network.select))
            latents.append(network.latents_of(draws))
        self.networks = nn.ModuleList(networks)
        self._likelihood: Likelihood = sources[0].network.likelihood
        self._dtype = sources[0].network.bayesian_parameters()[0][1].dtype
        self._latents = list(latents[0])
        for i, name in enumerate(self._latents):
            self.register_buffer(f"latents_{i}", torch.cat([each[name] for each in latents]).cpu())

    def forward(self, x: Inputs) -> dict[str, Tensor]:
        """Return the outputs by name, in the precision of the network."""
        if self._units.input_scaling is not None:
            x = map_arrays(lambda array: self._units.scaled_inputs(array).to(self._dtype), x)
        output = torch.cat([network(x) for network in self.networks])
        latents = {name: getattr(self, f"latents_{i}") for i, name in enumerate(self._latents)}
        base = base_of(distribution_given(self._likelihood, output, latents))
        outputs = self._family.outputs(base, self._units, self._levels)
        return {
            name: value.to(self._dtype) if value.is_floating_point() else value
            for name, value in outputs.items()
        }
