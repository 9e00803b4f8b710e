"""Conversion of the x and y of `fit` to batches: arrays, files or a DataLoader."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from torch import nn
from torch.utils.data import DataLoader, IterableDataset

from .._core.arrays import ArrayLike
from .._core.distributed import Team
from .._core.trees import InputsLike, is_memory_mapped, structured
from ..model.network import BayesianNetwork
from ..streams import MappedRows, Parquet, Rows
from .array_batches import ArrayBatches, check_sample_weight, rows_as_tensors
from .batches import BatchSource, example_of
from .loader_batches import LoaderBatches, loader_batches
from .stream_batches import StreamBatches


def open_batches(
    network: BayesianNetwork,
    x: InputsLike | DataLoader[Any],
    y: ArrayLike | None,
    n_data: int | None,
    batch_size: int,
    sample_weight: ArrayLike | None = None,
    team: Team | None = None,
    rows_of_chains: Sequence[np.ndarray] = (),
) -> BatchSource:
    """Check the data against the network and return their batches."""
    batches = batches_of(network, x, y, n_data, batch_size, sample_weight, team, rows_of_chains)
    if any(isinstance(module, nn.modules.batchnorm._BatchNorm) for module in network.modules()):
        check_batch_norm(batches, team or Team())
    return batches


def check_batch_norm(batches: BatchSource, team: Team) -> None:
    """Raise an error if a network with batch norm cannot be fitted to these batches."""
    if team.size > 1:
        raise ValueError(
            "`network` has batch norm, whose means and variances would differ between the "
            f"{team.size} processes: use nn.GroupNorm or nn.LayerNorm, or processes='alone'."
        )
    if isinstance(batches, LoaderBatches):
        return  # a loader may drop a small last batch
    if batches.batch_size == 1 or batches.n_data % batches.batch_size == 1:
        raise ValueError(
            f"`batch_size` {batches.batch_size} leaves a last batch of 1 of the {batches.n_data} "
            "rows, for which batch norm has no variance: choose a different size."
        )


def batches_of(
    network: BayesianNetwork,
    x: InputsLike | DataLoader[Any],
    y: ArrayLike | None,
    n_data: int | None,
    batch_size: int,
    sample_weight: ArrayLike | None,
    team: Team | None,
    rows_of_chains: Sequence[np.ndarray],
) -> BatchSource:
    """Return the batches of arrays, of files or of a DataLoader."""
    if isinstance(x, DataLoader):
        if y is not None:
            raise ValueError("`y` must be left out if `x` is a DataLoader of pairs (x, y).")
        if n_data is None:
            raise ValueError("`n_data`, the size of the data set, is required with a DataLoader.")
        if sample_weight is not None:
            raise ValueError(
                "`sample_weight` needs x and y as arrays: the order of a DataLoader's rows is not "
                "known."
            )
        return loader_batches(network, x, n_data, team)
    if isinstance(x, IterableDataset):
        raise TypeError(
            "`x` is an IterableDataset: wrap it, DataLoader(x, batch_size=...), and pass `n_data`."
        )
    stream: Rows | None = None
    if isinstance(x, Parquet):
        if y is not None:
            raise ValueError("`y` must be left out if `x` is Parquet: its `target` is y.")
        if x.target is None:
            raise ValueError("`target` of Parquet must name the column to predict, got None.")
        stream = x
    if y is None and stream is None:
        raise ValueError("`y` is required, got None: pass fit(network, x, y).")
    if stream is None and is_memory_mapped(x):
        stream = MappedRows(structured("x", x), y)
    if stream is not None:
        if sample_weight is not None:
            raise ValueError("`sample_weight` needs x and y in memory, not in files.")
        if n_data not in (None, stream.n_data):
            raise ValueError(f"`n_data` is {n_data}, but x has {stream.n_data} rows: leave it out.")
        return StreamBatches(network, stream, batch_size, team)
    rows, targets = network.prepare(x, y)
    if n_data not in (None, len(targets)):
        raise ValueError(f"`n_data` is {n_data}, but x has {len(targets)} rows: leave it out.")
    example = example_of(network, rows, targets)
    weight = None
    if sample_weight is not None:
        like = network.bayesian_parameters()[0][1]
        weight = check_sample_weight(sample_weight, len(targets)).to(like.device, like.dtype)
    subsets = rows_as_tensors(rows_of_chains, len(targets)) if rows_of_chains else None
    return ArrayBatches(rows, targets, batch_size, weight, team, example, subsets)
