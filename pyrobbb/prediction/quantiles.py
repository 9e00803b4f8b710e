"""Quantiles of the predictive mixture, by root finding on its distribution function."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.distributions import Distribution

from ..likelihoods import base_of
from .distribution_functions import (
    Function,
    bounds_of,
    component_cdf,
    component_log_density,
    first_tensor,
    is_discrete,
)

MAX_ITERATIONS = 200
RELATIVE_TOLERANCE = 1e-10
"""Relative error of a quantile. Rounding in the distribution function makes the last digits of
double precision unreachable."""
NEWTON_ITERATIONS = 30
"""Far more than Newton's method needs where it converges; after that, bisection only."""
MAX_INTEGER = 2**53
"""Largest count: double precision cannot represent all integers above it."""


def mixture_quantiles(distribution: Distribution, levels: Sequence[float]) -> Tensor:
    """Return quantiles of the equally weighted mixture over dimension 0, shape (k, n, ...).

    Parameters
    ----------
    distribution : Distribution
    levels : sequence of float
        Probabilities in (0, 1).

    Raises
    ------
    NotImplementedError
        If the distribution function of the components is not known.
    """
    base = base_of(distribution)
    cdf, find = mixture_cdf(base), _finder(base)
    quantiles: dict[float, Tensor] = {}
    start = None
    for q in sorted(levels):
        quantiles[q] = start = find(cdf, q, start)  # starts from the previous one, which is near
    return torch.stack([quantiles[q] for q in levels])


def mixture_cdf(base: Distribution) -> Function:
    """Return the distribution function of the equally weighted mixture over dimension 0.

    Raises
    ------
    NotImplementedError
        If the distribution function of the components is not known.
    """
    cdf = component_cdf(base)
    return lambda v: cdf(v).mean(0)


def _finder(base: Distribution) -> Callable[..., Tensor]:
    """Return a function of a distribution function, a level and the previous quantile."""
    lower, upper = bounds_of(base)
    moments = _finite_moments(base)
    if is_discrete(base):
        lower = torch.zeros(()) if lower is None else torch.as_tensor(lower)
        return lambda cdf, q, start: _integer_quantile(
            cdf, *_integer_bracket(base, cdf, lower, moments, q), q
        )

    if lower is None and upper is None and moments is not None:
        mean, sd = moments

        def density(v: Tensor) -> Tensor:
            return base.log_prob(v).exp().mean(0)

        def between_moments(cdf: Function, q: float, start: Tensor | None) -> Tensor:
            below, above = _cantelli(mean, sd, q)
            start = (mean.mean(0) if start is None else start).clamp(below, above)
            return _root(cdf, density, below, above, start, q)

        return between_moments

    first, last = _support(base, lower, upper)

    def density_inside(v: Tensor) -> Tensor:
        return component_log_density(base, v).exp().mean(0)

    def within_support(cdf: Function, q: float, start: Tensor | None) -> Tensor:
        below = first if start is None else start
        value = _middle_number(first, last) if start is None else start
        return _root(cdf, density_inside, below, last, value, q, bounded=False)

    return within_support


def _finite_moments(base: Distribution) -> tuple[Tensor, Tensor] | None:
    """Return the mean and standard deviation of each component, or None if some do not exist."""
    try:
        mean, sd = base.mean, base.variance.sqrt()
    except NotImplementedError:
        return None
    return (mean, sd) if bool((mean.isfinite() & sd.isfinite()).all()) else None


def _cantelli(mean: Tensor, sd: Tensor, q: float) -> tuple[Tensor, Tensor]:
    """Return bounds of the q-quantile of a mixture.

    That of a component lies between mean - sd sqrt((1-q)/q) and mean + sd sqrt(q/(1-q)) (Cantelli's
    inequality), so that of the mixture lies between the lowest and the highest of these bounds.
    """
    return (
        (mean - sd * math.sqrt((1 - q) / q)).amin(0),
        (mean + sd * math.sqrt(q / (1 - q))).amax(0),
    )


