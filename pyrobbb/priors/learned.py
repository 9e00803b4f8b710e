"""Learned scales: the scale of a prior as a latent site, one for each parameter tensor."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import ClassVar, Literal, TypeAlias

import pyro
import pyro.distributions as dist
from pyro.distributions.torch_distribution import TorchDistribution
from torch import Tensor

from .._core.arrays import check_positive
from .._core.messages import shown

LEARNED = "learned"


@dataclass(frozen=True)
class Learned:
    """A scale that is learned, with the hyperprior LogNormal(log median, log_sd).

    Pass it, or ``"learned"`` for its default values, as the scale of a prior. By default 95 % of
    the hyperprior lies between 0.14 and 7.1.

    Parameters
    ----------
    median : float
        Prior median of the scale, positive; of `FanInNormal` that of the gain, relative to
        1 / sqrt(fan_in).
    log_sd : float
        Prior standard deviation of the logarithm of the scale, positive.

    Examples
    --------
    >>> Normal(scale="learned")
    Normal(scale=Learned(median=1.0, log_sd=1.0), loc=0.0)
    >>> FanInNormal(gain=Learned(median=2.0, log_sd=0.5))
    FanInNormal(gain=Learned(median=2.0, log_sd=0.5))
    """

    median: float = 1.0
    log_sd: float = 1.0

    def __post_init__(self) -> None:
        check_positive("median", self.median)
        check_positive("log_sd", self.log_sd)

    def hyperprior(self, like: Tensor) -> TorchDistribution:
        """Return the prior of the scale, on the device and in the dtype of a tensor."""
        return dist.LogNormal(like.new_tensor(math.log(self.median)), like.new_tensor(self.log_sd))


Scale: TypeAlias = float | Learned | Literal["learned"]


class ScaleFamily(ABC):
    """A prior whose scale is a number or is learned.

    A learned scale is a latent site of the Pyro model, one for each parameter tensor. Its name is
    that of the parameter and of the argument, such as ``"0.weight_scale"``. For every family,
    (w - loc) / scale has a distribution that does not depend on the scale.
    """

    argument: ClassVar[str] = "scale"
    """The argument that may be learned."""

    def __post_init__(self) -> None:
        value = getattr(self, self.argument)
        if isinstance(value, str) and value == LEARNED:
            object.__setattr__(self, self.argument, Learned())
        elif isinstance(value, str):
            raise TypeError(
                f"`{self.argument}` must be a number, got {shown(value)}. To learn it: "
                f"{self.argument}='learned'."
            )
        elif not isinstance(value, Learned):
            check_positive(self.argument, value)

    @property
    def learned(self) -> Learned | None:
        """The hyperprior of the scale; None if the scale is a number."""
        value = getattr(self, self.argument)
        return value if isinstance(value, Learned) else None

    def site(self, name: str) -> str:
        """Return the name of the latent site of the scale of a parameter."""
        return f"{name}_{self.argument}"

    @abstractmethod
    def given(self, parameter: Tensor, scale: float | Tensor) -> TorchDistribution:
        """Return the distribution of a parameter at a value of the scale.

        Parameters
        ----------
        parameter : Tensor
        scale : float or Tensor of shape (*batch,)
            Draws of the scale become the batch shape of the distribution.
        """

    def __call__(self, name: str, parameter: Tensor) -> TorchDistribution:
        """Return the distribution of a parameter, with a learned scale drawn by Pyro."""
        if self.learned is None:
            return self.given(parameter, getattr(self, self.argument))
        scale = pyro.sample(self.site(name), self.learned.hyperprior(parameter))
        return self.given(parameter, scale)
