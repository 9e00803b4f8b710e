"""Standardizer: columns with mean 0 and standard deviation 1, except for constant ones."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from .._core.arrays import ArrayLike, as_tensor, like


@dataclass(frozen=True)
class Standardizer:
    """Mean and standard deviation of each column, with which data are standardised.

    Attributes
    ----------
    loc, scale : Tensor of shape (...)
        Mean and standard deviation of each column, in double precision. The scale of a column
        that is constant up to rounding is 1, or the rounding error where that is larger.
    """

    loc: Tensor
    scale: Tensor

    @classmethod
    def of(cls, x: ArrayLike, weight: ArrayLike | None = None) -> Standardizer:
        """Compute the mean and standard deviation of each column of data.

        Parameters
        ----------
        x : array-like of shape (n, ...)
        weight : array-like of shape (n,), optional
            Weight of each row: a weight of 2 is equivalent to repeating the row.
        """
        tensor = as_tensor("x", x)
        columns = tensor.double()
        share = torch.full((len(columns),), 1 / max(len(columns), 1), dtype=torch.float64)
        if weight is not None:
            share = as_tensor("weight", weight).double().cpu()
            share = share / share.sum()
        share = share.to(columns.device).reshape((-1, *(1,) * (columns.dim() - 1)))
        # In units of the largest value, because squares of 1e200 and 1e-200 are out of range.
        size = columns.abs().amax(0)
        unit = torch.where(size > 0, size, torch.ones_like(size))
        relative = columns / unit
        loc = (share * relative).sum(0)
        scale = (share * (relative - loc).square()).sum(0).sqrt()
        # The computed mean of n equal numbers may differ from them in the last digit of the data's
        # precision. A column that varies no more than that is constant.
        precision = torch.finfo(tensor.dtype if tensor.is_floating_point() else torch.float64).eps
        relative_rounding = 10 * precision
        same = (columns == columns[:1]).all(0)
        rounding = torch.where(same, torch.ones_like(size), (relative_rounding * size).clamp(min=1))
        return cls(
            torch.where(same, columns[0], loc * unit),
            torch.where(scale <= relative_rounding, rounding, scale * unit),
        )

    def transform(self, x: ArrayLike) -> Any:
        """Return ``(x - loc) / scale``, an array of the type, shape and precision of x."""
        tensor = as_tensor("x", x)
        z = (tensor.double() - self.loc.to(tensor.device)) / self.scale.to(tensor.device)
        return like(x, z.to(tensor.dtype) if tensor.is_floating_point() else z)

    def inverse(self, z: ArrayLike) -> Any:
        """Return ``loc + scale * z``, in the original units."""
        tensor = as_tensor("z", z)
        x = self.loc.to(tensor.device) + self.scale.to(tensor.device) * tensor.double()
        return like(z, x.to(tensor.dtype) if tensor.is_floating_point() else x)
