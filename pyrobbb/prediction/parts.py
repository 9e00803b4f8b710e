"""Parts of a batch of distributions: those at some indices of a batch dimension."""

from __future__ import annotations

import copy
from typing import Any

import torch
from torch import Tensor
from torch.distributions import Distribution, Transform
from torch.distributions.transforms import _InverseTransform

ROWS = 1
"""The batch dimension of the rows; that of the draws of the weights is 0."""


def selected_rows(distribution: Distribution, index: Tensor) -> Distribution:
    """Return the distributions of some rows, in the order of their indices."""
    return selected(distribution, ROWS, index)


def selected(base: Distribution, dim: int, index: int | Tensor) -> Distribution:
    """Return the distribution at an index of a batch dimension, with parts of any nested one.

    The dimension is dropped if the index is a number.
    """
    shape = base.batch_shape
    part_of = copy.copy(base)
    for name, part in vars(base).items():
        vars(part_of)[name] = _part(part, shape, dim, index)
    kept = () if isinstance(index, int) else (len(index),)
    part_of._batch_shape = torch.Size((*shape[:dim], *kept, *shape[dim + 1 :]))
    return part_of


def _part(part: Any, shape: torch.Size, dim: int, index: int | Tensor) -> Any:
    match part:
        case torch.Size():
            return part
        case Tensor():
            return _part_of_tensor(part, shape, dim, index)
        case Distribution():
            return selected(part, dim, index)
        case Transform():
            if isinstance(part, _InverseTransform):
                return _part(part.inv, shape, dim, index).inv
            part_of = copy.copy(part)
            for name, value in vars(part).items():
                if name != "_inv":  # which refers back to the transform
                    vars(part_of)[name] = _part(value, shape, dim, index)
            part_of._inv, part_of._cached_x_y = None, (None, None)
            return part_of
        case list() | tuple():
            return type(part)(_part(p, shape, dim, index) for p in part)
    return part


def _part_of_tensor(part: Tensor, shape: torch.Size, dim: int, index: int | Tensor) -> Tensor:
    if part.dim() == 0:
        return part
    # Of the batch shape, or one that broadcasts to it, or with further dimensions.
    full = part.expand(shape) if part.dim() < len(shape) else part
    if isinstance(index, int):
        return full.select(dim, index if full.shape[dim] > 1 else 0)
    is_batched = all(n in (1, of_batch) for n, of_batch in zip(full.shape, shape, strict=False))
    if not is_batched or full.shape[dim] < shape[dim]:  # a number or matrix that all rows share
        return full if is_batched else part
    return full.index_select(dim, index.to(full.device))
