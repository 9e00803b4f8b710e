"""stack(): a posterior whose chains are weighted by their predictions of further rows."""

from __future__ import annotations

import numpy as np

from .._core.arrays import ArrayLike, as_count
from .._core.random_state import as_seed
from .._core.signatures import suggests_arguments
from .._core.trees import InputsLike
from ..fitted.stacking import stack_chains
from .posterior import Posterior, check_posterior


@suggests_arguments()
def stack(
    posterior: Posterior,
    x: InputsLike,
    y: ArrayLike,
    *,
    n_draws: int = 200,
    seed: int | None = None,
) -> Posterior:
    """Weight the chains of a posterior by stacking, on rows that they were not fitted to.

    The weights maximise the log predictive density of the mixture of the chains, shrunk a little
    towards equal weights. A chain that predicts badly then hardly counts, whatever its ELBO; chains
    that predict different rows well share the weight. Useful after ``fit(..., restarts=4)``, above
    all with a KL weight for each chain.

    Parameters
    ----------
    posterior : Posterior
        Not changed.
    x, y : array-like of shape (n, ...)
        As for `fit`, in memory.
    n_draws, seed
        Of the draws of each chain.

    Returns
    -------
    Posterior
        Its draws, predictions and exports are shared among the chains in proportion to their
        weights, which are ``chain.settings["stacking_weight"]``, 1 on average; `save` stores them.
        Further fits that `fit` or `update` start from it keep them.

    Raises
    ------
    TypeError, ValueError
        If there is only one chain, or x and y are not data of the network.

    References
    ----------
    Yao, Vehtari, Simpson and Gelman (2018), "Using stacking to average Bayesian predictive
    distributions", section 3.
    """
    check_posterior(posterior)
    if len(posterior.chains) < 2:
        raise ValueError(
            "`posterior` must have several chains to weight, got one: fit it with restarts=4."
        )
    n_draws, seed = as_count("n_draws", n_draws), as_seed(seed)
    log_density = log_density_by_chain(posterior, x, y, n_draws, seed)
    return Posterior(stack_chains(posterior.chains, log_density))


def log_density_by_chain(
    posterior: Posterior, x: InputsLike, y: ArrayLike, n_draws: int, seed: int | None
) -> np.ndarray:
    """Return the log predictive density of each row of y under each chain.

    Parameters
    ----------
    posterior : Posterior
    x, y : array-like of shape (n, ...)
    n_draws, seed
        Of the draws of each chain.

    Returns
    -------
    ndarray of shape (n_chains, n)
        Of classes and counts, log probabilities.
    """
    return np.stack(
        [
            np.asarray(Posterior((chain,)).predict(x, n_draws, seed).log_prob(y))
            for chain in posterior.chains
        ]
    )
