"""Fits on cached features: the frozen trunk of a network runs once over the data."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader

from .._core.global_state import ordinary_modes
from .._core.trees import (
    Inputs,
    arrays_of,
    clone,
    is_memory_mapped,
    map_arrays,
    n_rows,
    rows_of,
    structured,
)
from .._core.trees import split as parts_of
from ..fitted import FittedChain
from ..model.frozen import copy_without_frozen
from ..model.head import frozen_split_of, head_network, whole_network
from ..model.network import BayesianNetwork
from ..model.trunk import Split
from ..streams import CHUNK_ROWS, MappedRows, Parquet, chunks_of, n_known_rows
from .config import FitConfig
from .feature_files import check_folder, features_in_file, file_name
from .loop import MakeResult
from .restarts import fit_chains
from .run import ready_to_predict
from .stream_batches import reading

logger = logging.getLogger(__name__)

ROWS_PER_CALL = 512
N_SAMPLED = 16
"""Rows whose features are part of the name of a file of features."""


@ordinary_modes(grad=True)
def fit_chains_on_features(
    config: FitConfig, make_result: MakeResult = tuple
) -> tuple[FittedChain, ...]:
    """Fit the head of a network to the outputs of its trunk; see `fit_chains`.

    The trunk runs once, in evaluation mode, on files chunk by chunk. The chains have whole
    networks.
    """
    if isinstance(config.x, DataLoader):
        raise ValueError(
            "`cache_features` needs x as arrays or files, got a DataLoader: pass these, or the "
            "features themselves."
        )
    is_in_memory = not isinstance(config.x, Parquet) and not is_memory_mapped(config.x)
    if not is_in_memory and config.y is None and not isinstance(config.x, Parquet):
        raise ValueError("`y` is required, got None: pass fit(network, x, y).")
    if config.features_folder is not None:
        check_folder(config.features_folder)
    network = config.placement.copy(config.network)
    _check_modes(config.network)
    rows = network.prepare_inputs(config.x if is_in_memory else _varied_rows(config.x))
    traits = network.traits(rows)
    if traits.mixes_rows or traits.draws_numbers:
        raise ValueError(
            "`cache_features` needs a network whose output for a row depends on that row alone: "
            "leave it out."
        )
    split = frozen_split_of(network, rows)
    example = clone(rows_of(rows, slice(1)))

    def whole(chains: tuple[FittedChain, ...]) -> tuple[FittedChain, ...]:
        return tuple(_whole(chain, network, example) for chain in chains)

    validation = config.validation
    if isinstance(validation, tuple) and len(validation) == 2:
        inputs = network.prepare_inputs(validation[0])
        validation = split.features(inputs, rows_at_once=ROWS_PER_CALL), validation[1]
    start = None
    if config.start is not None:
        start = tuple(_head_of(chain, split) for chain in config.initial_chains if chain)
    head = replace(
        config,
        network=head_network(network, split),
        x=_features(config, network, split, rows if is_in_memory else None),
        y=_targets(config.x, network) if isinstance(config.x, Parquet) else config.y,
        validation=validation,
        start=start,
        cache_features=False,
    )
    of_whole: Callable[[tuple[FittedChain, ...]], Any] = lambda chains: make_result(whole(chains))  # noqa: E731
    return whole(fit_chains(head, of_whole))


def _features(
    config: FitConfig, network: BayesianNetwork, split: Split, rows: Inputs | None
) -> Tensor | np.ndarray:
    """Return the features of all rows: of those in memory, or of files."""
    n = n_known_rows(config.x if rows is None else rows)
    assert n is not None

    def pieces() -> Iterator[Tensor]:
        logger.info("The trunk %s runs once on %d rows.", ", ".join(split.parts), n)
        if rows is not None:
            yield from (split.features(part) for part in parts_of(rows, ROWS_PER_CALL))
            return
        for i, chunk in enumerate(chunks_of(config.x, ROWS_PER_CALL)):
            first = i * ROWS_PER_CALL
            with reading(f"rows {first} to {min(first + ROWS_PER_CALL, n) - 1} of x"):
                inputs = network.prepare_inputs(chunk)
            yield split.features(inputs)

    if config.features_folder is None:
        return torch.cat(list(pieces()))
    content: Any = rows
    some = rows
    if rows is None:
        x = config.x
        stream = x if isinstance(x, Parquet) else MappedRows(structured("x", x), config.y)
        content = [part for name, part in stream.content().items() if name != "y"]
        some = network.prepare_inputs(_varied_rows(x))
    assert some is not None
    sample = split.features(rows_of(some, slice(N_SAMPLED)))
    path = config.features_folder / file_name(split, content, sample)
    return features_in_file(path, n, sample, pieces)


def _targets(x: Parquet, network: BayesianNetwork) -> np.ndarray:
    """Return the y of parquet files."""
    if x.target is None:
        raise ValueError("`target` of Parquet must name the column to predict, got None.")
    x.check_target(network.targets_like(next(chunks_of(x, 2))))
    columns = [x.target] if isinstance(x.target, str) else x.target
    y = np.concatenate(list(Parquet(x.paths, columns=columns).in_order(ROWS_PER_CALL)))
    return y[:, 0] if isinstance(x.target, str) else y


def _varied_rows(x: Any) -> Any:
    """Return some rows of files, among them different ones of each array that has such rows.

    Whether the head uses an array, such as a mask, shows only if its rows differ.
    """
    if isinstance(x, Parquet):
        return next(chunks_of(x, ROWS_PER_CALL))
    tree = structured("x", x)
    n = n_rows(tree)
    index = np.unique(np.linspace(0, n - 1, min(n, ROWS_PER_CALL)).astype(int)).tolist()
    for array in arrays_of(tree):
        if not _differing(array[index], array[0]).any():
            for first in range(0, n, CHUNK_ROWS):
                differs = _differing(array[first : first + CHUNK_ROWS], array[0])
                if differs.any():
                    index.append(first + int(differs.argmax()))
                    break
    return map_arrays(lambda array: np.array(array[index]), tree)


def _differing(rows: np.ndarray, one: np.ndarray) -> np.ndarray:
    differs: np.ndarray = np.any(np.reshape(rows != one, (len(rows), -1)), axis=1)
    return differs


def _whole(chain: FittedChain, network: BayesianNetwork, example: Inputs) -> FittedChain:
    """Return a chain with a whole network, whose head is that of the chain."""
    copied = whole_network(chain.network, copy_without_frozen(network, [network]))
    return replace(chain, network=ready_to_predict(copied), example=example)


def _head_of(chain: FittedChain, split: Split) -> FittedChain:
    return replace(chain, network=head_network(chain.network, split.like(chain.network.net)))


def _check_modes(network: BayesianNetwork) -> None:
    """Raise if a frozen module would be random in a fit, or depend on the batch."""
    if not network.training:  # nothing of it is in training mode
        return
    for name, module in network.net.named_modules():
        is_random = isinstance(module, nn.modules.dropout._DropoutNd) and module.p > 0
        is_random |= isinstance(module, nn.modules.batchnorm._BatchNorm)
        is_fitted = any(parameter.requires_grad for parameter in module.parameters())
        if is_random and module.training and not is_fitted:
            raise ValueError(
                f"`cache_features` needs a trunk in evaluation mode, but {name!r}, a "
                f"{type(module).__name__}, is in training mode: call .eval() on the trunk."
            )
