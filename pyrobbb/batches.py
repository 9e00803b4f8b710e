"""Minibatches: of arrays, shuffled here, or of a DataLoader."""

from __future__ import annotations

import math
import zlib
from collections.abc import Iterator, Sequence, Sized
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, DistributedSampler, IterableDataset

from .data import ArrayLike, as_tensor, check_count
from .network import BayesianNetwork
from .processes import Team
from .randomness import OwnRandom
from .streams import MappedRows, Parquet, Rows, Shuffle

BUFFER_ROWS, BUFFER_BYTES = 2**17, 2**27
"""Rows of a stream that are held to be shuffled, and what they may take."""


@dataclass(frozen=True)
class Batches:
    """Some batches, one after the other.

    Attributes
    ----------
    x, y : Tensor of shape (n, ...)
    rows : Tensor of shape (n_batches, [n_chains,] batch_size), or None
        Which rows of x and y each batch holds; a smaller one is filled up. None: all rows.
    n_rows : ndarray of shape (n_batches,)
        How many each holds.
    row_weight : Tensor of shape (n,), or None
        How many times each row of x counts. None: once.
    number : ndarray of shape (n_batches,)
        Which batch of the whole fit each is, from 0.
    n_rows_in_all : ndarray of shape (n_batches,)
        How many each holds in all processes together.
    """

    x: Tensor
    y: Tensor
    rows: Tensor | None
    n_rows: np.ndarray
    number: np.ndarray
    n_rows_in_all: np.ndarray
    row_weight: Tensor | None = None

    def after(self, n: int) -> Batches:
        """Give them without the first n."""
        if n == 0:
            return self
        by_batch = {name: getattr(self, name)[n:] for name in ("n_rows", "number", "n_rows_in_all")}
        return replace(self, rows=None if self.rows is None else self.rows[n:], **by_batch)


class ArrayBatches:
    """Shuffled minibatches of tensors; of each, the part that this process takes."""

    def __init__(
        self,
        x: Tensor,
        y: Tensor,
        batch_size: int,
        row_weight: Tensor | None = None,
        team: Team | None = None,
    ) -> None:
        self._x, self._y, self._row_weight = self._whole = x, y, row_weight
        self._team = team or Team()
        self.n_data = len(x)
        self.batch_size = min(batch_size, len(x))
        self.n_batches = math.ceil(len(x) / self.batch_size)
        self.example = x[:1].clone(), y[:1].clone()
        self._n_ordered = 0  # epochs whose order has been drawn
        if self.n_batches == 1:
            own = own_rows(len(x), self._team)
            self._x, self._y = self._x[own], self._y[own]
            self._row_weight = None if row_weight is None else row_weight[own]

    @cached_property
    def checksum(self) -> str:
        """What tells the rows from others."""
        return crc32(*(part for part in self._whole if part is not None))

    def epochs(self, which: range, generators: Sequence[torch.Generator]) -> Iterator[Batches]:
        """Give the batches of some epochs, each in an order of its own, for each chain."""
        n_all = np.full((len(which), self.n_batches), self.batch_size)
        number = np.arange(which.start * self.n_batches, which.stop * self.n_batches)
        if self.n_batches == 1:
            yield self._some(None, n_all, number)
            return
        n_missing = self.n_batches * self.batch_size - self.n_data
        n_all[:, -1] -= n_missing
        chains = []
        for generator in generators:
            for _ in range(self._n_ordered, which.start):  # of epochs before a checkpoint
                torch.randperm(self.n_data, generator=generator)
            orders = [torch.randperm(self.n_data, generator=generator) for _ in which]
            order = torch.stack(orders)
            order = torch.cat([order, order[:, :n_missing]], 1)
            chains.append(order.reshape((len(number), self.batch_size)))
        self._n_ordered = which.stop
        rows = chains[0] if len(chains) == 1 else torch.stack(chains, 1)
        rows = rows[..., own_rows(self.batch_size, self._team)].contiguous()
        yield self._some(rows.to(self._x.device), n_all, number)

    def _some(self, rows: Tensor | None, n_all: np.ndarray, number: np.ndarray) -> Batches:
        n_all = n_all.ravel()
        n_rows = part_sizes(n_all, self._team)
        return Batches(self._x, self._y, rows, n_rows, number, n_all, self._row_weight)


def crc32(*tensors: Tensor) -> str:
    """Give a checksum of some tensors."""
    sums = [
        zlib.crc32(t.detach().cpu().contiguous().view(torch.uint8).numpy().data) for t in tensors
    ]
    return "-".join(f"{own:08x}" for own in sums)


def own_rows(n_rows: int, team: Team) -> slice:
    """Say which rows of a batch this process takes; one in vain if there is none for it."""
    return slice(team.rank if team.rank < n_rows else 0, None, team.size)


def part_sizes(n_rows: np.ndarray, team: Team) -> np.ndarray:
    """Give how many rows of each batch this process takes: every `size`-th, from `rank` on."""
    return (n_rows - team.rank + team.size - 1) // team.size


