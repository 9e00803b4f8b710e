"""Minibatches of a DataLoader, checked and moved to the network's device and dtype."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence, Sized
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import (
    DataLoader,
    DistributedSampler,
    IterableDataset,
    RandomSampler,
    SequentialSampler,
    SubsetRandomSampler,
    WeightedRandomSampler,
    default_collate,
)

from .._core.distributed import Team
from .._core.random_state import PrivateRandomState, child_seed
from .._core.trees import Inputs, concatenate, lists_as_tuples, map_arrays, rows_of, structured
from ..model.network import BayesianNetwork
from .batches import Batches, example_of
from .loader_record import LoaderRecord

Pair = tuple[Inputs, Tensor]

SAMPLERS_OF_ALL_ROWS = (SequentialSampler, RandomSampler, WeightedRandomSampler)
"""Samplers that may yield any row, whose length is not the number of distinct rows."""
N_REPLAYED = 64
"""Batches of a completed epoch that are read again when a fit is resumed after it."""


def loader_batches(
    network: BayesianNetwork, loader: DataLoader[Any], n_data: int, team: Team | None = None
) -> LoaderBatches:
    """Return the batches of a DataLoader of a map-style or an iterable data set."""
    if isinstance(loader.dataset, IterableDataset):
        return IterableLoaderBatches(network, loader, n_data, team)
    return MapLoaderBatches(network, loader, n_data, team)


class MapLoaderBatches:
    """The batches of a DataLoader of a map-style data set, in the order of its sampler.

    Parameters
    ----------
    network : BayesianNetwork
    loader : DataLoader
    n_data : int
        Checked against the sampler, or against the rows of each epoch if the loader does not batch.
    team : Team, optional
        Several processes need a DistributedSampler.
    """

    n_consecutive: int | None = 1
    record: LoaderRecord | None = None

    def __init__(
        self,
        network: BayesianNetwork,
        loader: DataLoader[Any],
        n_data: int,
        team: Team | None = None,
    ) -> None:
        self._network, self._loader, self._team = network, loader, team or Team()
        self.n_data, self._counts_rows = n_data, loader.batch_sampler is None
        if self._team.size > 1 and not isinstance(sampler_of(loader), DistributedSampler):
            raise ValueError(
                f"`x` is a DataLoader that yields all rows in each of the {self._team.size} "
                "processes: pass a torch.utils.data.DistributedSampler to it, or fit with "
                "processes='alone'."
            )
        self._first = x, y = first_pair(network, loader)
        if not self._counts_rows:
            check_n_data(loader, n_data)
        self.batch_size = (loader.batch_size or len(y)) * self._team.size
        self.n_batches = len(loader)
        self.example = example_of(network, x, y)

    def content(self) -> dict[str, Any]:
        """Return the first batch, for the fingerprint of the fit."""
        return {"first batch of x": self._first}

    def epochs(self, epochs: range, generators: Sequence[torch.Generator]) -> Iterator[Batches]:
        """Yield the batches of some epochs one at a time, in the order of the loader.

        The loader's draws from torch's random state depend only on the seed and the epoch.
        """
        seed = generators[0].initial_seed()
        for epoch in epochs:
            pairs, n_seen = self.pairs(epoch, seed), 0
            for i in range(self.n_batches):
                pair = next(pairs, None)
                if pair is None:
                    raise _too_few_rows(self.n_data, n_seen)
                n_rows = len(pair[1])
                n_total = n_rows * self._team.size  # a DistributedSampler makes them equal
                n_seen += n_total
                if self.record is not None:
                    self.record.add(epoch, i, pair)
                yield _single_batch(pair, n_rows, n_total, epoch * self.n_batches + i)
            if self._counts_rows:
                check_rows_of_epoch(self.n_data, n_seen, pairs, self._team)

    def pairs(self, epoch: int, seed: int) -> Iterator[Pair]:
        """Yield the batches of an epoch."""
        if isinstance(sampler := sampler_of(self._loader), DistributedSampler):
            sampler.set_epoch(epoch)
        random_state = PrivateRandomState(child_seed(seed, epoch))
        return pairs_of(self._network, self._loader, random_state)


class IterableLoaderBatches:
    """The batches of a DataLoader of an `IterableDataset`, with `n_data` rows per epoch.

    Rows are batched again, because the last batch of each worker of the loader may be smaller.

    Parameters
    ----------
    network, loader, n_data, team
        As for `MapLoaderBatches`. Each process must yield different rows.
    """

    n_consecutive: int | None = 1
    record: LoaderRecord | None = None

    def __init__(
        self,
        network: BayesianNetwork,
        loader: DataLoader[Any],
        n_data: int,
        team: Team | None = None,
    ) -> None:
        self._network, self._loader, self._team = network, loader, team or Team()
        self.n_data = n_data
        self._first = x, y = first_pair(network, loader)
        self.batch_size = (loader.batch_size or len(y)) * self._team.size
        self.n_batches = math.ceil(n_data / self.batch_size)
        self.example = example_of(network, x, y)

    def content(self) -> dict[str, Any]:
        """Return the first batch, for the fingerprint of the fit."""
        return {"first batch of x": self._first}

    def epochs(self, epochs: range, generators: Sequence[torch.Generator]) -> Iterator[Batches]:
        """Yield the batches of some epochs one at a time, in the order of the loader.

        The loader's draws from torch's random state depend only on the seed and the epoch.
        """
        seed = generators[0].initial_seed()
        for epoch in epochs:
            pairs, n_seen = self.pairs(epoch, seed), 0
            for i in range(self.n_batches):
                # A process that runs out of rows before the others uses a zero-weight dummy row.
                pair = next(pairs, None)
                n_rows = 0 if pair is None else len(pair[1])
                rows = torch.tensor(n_rows, device=self.example[1].device)
                n_total = int(self._team.sum([rows])[0])
                if n_total == 0:
                    raise _too_few_rows(self.n_data, n_seen)
                n_seen += n_total
                number = epoch * self.n_batches + i
                if self.record is not None:
                    self.record.add(epoch, i, pair or self.example)
                yield _single_batch(pair or self.example, n_rows, n_total, number)
            check_rows_of_epoch(self.n_data, n_seen, pairs, self._team)

    def pairs(self, epoch: int, seed: int) -> Iterator[Pair]:
        """Yield the batches of an epoch."""
        random_state = PrivateRandomState(child_seed(seed, epoch))
        pairs = pairs_of(self._network, self._loader, random_state)
        return rebatch(pairs, self.batch_size // self._team.size)


LoaderBatches = MapLoaderBatches | IterableLoaderBatches


def load_record(
    batches: LoaderBatches, state: Mapping[str, Tensor], n_done: int, seed: int
) -> None:
    """Expect what the loader gave before a checkpoint, from now on.

    Parameters
    ----------
    batches : LoaderBatches
        With a record.
    state : mapping of str to Tensor
        From `LoaderRecord.state_dict`.
    n_done : int
        Steps done. After a completed epoch, its first batches are compared immediately, because no
        batch of it will be read again.
    seed : int
    """
    record = batches.record
    assert record is not None
    epoch, n_given = record.load_state_dict(state)
    if n_done >= (epoch + 1) * batches.n_batches:
        pairs = batches.pairs(epoch, seed)
        for i, pair in zip(range(min(n_given, N_REPLAYED)), pairs, strict=False):
            record.add(epoch, i, pair)


def first_pair(network: BayesianNetwork, loader: DataLoader[Any]) -> Pair:
    """Return the first batch of a loader; raise if there is none."""
    pair = next(pairs_of(network, loader, PrivateRandomState(0)), None)
    if pair is None:
        raise ValueError(
            "`x` is a DataLoader without batches: is its data set empty, or smaller than a batch "
            "with `drop_last`?"
        )
    return pair


def pairs_of(
    network: BayesianNetwork, loader: DataLoader[Any], random_state: PrivateRandomState
) -> Iterator[Pair]:
    """Yield the batches of an epoch, checked and moved to the network's device."""
    with random_state.active():
        batches = iter(loader)
    device = network.bayesian_parameters()[0][1].device
    while True:
        with random_state.active():
            batch = next(batches, None)
        if batch is None:
            return
        if not isinstance(batch, (tuple, list)) or len(batch) != 2:
            raise TypeError(
                f"`x` must be a DataLoader of pairs (x, y), but it yields a {type(batch).__name__}."
            )
        x, y = batch
        if loader.collate_fn is default_collate:  # which makes lists of the tuples of a data set
            x = lists_as_tuples(x)
        if loader.pin_memory and device.type == "cuda":
            x, y = map_arrays(
                lambda part: part.to(device, non_blocking=True), (structured("x", x), y)
            )
        with random_state.active():
            pair = network.prepare(x, y)
        yield pair


