"""Some rows of a prediction: the distributions at an index of rows."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.distributions import Distribution

from .._core.arrays import to_numpy
from .._core.messages import shown
from .parts import selected_rows


def count_rows(distributions: Iterable[Distribution]) -> int:
    """Return the number of rows of the chunks of a prediction."""
    known: int | None = getattr(distributions, "n_rows", None)
    return sum(d.batch_shape[1] for d in distributions) if known is None else known


def as_positions(index: Any, n: int) -> Tensor:
    """Return the positions that an index selects from n rows.

    Parameters
    ----------
    index : int, slice, or array-like of bool of shape (n,) or of int
    n : int

    Raises
    ------
    TypeError, IndexError
        If it is no such index, a row does not exist, or none is selected.
    """
    if isinstance(index, slice):
        positions = np.arange(n)[index]
    else:
        # A tuple, as in prediction[0, 1], is for several axes.
        is_row_index = index is not None and not isinstance(index, tuple)
        given = np.asarray(to_numpy(index) if is_row_index else [])
        if given.dtype.kind not in "bui" or given.ndim > 1:
            raise TypeError(
                "A prediction takes a slice, an array of integers or a boolean mask of its rows, "
                f"got {shown(index)}."
            )
        if given.dtype.kind == "b" and given.shape != (n,):
            raise IndexError(
                f"A boolean mask of this prediction must have the shape ({n},), got {given.shape}."
            )
        is_outside = (given >= n) | (given < -n) if given.dtype.kind != "b" else np.zeros(1, bool)
        if is_outside.any():
            raise IndexError(f"This prediction has {n} rows, got {given[is_outside].tolist()[0]}.")
        positions = np.arange(n)[given].reshape(-1)
    if not len(positions):
        raise IndexError("A prediction needs at least one row, and the index selects none.")
    return torch.from_numpy(np.ascontiguousarray(positions))


class SelectedRows:
    """The distributions at some positions, in that order, for chunks of rows.

    Parameters
    ----------
    distributions : iterable of Distribution
    positions : Tensor of shape (n,)

    Attributes
    ----------
    n_rows : int
    """

    def __init__(self, distributions: Iterable[Distribution], positions: Tensor) -> None:
        self._distributions, self._positions = distributions, positions
        self.n_rows = len(positions)
        self._last = int(positions.max())
        self._is_sorted = bool((positions.diff() >= 0).all())

    def __iter__(self) -> Iterator[Distribution]:
        parts = self._parts()
        if self._is_sorted:
            yield from (part for _, part in parts)
            return
        # Rows of later chunks come first: those that are selected are kept.
        kept = list(parts)
        if len(kept) == 1:
            yield kept[0][1]
            return
        owner, place = torch.empty(2, self.n_rows, dtype=torch.long)
        for i, (where, _) in enumerate(kept):
            owner[where], place[where] = i, torch.arange(len(where))
        ends = (owner.diff().nonzero().squeeze(1) + 1).tolist()
        for start, end in zip([0, *ends], [*ends, self.n_rows], strict=True):
            _, part = kept[int(owner[start])]
            yield selected_rows(part, place[start:end])

    def _parts(self) -> Iterator[tuple[Tensor, Distribution]]:
        """Yield the rows selected from each chunk, and where they belong."""
        start = 0
        for distribution in self._distributions:
            end = start + distribution.batch_shape[1]
            where = ((self._positions >= start) & (self._positions < end)).nonzero().squeeze(1)
            if len(where):
                yield where, selected_rows(distribution, self._positions[where] - start)
            start = end
            if start > self._last:
                return
