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
from .batches import Batches, rows_of_process, sizes_of_process


class ArrayBatches:
    """Shuffled minibatches of tensors in memory, or one process's share of each."""

    n_consecutive: int | None = None

    def __init__(
        self,
        x: Tensor,
        y: Tensor,
        batch_size: int,
        row_weight: Tensor | None = None,
        team: Team | None = None,
        example: tuple[Tensor, Tensor] | None = None,
    ) -> None:
        self._x, self._y, self._row_weight = self._whole = x, y, row_weight
        self._team = team or Team()
        self.n_data = len(x)
        self.batch_size = min(batch_size, len(x))
        self.n_batches = math.ceil(len(x) / self.batch_size)
        self.example = example or (x[:1].clone(), y[:1].clone())
        self._n_ordered = 0  # number of epochs whose order has been drawn
        if self.n_batches == 1:
            rows = rows_of_process(len(x), self._team)
            self._x, self._y = self._x[rows], self._y[rows]
            self._row_weight = None if row_weight is None else row_weight[rows]

    def content(self) -> dict[str, Any]:
        """Return all rows and weights, for the fingerprint of the fit."""
        return dict(zip(("x", "y", "sample_weight"), self._whole, strict=True))

    def epochs(self, epochs: range, generators: Sequence[torch.Generator]) -> Iterator[Batches]:
        """Yield the batches of a range of epochs, in a new order for each epoch and each chain."""
        n_all = np.full((len(epochs), self.n_batches), self.batch_size)
        number = np.arange(epochs.start * self.n_batches, epochs.stop * self.n_batches)
        if self.n_batches == 1:
            yield self._batches(None, n_all, number)
            return
        n_missing = self.n_batches * self.batch_size - self.n_data
        n_all[:, -1] -= n_missing
        chains = []
        for generator in generators:
            for _ in range(self._n_ordered, epochs.start):  # epochs before a checkpoint
                torch.randperm(self.n_data, generator=generator)
            orders = [torch.randperm(self.n_data, generator=generator) for _ in epochs]
            order = torch.stack(orders)
            order = torch.cat([order, order[:, :n_missing]], 1)
            chains.append(order.reshape((len(number), self.batch_size)))
        self._n_ordered = epochs.stop
        rows = chains[0] if len(chains) == 1 else torch.stack(chains, 1)
        rows = rows[..., rows_of_process(self.batch_size, self._team)].contiguous()
        yield self._batches(rows.to(self._x.device), n_all, number)

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
