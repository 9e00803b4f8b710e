"""The distributions of y under many draws of the weights, in bounded memory."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import torch
from pyro.distributions.torch_distribution import TorchDistribution
from torch import Tensor, nn

from .._core.arrays import supports_float64
from .._core.global_state import without_validation
from ..model.network import BayesianNetwork
from .sampling import Draws, FixedDraws, Source, join

WORKING_MEMORY = 2**30
"""Default bound, in bytes, on the memory of a prediction beyond its inputs and results."""

MAX_ROWS_PER_CALL = 512
TILE_BYTES = 2**24
"""Bounds on the rows and on the bytes of activations of one call of the network: small enough for
a processor's cache, large enough for fast matrix products."""


class DrawnDistributions:
    """The distributions of y under many draws of the weights, as an iterable of chunks of rows.

    They are cached if they fit into a quarter of the memory bound, and recomputed in each pass
    otherwise.

    Parameters
    ----------
    sources : sequence of Source or FixedDraws
        Of networks with the same structure, in evaluation mode. Their draws are concatenated.
    x : Tensor of shape (n, ...)
    max_memory : int
        Bound, in bytes, on the working memory beyond x and the results.
    """

    def __init__(
        self, sources: Sequence[Source | FixedDraws], x: Tensor, *, max_memory: int
    ) -> None:
        self._sources, self._x = tuple(sources), x
        self.n_draws = n_draws = sum(source.n_draws for source in sources)
        network = self._network = sources[0].network
        weights = dict(network.bayesian_parameters())
        per_draw = sum(p.numel() * p.element_size() for p in weights.values())
        per_row, per_output = _bytes_per_row(network, x[:1])
        # A quarter of the bound for each: cached draws, activations of a block, outputs of a chunk
        # (quantiles need a few arrays of that size), and cached distributions.
        quarter = max_memory // 4
        self._cached_draws: list[Draws] | None = None
        latents = []
        if n_draws * per_draw <= quarter:
            all_draws = [join(source.draws(x[:1]), source.n_draws) for source in sources]
            self._cached_draws = [
                {n: v for n, v in draws.items() if n in weights} for draws in all_draws
            ]
            latents = [network.latents_of(draws) for draws in all_draws]
        else:
            for source in sources:
                latents += [network.latents_of(block) for block in source.draws(x[:1])]
        self._latents = join(latents, n_draws)
        self._rows_per_chunk = int(min(max(quarter // (16 * n_draws * per_output), 1), len(x)))
        tile = min(quarter // 4, TILE_BYTES)
        self._rows_per_call = min(max(tile // per_row, 1), MAX_ROWS_PER_CALL, self._rows_per_chunk)
        self._draws_per_call = int(min(max(tile // (self._rows_per_call * per_row), 1), n_draws))
        self._keeps_all = n_draws * len(x) * per_output <= quarter
        self._cached: dict[int, TorchDistribution] = {}

    def __iter__(self) -> Iterator[TorchDistribution]:
        """Yield a distribution of batch shape (n_draws, n_rows) for each chunk of rows."""
        for i, rows in enumerate(self._x.split(self._rows_per_chunk)):
            distribution = self._cached.get(i)
            if distribution is None:
                distribution = self._compute(rows)
                if self._keeps_all or i == 0:  # the first determines the type of prediction
                    self._cached[i] = distribution
            yield distribution

    def _compute(self, rows: Tensor) -> TorchDistribution:
        with torch.no_grad(), without_validation():
            outputs = (
                {"": net.output(draws, rows, rows_at_once=self._rows_per_call)}
                for net, draws in self._weight_draws()
            )
            output, latents = join(outputs, self.n_draws)[""], self._latents
            if not supports_float64(output.device):  # needed for moments and quantiles
                output, latents = output.cpu(), {n: v.cpu() for n, v in latents.items()}
            return self._network.distribution(output, latents)

    def _weight_draws(self) -> Iterator[tuple[BayesianNetwork, Draws]]:
        for i, source in enumerate(self._sources):
            blocks = (
                source.draws(self._x[:1]) if self._cached_draws is None else [self._cached_draws[i]]
            )
            for block in blocks:
                size = len(next(iter(block.values())))
                for start in range(0, size, self._draws_per_call):
                    stop = start + self._draws_per_call
                    yield source.network, {name: v[start:stop] for name, v in block.items()}


def _bytes_per_row(network: BayesianNetwork, example: Tensor) -> tuple[int, int]:
    """Estimate the bytes of one row under one draw: of all activations, and of the output."""
    sizes: list[int] = []

    def record(module: nn.Module, inputs: Any, output: Any) -> None:
        tensors = output if isinstance(output, tuple) else (output,)
        sizes.extend(t.numel() * t.element_size() for t in tensors if isinstance(t, Tensor))

    hooks = [module.register_forward_hook(record) for module in network.net.modules()]
    try:
        with torch.no_grad():
            output = network.net(example)
    finally:
        for hook in hooks:
            hook.remove()
    return max(sum(sizes), 1), max(output.numel() * output.element_size(), 1)