class StreamBatches:
    """Minibatches of rows that are read from files, through a buffer; see `streams.Shuffle`."""

    def __init__(
        self, network: BayesianNetwork, rows: Rows, batch_size: int, team: Team | None = None
    ) -> None:
        self._network, self._rows, self._team = network, rows, team or Team()
        self.n_data = rows.n_data
        self.batch_size = min(batch_size, self.n_data)
        self.n_batches = math.ceil(self.n_data / self.batch_size)
        x, y = self._prepare(*next(rows.read(0)))
        self.example = x[:1].clone(), y[:1].clone()
        row_bytes = sum(t[0].numel() * t.element_size() for t in (x, y))
        most = min(BUFFER_ROWS, BUFFER_BYTES // max(row_bytes, 1))
        self.n_in_a_row = min(max(most // self.batch_size, 1), self.n_batches)

    @property
    def checksum(self) -> str:
        """What tells the rows from others, as far as can be told without reading them all."""
        x, y = self.example
        return f"{self._rows.n_chunks}-{crc32(x, y)}"

    def epochs(self, which: range, generators: Sequence[torch.Generator]) -> Iterator[Batches]:
        """Give the batches of some epochs, as many at once as the buffer holds.

        The order goes by the seed and the epoch alone.
        """
        seed = generators[0].initial_seed()
        size = self.n_in_a_row * self.batch_size
        for epoch in which:
            shuffle = Shuffle(self._rows, [seed, epoch])
            number, n_held = epoch * self.n_batches, 0
            x, y = self._buffer(size)
            for name, pair in shuffle.pieces():
                new_x, new_y = self._prepare(name, pair)
                while len(new_x):
                    n = min(size - n_held, len(new_x))
                    x[n_held : n_held + n], y[n_held : n_held + n] = new_x[:n], new_y[:n]
                    new_x, new_y, n_held = new_x[n:], new_y[n:], n_held + n
                    if n_held == size:
                        yield self._cut(x, y, n_held, shuffle, number)
                        number, n_held = number + self.n_in_a_row, 0
                        x, y = self._buffer(size)  # the batches given are still looked at
            if n_held:
                yield self._cut(x, y, n_held, shuffle, number)

    def _buffer(self, size: int) -> tuple[Tensor, Tensor]:
        # Of zeros, so that rows that are never filled are numbers at least.
        x, y = (like.new_zeros((size, *like.shape[1:])) for like in self.example)
        return x, y

    def _cut(self, x: Tensor, y: Tensor, n: int, shuffle: Shuffle, number: int) -> Batches:
        """Cut the first n rows of a buffer into batches, of which the last may be smaller."""
        n_batches = math.ceil(n / self.batch_size)
        n_all = np.full(n_batches, self.batch_size)
        n_all[-1] -= n_batches * self.batch_size - n
        order = np.resize(shuffle.permutation(n), n_batches * self.batch_size)
        rows = torch.as_tensor(order.reshape(n_batches, self.batch_size))
        rows = rows[..., own_rows(self.batch_size, self._team)].contiguous()
        numbers = np.arange(number, number + n_batches)
        return Batches(x, y, rows.to(x.device), part_sizes(n_all, self._team), numbers, n_all)

    def _prepare(self, name: str, pair: tuple[ArrayLike, ArrayLike]) -> tuple[Tensor, Tensor]:
        try:
            with OwnRandom(0).drawing():
                return self._network.prepare(*pair)
        except (TypeError, ValueError) as error:
            raise type(error)(f"{name}: {error}") from None


class LoaderBatches:
    """The batches of a DataLoader, checked and brought to the network's device and dtype."""

    checksum = ""

    def __init__(
        self,
        network: BayesianNetwork,
        loader: DataLoader[Any],
        n_data: int,
        team: Team | None = None,
    ) -> None:
        self._network, self._loader, self._team = network, loader, team or Team()
        self._check_shared()
        with OwnRandom(0).drawing():
            x, y = network.prepare(*self._pair(next(iter(loader))))
        self._check_n_data(n_data)
        self.n_data = n_data
        self.batch_size = (loader.batch_size or len(x)) * self._team.size
        try:
            self.n_batches = len(loader)
        except TypeError:  # an IterableDataset without a length
            self.n_batches = math.ceil(n_data / self.batch_size)
        self.example = x[:1].clone(), y[:1].clone()

    def epochs(self, which: range, generators: Sequence[torch.Generator]) -> Iterator[Batches]:
        """Give the batches of some epochs, one by one; the order is the loader's.

        What it draws from torch's random state goes by the seed and the epoch alone.
        """
        seed = generators[0].initial_seed()
        for epoch in which:
            random = OwnRandom(int(np.random.SeedSequence([seed, epoch]).generate_state(1)[0]))
            if isinstance(self._loader.sampler, DistributedSampler):
                self._loader.sampler.set_epoch(epoch)
            with random.drawing():
                batches = iter(self._loader)
            n_given = 0
            for i in range(self.n_batches):  # a stream may have no end
                with random.drawing():
                    batch = next(batches, None)
                if batch is None:
                    raise ValueError(
                        f"`n_data` is {self.n_data}, but the DataLoader ended after {n_given} rows "
                        "of an epoch: pass the number of rows that it gives."
                    )
                n_given += len(batch[0])
                x, y = self._network.prepare(*self._pair(batch))
                number = np.array([epoch * self.n_batches + i])
                n_rows = np.array([len(x)])
                yield Batches(x, y, None, n_rows, number, n_rows * self._team.size)

    def _check_n_data(self, n_data: int) -> None:
        """Raise if the number of rows is known, and another."""
        if isinstance(self._loader.dataset, IterableDataset):
            return
        parts: list[Any] = [self._loader.dataset, self._loader.sampler]
        known = {len(part) for part in parts if isinstance(part, Sized)}
        if isinstance(self._loader.sampler, DistributedSampler):
            known.add(self._loader.sampler.total_size)  # filled up, or cut
        if known and n_data not in known:
            raise ValueError(
                f"`n_data` is {n_data}, but the DataLoader has {max(known)} rows: pass the size of "
                "the data set, not of a batch, and not the number of batches."
            )

    def _check_shared(self) -> None:
        """Raise if each process would be given all rows."""
        is_stream = isinstance(self._loader.dataset, IterableDataset)
        is_shared = is_stream or isinstance(self._loader.sampler, DistributedSampler)
        if self._team.size > 1 and not is_shared:
            raise ValueError(
                f"`x` is a DataLoader that gives each of the {self._team.size} processes all rows: "
                "give it a torch.utils.data.DistributedSampler, or fit with processes='alone'."
            )

    @staticmethod
    def _pair(batch: Any) -> tuple[ArrayLike, ArrayLike]:
        if not isinstance(batch, (tuple, list)) or len(batch) != 2:
            raise TypeError(
                f"`x` must be a DataLoader of pairs (x, y), but it gives a {type(batch).__name__}."
            )
        return batch[0], batch[1]


AnyBatches = ArrayBatches | StreamBatches | LoaderBatches


def open_batches(
    network: BayesianNetwork,
    x: ArrayLike | DataLoader[Any],
    y: ArrayLike | None,
    n_data: int | None,
    batch_size: int,
    sample_weight: ArrayLike | None = None,
    team: Team | None = None,
) -> AnyBatches:
    """Check the data against the network and give their batches."""
    has_batch_norm = any(isinstance(m, nn.modules.batchnorm._BatchNorm) for m in network.modules())
    if has_batch_norm and team is not None and team.size > 1:
        raise ValueError(
            "`network` has batch norm, whose means and variances would differ between the "
            f"{team.size} processes: take nn.GroupNorm or nn.LayerNorm, or processes='alone'."
        )
    if isinstance(x, DataLoader):
        if y is not None:
            raise ValueError("`y` must be left out where `x` is a DataLoader of pairs (x, y).")
        if n_data is None:
            raise ValueError("`n_data`, the size of the data set, must be given with a DataLoader.")
        check_count("n_data", n_data)
        if sample_weight is not None:
            raise ValueError(
                "`sample_weight` needs x and y as arrays: a DataLoader gives its rows in an order "
                "of its own."
            )
        return LoaderBatches(network, x, n_data, team)
    if isinstance(x, IterableDataset):
        raise TypeError(
            "`x` is an IterableDataset: wrap it, DataLoader(x, batch_size=...), and give `n_data`."
        )
    stream: Rows | None = None
    if isinstance(x, Parquet):
        if y is not None:
            raise ValueError("`y` must be left out where `x` is Parquet: its `target` says it.")
        stream = x
    if y is None and stream is None:
        raise ValueError("`y` is missing: pass fit(network, x, y).")
    if isinstance(x, np.memmap):
        stream = MappedRows(x, y)
    if stream is not None:
        if sample_weight is not None:
            raise ValueError("`sample_weight` needs x and y in memory: no file is read for it.")
        if n_data not in (None, stream.n_data):
            raise ValueError(f"`n_data` is {n_data}, but x has {stream.n_data} rows: leave it out.")
        return StreamBatches(network, stream, batch_size, team)
    rows, targets = network.prepare(x, y)
    if has_batch_norm and (
        len(rows) == 1 or (len(rows) > batch_size and len(rows) % batch_size == 1)
    ):
        raise ValueError(
            f"`batch_size` {batch_size} leaves a last batch of 1 of the {len(rows)} rows, of which "
            "batch norm can take no variance: choose another."
        )
    if n_data not in (None, len(rows)):
        raise ValueError(f"`n_data` is {n_data}, but x has {len(rows)} rows: leave it out.")
    if sample_weight is None:
        return ArrayBatches(rows, targets, batch_size, None, team)
    like = network.bayesian_parameters()[0][1]
    weight = check_sample_weight(sample_weight, len(rows)).to(like.device, like.dtype)
    return ArrayBatches(rows, targets, batch_size, weight, team)


def check_sample_weight(sample_weight: ArrayLike, n_rows: int) -> Tensor:
    """Give the weights of rows as a tensor, or say in one line what is wrong with them."""
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
        raise ValueError("`sample_weight` must not be 0 for all rows: nothing would be observed.")
    return weight
