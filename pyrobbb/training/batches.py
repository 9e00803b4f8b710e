"""Minibatches: the interface between the training loop and any source of data."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor

from .._core.distributed import Team
from .._core.trees import Inputs, clone, n_rows
from ..model.network import BayesianNetwork


@dataclass(frozen=True)
class Batches:
    """Consecutive minibatches that index the same tensors.

    Attributes
    ----------
    x : Inputs of shape (n, ...)
    y : Tensor of shape (n, ...)
    rows : Tensor of shape (n_batches, [n_chains,] batch_size), or None
        The rows of x and y in each batch; a smaller batch is padded. None: all rows.
    n_rows : ndarray of shape (n_batches,)
        Number of rows in each batch, without padding.
    row_weight : Tensor of shape (n,), or None
        Weight of each row of x in the log-likelihood. None: 1.
    number : ndarray of shape (n_batches,)
        Index of each batch in the whole fit, from 0.
    n_rows_total : ndarray of shape (n_batches,)
        Number of rows in each batch, summed over the processes.
    """

    x: Inputs
    y: Tensor
    rows: Tensor | None
    n_rows: np.ndarray
    number: np.ndarray
    n_rows_total: np.ndarray
    row_weight: Tensor | None = None

    def skip(self, n: int) -> Batches:
        """Return the batches after the first n."""
        if n == 0:
            return self
        by_batch = {name: getattr(self, name)[n:] for name in ("n_rows", "number", "n_rows_total")}
        return replace(self, rows=None if self.rows is None else self.rows[n:], **by_batch)


class BatchSource(Protocol):
    """A data set as minibatches.

    Attributes
    ----------
    n_data : int
        Number of rows.
    batch_size : int
        Rows in each batch except the last of an epoch, summed over the processes.
    n_batches : int
        Batches in an epoch.
    example : tuple (x, y) of shape (1, ...)
        The first row; all rows, or those of a batch, if rows interact in the network.
    """

    n_data: int
    batch_size: int
    n_batches: int
    example: tuple[Any, Tensor]

    @property
    def n_consecutive(self) -> int | None:
        """Maximum number of batches in memory before more data are read. None: no bound."""
        ...

    def content(self) -> dict[str, Any]:
        """Return the data, or samples of them, by argument: for the fingerprint of the fit."""
        ...

    def epochs(self, epochs: range, generators: Sequence[torch.Generator]) -> Iterator[Batches]:
        """Yield the batches of a range of epochs, in the order of each chain's generator."""
        ...


def example_of(network: BayesianNetwork, x: Inputs, y: Tensor) -> tuple[Any, Tensor]:
    """Return the first row, or all rows if the output for one depends on the others."""
    rows = network.example_of(x)
    return clone(rows), y[: n_rows(rows)].clone()


def rows_of_process(n_rows: int, team: Team) -> slice:
    """Return this process's share of the rows of a batch: a dummy row if the share is empty."""
    return slice(team.rank if team.rank < n_rows else 0, None, team.size)


def sizes_of_process(n_rows: np.ndarray, team: Team) -> np.ndarray:
    """Return the number of rows in this process's share of each batch, without dummy rows."""
    return (n_rows - team.rank + team.size - 1) // team.size
