"""Draws of the latent sites: from a guide, from the prior, or fixed."""

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
from pyro.poutine.util import site_is_subsample
from torch import Tensor

from .._core.global_state import isolated_from_pyro, without_validation
from .._core.random_state import seeded
from .._core.trees import Inputs
from ..likelihoods import log_density
from ..model.guides import FlatGuide, has_sampler
from ..model.network import BayesianNetwork

Draws = dict[str, Tensor]

BLOCK = 16
"""Draws per block. Each block has its own random state, so that the first m of n draws depend
neither on n nor on the memory bound."""


def draw_blocks(
    guide: Callable[..., Any], example: Inputs, n_draws: int, seed: int
) -> Iterator[Block]:
    """Draw the latent sites from a guide, block by block.

    Parameters
    ----------
    guide : callable
        A Pyro guide.
    example : Inputs of shape (1, ...)
        An input, for guides that use the model's arguments.
    n_draws, seed : int

    Yields
    ------
    Block
        At most BLOCK draws.
    """
    for child, size in _seeds_of_blocks(n_draws, seed):
        with isolated_from_pyro(), seeded(child), torch.no_grad():
            trace = _vectorised_trace(guide, example)
        yield Block(trace, size)


def with_present_parameters(guide: Callable[..., Any], example: Inputs) -> Callable[..., Any]:
    """Return a guide that is a function with the values that its parameters have in Pyro's store.

    Draws are made apart from the store, where the parameters would be at their initial values.

    Raises
    ------
    ValueError
        If the store does not have a parameter of the guide.
    """
    store = pyro.get_param_store().get_state()
    known = set(store["params"])
    with isolated_from_pyro(store), seeded(0), torch.no_grad():  # the caller's are not changed
        sites = poutine.trace(guide).get_trace(example).nodes
    values = {n: s["value"].detach().clone() for n, s in sites.items() if s["type"] == "param"}
    if missing := sorted(values.keys() - known):
        raise ValueError(
            f"`guide` has not been fitted: its parameter {missing[0]!r} is not in Pyro's param "
            "store. Call from_guide after the loop, before pyro.clear_param_store()."
        )
    return poutine.substitute(guide, data=values)


def _seeds_of_blocks(n_draws: int, seed: int) -> Iterator[tuple[int, int]]:
    """Yield the seed of each block and its number of draws."""
    children = np.random.SeedSequence(seed).generate_state(math.ceil(n_draws / BLOCK))
    for block, child in enumerate(children):
        yield int(child), min(BLOCK, n_draws - block * BLOCK)


class Block:
    """Draws from a guide, made in one vectorised call.

    Parameters
    ----------
    trace : Trace
        Of the guide in a plate of BLOCK draws.
    n_draws : int
        Number of draws to keep.
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


def _vectorised_trace(guide: Callable[..., Any], example: Inputs) -> poutine.Trace:
    # Dimension -1 is left to the guide, because the model's plate "data" uses it.
    # A PyroModule writes its parameters into the param store: the caller has isolated it.
    with poutine.trace() as tracer, pyro.plate("draws", BLOCK, dim=-2):
        guide(example)
    return tracer.trace


@dataclass(frozen=True)
class Source:
    """A source of draws: a fitted network, its guide, the number of draws and the seed."""

    network: BayesianNetwork
    guide: Callable[..., Any]
    n_draws: int
    seed: int

    def blocks(self, example: Inputs) -> Iterator[Block]:
        """Draw the latent sites, block by block."""
        return draw_blocks(self.guide, example, self.n_draws, self.seed)

    def draws(self, example: Inputs) -> Iterator[Draws]:
        """Draw the latent sites, block by block."""
        if has_sampler(self.guide):
            return self._draws_without_trace(self.guide)
        return (block.draws for block in self.blocks(example))

    def _draws_without_trace(self, guide: FlatGuide) -> Iterator[Draws]:
        """Draw what a trace would, without tracing, which takes longer than running a small net."""
        with without_validation(), torch.no_grad():
            sample = guide.sampler()
        generator = torch.Generator(guide.loc.device)
        for child, size in _seeds_of_blocks(self.n_draws, self.seed):
            generator.manual_seed(child)
            with torch.no_grad():
                drawn = sample(BLOCK, generator)
            yield {name: value[:size] for name, value in drawn.items()}


def log_densities(sources: Sequence[Source], example: Inputs) -> tuple[Tensor, Tensor]:
    """Return the log-densities of the latent sites under the prior and the guide, in nats.

    Parameters
    ----------
    sources : sequence of Source
    example : Inputs of shape (1, ...)

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
    """Return the prior as a guide: the model itself, without y."""
    return poutine.block(network, hide=["y"])


def draw_one_by_one(guide: Callable[..., Any], example: Inputs, n_draws: int, seed: int) -> Draws:
    """Draw the latent sites of a program that cannot be vectorised."""
    with isolated_from_pyro(), seeded(seed), torch.no_grad():
        traces = [poutine.trace(guide).get_trace(example) for _ in range(n_draws)]
    names = [
        name for name, site in traces[0].iter_stochastic_nodes() if not site_is_subsample(site)
    ]
    return {name: torch.stack([trace.nodes[name]["value"] for trace in traces]) for name in names}


@dataclass(frozen=True)
class FixedDraws:
    """Fixed draws, such as those of Markov chains, with the interface of a `Source`."""

    network: BayesianNetwork
    latents: Draws
    seed: int = 0  # of the noise of a network that draws random numbers

    @property
    def n_draws(self) -> int:
        """Number of draws."""
        return len(next(iter(self.latents.values())))

    def draws(self, example: Inputs) -> Iterator[Draws]:
        """Yield the draws."""
        yield self.latents


def join(blocks: Iterable[Draws], n_draws: int) -> Draws:
    """Concatenate blocks of draws along their first dimension.

    The result is allocated first: small results allocated between large temporary blocks would
    fragment the heap, which would grow with every block.
    """
    joined: Draws = {}
    start: dict[str, int] = defaultdict(int)
    for block in blocks:
        for name, value in block.items():
            whole = joined.setdefault(name, value.new_empty((n_draws, *value.shape[1:])))
            whole[start[name] : start[name] + len(value)] = value
            start[name] += len(value)
    return joined
