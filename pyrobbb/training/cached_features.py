"""Fits on cached features: the frozen trunk of a network runs once over the data."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import replace
from typing import Any

from torch import Tensor, nn
from torch.utils.data import DataLoader

from .._core.global_state import ordinary_modes
from .._core.trees import Inputs, clone, n_rows, rows_of
from ..fitted import FittedChain
from ..model.frozen import copy_without_frozen
from ..model.head import frozen_split_of, head_network, whole_network
from ..model.network import BayesianNetwork
from ..model.trunk import Split
from ..streams import Parquet
from .config import FitConfig
from .loop import MakeResult
from .restarts import fit_chains
from .run import ready_to_predict

logger = logging.getLogger(__name__)

ROWS_PER_CALL = 512


@ordinary_modes(grad=True)
def fit_chains_on_features(
    config: FitConfig, make_result: MakeResult = tuple
) -> tuple[FittedChain, ...]:
    """Fit the head of a network to the outputs of its trunk; see `fit_chains`.

    The trunk runs once, in evaluation mode. The chains have whole networks.
    """
    if isinstance(config.x, DataLoader | Parquet):
        raise ValueError(
            f"`cache_features` needs x as an array, got a {type(config.x).__name__}: pass arrays, "
            "or the features themselves."
        )
    network = config.placement.copy(config.network)
    _check_modes(config.network)
    rows = network.prepare_inputs(config.x)
    traits = network.traits(rows)
    if traits.mixes_rows or traits.draws_numbers:
        raise ValueError(
            "`cache_features` needs a network whose output for a row depends on that row alone: "
            "leave it out."
        )
    split = frozen_split_of(network, rows)
    logger.info("The trunk %s runs once on %d rows.", ", ".join(split.parts), n_rows(rows))
    example = clone(rows_of(rows, slice(1)))

    def whole(chains: tuple[FittedChain, ...]) -> tuple[FittedChain, ...]:
        return tuple(_whole(chain, network, example) for chain in chains)

    def features(x: Any) -> Tensor:
        return split.features(network.prepare_inputs(x), rows_at_once=ROWS_PER_CALL)

    validation = config.validation
    if isinstance(validation, tuple) and len(validation) == 2:
        validation = features(validation[0]), validation[1]
    start = None
    if config.start is not None:
        start = tuple(_head_of(chain, split) for chain in config.initial_chains if chain)
    head = replace(
        config,
        network=head_network(network, split),
        x=split.features(rows, rows_at_once=ROWS_PER_CALL),
        validation=validation,
        start=start,
        cache_features=False,
    )
    of_whole: Callable[[tuple[FittedChain, ...]], Any] = lambda chains: make_result(whole(chains))  # noqa: E731
    return whole(fit_chains(head, of_whole))


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
