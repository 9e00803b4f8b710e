"""Distribution functions of the components of a mixture, and the bounds of their support."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.distributions import Distribution as Base
from torch.distributions import (
    MixtureSameFamily,
    Transform,
    TransformedDistribution,
    constraints,
)

from .._core.global_state import without_validation
from ..likelihoods import base_of

Function = Callable[[Tensor], Tensor]


def component_cdf(base: Base) -> Function:
    """Return the distribution function of each component, for values that broadcast to the batch.

    It is 0 below the support and 1 above, and is computed in the precision of its argument.

    Parameters
    ----------
    base : Distribution
        With no event dimensions.

    Raises
    ------
    NotImplementedError
        If the distribution function is not known.
    """
    if base.event_shape:
        raise NotImplementedError
    match base:
        case torch.distributions.MixtureSameFamily():
            return _cdf_of_mixture(base)
        case torch.distributions.TransformedDistribution() if _is_inherited(base, "cdf"):
            return _cdf_of_transformed(base)
    if hasattr(base, "base_dist") and hasattr(base, "gate"):  # zero-inflated counts
        counts = component_cdf(base.base_dist)
        return lambda k: (base.gate + (1 - base.gate) * counts(k)) * (k >= 0)
    return _inside_support(_scipy_cdf(base) or _torch_cdf(base), *bounds_of(base))


def _is_inherited(base: Base, method: str) -> bool:
    return getattr(type(base), method) is getattr(TransformedDistribution, method)


def _scipy_cdf(base: Base) -> Function | None:
    from scipy import special

    def by_scipy(function: Callable[..., Any], *arguments: Tensor) -> Tensor:
        arrays = [argument.detach().cpu().double().numpy() for argument in arguments]
        return torch.as_tensor(function(*arrays)).to(arguments[-1].device)

    def at_least_0(k: Tensor) -> Tensor:
        return k.floor().clamp(min=0)

    match base:
        case torch.distributions.StudentT():
            return lambda v: by_scipy(special.stdtr, base.df, (v - base.loc) / base.scale)
        case torch.distributions.Beta():
            return lambda v: by_scipy(
                special.betainc, base.concentration1, base.concentration0, v.clamp(0, 1)
            )
        case torch.distributions.FisherSnedecor():
            return lambda v: by_scipy(special.fdtr, base.df1, base.df2, v)
        case torch.distributions.Poisson():
            return lambda k: by_scipy(special.pdtr, k.clamp(min=0), base.rate) * (k >= 0)
        case torch.distributions.NegativeBinomial():
            return lambda k: (
                by_scipy(special.betainc, base.total_count, k.clamp(min=0) + 1, 1 - base.probs)
                * (k >= 0)
            )
        case torch.distributions.Binomial():
            # The survival function, P(at least k + 1 of n successes), is a beta distribution's.
            return lambda k: (
                1
                - by_scipy(
                    lambda n, p, k: special.betainc(k + 1, (n - k).clip(1e-300), p) * (k < n),
                    base.total_count,
                    base.probs,
                    at_least_0(k),
                )
            )
        case torch.distributions.Geometric():
            return lambda k: -torch.expm1((at_least_0(k) + 1) * torch.log1p(-base.probs.double()))
    return None


def _torch_cdf(base: Base) -> Function:
    base.cdf(_inner_point(base))  # raises if it is not implemented
    return base.cdf


def _inner_point(base: Base) -> Tensor:
    """Return a value in the support of each component."""
    like = first_tensor(base)
    lower, upper = (
        None if b is None else torch.as_tensor(b, device=like.device).to(like)
        for b in bounds_of(base)
    )
    if lower is not None and upper is not None:
        value = (lower + upper) / 2
    elif lower is not None:
        value = lower + lower.abs() + 1
    elif upper is not None:
        value = upper - upper.abs() - 1
    else:
        value = like.new_zeros(())
    return value.expand(base.batch_shape)


def _inside_support(cdf: Function, lower: Any, upper: Any) -> Function:
    """Return a distribution function that accepts values outside the support."""
    if lower is None and upper is None:
        return cdf

    def everywhere(v: Tensor) -> Tensor:
        inside = v
        if lower is not None:
            inside = torch.maximum(inside, torch.as_tensor(lower).to(inside))
        if upper is not None:
            inside = torch.minimum(inside, torch.as_tensor(upper).to(inside))
        values = cdf(inside)
        if lower is not None:
            values = torch.where(v < lower, 0.0, values)
        return values if upper is None else torch.where(v >= upper, 1.0, values)

    return everywhere


def _cdf_of_mixture(base: MixtureSameFamily) -> Function:
    cdf = component_cdf(base.component_distribution)
    return lambda v: (cdf(v.unsqueeze(-1)) * base.mixture_distribution.probs).sum(-1)


def _cdf_of_transformed(base: TransformedDistribution) -> Function:
    """Return the distribution function of increasing or decreasing functions of a variable."""
    if is_discrete(base.base_dist):
        raise NotImplementedError
    cdf = component_cdf(base.base_dist)
    steps = [(t, *bounds_of_constraint(t.codomain), _sign(t)) for t in reversed(base.transforms)]

    def function(v: Tensor) -> Tensor:
        direction: Any = 1
        for transform, lower, upper, sign in steps:
            x = transform.inv(v)
            if lower is not None:
                x = torch.where(v <= lower, -sign * torch.inf, x)
            if upper is not None:
                x = torch.where(v >= upper, sign * torch.inf, x)
            v, direction = x, direction * sign
        largest = torch.finfo(v.dtype).max
        below = cdf(v.clamp(-largest, largest))
        below = torch.where(v == torch.inf, 1.0, torch.where(v == -torch.inf, 0.0, below))
        return torch.where(torch.as_tensor(direction, device=v.device) > 0, below, 1 - below)

    return function


def _sign(transform: Transform) -> Any:
    if transform.domain.event_dim or transform.codomain.event_dim:
        raise NotImplementedError
    return transform.sign


def component_log_density(base: Base, y: Tensor) -> Tensor:
    """Return the log-density of y under each component: -inf outside its support.

    torch's own is not defined there: it raises an error, or returns a finite number if the
    validation of arguments is turned off.
    """
    if isinstance(base, MixtureSameFamily) and not base.event_shape:
        log_shares = base.mixture_distribution.logits.log_softmax(-1)
        parts = component_log_density(base.component_distribution, y.unsqueeze(-1))
        return (parts + log_shares).logsumexp(-1)
    inside = torch.ones_like(y, dtype=torch.bool)
    lower, upper = bounds_of(base)
    if lower is not None:
        inside = inside & (y >= lower)
    if upper is not None:
        inside = inside & (y <= upper)
    if is_discrete(base):
        inside = inside & (y == y.floor())
    with without_validation():
        return torch.where(inside, base.log_prob(y), -torch.inf)


def log_density_of_rows(distribution: Base, y: Tensor) -> Tensor:
    """Return the log-density of each row under each component, shape (n_components, n).

    Components may have bounds of their own, such as those of a uniform distribution. Values outside
    a support that all components share are an error of torch.
    """
    base = base_of(distribution)
    if not any(isinstance(b, Tensor) and b.dim() for b in bounds_of(base)):
        return distribution.log_prob(y)
    densities = component_log_density(base, y).expand(base.batch_shape)
    return densities.flatten(2).sum(2) if densities.dim() > 2 else densities


def is_discrete(base: Base) -> bool:
    """Return whether values are integers or classes."""
    match base:
        case MixtureSameFamily():
            return is_discrete(base.component_distribution)
        case TransformedDistribution():
            return is_discrete(base.base_dist)
    try:
        return bool(base.support.is_discrete)  # type: ignore[union-attr]
    except NotImplementedError:
        return False


def bounds_of(base: Base) -> tuple[Any, Any]:
    """Return the lower and upper bound of the support of each component; None if unbounded."""
    if isinstance(base, MixtureSameFamily):
        lower, upper = bounds_of(base.component_distribution)
        return (
            lower.amin(-1) if isinstance(lower, Tensor) and lower.dim() else lower,
            upper.amax(-1) if isinstance(upper, Tensor) and upper.dim() else upper,
        )
    try:
        if isinstance(base, TransformedDistribution) and _is_inherited(base, "log_prob"):
            return _transformed_bounds(base)
        return bounds_of_constraint(base.support)
    except NotImplementedError:
        return None, None


def _transformed_bounds(base: TransformedDistribution) -> tuple[Any, Any]:
    """Return the images of the bounds of the variable that is transformed."""
    bounds = bounds_of(base.base_dist)
    like = first_tensor(base)
    lower, upper = (
        torch.as_tensor(infinity if b is None else b).to(like)
        for b, infinity in zip(bounds, (-torch.inf, torch.inf), strict=True)
    )
    for transform in base.transforms:
        increases = torch.as_tensor(_sign(transform), device=like.device) > 0
        one, other = transform(lower), transform(upper)
        lower, upper = torch.where(increases, one, other), torch.where(increases, other, one)
    return (
        None if bool((lower == -torch.inf).all()) else lower,
        None if bool((upper == torch.inf).all()) else upper,
    )


def bounds_of_constraint(constraint: Any) -> tuple[Any, Any]:
    """Return the bounds of an interval; None where it is unbounded."""
    constraint = getattr(constraint, "base_constraint", constraint)
    if constraint is constraints.boolean:
        return 0, 1
    return getattr(constraint, "lower_bound", None), getattr(constraint, "upper_bound", None)


def first_tensor(distribution: Any) -> Tensor:
    """Return a floating-point parameter of a distribution, for its precision and device.

    Not every distribution has a mean.
    """
    found = _first_tensor(distribution)
    return torch.empty(()) if found is None else found


def _first_tensor(holder: Any) -> Tensor | None:
    match holder:
        case Tensor():
            return holder if holder.is_floating_point() else None
        case list() | tuple():
            parts = holder
        case Base():
            parts = list(vars(holder).values())
        case Transform():  # one refers to its inverse, which refers to it
            parts = [value for name, value in vars(holder).items() if not name.startswith("_")]
        case _:
            return None
    return next((t for t in map(_first_tensor, parts) if t is not None), None)
