"""Minibatches of files that are too large for memory."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch import Tensor

from .._core.arrays import ArrayLike
from .._core.distributed import Team
from .._core.random_state import PrivateRandomState
from .._core.trees import Inputs, InputsLike, arrays_of, map_arrays, row_bytes, rows_of
from ..model.network import BayesianNetwork
from ..streams import Parquet, Rows, Shuffle
from .batches import Batches, example_of, rows_of_process, sizes_of_process

BUFFER_ROWS, BUFFER_BYTES = 2**17, 2**27
"""Maximum numbers of rows and of bytes in the shuffle buffer."""


class StreamBatches:
    """Minibatches of rows that are read from files through a buffer; see `streams.Shuffle`."""

    def __init__(
        self, network: BayesianNetwork, rows: Rows, batch_size: int, team: Team | None = None
    ) -> None:
        self._network, self._rows, self._team = network, rows, team or Team()
        self.n_data = rows.n_data
        self.batch_size = min(batch_size, self.n_data)
        self.n_batches = math.ceil(self.n_data / self.batch_size)
        name, pair = next(rows.read(0))
        if isinstance(rows, Parquet):
            with reading(name):
                like = network.targets_like(pair[0][:2])
            rows.check_target(like)
        x, y = self._prepare(name, pair)
        self.example = example_of(network, x, y)
        buffer_rows = min(BUFFER_ROWS, BUFFER_BYTES // max(row_bytes((x, y)), 1))
        self.n_consecutive = min(max(buffer_rows // self.batch_size, 1), self.n_batches)

    def content(self) -> dict[str, Any]:
        """Return samples of the files, for the fingerprint: reading all rows takes too long."""
        return self._rows.content()

    def epochs(self, epochs: range, generators: Sequence[torch.Generator]) -> Iterator[Batches]:
        """Yield the batches of a range of epochs, one buffer at a time.

        The order depends only on the seed and the epoch.
        """
        seed = generators[0].initial_seed()
        size = self.n_consecutive * self.batch_size
        for epoch in epochs:
            shuffle = Shuffle(self._rows, [seed, epoch])
            number, n_held = epoch * self.n_batches, 0
            buffer = self._buffer(size)
            for name, read in shuffle.pieces():
                pair = self._prepare(name, read)
                while len(pair[1]):
                    n = min(size - n_held, len(pair[1]))
                    for array, new in zip(arrays_of(buffer), arrays_of(pair), strict=True):
                        array[n_held : n_held + n] = new[:n]
                    pair, n_held = rows_of(pair, slice(n, None)), n_held + n
                    if n_held == size:
                        yield self._cut(*buffer, n_held, shuffle, number)
                        number, n_held = number + self.n_consecutive, 0
                        buffer = self._buffer(size)  # the batches yielded are still in use
            if n_held:
                yield self._cut(*buffer, n_held, shuffle, number)

    def _buffer(self, size: int) -> tuple[Inputs, Tensor]:
        # Zeros, so that rows that are never filled are finite.
        zeros: tuple[Inputs, Tensor] = map_arrays(
            lambda like: like.new_zeros((size, *like.shape[1:])), self.example
        )
        return zeros

    def _cut(self, x: Inputs, y: Tensor, n: int, shuffle: Shuffle, number: int) -> Batches:
        """Split the first n rows of a buffer into batches; the last may be smaller."""
        n_batches = math.ceil(n / self.batch_size)
        n_all = np.full(n_batches, self.batch_size)
        n_all[-1] -= n_batches * self.batch_size - n
        order = np.resize(shuffle.permutation(n), n_batches * self.batch_size)
        rows = torch.as_tensor(order.reshape(n_batches, self.batch_size))
        rows = rows[..., rows_of_process(self.batch_size, self._team)].contiguous()
        numbers = np.arange(number, number + n_batches)
        return Batches(x, y, rows.to(y.device), sizes_of_process(n_all, self._team), numbers, n_all)

    def _prepare(self, name: str, pair: tuple[InputsLike, ArrayLike]) -> tuple[Any, Tensor]:
        with reading(name):
            return self._network.prepare(*pair)


@contextmanager
def reading(name: str) -> Iterator[None]:
    """Preserve the random state of the fit, and prefix error messages with the file's name."""
    try:
        with PrivateRandomState(0).active():
            yield
    except (TypeError, ValueError) as error:
        raise type(error)(f"{name}: {error}") from None
