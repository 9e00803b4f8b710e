"""Quantiles of a mixture of distributions of location and scale, in a loop that can be exported."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from .standard_distributions import StandardDistribution

MAX_ITERATIONS = 100
NEWTON_ITERATIONS = 30
RELATIVE_TOLERANCE = 1e-10


def location_scale_quantiles(
    standard: StandardDistribution, loc: Tensor, scale: Tensor, levels: Sequence[float]
) -> Tensor:
    """Return quantiles of the equally weighted mixture over dimension 0.

    Newton's method, safeguarded by bisection between the lowest and the highest quantile of a
    component, in `torch.while_loop`.

    Parameters
    ----------
    standard : StandardDistribution
    loc, scale : Tensor of shape (n_draws, n, ...)
        In double precision.
    levels : sequence of k floats

    Returns
    -------
    Tensor of shape (k, n, ...)
    """
    shape = (-1, *(1,) * (loc.dim() - 1))
    level = torch.tensor(levels, dtype=torch.float64).reshape(shape)
    standardised = torch.tensor(
        [float(standard.quantile(q)) for q in levels], dtype=torch.float64
    ).reshape((-1, 1, *shape[1:]))
    of_components = loc + scale * standardised
    lower, upper = of_components.amin(1), of_components.amax(1)
    # The while loop needs all tensors among what it carries.
    start = (
        torch.zeros((), dtype=torch.int64),
        torch.ones((), dtype=torch.float64) + lower.abs() + upper.abs(),
        of_components.mean(1),
        lower,
        upper,
        loc.expand_as(of_components[0]).contiguous(),
        scale.expand_as(of_components[0]).contiguous(),
        level,
    )

    def goes_on(
        i: Tensor, moved: Tensor, value: Tensor, lower: Tensor, upper: Tensor, *_: Tensor
    ) -> Tensor:
        tolerance = RELATIVE_TOLERANCE * (value.abs() + (upper - lower))
        return (i < MAX_ITERATIONS) & (moved > tolerance).any()

    def step(
        i: Tensor,
        moved: Tensor,
        value: Tensor,
        lower: Tensor,
        upper: Tensor,
        loc: Tensor,
        scale: Tensor,
        level: Tensor,
    ) -> tuple[Tensor, ...]:
        z = (value.unsqueeze(1) - loc) / scale
        excess = standard.cdf(z).mean(1) - level
        density = (standard.density(z) / scale).mean(1)
        lower = torch.where(excess <= 0, value, lower)
        upper = torch.where(excess >= 0, value, upper)
        newton = value - excess / density
        use_newton = (newton > lower) & (newton < upper) & (i < NEWTON_ITERATIONS)
        proposal = torch.where(use_newton, newton, (lower + upper) / 2)
        moved = (proposal - value).abs()
        return i + 1, moved, proposal, lower, upper, loc.clone(), scale.clone(), level.clone()

    result: Tensor = torch.while_loop(goes_on, step, start)[2]
    return result
