"""Families of independent priors with one scale for a parameter: a number, or learned."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

import pyro.distributions as dist
from pyro.distributions.torch_distribution import TorchDistribution
from torch import Tensor

from .._core.arrays import check_number, check_positive
from .._core.messages import shown
from .learned import Learned, Scale, ScaleFamily
from .mixture_distribution import ScaleMixtureNormal
from .parameter import fan_in, over_parameter


@dataclass(frozen=True)
class Normal(ScaleFamily):
    """Independent normal priors, identical for all weights.

    Parameters
    ----------
    scale : float, "learned" or Learned
        Standard deviation, positive. Learned: one for each parameter tensor, as the latent site
        ``"<parameter>_scale"``.
    loc : float
        Mean.
    """

    scale: Scale = 1.0
    loc: float = 0.0

    def __post_init__(self) -> None:
        super().__post_init__()
        check_number("loc", self.loc)

    def given(self, parameter: Tensor, scale: float | Tensor) -> TorchDistribution:
        """Return the distribution of a parameter at a value of the scale."""
        return over_parameter(parameter, dist.Normal, self.loc, scale)


@dataclass(frozen=True)
class FanInNormal(ScaleFamily):
    """Normal priors under which the scale of a layer's output does not depend on its width.

    The standard deviation is ``gain / sqrt(fan_in)`` for weights and ``gain`` for vectors
    (biases). In the limit of infinite width, the network is a Gaussian process (Neal 1996).

    Parameters
    ----------
    gain : float, "learned" or Learned
        Positive. Learned: one for each parameter tensor, as the latent site
        ``"<parameter>_gain"``.
    """

    gain: Scale = 1.0

    argument: ClassVar[str] = "gain"

    def given(self, parameter: Tensor, scale: float | Tensor) -> TorchDistribution:
        """Return the distribution of a parameter at a value of the gain."""
        return over_parameter(parameter, dist.Normal, 0.0, scale / math.sqrt(fan_in(parameter)))


@dataclass(frozen=True)
class ScaleMixture(ScaleFamily):
    """Mixture of two normal distributions centred at 0, identical for all weights.

    Parameters
    ----------
    pi : float
        Weight of the first component, in (0, 1).
    scale1 : float, "learned" or Learned
        Standard deviation of the first component. Learned: one for each parameter tensor, as the
        latent site ``"<parameter>_scale1"``, which scales both components.
    scale2 : float
        Standard deviation of the second component; where `scale1` is learned, at its prior median.

    References
    ----------
    Blundell et al. (2015), equation 7.
    """

    pi: float = 0.5
    scale1: Scale = 1.0
    scale2: float = 0.0025

    argument: ClassVar[str] = "scale1"

    def __post_init__(self) -> None:
        check_number("pi", self.pi)
        if not 0 < self.pi < 1:
            raise ValueError(f"`pi` must be strictly between 0 and 1, got {self.pi}.")
        super().__post_init__()
        if isinstance(self.scale2, str | Learned):
            raise TypeError(
                f"`scale2` must be a number, got {shown(self.scale2)}. To learn one factor of both "
                "scales: scale1='learned'."
            )
        check_positive("scale2", self.scale2)

    def given(self, parameter: Tensor, scale: float | Tensor) -> TorchDistribution:
        """Return the distribution of a parameter at a value of `scale1`."""
        scale2 = self.scale2 if self.learned is None else self.scale2 / self.learned.median * scale
        return over_parameter(parameter, ScaleMixtureNormal, self.pi, scale, scale2)


@dataclass(frozen=True)
class Laplace(ScaleFamily):
    """Independent Laplace priors (the Bayesian lasso).

    Parameters
    ----------
    scale : float, "learned" or Learned
        Scale b of the density ``exp(-|w| / b) / (2 b)``; the standard deviation is sqrt(2) b.
        Learned: one for each parameter tensor, as the latent site ``"<parameter>_scale"``.
    """

    scale: Scale = 1.0

    def given(self, parameter: Tensor, scale: float | Tensor) -> TorchDistribution:
        """Return the distribution of a parameter at a value of the scale."""
        return over_parameter(parameter, dist.Laplace, 0.0, scale)


@dataclass(frozen=True)
class StudentT(ScaleFamily):
    """Independent Student t priors, which have heavy tails.

    Parameters
    ----------
    df : float
        Degrees of freedom, positive. The variance is finite if it is above 2.
    scale : float, "learned" or Learned
        Scale, positive. Learned: one for each parameter tensor, as the latent site
        ``"<parameter>_scale"``.
    """

    df: float = 3.0
    scale: Scale = 1.0

    def __post_init__(self) -> None:
        check_positive("df", self.df)
        super().__post_init__()

    def given(self, parameter: Tensor, scale: float | Tensor) -> TorchDistribution:
        """Return the distribution of a parameter at a value of the scale."""
        return over_parameter(parameter, dist.StudentT, self.df, 0.0, scale)
