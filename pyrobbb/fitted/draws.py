"""Draws and predictions from fitted chains, in proportion to their weights."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from itertools import chain

import numpy as np

from .._core.global_state import ordinary_modes
from .._core.random_state import child_seed
from .._core.trees import InputsLike, clone
from ..model.inputs import inputs_to_run
from ..prediction import (
    ClassificationPrediction,
    RegressionPrediction,
    make_prediction,
)
from ..prediction.drawn_distributions import WORKING_MEMORY, DrawnDistributions
from ..prediction.sampling import (
    Draws,
    FixedDraws,
    Source,
    draw_one_by_one,
    join,
    prior_guide,
)
from .chain import FittedChain
from .stacking import chain_weights, share_draws

logger = logging.getLogger(__name__)


def sources_of(
    chains: Sequence[FittedChain], n: int, seed: int, weights: np.ndarray | None = None
) -> list[Source]:
    """Return the sources of n draws, in the order of the chains and in proportion to their weights.

    A single chain uses `seed` itself; several chains use seeds that are derived from it.

    Parameters
    ----------
    chains : sequence of FittedChain
    n, seed : int
    weights : ndarray of shape (n_chains,), optional
        None: those of the chains, which are equal unless they are stacked.
    """
    if len(chains) == 1:
        return [Source(chains[0].network, chains[0].guide, n, seed)]
    sizes = share_draws(n, chain_weights(chains) if weights is None else weights)
    return [
        Source(chain.network, chain.guide, size, child_seed(seed, i))
        for i, (chain, size) in enumerate(zip(chains, sizes, strict=True))
        if size
    ]


@ordinary_modes(grad=False)
def prior_source_of(chains: Sequence[FittedChain], n: int, seed: int) -> Source | FixedDraws:
    """Return the source of n draws from the prior, independent of those of the chains."""
    network, example = chains[0].network, chains[0].example
    prior = prior_guide(network)
    source = Source(network, prior, n, child_seed(seed, len(chains)))
    try:
        next(source.draws(example))
    except ValueError:  # a custom likelihood with latent sites that depend on one another
        logger.info("Draws from the prior are made one at a time: its sites cannot be vectorised.")
        return FixedDraws(network, draw_one_by_one(prior, example, n, source.seed))
    return source


@ordinary_modes(grad=False)
def draws_of(chains: Sequence[FittedChain], n: int, seed: int) -> Draws:
    """Draw the latent sites n times; see `Posterior.draws`."""
    sources, example = sources_of(chains, n, seed), chains[0].example
    return join(chain.from_iterable(source.draws(example) for source in sources), n)


@ordinary_modes(grad=False)
def predict_from(
    chains: Sequence[FittedChain],
    x: InputsLike,
    n_draws: int,
    seed: int,
    *,
    max_memory: int = WORKING_MEMORY,
    is_part: bool = False,
) -> RegressionPrediction | ClassificationPrediction:
    """Predict y at new rows, or at one of several parts of them; see `Posterior.predict`."""
    # A copy, because results are computed on demand and the caller may have changed x by then.
    network = chains[0].network
    like = network.bayesian_parameters()[0][1]
    rows = clone(inputs_to_run(network.net, like, x, network.select))
    sources = sources_of(chains, n_draws, seed)
    distributions = DrawnDistributions(sources, rows, max_memory=max_memory)
    if is_part and distributions.mixes_rows:
        raise ValueError(
            "`x` cannot be divided into chunks: the network's output for a row depends on the "
            "other rows. Pass all of them to predict, or an iterable of arrays whose rows belong "
            "together."
        )
    return make_prediction(distributions, x)
