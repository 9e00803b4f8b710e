"""Stacking: weights of chains, by their predictive densities of rows that they were not fitted to.

Chains that differ in their KL weights differ in quality: where there is much noise, or few rows for
many inputs, a chain with a low weight gives most rows a density near 0. In a mixture of equal parts
it then costs log 2 if half of the chains are like it; stacked, next to nothing.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import numpy as np
from scipy.special import logsumexp

from .chain import FittedChain

PRIOR_ROWS = 1.0
"""Number of rows, for each chain, that count as predicted by it: a good chain may predict none of a
few held-out rows best. Chosen on training rows of UCI sets, among 0.5 to 3."""
MAX_ITERATIONS, TOLERANCE = 1_000, 1e-8


def stacking_weights(log_density: np.ndarray, row_weight: np.ndarray | None = None) -> np.ndarray:
    """Return the weights of chains whose mixture predicts held-out rows best.

    They maximise the log density of the rows under the mixture plus the log density of a Dirichlet
    prior, by expectation maximisation.

    Parameters
    ----------
    log_density : ndarray of shape (n_chains, n_rows)
        Log predictive density of each row under each chain.
    row_weight : ndarray of shape (n_rows,), optional

    Returns
    -------
    ndarray of shape (n_chains,)
        Positive; their sum is 1.

    References
    ----------
    Yao, Vehtari, Simpson and Gelman (2018), "Using stacking to average Bayesian predictive
    distributions", section 3.
    """
    n_chains, n_rows = log_density.shape
    row_weight = np.ones(n_rows) if row_weight is None else row_weight
    weights = np.full(n_chains, 1 / n_chains)
    for _ in range(MAX_ITERATIONS):
        before = weights
        joint = log_density + np.log(weights)[:, None]
        counts = np.exp(joint - logsumexp(joint, axis=0)) @ row_weight + PRIOR_ROWS
        weights = counts / counts.sum()
        if np.abs(weights - before).max() < TOLERANCE:
            break
    return weights


def mixture_log_density(log_density: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Return the log density of rows under a mixture of chains.

    Parameters
    ----------
    log_density : ndarray of shape (n_chains, n_rows)
    weights : ndarray of shape (n_chains,)
        Their sum need not be 1.

    Returns
    -------
    ndarray of shape (n_rows,)
    """
    return np.asarray(logsumexp(log_density, axis=0, b=(weights / weights.sum())[:, None]))


def chain_weights(chains: Sequence[FittedChain]) -> np.ndarray:
    """Return the weights of chains in predictions; their sum is 1.

    A weight may have been rounded to 0. If all have been, the weights are equal.
    """
    stored = [chain.settings.stacking_weight for chain in chains]
    weights = np.array([1.0 if weight is None else weight for weight in stored])
    if not weights.any():
        weights = np.ones(len(weights))
    return weights / weights.sum()


def stack_chains(
    chains: Sequence[FittedChain], log_density: np.ndarray, row_weight: np.ndarray | None = None
) -> tuple[FittedChain, ...]:
    """Return the chains with their `stacking_weights`, whose mean is 1."""
    weights = stacking_weights(log_density, row_weight)
    relative = (weights / weights.mean()).round(4)
    return tuple(
        dataclasses.replace(
            chain, settings=dataclasses.replace(chain.settings, stacking_weight=float(weight))
        )
        for chain, weight in zip(chains, relative, strict=True)
    )


def share_draws(n: int, weights: np.ndarray) -> list[int]:
    """Return how many of n draws each chain contributes, in proportion to the weights.

    Parts of a draw go to the chains with the largest remainders, and of equal ones to the first.
    """
    exact = n * weights / weights.sum()
    sizes = np.floor(exact + 1e-9).astype(int)
    for i in np.argsort(sizes - exact, kind="stable")[: n - sizes.sum()]:
        sizes[i] += 1
    return [int(size) for size in sizes]
