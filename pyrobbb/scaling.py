"""Standardising columns, with constant ones left in peace."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from .data import ArrayLike, as_tensor, like


@dataclass(frozen=True)
class Standardizer:
    """Shift and scale of each column.

    Attributes
    ----------
    loc, scale : Tensor of shape (...)
        Mean and standard deviation of each column of the data it was made from, in double
        precision. The scale of a column that is constant, if only up to rounding, is 1.
    """

    loc: Tensor
    scale: Tensor

    @classmethod
    def of(cls, x: ArrayLike) -> Standardizer:
        """Measure the columns of data of shape (n, ...)."""
        tensor = as_tensor("x", x)
        columns = tensor.double()
        loc = columns.mean(0)
        scale = columns.std(0, correction=0)
        # The mean of n equal numbers may differ from them in the last digit, in the precision of
        # the data: a column that varies by no more than that is constant.
        precision = torch.finfo(tensor.dtype if tensor.is_floating_point() else torch.float64).eps
        constant = scale <= 10 * precision * columns.abs().amax(0)
        return cls(loc, torch.where(constant, torch.ones_like(scale), scale))

    def transform(self, x: ArrayLike) -> Any:
        """Give ``(x - loc) / scale``, an array of the kind, shape and precision of x."""
        tensor = as_tensor("x", x)
        z = (tensor.double() - self.loc.to(tensor.device)) / self.scale.to(tensor.device)
        return like(x, z.to(tensor.dtype) if tensor.is_floating_point() else z)

    def inverse(self, z: ArrayLike) -> Any:
        """Give ``loc + scale * z``: back to the original units."""
        tensor = as_tensor("z", z)
        x = self.loc.to(tensor.device) + self.scale.to(tensor.device) * tensor.double()
        return like(z, x.to(tensor.dtype) if tensor.is_floating_point() else x)
