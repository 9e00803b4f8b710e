"""The variables of the groups of a DataTree for a posterior over a network's weights."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain

import torch
from torch import Tensor

from .._core.random_state import seeded
from .._core.trees import Inputs
from ..likelihoods import base_of
from ..prediction.distribution_functions import log_density_of_rows
from ..prediction.drawn_distributions import WORKING_MEMORY, DrawnDistributions
from ..prediction.empirical import component_means
from ..prediction.predictions import CLASSES
from ..prediction.sampling import (
    Draws,
    FixedDraws,
    Source,
    join,
    log_densities,
)

Function = Callable[[Draws], Tensor]
"""A function of draws of the latent sites, with a result for each draw."""

Sources = Sequence[Source | FixedDraws]


@dataclass(frozen=True)
class LatentVariables:
    """The variables of a tree that depend on the latent sites alone.

    Parameters
    ----------
    sites : sequence of str
        The latent sites to keep.
    functions : mapping of str to callable
        Further variables.
    """

    sites: Sequence[str]
    functions: Mapping[str, Function]

    def draw(self, sources: Sources, example: Inputs) -> Draws:
        """Draw from all sources, and return the variables, each of shape (n_draws, ...)."""
        blocks = chain.from_iterable(source.draws(example) for source in sources)
        n_draws = sum(source.n_draws for source in sources)
        return join((self._select(draws) for draws in blocks), n_draws)

    def _select(self, draws: Draws) -> Draws:
        values = {name: function(draws) for name, function in self.functions.items()}
        return {name: draws[name] for name in self.sites} | values


@dataclass(frozen=True, eq=False)
class Outputs:
    """Predictions for each draw of the weights and each row.

    Attributes
    ----------
    expected : dict of str to Tensor of shape (n_draws, n, ...)
        The mean of y as ``mean``, or class probabilities as ``probs``.
    y : Tensor of shape (n_draws, n, ...)
        A draw of y, noise included.
    log_likelihood : Tensor of shape (n_draws, n), or None
        In nats, float64; None without targets.
    """

    expected: Draws
    y: Tensor
    log_likelihood: Tensor | None

    @property
    def n_classes(self) -> int | None:
        """Number of classes of a categorical likelihood, None for any other."""
        probs = self.expected.get("probs")
        return None if probs is None or probs.dim() <= self.y.dim() else probs.shape[-1]


def compute_outputs(sources: Sources, rows: Inputs, targets: Tensor | None, seed: int) -> Outputs:
    """Compute the outputs of a network for all draws and rows."""
    expected: dict[str, list[Tensor]] = defaultdict(list)
    y, log_likelihood, start = [], [], 0
    draws_of_y = seeded(seed)
    with torch.no_grad():
        for distribution in DrawnDistributions(sources, rows, max_memory=WORKING_MEMORY):
            base = base_of(distribution)
            if isinstance(base, CLASSES):
                expected["probs"].append(base.probs)
            else:
                expected["mean"].append(component_means(distribution))
            with draws_of_y:
                y.append(distribution.sample())
            if targets is not None:
                stop = start + distribution.batch_shape[1]
                log_density = log_density_of_rows(distribution, targets[start:stop])
                log_likelihood.append(log_density.double())
                start = stop
    return Outputs(
        {name: drop_single_column(torch.cat(parts, 1), 1) for name, parts in expected.items()},
        drop_single_column(torch.cat(y, 1), 1),
        torch.cat(log_likelihood, 1) if log_likelihood else None,
    )


def sample_stats(
    sources: Sequence[Source], example: Inputs, log_likelihood: Tensor | None
) -> Draws:
    """Compute the log-densities of each draw, in nats.

    Parameters
    ----------
    sources : sequence of Source
    example : Inputs of shape (1, ...)
    log_likelihood : Tensor of shape (n_draws, n), or None
        None if it is unknown, and with it the joint density.
    """
    log_prior, log_q = log_densities(sources, example)
    if log_likelihood is None:
        return {"logq": log_q}
    log_joint = log_prior + log_likelihood.sum(1)
    return {"lp": log_joint, "logq": log_q, "log_weight": log_joint - log_q}


def drop_single_column(values: Tensor, n_batch: int = 0) -> Tensor:
    """Return values of shape (*batch, n, 1) as (*batch, n), and all others unchanged."""
    is_column = values.dim() == n_batch + 2 and values.shape[-1] == 1
    return values[..., 0] if is_column else values
