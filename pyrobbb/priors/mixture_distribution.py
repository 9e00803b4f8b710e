"""The distribution of a scale mixture of two normals."""

from __future__ import annotations

import math
from typing import ClassVar

import torch
from pyro.distributions.torch_distribution import TorchDistribution
from torch import Tensor
from torch.distributions import constraints


class ScaleMixtureNormal(TorchDistribution):
    """Mixture of two normal distributions centred at 0.

    The log-density uses logaddexp, so that it is finite where both densities underflow.

    Parameters
    ----------
    pi, scale1, scale2 : Tensor
        Weight of the first component and the two standard deviations, broadcast against each
        other.
    """

    arg_constraints: ClassVar = {
        "pi": constraints.unit_interval,
        "scale1": constraints.positive,
        "scale2": constraints.positive,
    }
    support = constraints.real

    def __init__(
        self, pi: Tensor, scale1: Tensor, scale2: Tensor, *, validate_args: bool | None = None
    ) -> None:
        self.pi, self.scale1, self.scale2 = torch.broadcast_tensors(pi, scale1, scale2)
        super().__init__(self.pi.shape, validate_args=validate_args)

    def expand(
        self, batch_shape: torch.Size, _instance: ScaleMixtureNormal | None = None
    ) -> ScaleMixtureNormal:
        new = self._get_checked_instance(ScaleMixtureNormal, _instance)
        for name in ("pi", "scale1", "scale2"):
            setattr(new, name, getattr(self, name).expand(batch_shape))
        super(ScaleMixtureNormal, new).__init__(torch.Size(batch_shape), validate_args=False)
        new._validate_args = self._validate_args
        return new

    @property
    def mean(self) -> Tensor:
        return torch.zeros_like(self.scale1)

    @property
    def variance(self) -> Tensor:
        return self.pi * self.scale1**2 + (1 - self.pi) * self.scale2**2

    def sample(self, sample_shape: torch.Size = torch.Size()) -> Tensor:  # noqa: B008
        shape = self._extended_shape(sample_shape)
        with torch.no_grad():
            first = torch.rand(shape, dtype=self.pi.dtype, device=self.pi.device) < self.pi
            scale = torch.where(first, self.scale1, self.scale2)
            return scale * torch.randn(shape, dtype=scale.dtype, device=scale.device)

    def log_prob(self, value: Tensor) -> Tensor:
        if self._validate_args:
            self._validate_sample(value)
        first = self.pi.log() - self.scale1.log() - 0.5 * (value / self.scale1) ** 2
        second = (-self.pi).log1p() - self.scale2.log() - 0.5 * (value / self.scale2) ** 2
        return torch.logaddexp(first, second) - 0.5 * math.log(2 * math.pi)
