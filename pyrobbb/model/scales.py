"""The latent sites of a prior: the learned scales of its families."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import pyro
from pyro.distributions.torch_distribution import TorchDistribution
from torch import Tensor

from ..priors import Prior, scale_family
from .jit import as_constants


@dataclass(frozen=True)
class LearnedScale:
    """The learned scale of the prior of one parameter.

    Attributes
    ----------
    site : str
        The latent site of the scale.
    hyperprior : distribution
        Of the scale: log-normal.
    standard : distribution
        Of the parameter, at scale 1: (w - loc) / scale has the distribution of w - loc at scale 1.
    """

    site: str
    hyperprior: TorchDistribution
    standard: TorchDistribution


def learned_scales(
    prior: Prior, parameters: Iterable[tuple[str, Tensor]]
) -> dict[str, LearnedScale]:
    """Return the learned scales of a prior, by the name of the parameter."""
    scales = {}
    for name, parameter in parameters:
        family = scale_family(prior, name)
        if family is not None and family.learned is not None:
            scales[name] = LearnedScale(
                family.site(name),
                family.learned.hyperprior(parameter),
                family.given(parameter, 1.0),
            )
    return scales


def drawn_prior(prior: Prior, name: str, parameter: Tensor) -> Any:
    """Return the prior of a parameter, with a learned scale drawn by Pyro."""
    with as_constants():
        family = scale_family(prior, name)
        if family is None or family.learned is None:
            return prior(name, parameter)
        hyperprior = family.learned.hyperprior(parameter)
        like = parameter.detach()  # a recorded constant must not require a gradient
    return family.given(like, pyro.sample(family.site(name), hyperprior))


def prior_at_start(prior: Prior, name: str, parameter: Tensor) -> Any:
    """Return the prior of a parameter, with a learned scale at its prior median."""
    family = scale_family(prior, name)
    if family is None or family.learned is None:
        return prior(name, parameter)
    return family.given(parameter, family.learned.median)
