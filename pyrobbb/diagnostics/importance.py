"""Importance ratios p(w, D) / q(w): how far a posterior is from the exact one.

Draws from an approximate posterior, weighted by these ratios, represent the exact posterior if the
ratios have no heavy tail. Pareto-smoothed importance sampling measures the tail by k-hat: moments
of order below 1 / k exist.

References
----------
Vehtari, Simpson, Gelman, Yao and Gabry (2024), "Pareto smoothed importance sampling".
Yao, Vehtari, Simpson and Gelman (2018), "Yes, but did it work? Evaluating variational inference".
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from torch import Tensor

from .._core.arrays import ArrayLike, to_numpy
from .._core.trees import InputsLike
from ..arviz_io.datatree import SAMPLE_DIMS
from ..fitted import FittedChain
from ..fitted.draws import sources_of
from ..prediction.distribution_functions import log_density_of_rows
from ..prediction.drawn_distributions import WORKING_MEMORY, DrawnDistributions
from ..prediction.sampling import log_densities

if TYPE_CHECKING:
    import xarray


MIN_DRAWS = 25
"""With fewer draws there is no tail to fit."""
MIN_SPREAD = 1e-9
"""A smaller spread of log ratios, in nats, is rounding: the posterior is exact."""
MAX_LOG_RATIO = 1e12
"""Larger log ratios, in nats, cannot be distinguished in float64."""


@dataclass(frozen=True, eq=False)
class ParetoFit:
    """The tail of importance ratios.

    Attributes
    ----------
    khat : float
        Shape of the tail; ``inf`` if ratios are not finite or cannot be smoothed, ``-inf`` if all
        are equal.
    log_weights : ndarray of shape (n_draws,)
        Logarithms of the smoothed weights, which sum to 1; of the raw weights if `khat` is
        infinite, and NaN if a ratio is not finite.
    threshold : float
        The largest acceptable k-hat for this number of draws; see `khat_threshold`.
    """

    khat: float
    log_weights: np.ndarray
    threshold: float

    @property
    def ok(self) -> bool:
        """Whether importance sampling is reliable."""
        return self.khat < self.threshold


def khat_threshold(n_draws: int) -> float:
    """Return the largest acceptable k-hat, min(1 - 1 / log10(n_draws), 0.7)."""
    return min(1 - 1 / math.log10(n_draws), 0.7)


def pareto_khat(log_ratios: ArrayLike) -> ParetoFit:
    """Fit the tail of importance ratios.

    Parameters
    ----------
    log_ratios : array-like of shape (n_draws,)
        log p(w, D) - log q(w) of draws from q, up to a constant; in float64 if they are large.

    Returns
    -------
    ParetoFit

    Raises
    ------
    ValueError
        For fewer than 25 draws.

    Notes
    -----
    If the ratios spread over hundreds of nats, ``arviz_stats`` returns NaN weights and a k-hat that
    is far too small; this function returns an infinite k-hat instead.
    """
    from arviz_stats.base import array_stats

    ratios = to_numpy(log_ratios).astype(np.float64).reshape(-1)
    n = len(ratios)
    if n < MIN_DRAWS:
        raise ValueError(f"`log_ratios` needs at least {MIN_DRAWS} draws, got {n}.")
    threshold = khat_threshold(n)
    if not (np.abs(ratios) < MAX_LOG_RATIO).all():  # NaN included
        return ParetoFit(math.inf, np.full(n, np.nan), threshold)
    ratios = ratios - ratios.max()
    raw = ratios - np.logaddexp.reduce(ratios)
    if np.ptp(ratios) < MIN_SPREAD:
        return ParetoFit(-math.inf, raw, threshold)
    with np.errstate(all="ignore"):
        try:
            log_weights, khat = array_stats.psislw(-ratios)  # it negates its argument
        except ValueError:  # a tail of equal values
            return ParetoFit(math.inf, raw, threshold)
    if not (np.isfinite(khat) and np.isfinite(log_weights).all()):
        return ParetoFit(math.inf, raw, threshold)
    return ParetoFit(float(khat), log_weights, threshold)


def log_ratios(
    chains: Sequence[FittedChain],
    x: InputsLike,
    y: ArrayLike,
    *,
    n_draws: int,
    seed: int,
    kl_weight: float = 1.0,
) -> Tensor:
    """Compute log p(w, D) - log q(w) of draws w from fitted chains.

    Parameters
    ----------
    chains : sequence of FittedChain
    x, y : array-like of shape (n, ...)
        All the training data.
    n_draws, seed : int
        The draws are those of ``draws(n_draws, seed)`` of a posterior of these chains.
    kl_weight : float
        Factor on log p(w) - log q(w): the mean is then the ELBO of a fit with that weight.

    Returns
    -------
    Tensor of shape (n_draws,), float64, in nats
    """
    rows, targets = chains[0].network.prepare(x, y)
    sources = sources_of(chains, n_draws, seed)
    log_prior, log_q = log_densities(sources, chains[0].example)
    ratios, start = kl_weight * (log_prior - log_q), 0
    for distribution in DrawnDistributions(sources, rows, max_memory=WORKING_MEMORY):
        chunk = targets[start : (start := start + distribution.batch_shape[1])]
        ratios = ratios + log_density_of_rows(distribution, chunk).double().sum(1)
    return ratios


def khat_of_chains(tree: xarray.DataTree) -> list[ParetoFit]:
    """Fit the tail of p(w, D) / q(w) for each chain, because their guides q differ.

    Parameters
    ----------
    tree : DataTree
        With ``log_weight`` in the group ``sample_stats``.

    Returns
    -------
    list, one item per chain
        Each has ``khat``, the shape of the tail (infinite if ratios are not finite or cannot be
        smoothed), ``threshold``, the largest acceptable k-hat, and ``log_weights``, the logarithms
        of the smoothed weights, which sum to 1.
    """
    return [pareto_khat(chain) for chain in _log_weights(tree).values]


def loo(tree: xarray.DataTree, var_name: str = "y") -> Any:
    """Estimate the leave-one-out predictive density, corrected for the approximate posterior.

    Draws from q are weighted by p(w, D without row i) / q(w); ``arviz_stats.loo`` alone would treat
    them as draws from the exact posterior.

    Parameters
    ----------
    tree : DataTree
        With ``log_weight`` in the group ``sample_stats``, and log-likelihoods.
    var_name : str
        The observed variable.

    Returns
    -------
    arviz_stats.ELPDData
        Pointwise. ``pareto_k`` is infinite for a row whose ratios are not finite or cannot be
        smoothed.

    References
    ----------
    Magnusson, Andersen, Jonasson and Vehtari (2019), "Bayesian leave-one-out cross-validation for
    large data", equation 8.
    """
    import arviz_stats

    log_weights = _log_weights(tree)
    if log_weights.size < MIN_DRAWS:
        raise ValueError(f"`tree` needs at least {MIN_DRAWS} draws, got {log_weights.size}.")
    log_likelihood = tree["log_likelihood"][var_name].astype("float64")
    log_ratios = (log_weights - log_likelihood).transpose(*SAMPLE_DIMS, ...)
    rows = log_ratios.values.reshape((log_weights.size, -1)).T
    fits = [pareto_khat(row) for row in rows]
    khat = log_ratios.isel(dict.fromkeys(SAMPLE_DIMS, 0), drop=True).copy(
        data=np.array([fit.khat for fit in fits]).reshape(log_ratios.shape[2:])
    )
    smoothed = np.stack([fit.log_weights for fit in fits], -1).reshape(log_ratios.shape)
    return arviz_stats.loo(
        tree,
        var_name=var_name,
        reff=1.0,  # draws of a guide are independent
        pointwise=True,
        log_weights=log_ratios.copy(data=smoothed),
        pareto_k=khat,
    )


def _log_weights(tree: xarray.DataTree) -> Any:
    if "sample_stats" not in tree.children or "log_weight" not in tree["sample_stats"]:
        raise ValueError(
            "`tree` has no `log_weight` in the group `sample_stats`: make it with "
            "posterior.to_arviz(x, y) or pyrobbb.from_pyro(model=..., guide=...)."
        )
    stats = tree["sample_stats"]
    if "logq" in stats and np.isposinf(stats["logq"]).any():
        raise ValueError(
            "`tree` has draws of infinite density `logq`: the guide has point masses, such as "
            "pruned weights, and draws from it cannot be weighted by p / q."
        )
    return stats["log_weight"].astype("float64")