def _support(base: Distribution, lower: Any, upper: Any) -> tuple[Tensor, Tensor]:
    """Return the least and the largest number, in float64, inside the support of the mixture."""
    rows = first_tensor(base).new_zeros(base.batch_shape, dtype=torch.float64)
    largest = torch.finfo(torch.float64).max
    # The bounds themselves may have an infinite density, or none.
    first = rows - largest if lower is None else (rows + lower)
    last = rows + largest if upper is None else (rows + upper)
    first, last = first.amin(0), last.amax(0)
    inwards = torch.nextafter(first, last), torch.nextafter(last, first)
    smallest = torch.finfo(torch.float64).tiny  # smaller numbers are slow, or 0 on some devices
    return (
        torch.where(first == 0, smallest, inwards[0]),
        torch.where(last == 0, -smallest, inwards[1]),
    )


def _root(
    cdf: Function,
    density: Function,
    lower: Tensor,
    upper: Tensor,
    value: Tensor,
    q: float,
    *,
    bounded: bool = True,
) -> Tensor:
    """Solve cdf(value) = q by Newton's method, safeguarded by bisection.

    Parameters
    ----------
    bounded : bool
        Whether the bracket is of the scale of the distribution. Otherwise it may span all numbers:
        its middle is that of the numbers of double precision, of which at most 64 bisections reach
        any, and its width says nothing about the error.
    """
    tolerance = max(4 * torch.finfo(value.dtype).eps, RELATIVE_TOLERANCE)
    enough = 0.0 if bounded else tolerance * min(q, 1 - q)
    done = torch.zeros_like(value, dtype=torch.bool)
    for iteration in range(MAX_ITERATIONS):
        excess = cdf(value) - q
        done |= excess.abs() < enough
        lower = torch.where(excess <= 0, value, lower)
        upper = torch.where(excess >= 0, value, upper)
        newton = value - excess / density(value)
        use_newton = (newton > lower) & (newton < upper) & (iteration < NEWTON_ITERATIONS)
        middle = (lower + upper) / 2 if bounded else _middle_number(lower, upper)
        proposal = torch.where(use_newton, newton, middle)
        moved = (proposal - value).abs()
        value = torch.where(done, value, proposal)
        done |= moved <= tolerance * (value.abs() + (upper - lower if bounded else 0))
        if bool(done.all()):
            break
    return value


def _middle_number(lower: Tensor, upper: Tensor) -> Tensor:
    """Return the number of double precision in the middle between two others, in their order."""
    one, other = _rank(lower), _rank(upper)
    middle = (one >> 1) + (other >> 1) + (one & other & 1)
    return torch.where(middle < 0, middle ^ torch.iinfo(torch.int64).max, middle).view(
        torch.float64
    )


def _rank(values: Tensor) -> Tensor:
    """Return integers in the order of numbers of double precision."""
    bits = values.view(torch.int64)
    return torch.where(bits < 0, bits ^ torch.iinfo(torch.int64).max, bits)


def _integer_bracket(
    base: Distribution,
    cdf: Function,
    lower: Tensor,
    moments: tuple[Tensor, Tensor] | None,
    q: float,
) -> tuple[Tensor, Tensor]:
    """Return an integer below the q-quantile, and one not below it, in double precision.

    float32 cannot represent all integers above 2**24.
    """
    least = first_tensor(base).new_zeros(base.batch_shape, dtype=torch.float64).amin(0)
    least = least + lower.double().to(least.device).amin()
    if moments is not None:
        below, above = _cantelli(*moments, q)
        return (
            torch.maximum(below.double().floor(), least) - 1,
            torch.maximum(above.double().ceil(), least),
        )
    width = torch.ones_like(least)
    while bool((short := (cdf(least + width) < q) & (width < MAX_INTEGER)).any()):
        width = torch.where(short, 2 * width, width)
    return least - 1, least + width


def _integer_quantile(cdf: Function, below: Tensor, above: Tensor, q: float) -> Tensor:
    """Return the smallest integer k with cdf(k) >= q, which lies in (below, above]."""
    while bool((above - below > 1).any()):
        middle = ((below + above) / 2).floor()
        enough = cdf(middle) >= q
        above, below = torch.where(enough, middle, above), torch.where(enough, below, middle)
    return above
