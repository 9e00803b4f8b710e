"""Draws of the latent sites and of the network's outputs, in bounded memory."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyro
import pyro.poutine as poutine
import torch
from pyro.distributions.torch_distribution import TorchDistribution
from pyro.poutine.util import site_is_subsample
from torch import Tensor, nn

from .._core.arrays import supports_float64
from .._core.random_state import GLOBAL_STATE_LOCK, seeded
from ..likelihoods import log_density
from ..model.guides import MeanFieldGuide
from ..model.network import BayesianNetwork

Draws = dict[str, Tensor]

BLOCK = 16
"""Draws are made in blocks of this size, each from a random state of its own, so that the first m
of n draws are the same for every n, and for every bound on memory."""

WORKING_MEMORY = 2**30
"""Bytes that predictions may take beyond their inputs and results, unless told otherwise."""

ROWS = 512
TILE = 2**24
"""Rows taken at once, and bytes of activations: small enough to stay in a processor's cache, large
enough for matrix products to be fast."""


def draw_blocks(
    guide: Callable[..., Any], example: Tensor, n_draws: int, seed: int
) -> Iterator[Block]:
    """Draw the latent sites from a guide, block by block.

    Parameters
    ----------
    guide : callable
        A Pyro guide.
    example : Tensor of shape (1, ...)
        Some input, for guides that look at the model's arguments.
    n_draws, seed : int

    Yields
    ------
    Block
        Of at most BLOCK draws.
    """
    for child, size in _seeds_of_blocks(n_draws, seed):
        with seeded(child), torch.no_grad():
            trace = _vectorised_trace(guide, example)
        yield Block(trace, size)


def _seeds_of_blocks(n_draws: int, seed: int) -> Iterator[tuple[int, int]]:
    """Give the seed of each block, and how many of its draws are wanted."""
    children = np.random.SeedSequence(seed).generate_state(math.ceil(n_draws / BLOCK))
    for block, child in enumerate(children):
        yield int(child), min(BLOCK, n_draws - block * BLOCK)


class Block:
    """Some draws from a guide, made at once.

    Parameters
    ----------
    trace : Trace
        Of the guide in a plate of BLOCK draws.
    n_draws : int
        How many of them to keep.
    """

    def __init__(self, trace: poutine.Trace, n_draws: int) -> None:
        self._sites = {
            name: site
            for name, site in trace.nodes.items()
            if site["type"] == "sample" and not site_is_subsample(site) and not site["is_observed"]
        }
        self._n_draws = n_draws

    @property
    def draws(self) -> Draws:
        """The values of the latent sites, each of shape (n_draws, *site)."""
        draws = {}
        for name, site in self._sites.items():
            if not site["infer"].get("is_auxiliary"):
                shape = site["fn"].event_shape
                value = site["value"].expand((BLOCK, 1, *shape)).reshape((BLOCK, *shape))
                draws[name] = value[: self._n_draws]
        return draws

    @property
    def log_q(self) -> Tensor:
        """The guide's log-density of each draw, in nats, float64, shape (n_draws,)."""
        parts = [log_density(site["fn"], site["value"]) for site in self._sites.values()]
        return torch.stack(parts).sum(0)[: self._n_draws]


def _vectorised_trace(guide: Callable[..., Any], example: Tensor) -> poutine.Trace:
    # Plate -1 is left to the guide, as the model's plate "data" has it.
    # A PyroModule writes its parameters into the global param store when it runs.
    with (
        pyro.get_param_store().scope(),
        poutine.block(),
        poutine.trace() as tracer,
        pyro.plate("draws", BLOCK, dim=-2),
    ):
        guide(example)
    return tracer.trace


@dataclass(frozen=True)
class Source:
    """What draws come from: a fitted network and its guide, how many, and the seed."""

    network: BayesianNetwork
    guide: Callable[..., Any]
    n_draws: int
    seed: int

    def blocks(self, example: Tensor) -> Iterator[Block]:
        """Draw the latent sites, block by block."""
        return draw_blocks(self.guide, example, self.n_draws, self.seed)

    def draws(self, example: Tensor) -> Iterator[Draws]:
        """Draw the latent sites, block by block."""
        if type(self.guide) is MeanFieldGuide:
            return self._draws_without_trace(self.guide)
        return (block.draws for block in self.blocks(example))

    def _draws_without_trace(self, guide: MeanFieldGuide) -> Iterator[Draws]:
        """Give the numbers of a trace, which for a small net takes longer than to run it."""
        with GLOBAL_STATE_LOCK, pyro.validation_enabled(False), torch.no_grad():
            distributions = guide.distributions
        for child, size in _seeds_of_blocks(self.n_draws, self.seed):
            with seeded(child), torch.no_grad():
                drawn = {name: fn.sample((BLOCK,)) for name, fn in distributions.items()}
            yield {name: value[:size] for name, value in drawn.items()}


def log_densities(sources: Sequence[Source], example: Tensor) -> tuple[Tensor, Tensor]:
    """Give the log-densities of all latent sites, of the prior and of the guide, in nats.

    Parameters
    ----------
    sources : sequence of Source
    example : Tensor of shape (1, ...)

    Returns
    -------
    log_prior, log_q : Tensor of shape (n_draws,), float64
    """
    log_prior, log_q = [], []
    with torch.no_grad():
        for source in sources:
            for block in source.blocks(example):
                log_prior.append(source.network.log_prior(block.draws, example))
                log_q.append(block.log_q)
    return torch.cat(log_prior), torch.cat(log_q)


