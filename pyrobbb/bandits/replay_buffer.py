"""ReplayBuffer: the last observations, in tensors of constant shape."""

from __future__ import annotations

import torch
from torch import Tensor


class ReplayBuffer:
    """Buffer of the last rows observed; when it is full, a new row overwrites the oldest.

    Parameters
    ----------
    size : int
        Maximum number of rows.
    n_inputs : int
        Number of columns of x.

    Attributes
    ----------
    x : Tensor of shape (size, n_inputs)
    y : Tensor of shape (size, 1)
        Only the first ``len(buffer)`` rows of both are in use.
    n_seen : int
        Number of rows observed so far, including overwritten ones.
    """

    def __init__(self, size: int, n_inputs: int) -> None:
        self.x, self.y = torch.zeros(size, n_inputs), torch.zeros(size, 1)
        self.n_seen = 0

    def __len__(self) -> int:
        return min(self.n_seen, len(self.x))

    def add(self, x: Tensor, y: Tensor) -> None:
        """Add a row."""
        self.x[self._position], self.y[self._position] = x, y
        self.n_seen += 1

    def next_overwritten(self) -> tuple[Tensor, Tensor]:
        """Return a copy of the row that the next one will overwrite."""
        return self.x[self._position].clone(), self.y[self._position].clone()

    def undo_add(self, n_seen: int, overwritten: tuple[Tensor, Tensor]) -> None:
        """Undo the complete or partial addition of the row after the first `n_seen`."""
        self.n_seen = n_seen
        self.x[self._position], self.y[self._position] = overwritten

    def batches(self, n_batches: int, batch_size: int, seed: int) -> Tensor:
        """Draw indices of rows with replacement, shape (n_batches, batch_size)."""
        generator = torch.Generator().manual_seed(seed)
        return torch.randint(len(self), (n_batches, batch_size), generator=generator)

    @property
    def _position(self) -> int:
        return self.n_seen % len(self.x)
