"""Moments and quantiles of a predictive mixture from draws of y, where no formula is known."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor
from torch.distributions import Distribution

from .._core.random_state import seeded

N_DRAWS = 2**14
"""Draws of y for each row. A quantile is then off by a standard error of up to 0.004 in its
probability."""
MAX_BYTES = 2**28
"""Bound on the draws of a chunk, which has fewer draws for each row if it has many rows."""


def draw_components(distribution: Distribution) -> Tensor:
    """Draw y several times from each component, always the same draws.

    Returns
    -------
    Tensor of shape (n_repeats, n_components, n, ...)
    """
    with torch.no_grad(), seeded(0):
        one = distribution.sample()
        possible = MAX_BYTES // max(one.numel() * one.element_size(), 1)
        wanted = math.ceil(N_DRAWS / len(one))
        return distribution.sample(torch.Size([max(min(wanted, possible), 2)]))


class EmpiricalMixture:
    """The equally weighted mixture over dimension 0, represented by draws.

    Parameters
    ----------
    distribution : Distribution of batch shape (n_components, n)
        The columns of an event are examined one by one.
    """

    def __init__(self, distribution: Distribution) -> None:
        self._sorted = draw_components(distribution).flatten(0, 1).sort(0).values

    def quantiles(self, levels: Sequence[float]) -> Tensor:
        """Return the smallest draws with at least a share q of the draws not above them.

        Returns
        -------
        Tensor of shape (k, n, ...)
        """
        n = len(self._sorted)
        return self._sorted[[min(max(math.ceil(q * n), 1), n) - 1 for q in levels]]

    def cdf(self, y: Tensor) -> tuple[Tensor, Tensor]:
        """Return the share of draws not above y, and of those below y, each of the shape of y."""
        n = len(self._sorted)
        return (self._sorted <= y).sum(0).double() / n, (self._sorted < y).sum(0).double() / n


def component_means(distribution: Distribution) -> Tensor:
    """Return the mean of each component, shape (n_components, n, ...); from draws if need be."""
    try:
        return distribution.mean
    except NotImplementedError:
        draws = draw_components(distribution)
        dtype = draws.dtype if draws.is_floating_point() else torch.get_default_dtype()
        return draws.double().mean(0).to(dtype)


def empirical_moments(distribution: Distribution) -> tuple[Tensor, Tensor, Tensor]:
    """Return the mean of each row, and its epistemic and aleatoric variance, from draws.

    Returns
    -------
    mean, epistemic, aleatoric : Tensor of shape (n, ...)
    """
    draws = draw_components(distribution)
    means, aleatoric = draws.double().mean(0), draws.double().var(0).mean(0)
    # The means of a few draws vary more than those of the components.
    epistemic = (means.var(0, unbiased=False) - aleatoric / len(draws)).clamp(min=0)
    dtype = draws.dtype if draws.is_floating_point() else torch.get_default_dtype()
    return means.mean(0).to(dtype), epistemic.to(dtype), aleatoric.to(dtype)
