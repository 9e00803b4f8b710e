"""A memory of the last observations, in tensors whose shape never changes."""

from __future__ import annotations

import torch
from torch import Tensor


class Replay:
    """The last rows seen; when it is full, the newest takes the place of the oldest.

    Parameters
    ----------
    size : int
        Most rows that are kept.
    n_inputs : int
        Columns of x.

    Attributes
    ----------
    x : Tensor of shape (size, n_inputs)
    y : Tensor of shape (size, 1)
        Only the first ``len(replay)`` rows of both count.
    n_seen : int
        Rows seen so far, those forgotten included.
    """

    def __init__(self, size: int, n_inputs: int) -> None:
        self.x, self.y = torch.zeros(size, n_inputs), torch.zeros(size, 1)
        self.n_seen = 0

    def __len__(self) -> int:
        return min(self.n_seen, len(self.x))

    def add(self, x: Tensor, y: Tensor) -> None:
        """Take up a row."""
        self.x[self._place], self.y[self._place] = x, y
        self.n_seen += 1

    def next_to_go(self) -> tuple[Tensor, Tensor]:
        """Give a copy of what the next row will overwrite."""
        return self.x[self._place].clone(), self.y[self._place].clone()

    def take_back(self, n_seen: int, overwritten: tuple[Tensor, Tensor]) -> None:
        """Undo the row that was taken up when `n_seen` had been seen, finished or not."""
        self.n_seen = n_seen
        self.x[self._place], self.y[self._place] = overwritten

    def batches(self, n_batches: int, batch_size: int, seed: int) -> Tensor:
        """Draw the rows of some batches, with replacement: shape (n_batches, batch_size)."""
        generator = torch.Generator().manual_seed(seed)
        return torch.randint(len(self), (n_batches, batch_size), generator=generator)

    @property
    def _place(self) -> int:
        return self.n_seen % len(self.x)
