"""Minibatches of tensors in memory."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from .._core.arrays import ArrayLike, as_tensor
from .._core.distributed import Team
from .._core.messages import shown
from .._core.trees import Inputs, clone, rows_of
from .batches import Batches, rows_of_process, sizes_of_process


class ArrayBatches:
    """Shuffled minibatches of tensors in memory, or one process's share of each.

    Parameters
    ----------
    x : Inputs of shape (n, ...)
    y : Tensor of shape (n, ...)
    batch_size : int
    row_weight : Tensor of shape (n,), optional
    team : Team, optional
    example : tuple (x, y), optional
        Default: the first row.
    subsets : Tensor of int, shape (n_chains, n_rows), optional
        The rows that each chain is fitted to. Default: all.
    """

    n_consecutive: int | None = None

    def __init__(
        self,
        x: Inputs,
        y: Tensor,
        batch_size: int,
        row_weight: Tensor | None = None,
        team: Team | None = None,
        example: tuple[Any, Tensor] | None = None,
        subsets: Tensor | None = None,
    ) -> None:
        self._whole = x, y, row_weight
        self.example = example or (clone(rows_of(x, slice(1))), y[:1].clone())
        if subsets is not None and len(subsets) == 1:
            x, y = rows_of(x, subsets[0]), y[subsets[0]]
            row_weight = None if row_weight is None else row_weight[subsets[0]]
        self._x, self._y, self._row_weight, self._subsets = x, y, row_weight, subsets
        self._team = team or Team()
        self.n_data = len(y) if subsets is None else subsets.shape[1]
        self.batch_size = min(batch_size, self.n_data)
        self.n_batches = math.ceil(self.n_data / self.batch_size)
        self._n_ordered = 0  # number of epochs whose order has been drawn
        self._of_chains = None if subsets is None or len(subsets) == 1 else subsets
        if self.n_batches == 1 and self._of_chains is None:
            rows = rows_of_process(len(y), self._team)
            self._x, self._y = rows_of(self._x, rows), self._y[rows]
            self._row_weight = None if row_weight is None else row_weight[rows]

    def content(self) -> dict[str, Any]:
        """Return all rows and weights, for the fingerprint of the fit."""
        content = dict(zip(("x", "y", "sample_weight"), self._whole, strict=True))
        return content if self._subsets is None else {**content, "rows": self._subsets}

    def epochs(self, epochs: range, generators: Sequence[torch.Generator]) -> Iterator[Batches]:
        """Yield the batches of a range of epochs, in a new order for each epoch and each chain."""
        n_all = np.full((len(epochs), self.n_batches), self.batch_size)
        number = np.arange(epochs.start * self.n_batches, epochs.stop * self.n_batches)
        if self.n_batches == 1:
            yield self._batches(self._all_rows(len(epochs)), n_all, number)
            return
        n_missing = self.n_batches * self.batch_size - self.n_data
        n_all[:, -1] -= n_missing
        chains = []
        for c, generator in enumerate(generators):
            for _ in range(self._n_ordered, epochs.start):  # epochs before a checkpoint
                torch.randperm(self.n_data, generator=generator)
            orders = [torch.randperm(self.n_data, generator=generator) for _ in epochs]
            order = torch.stack(orders)
            if self._of_chains is not None:
                order = self._of_chains[c][order]
            order = torch.cat([order, order[:, :n_missing]], 1)
            chains.append(order.reshape((len(number), self.batch_size)))
        self._n_ordered = epochs.stop
        rows = chains[0] if len(chains) == 1 else torch.stack(chains, 1)
        yield self._batches(self._share(rows), n_all, number)

    def _all_rows(self, n_batches: int) -> Tensor | None:
        """Return the rows of each chain in every batch; None if these are all rows of x."""
        if self._of_chains is None:
            return None
        return self._share(self._of_chains.expand((n_batches, *self._of_chains.shape)))

    def _share(self, rows: Tensor) -> Tensor:
        """Return this process's share of the rows of each batch."""
        rows = rows[..., rows_of_process(self.batch_size, self._team)].contiguous()
        return rows.to(self._y.device)

    def _batches(self, rows: Tensor | None, n_all: np.ndarray, number: np.ndarray) -> Batches:
        n_all = n_all.ravel()
        n_rows = sizes_of_process(n_all, self._team)
        return Batches(self._x, self._y, rows, n_rows, number, n_all, self._row_weight)


def check_sample_weight(sample_weight: ArrayLike, n_rows: int) -> Tensor:
    """Return the weights of the rows as a tensor; raise if they are invalid."""
    weight = as_tensor("sample_weight", sample_weight)
    if tuple(weight.shape) != (n_rows,):
        raise ValueError(
            f"`sample_weight` must have shape ({n_rows},), one number for each row of x, got "
            f"{tuple(weight.shape)}."
        )
    if bool((weight < 0).any()):
        row = int(torch.nonzero(weight < 0)[0, 0])
        raise ValueError(f"`sample_weight` must be at least 0, got {weight[row]} for row {row}.")
    if not bool(weight.any()):
        raise ValueError("`sample_weight` must be positive for some row, got 0 for all.")
    return weight


def check_rows(rows: Any, n_chains: int) -> tuple[np.ndarray, ...]:
    """Return the row indices of each chain; raise unless they are distinct integers."""
    if isinstance(rows, str) or not hasattr(rows, "__len__") or len(rows) != n_chains:
        raise ValueError(
            f"`rows` must be a sequence of {n_chains} arrays of row indices, one for each restart, "
            f"got {shown(rows)}."
        )
    arrays = tuple(np.asarray(of_chain) for of_chain in rows)
    for c, indices in enumerate(arrays):
        if indices.ndim != 1 or not len(indices) or not np.issubdtype(indices.dtype, np.integer):
            raise ValueError(
                f"`rows` must hold arrays of row indices, but that of restart {c} has shape "
                f"{indices.shape} and dtype {indices.dtype}: for a mask, pass np.flatnonzero(mask)."
            )
        if len(np.unique(indices)) < len(indices):
            raise ValueError(
                f"`rows` of restart {c} must be distinct: use `sample_weight` to repeat a row."
            )
    return arrays


def rows_as_tensors(rows: Sequence[np.ndarray], n_rows: int) -> Tensor:
    """Return row indices, equally many for each chain, as one tensor; raise if one is invalid."""
    for indices in rows:
        if indices.min() < 0 or indices.max() >= n_rows:
            bad = indices[(indices < 0) | (indices >= n_rows)][0]
            raise ValueError(f"`rows` must lie in [0, {n_rows}), the rows of x, got {bad}.")
    return torch.as_tensor(np.stack(rows).astype(np.int64))