def rebatch(pairs: Iterator[Pair], n_rows: int) -> Iterator[Pair]:
    """Split and join batches of any sizes into batches of one size; the last may be smaller."""
    held: list[Pair] = []
    n_held = 0
    for pair in pairs:
        while n_held + len(pair[1]) >= n_rows:
            n = n_rows - n_held
            yield concatenate([*held, rows_of(pair, slice(n))])
            pair, held, n_held = rows_of(pair, slice(n, None)), [], 0
        if len(pair[1]):
            held.append(pair)
            n_held += len(pair[1])
    if held:
        yield concatenate(held)


def sampler_of(loader: DataLoader[Any]) -> Any:
    """Return the sampler of a loader's rows, or of its batches if there is no other."""
    batch_sampler: Any = loader.batch_sampler
    if batch_sampler is None:
        return loader.sampler
    return getattr(batch_sampler, "sampler", batch_sampler)


def check_n_data(loader: DataLoader[Any], n_data: int) -> None:
    """Raise an error if a loader of a map-style data set does not have `n_data` distinct rows."""
    sampler = sampler_of(loader)
    known = {len(loader.dataset)} if isinstance(loader.dataset, Sized) else set()
    if isinstance(sampler, SubsetRandomSampler):
        known = {len(sampler)}
    elif isinstance(sampler, DistributedSampler):
        known.add(sampler.total_size)  # padded or truncated to a multiple of the processes
    elif isinstance(sampler, Sized) and not isinstance(sampler, SAMPLERS_OF_ALL_ROWS):
        known.add(len(sampler))  # a custom sampler may select some of the rows
    if known and n_data not in known:
        raise ValueError(
            f"`n_data` is {n_data}, but the DataLoader has {max(known)} rows: pass the size of "
            "the data set, not of a batch, and not the number of batches."
        )
    size = loader.batch_size
    if isinstance(sampler, SequentialSampler) and loader.drop_last and size and n_data % size:
        raise ValueError(
            f"`x` is a DataLoader that leaves out the same {n_data % size} rows in each epoch: "
            "pass shuffle=True to it, or drop_last=False."
        )


def check_rows_of_epoch(n_data: int, n_seen: int, pairs: Iterator[Pair], team: Team) -> None:
    """Raise an error if an epoch did not have exactly `n_data` rows."""
    is_more = team.any(next(pairs, None) is not None)
    if is_more or n_seen != n_data:
        raise ValueError(
            f"`n_data` is {n_data}, but the DataLoader yields {'more' if is_more else n_seen} rows "
            "in an epoch: pass the number of rows that it yields, and bound an infinite stream "
            "(itertools.islice)."
        )


def _too_few_rows(n_data: int, n_seen: int) -> ValueError:
    return ValueError(
        f"`n_data` is {n_data}, but the DataLoader ended after {n_seen} rows of an epoch: pass the "
        "number of rows that it yields."
    )


def _single_batch(pair: Pair, n_rows: int, n_total: int, number: int) -> Batches:
    return Batches(*pair, None, np.array([n_rows]), np.array([number]), np.array([n_total]))
