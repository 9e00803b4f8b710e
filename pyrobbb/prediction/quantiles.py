"""Quantiles of the predictive mixture, by root finding on its distribution function."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.distributions import Distribution

from ..likelihoods import base_of

MAX_ITERATIONS = 200
RELATIVE_TOLERANCE = 1e-10
"""Relative error of a quantile. Rounding in the distribution function makes the last digits of
double precision unreachable."""
NEWTON_ITERATIONS = 30
"""Far more than Newton's method needs where it converges; after that, bisection only."""


def mixture_quantiles(distribution: Distribution, levels: Sequence[float]) -> Tensor:
    """Return quantiles of the equally weighted mixture over dimension 0, shape (k, n, ...)."""
    base = base_of(distribution)
    cdf = mixture_cdf(base)
    mean, sd = base.mean, base.variance.sqrt()
    quantiles: dict[float, Tensor] = {}
    start = mean.mean(0)
    for q in sorted(levels):
        # The q-quantile of a component lies between mean - sd sqrt((1-q)/q) and
        # mean + sd sqrt(q/(1-q)) (Cantelli's inequality), so that of the mixture lies between the
        # lowest and the highest of these bounds.
        lower = (mean - sd * math.sqrt((1 - q) / q)).amin(0)
        upper = (mean + sd * math.sqrt(q / (1 - q))).amax(0)
        if base.support.is_discrete:
            quantiles[q] = _integer_quantile(cdf, lower, upper, q)
        else:  # start from the previous quantile, which is near
            start = start.clamp(lower, upper)
            start = _root(cdf, lambda v: base.log_prob(v).exp().mean(0), lower, upper, start, q)
            quantiles[q] = start
    return torch.stack([quantiles[q] for q in levels])


def mixture_cdf(base: Distribution) -> Callable[[Tensor], Tensor]:
    """Return the distribution function of the equally weighted mixture over dimension 0.

    Raises
    ------
    NotImplementedError
        If the distribution function of the components is not implemented.
    """
    cdf = _torch_or_scipy_cdf(base)
    try:
        cdf(base.mean)
    except NotImplementedError:
        raise NotImplementedError(
            f"The distribution function of {type(base).__name__} is not implemented: use the "
            "quantiles of prediction.sample()."
        ) from None
    return cdf


def _torch_or_scipy_cdf(base: Distribution) -> Callable[[Tensor], Tensor]:
    from scipy import special

    def by_scipy(function: Callable[..., Any], *arguments: Tensor) -> Tensor:
        arrays = [argument.detach().cpu().double().numpy() for argument in arguments]
        return torch.as_tensor(function(*arrays)).to(arguments[-1].device).mean(0)

    match base:
        case torch.distributions.StudentT():
            return lambda v: by_scipy(special.stdtr, base.df, (v - base.loc) / base.scale)
        case torch.distributions.Poisson():
            return lambda k: by_scipy(special.pdtr, k.clamp(min=0), base.rate) * (k >= 0)
        case torch.distributions.NegativeBinomial():
            return lambda k: (
                by_scipy(special.betainc, base.total_count, k.clamp(min=0) + 1, 1 - base.probs)
                * (k >= 0)
            )
        case _:
            return lambda v: base.cdf(v).mean(0)


def _root(
    cdf: Callable[[Tensor], Tensor],
    density: Callable[[Tensor], Tensor],
    lower: Tensor,
    upper: Tensor,
    value: Tensor,
    q: float,
) -> Tensor:
    """Solve cdf(value) = q by Newton's method, safeguarded by bisection."""
    tolerance = max(4 * torch.finfo(value.dtype).eps, RELATIVE_TOLERANCE)
    done = torch.zeros_like(value, dtype=torch.bool)
    for iteration in range(MAX_ITERATIONS):
        excess = cdf(value) - q
        lower = torch.where(excess <= 0, value, lower)
        upper = torch.where(excess >= 0, value, upper)
        newton = value - excess / density(value)
        use_newton = (newton > lower) & (newton < upper) & (iteration < NEWTON_ITERATIONS)
        proposal = torch.where(use_newton, newton, (lower + upper) / 2)
        moved = (proposal - value).abs()
        value = torch.where(done, value, proposal)
        done |= moved <= tolerance * (value.abs() + (upper - lower))
        if bool(done.all()):
            break
    return value


def _integer_quantile(
    cdf: Callable[[Tensor], Tensor], lower: Tensor, upper: Tensor, q: float
) -> Tensor:
    """Return the smallest integer k with cdf(k) >= q."""
    # In double precision, because float32 cannot represent all integers above 2**24.
    below, above = lower.double().floor().clamp(min=0) - 1, upper.double().ceil().clamp(min=0)
    while bool((above - below > 1).any()):
        middle = ((below + above) / 2).floor()
        enough = cdf(middle) >= q
        above, below = torch.where(enough, middle, above), torch.where(enough, below, middle)
    return above
