"""Names of priors and likelihoods: the strings that networks and estimators take."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, TypeVar

from .. import likelihoods, priors
from .._core.messages import not_one_of

Value = TypeVar("Value")

DEFAULT_PRIOR = priors.ScaleMixture(0.5, 1.0, 0.1)
"""Under a single normal prior, a mean-field posterior pays a high KL cost for every unit that it
switches off, so a wide network fitted to few data tends to predict a constant (Coker et al. 2022).
The narrow component of a mixture makes units near 0 cheap; the wide one allows large weights."""

PRIORS: Mapping[str, priors.Prior] = MappingProxyType(
    {
        "mixture": DEFAULT_PRIOR,
        "normal": priors.Normal(),
        "fan_in": priors.FanInNormal(),
        "laplace": priors.Laplace(),
        "student_t": priors.StudentT(),
    }
)
REGRESSIONS: Mapping[str, likelihoods.Conditional] = MappingProxyType(
    {
        "gaussian": likelihoods.Gaussian(),
        "heteroscedastic": likelihoods.HeteroscedasticGaussian(),
        "student_t": likelihoods.StudentT(),
        "lognormal": likelihoods.LogNormal(),
        "poisson": likelihoods.Poisson(),
        "negative_binomial": likelihoods.NegativeBinomial(),
    }
)
LIKELIHOODS: Mapping[str, likelihoods.Conditional] = MappingProxyType(
    {
        **REGRESSIONS,
        "bernoulli": likelihoods.Bernoulli(),
        "categorical": likelihoods.Categorical(),
    }
)


def resolve(argument: str, value: Any, known: Mapping[str, Value]) -> Any:
    """Return what a name stands for, the first one for None, or raise; others are unchanged."""
    if value is None:
        return next(iter(known.values()))
    if not isinstance(value, str):
        return value
    if value not in known:
        raise ValueError(not_one_of(argument, value, known))
    return known[value]
