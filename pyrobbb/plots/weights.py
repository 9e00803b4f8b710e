"""Plots of weights: signal-to-noise ratios, and posteriors against priors."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch

from .._core.arrays import as_count
from ..likelihoods import base_of
from ..posterior.posterior import Posterior
from .inputs import check_type
from .style import ACCENT, SECOND, SOFT, add_legend, flatten, prepare_axes

if TYPE_CHECKING:
    from matplotlib.axes import Axes


def plot_snr(posterior: Posterior, *, ax: Axes | None = None, n_draws: int = 200) -> Axes:
    """Plot a histogram of the signal-to-noise ratio of the weights, ``|mean| / sd``, in decibels.

    Pruned weights, whose mean and sd are zero, are excluded.

    References
    ----------
    Blundell et al. (2015), figure 4.
    """
    check_type("posterior", posterior, Posterior)
    n_draws = as_count("n_draws", n_draws, least=2)
    draws = posterior.draws(n_draws, seed=0)
    network = posterior.chains[0].network
    weights = [draws[name].flatten(1) for name, _ in network.bayesian_parameters()]
    flat = torch.cat(weights, 1)
    flat = flat[:, (flat != 0).any(0)]
    if not flat.shape[1]:
        raise ValueError("`posterior` has no weights left to plot: all are pruned.")
    ax = prepare_axes(ax)
    ratios = (flat.mean(0).abs() / flat.std(0)).cpu().numpy()
    decibels = 20 * np.log10(np.maximum(ratios, 1e-3))
    bins = min(60, max(10, len(decibels) // 4))
    counts, *_ = ax.hist(decibels, bins=bins, color=ACCENT, alpha=0.85)
    ax.axvline(0, color=SECOND, lw=1.2)
    ax.set_ylim(0, 1.25 * float(np.max(counts)))  # Space for the annotation above the bars.
    ax.annotate(
        f"{(decibels < 0).mean():.0%} of {len(decibels):,} weights\nhave |mean| < sd",
        (0, 0.98),
        xycoords=("data", "axes fraction"),
        xytext=(-6, 0),
        textcoords="offset points",
        ha="right",
        va="top",
        fontsize="small",
        color=SECOND,
    )
    ax.set(xlabel="signal-to-noise ratio of a weight (dB)", ylabel="weights")
    return ax


def plot_weights(posterior: Posterior, name: str, *, ax: Axes | None = None) -> Axes:
    """Plot the posterior of all weights of one parameter, pooled, against their prior.

    Where the scale of the prior is learned, the density is averaged over its posterior.

    Parameters
    ----------
    posterior : Posterior
    name : str
        Name of a Bayesian parameter, such as ``"0.weight"``.
    ax : Axes, optional
        Axes to plot on. None: a new figure.
    """
    check_type("posterior", posterior, Posterior)
    network = posterior.chains[0].network
    parameters = dict(network.bayesian_parameters())
    if name not in parameters:
        raise ValueError(f"`name` must be one of {', '.join(parameters)}, got {name!r}.")
    sites = posterior.draws(100, seed=0)
    draws = sites[name].reshape((100, -1))
    values, means = flatten(draws), flatten(draws.mean(0))
    if not values.any():
        raise ValueError(f"`name` {name!r} has no weights left to plot: all are pruned.")
    ax = prepare_axes(ax)
    limit = 1.2 * float(np.abs(np.quantile(values, [0.001, 0.999])).max())
    bins = np.linspace(-limit, limit, 81).tolist()
    ax.hist(values, bins, density=True, color=SOFT, label="posterior draws")
    ax.hist(
        means, bins, density=True, histtype="step", color=ACCENT, lw=1.5, label="posterior means"
    )
    prior = base_of(network.prior_given(name, parameters[name], sites))
    grid = torch.linspace(-limit, limit, 401)
    densities = [
        prior.log_prob(v.expand(prior.batch_shape)).exp().double().mean() for v in grid.to(draws)
    ]
    ax.plot(grid, densities, color=SECOND, lw=1.5, label="prior")
    ax.set(xlabel=f"weights of {name}", ylabel="density", xlim=(-limit, limit))
    add_legend(ax)
    return ax
