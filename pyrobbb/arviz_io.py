"""A posterior as an xarray DataTree for ArviZ."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from .data import ArrayLike, check_count, to_numpy
from .randomness import as_seed, seeded
from .sampling import DrawnDistributions

if TYPE_CHECKING:
    import xarray

    from .posterior import Posterior


def to_arviz(
    posterior: Posterior,
    x: ArrayLike,
    y: ArrayLike,
    *,
    n_draws: int = 500,
    seed: int | None = None,
    sites: list[str] | None = None,
) -> xarray.DataTree:
    """Give draws, predictions and log-likelihoods as ArviZ reads them.

    Parameters
    ----------
    posterior : Posterior
    x, y : array-like of shape (n, ...)
        The data that the network was fitted to.
    n_draws : int
        Draws from each chain of the posterior.
    seed : int, optional
        Makes them repeatable.
    sites : list of str, optional
        The latent sites to keep. None: all of them.

    Returns
    -------
    DataTree
        Groups ``posterior``, ``posterior_predictive``, ``log_likelihood``, ``observed_data`` and
        ``constant_data``, with dimensions ``chain`` (independent fits) and ``draw``.
    """
    import arviz_base

    check_count("n_draws", n_draws)
    seed = as_seed(seed)
    n_chains = max(len(posterior.chains), 1)
    draws = posterior.draws(n_chains * n_draws, seed)
    unknown = set(sites or ()) - set(draws)
    if unknown:
        raise ValueError(f"`sites`: no site {sorted(unknown)}; there are {', '.join(draws)}.")
    rows, targets = posterior.network.prepare(x, y)
    sources = posterior.sources(n_chains * n_draws, seed)
    distributions = DrawnDistributions(sources, rows, max_memory=2**30)
    predictive, log_likelihood, start = [], [], 0
    with seeded(seed):
        for distribution in distributions:
            n_rows = distribution.batch_shape[1]
            predictive.append(distribution.sample())
            log_likelihood.append(distribution.log_prob(targets[start : start + n_rows]))
            start += n_rows
    data = {
        "posterior": {
            name: _by_chain(value, n_chains)
            for name, value in draws.items()
            if sites is None or name in sites
        },
        "posterior_predictive": {"y": _by_chain(torch.cat(predictive, 1), n_chains)},
        "log_likelihood": {"y": _by_chain(torch.cat(log_likelihood, 1), n_chains)},
        "observed_data": {"y": to_numpy(targets)},
        "constant_data": {"x": to_numpy(rows)},
    }
    row_dims = {"y": ["obs"], "x": ["obs"]}
    attrs = {name: value for name, value in posterior.settings.items() if value is not None}
    attrs = {"inference_library": "pyrobbb", "guide": type(posterior.guide).__name__, **attrs}
    return arviz_base.from_dict(data, dims=row_dims, attrs={"/": attrs})


def _by_chain(value: Tensor, n_chains: int) -> np.ndarray[Any, Any]:
    return to_numpy(value.reshape((n_chains, -1, *value.shape[1:])))
