"""Minibatches: of arrays, shuffled here, or of a DataLoader."""

from __future__ import annotations

import math
import zlib
from collections.abc import Iterator, Sequence, Sized
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.data import (
    DataLoader,
    DistributedSampler,
    IterableDataset,
    SequentialSampler,
    SubsetRandomSampler,
)

from .._core.arrays import ArrayLike, as_tensor, check_count
from .._core.distributed import Team
from .._core.random_state import PrivateRandomState, child_seed
from ..model.network import BayesianNetwork
from ..streams import MappedRows, Parquet, Rows, Shuffle

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
    flat = (t.detach().cpu().reshape(-1).contiguous() for t in tensors)
    sums = [zlib.crc32(t.view(torch.uint8).numpy().data) for t in flat]
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
        name, pair = next(rows.read(0))
        if isinstance(rows, Parquet):
            with told(name):
                like = network.targets_like(pair[0][:1])
            rows.check_target(like)
        x, y = self._prepare(name, pair)
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
        with told(name):
            return self._network.prepare(*pair)


@contextmanager
def told(name: str) -> Iterator[None]:
    """Look at rows without drawing from the fit's random state, and name them in an error."""
    try:
        with PrivateRandomState(0).active():
            yield
    except (TypeError, ValueError) as error:
        raise type(error)(f"{name}: {error}") from None


