"""The marginal distributions of one column of y."""

from __future__ import annotations

import copy
from collections.abc import Iterable, Iterator
from typing import Any

import torch
from torch import Tensor
from torch.distributions import Distribution, Transform
from torch.distributions.transforms import _InverseTransform

from ..likelihoods import base_of


class Columns:
    """The marginal distributions of column j of y, for chunks of rows of shape (n, k)."""

    def __init__(self, distributions: Iterable[Distribution], j: int) -> None:
        self._distributions, self._j = distributions, j

    def __iter__(self) -> Iterator[Distribution]:
        for distribution in self._distributions:
            base = base_of(distribution)
            if len(distribution.event_shape) != 1:
                raise ValueError(
                    "`column` needs a prediction of y of shape (n, k), got rows of shape "
                    f"{tuple(distribution.event_shape)}."
                )
            if base.event_shape:
                raise ValueError(
                    "`column` needs a likelihood with independent columns, got "
                    f"{type(base).__name__}: select the column of `mean`, `quantile` or `sample`."
                )
            yield _selected(base, len(base.batch_shape) - 1, self._j)


def _selected(base: Distribution, dim: int, j: int) -> Distribution:
    """Return the distribution at index j of a batch dimension, with parts of any nested one."""
    shape = base.batch_shape
    selected = copy.copy(base)
    for name, part in vars(base).items():
        vars(selected)[name] = _selected_part(part, shape, dim, j)
    selected._batch_shape = torch.Size((*shape[:dim], *shape[dim + 1 :]))
    return selected


def _selected_part(part: Any, shape: torch.Size, dim: int, j: int) -> Any:
    match part:
        case torch.Size():
            return part
        case Tensor():
            if part.dim() == 0:
                return part
            # Of the batch shape, or one that broadcasts to it, or with further dimensions.
            full = part.expand(shape) if part.dim() < len(shape) else part
            return full.select(dim, j if full.shape[dim] > 1 else 0)
        case Distribution():
            return _selected(part, dim, j)
        case Transform():
            if isinstance(part, _InverseTransform):
                return _selected_part(part.inv, shape, dim, j).inv
            selected = copy.copy(part)
            for name, value in vars(part).items():
                if name != "_inv":  # which refers back to the transform
                    vars(selected)[name] = _selected_part(value, shape, dim, j)
            selected._inv, selected._cached_x_y = None, (None, None)
            return selected
        case list() | tuple():
            return type(part)(_selected_part(p, shape, dim, j) for p in part)
    return part
