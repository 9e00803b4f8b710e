"""Standard distributions by elementary functions, which every runtime has in double precision.

ONNX has no distribution function of Student's t, and onnxruntime the error function in single
precision only. Both distribution functions are fitted once, by a polynomial for the logarithm of
the tail.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import torch
from numpy.polynomial import Chebyshev, chebyshev
from torch import Tensor

from ..likelihoods import HALF_LOG_2PI

N_TERMS = 20
MAX_ERROR = 1e-8
"""Largest relative error of a fitted tail."""


@dataclass(frozen=True)
class StandardDistribution:
    """A symmetric distribution with location 0 and scale 1.

    Attributes
    ----------
    cdf, density : callable
        Functions of a tensor in double precision.
    quantile : callable
        Function of a probability.
    """

    cdf: Callable[[Tensor], Tensor]
    density: Callable[[Tensor], Tensor]
    quantile: Callable[[float], float]


@lru_cache(maxsize=4)
def standard_normal(*, fitted: bool) -> StandardDistribution:
    """Return the standard normal distribution.

    Parameters
    ----------
    fitted : bool
        Whether its distribution function is fitted. Otherwise it is torch's.
    """
    from scipy import special

    def density(z: Tensor) -> Tensor:
        return (-0.5 * z * z - HALF_LOG_2PI).exp()

    if not fitted:
        return StandardDistribution(torch.special.ndtr, density, special.ndtri)

    def log_remainder(t: np.ndarray) -> np.ndarray:
        z = 2 * (1 - t) / t
        return special.log_ndtr(-z) + z * z / 2 - np.log(t)

    polynomial = _fit(log_remainder, 0.02, 1.0, "a normal distribution")

    def tail(z: Tensor) -> Tensor:
        size = z.abs()
        t = 1 / (1 + 0.5 * size)
        return t * (polynomial(t) - 0.5 * size * size).exp()

    return StandardDistribution(_by_tail(tail), density, special.ndtri)


@lru_cache(maxsize=16)
def student_t(df: float) -> StandardDistribution:
    """Return Student's t distribution.

    Raises
    ------
    NotImplementedError
        If the polynomial is not accurate enough, for many degrees of freedom.
    """
    from scipy import special, stats

    def log_remainder(u: np.ndarray) -> np.ndarray:
        z = np.sqrt(df) * u / np.sqrt(1 - u * u)
        return np.log(special.stdtr(df, -z)) - df / 2 * np.log1p(-u * u)

    # Beyond these, tails are below 1e-100.
    last = float(np.sqrt(-np.expm1(-200 * np.log(10) / df)))
    polynomial = _fit(log_remainder, 0.0, last, f"{df:g} degrees of freedom")

    def tail(z: Tensor) -> Tensor:
        inverse = 1 / (df + z * z)
        u = z.abs() * inverse.sqrt()
        return (df / 2 * (df * inverse).log() + polynomial(u)).exp()

    constant = float(stats.t.pdf(0, df))

    def density(z: Tensor) -> Tensor:
        return constant * (-(df + 1) / 2 * (1 + z * z / df).log()).exp()

    return StandardDistribution(_by_tail(tail), density, lambda q: float(special.stdtrit(df, q)))


def _by_tail(tail: Callable[[Tensor], Tensor]) -> Callable[[Tensor], Tensor]:
    def cdf(z: Tensor) -> Tensor:
        beyond = tail(z)
        return torch.where(z < 0, beyond, 1 - beyond)

    return cdf


def _fit(
    function: Callable[[np.ndarray], np.ndarray], lower: float, upper: float, what: str
) -> Callable[[Tensor], Tensor]:
    """Return a polynomial that interpolates a function at Chebyshev nodes of an interval."""
    upper = min(upper, 1.0 - 1e-12) if lower == 0 else upper
    with np.errstate(all="ignore"):
        fitted = Chebyshev.interpolate(function, N_TERMS, [lower, upper])
        nodes = np.linspace(lower, upper, 2001)
        error = np.abs(fitted(nodes) - function(nodes)).max()
    if not error < MAX_ERROR:
        raise NotImplementedError(f"The tail of {what} cannot be fitted.")
    coefficients = [float(c) for c in chebyshev.cheb2poly(fitted.coef)[::-1]]

    def polynomial(s: Tensor) -> Tensor:
        x = (2 * s - (lower + upper)) / (upper - lower)
        value = torch.full_like(x, coefficients[0])
        for coefficient in coefficients[1:]:
            value = value * x + coefficient
        return value

    return polynomial
