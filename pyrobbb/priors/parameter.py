"""What a prior is: a callable that maps a parameter's name and value to its distribution."""

from __future__ import annotations

import math
from collections.abc import Callable

from pyro.distributions.torch_distribution import TorchDistribution
from torch import Tensor

Prior = Callable[[str, Tensor], TorchDistribution | None]


def fan_in(parameter: Tensor) -> int:
    """Return the number of inputs to one unit: all dimensions but the first; 1 for a vector."""
    return math.prod(parameter.shape[1:]) if parameter.dim() > 1 else 1


def over_parameter(
    parameter: Tensor, family: type[TorchDistribution], *arguments: float | Tensor
) -> TorchDistribution:
    """Return a distribution over a whole parameter, on its device and in its dtype.

    Parameters
    ----------
    parameter : Tensor
    family : type
    *arguments : float or Tensor of shape (*batch,)
        A tensor, such as draws of a scale, determines the batch shape of the distribution.
    """
    ones = (1,) * parameter.dim()
    tensors = [
        argument.reshape((*argument.shape, *ones))
        if isinstance(argument, Tensor)
        else parameter.new_tensor(argument)
        for argument in arguments
    ]
    batch = next((a.shape for a in arguments if isinstance(a, Tensor)), ())
    return family(*tensors).expand((*batch, *parameter.shape)).to_event(parameter.dim())