class LoaderBatches:
    """The batches of a DataLoader, checked and brought to the network's device and dtype.

    Those of a stream, an `IterableDataset`, are cut anew, because each of several workers ends with
    a smaller one; it has to give `n_data` rows, counted in each epoch. Rows that have numbers are
    given by a sampler, and whether `n_data` is right is known before.
    """

    checksum = ""

    def __init__(
        self,
        network: BayesianNetwork,
        loader: DataLoader[Any],
        n_data: int,
        team: Team | None = None,
    ) -> None:
        self._network, self._loader, self._team = network, loader, team or Team()
        self.n_data = n_data
        self._is_stream = isinstance(loader.dataset, IterableDataset)
        self._counts = self._is_stream or loader.batch_sampler is None
        self._check_shared()
        first = next(self._pairs(PrivateRandomState(0)), None)
        if first is None:
            raise ValueError(
                "`x` is a DataLoader that gives no batch: is it empty, or `drop_last`?"
            )
        if not self._counts:
            check_n_data(loader, n_data)
        x, y = first
        own_size = loader.batch_size or len(x)
        self.batch_size = own_size * self._team.size
        self.n_batches = math.ceil(n_data / self.batch_size) if self._is_stream else len(loader)
        self.example = x[:1].clone(), y[:1].clone()

    def epochs(self, which: range, generators: Sequence[torch.Generator]) -> Iterator[Batches]:
        """Give the batches of some epochs, one by one; the order is the loader's.

        What it draws from torch's random state goes by the seed and the epoch alone.
        """
        seed = generators[0].initial_seed()
        for epoch in which:
            if isinstance(sampler := sampler_of(self._loader), DistributedSampler):
                sampler.set_epoch(epoch)
            pairs = self._pairs(PrivateRandomState(child_seed(seed, epoch)))
            if self._is_stream:
                pairs = cut_anew(pairs, self.batch_size // self._team.size)
            n_given = 0
            for i in range(self.n_batches):
                pair = next(pairs, None)
                x, y = pair or self.example  # in vain, while other processes still have rows
                n_rows = len(x) if pair else 0
                n_in_all = n_rows * self._team.size  # as a DistributedSampler shares them out
                if self._is_stream:
                    n_in_all = int(self._team.sum([torch.tensor(n_rows, device=x.device)])[0])
                if n_in_all == 0:
                    raise ValueError(
                        f"`n_data` is {self.n_data}, but the DataLoader ended after {n_given} rows "
                        "of an epoch: pass the number of rows that it gives."
                    )
                n_given += n_in_all
                number = np.array([epoch * self.n_batches + i])
                yield Batches(x, y, None, np.array([n_rows]), number, np.array([n_in_all]))
            if not self._counts:
                continue
            is_more = self._team.any(next(pairs, None) is not None)
            if is_more or n_given != self.n_data:
                raise ValueError(
                    f"`n_data` is {self.n_data}, but the DataLoader gives "
                    f"{'more' if is_more else n_given} rows in an epoch: pass the number that it "
                    "gives, and let a stream without an end stop there (itertools.islice)."
                )

    def _pairs(self, random: PrivateRandomState) -> Iterator[tuple[Tensor, Tensor]]:
        """Give the batches of an epoch as they come."""
        with random.active():
            batches = iter(self._loader)
        device = self._network.bayesian_parameters()[0][1].device
        while True:
            with random.active():
                batch = next(batches, None)
            if batch is None:
                return
            if not isinstance(batch, (tuple, list)) or len(batch) != 2:
                raise TypeError(
                    "`x` must be a DataLoader of pairs (x, y), but it gives a "
                    f"{type(batch).__name__}."
                )
            if self._loader.pin_memory and device.type == "cuda":
                batch = [part.to(device, non_blocking=True) for part in batch]
            with random.active():
                pair = self._network.prepare(*batch)
            yield pair

    def _check_shared(self) -> None:
        """Raise if each process would be given all rows."""
        is_shared = self._is_stream or isinstance(sampler_of(self._loader), DistributedSampler)
        if self._team.size > 1 and not is_shared:
            raise ValueError(
                f"`x` is a DataLoader that gives each of the {self._team.size} processes all rows: "
                "give it a torch.utils.data.DistributedSampler, or fit with processes='alone'."
            )


def cut_anew(
    pairs: Iterator[tuple[Tensor, Tensor]], n_rows: int
) -> Iterator[tuple[Tensor, Tensor]]:
    """Cut batches of any sizes into batches of one size, of which the last may be smaller."""
    held: list[tuple[Tensor, Tensor]] = []
    n_held = 0
    for x, y in pairs:
        while n_held + len(x) >= n_rows:
            n = n_rows - n_held
            held.append((x[:n], y[:n]))
            yield joined(held)
            x, y, held, n_held = x[n:], y[n:], [], 0
        if len(x):
            held.append((x, y))
            n_held += len(x)
    if held:
        yield joined(held)


def joined(pairs: Sequence[tuple[Tensor, Tensor]]) -> tuple[Tensor, Tensor]:
    """Put batches one after the other."""
    if len(pairs) == 1:
        return pairs[0]
    x, y = zip(*pairs, strict=True)
    return torch.cat(x), torch.cat(y)


def sampler_of(loader: DataLoader[Any]) -> Any:
    """Give what says which rows a loader takes, or which batches if they are ready-made."""
    batch_sampler: Any = loader.batch_sampler
    if batch_sampler is None:
        return loader.sampler
    return getattr(batch_sampler, "sampler", batch_sampler)


def check_n_data(loader: DataLoader[Any], n_data: int) -> None:
    """Raise unless a loader of rows that have numbers gives `n_data` different ones."""
    sampler = sampler_of(loader)
    known = {len(loader.dataset)} if isinstance(loader.dataset, Sized) else set()
    if isinstance(sampler, SubsetRandomSampler):
        known = {len(sampler)}
    elif isinstance(sampler, DistributedSampler):
        known.add(sampler.total_size)  # filled up, or cut
    elif not type(sampler).__module__.startswith("torch.") and isinstance(sampler, Sized):
        known.add(len(sampler))  # a part of the rows, perhaps
    if known and n_data not in known:
        raise ValueError(
            f"`n_data` is {n_data}, but the DataLoader has {max(known)} rows: pass the size of "
            "the data set, not of a batch, and not the number of batches."
        )
    size = loader.batch_size
    if isinstance(sampler, SequentialSampler) and loader.drop_last and size and n_data % size:
        raise ValueError(
            f"`x` is a DataLoader that leaves out the same {n_data % size} rows in each epoch: "
            "shuffle them, or do without `drop_last`."
        )


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
    batches = as_batches(network, x, y, n_data, batch_size, sample_weight, team)
    if any(isinstance(module, nn.modules.batchnorm._BatchNorm) for module in network.modules()):
        check_batch_norm(batches, team or Team())
    return batches


def check_batch_norm(batches: AnyBatches, team: Team) -> None:
    """Raise unless a net with batch norm can be fitted to some batches."""
    if team.size > 1:
        raise ValueError(
            "`network` has batch norm, whose means and variances would differ between the "
            f"{team.size} processes: take nn.GroupNorm or nn.LayerNorm, or processes='alone'."
        )
    if isinstance(batches, LoaderBatches):
        return  # which may leave a small batch out
    if batches.batch_size == 1 or batches.n_data % batches.batch_size == 1:
        raise ValueError(
            f"`batch_size` {batches.batch_size} leaves a last batch of 1 of the {batches.n_data} "
            "rows, of which batch norm can take no variance: choose another."
        )


def as_batches(
    network: BayesianNetwork,
    x: ArrayLike | DataLoader[Any],
    y: ArrayLike | None,
    n_data: int | None,
    batch_size: int,
    sample_weight: ArrayLike | None,
    team: Team | None,
) -> AnyBatches:
    """Give the batches of arrays, of files or of a DataLoader."""
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
        if x.target is None:
            raise ValueError("`target` of Parquet must name the column to learn, got None.")
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