def prior_guide(network: BayesianNetwork) -> Callable[..., Any]:
    """Give the prior in the place of a guide: the model itself, without y."""
    return poutine.block(network, hide=["y"])


def draw_one_by_one(guide: Callable[..., Any], example: Tensor, n_draws: int, seed: int) -> Draws:
    """Draw the latent sites of a program that cannot make many draws at once."""
    with seeded(seed), torch.no_grad(), pyro.get_param_store().scope(), poutine.block():
        traces = [poutine.trace(guide).get_trace(example) for _ in range(n_draws)]
    names = [
        name for name, site in traces[0].iter_stochastic_nodes() if not site_is_subsample(site)
    ]
    return {name: torch.stack([trace.nodes[name]["value"] for trace in traces]) for name in names}


@dataclass(frozen=True)
class FixedDraws:
    """Draws that are there already, such as those of Markov chains, in the place of a `Source`."""

    network: BayesianNetwork
    latents: Draws

    @property
    def n_draws(self) -> int:
        """How many there are."""
        return len(next(iter(self.latents.values())))

    def draws(self, example: Tensor) -> Iterator[Draws]:
        """Give them."""
        yield self.latents


class DrawnDistributions:
    """The distributions of y under many draws, row chunk by row chunk, as often as asked for.

    They are kept if they are small beside the memory bound, and computed anew at each pass if not.

    Parameters
    ----------
    sources : sequence of Source or FixedDraws
        Of one network structure each, in evaluation mode; their draws follow one another.
    x : Tensor of shape (n, ...)
    max_memory : int
        Bound, in bytes, on what is held at any time beyond x and the results.
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
        # A quarter of the bound for each: draws held, activations of a block, outputs of a chunk
        # (a distribution's quantiles need a few arrays of that size), and outputs kept.
        quarter = max_memory // 4
        self._held: list[Draws] | None = None
        latents = []
        if n_draws * per_draw <= quarter:
            held = [join(source.draws(x[:1]), source.n_draws) for source in sources]
            self._held = [{n: v for n, v in own.items() if n in weights} for own in held]
            latents = [network.latents_of(own) for own in held]
        else:
            for source in sources:
                latents += [network.latents_of(block) for block in source.draws(x[:1])]
        self._latents = join(latents, n_draws)
        self._chunk = int(min(max(quarter // (16 * n_draws * per_output), 1), len(x)))
        tile = min(quarter // 4, TILE)
        self._rows_at_once = min(max(tile // per_row, 1), ROWS, self._chunk)
        self._at_once = int(min(max(tile // (self._rows_at_once * per_row), 1), n_draws))
        self._keep = n_draws * len(x) * per_output <= quarter
        self._kept: dict[int, TorchDistribution] = {}

    def __iter__(self) -> Iterator[TorchDistribution]:
        """Give a distribution of batch shape (n_draws, n_rows) for each chunk of rows."""
        for i, rows in enumerate(self._x.split(self._chunk)):
            distribution = self._kept.get(i)
            if distribution is None:
                distribution = self._compute(rows)
                if self._keep or i == 0:  # the first is what the kind of prediction is told by
                    self._kept[i] = distribution
            yield distribution

    def _compute(self, rows: Tensor) -> TorchDistribution:
        with GLOBAL_STATE_LOCK, torch.no_grad(), pyro.validation_enabled(False):
            outputs = (
                {"": net.output(draws, rows, rows_at_once=self._rows_at_once)}
                for net, draws in self._weights()
            )
            output, latents = join(outputs, self.n_draws)[""], self._latents
            if not supports_float64(output.device):  # which moments and quantiles are taken in
                output, latents = output.cpu(), {n: v.cpu() for n, v in latents.items()}
            return self._network.distribution(output, latents)

    def _weights(self) -> Iterator[tuple[BayesianNetwork, Draws]]:
        for i, source in enumerate(self._sources):
            blocks = source.draws(self._x[:1]) if self._held is None else [self._held[i]]
            for block in blocks:
                size = len(next(iter(block.values())))
                for start in range(0, size, self._at_once):
                    some = {name: v[start : start + self._at_once] for name, v in block.items()}
                    yield source.network, some


def join(blocks: Iterable[Draws], n_draws: int) -> Draws:
    """Join blocks of draws along their first dimension.

    The memory is set aside at once: small results kept between large blocks that come and go would
    leave the heap in pieces, and it would grow with every block.
    """
    joined: Draws = {}
    start: dict[str, int] = defaultdict(int)
    for block in blocks:
        for name, value in block.items():
            whole = joined.setdefault(name, value.new_empty((n_draws, *value.shape[1:])))
            whole[start[name] : start[name] + len(value)] = value
            start[name] += len(value)
    return joined


def _bytes_per_row(network: BayesianNetwork, example: Tensor) -> tuple[int, int]:
    """Estimate the bytes that one row takes in one draw: in all activations, and in the output."""
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
