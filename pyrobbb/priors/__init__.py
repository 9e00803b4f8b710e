"""Priors over weights: callables that map a parameter's name and value to its distribution.

A prior is any callable ``(name, parameter) -> distribution`` whose event has the shape of the
parameter, or None for a parameter that has a point value.
"""

from .around import Around
from .by_name import ByName, scale_family
from .families import FanInNormal, Laplace, Normal, ScaleMixture, StudentT
from .given import Given
from .learned import Learned, ScaleFamily
from .mixture_distribution import ScaleMixtureNormal
from .parameter import Prior, fan_in

__all__ = [
    "Around",
    "ByName",
    "FanInNormal",
    "Given",
    "Laplace",
    "Learned",
    "Normal",
    "Prior",
    "ScaleFamily",
    "ScaleMixture",
    "ScaleMixtureNormal",
    "StudentT",
    "fan_in",
    "scale_family",
]
