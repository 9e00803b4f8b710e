"""A start at a mode: a deterministic fit of the weights before that of the posterior."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import ClassVar

import torch

from .._core.random_state import IsolatedState
from ..fitted import FittedChain
from ..model.flat_guide import MIN_SCALE
from ..model.guides import MeanFieldGuide
from .checkpoints import MODE
from .config import FitConfig
from .loop import MakeResult, run_chains, train
from .run import ChainStart, start

logger = logging.getLogger(__name__)


def no_kl(batch: int, n_batches: int) -> float:
    """Return the weight of the KL divergence in a batch of the deterministic fit."""
    return 0.0


@dataclass(frozen=True)
class ModeConfig(FitConfig):
    """The configuration of the deterministic fit.

    The scales of its guide are below `MIN_SCALE`, where they have no effect and no gradient, and
    the KL divergence has no weight: the same steps fit the means to the data by maximum likelihood.
    The log prior density is left out because its mode, in a deep network, is the prior's centre: 4
    hidden layers under the default prior predict a constant there (wine: 1.12 nats per row, 0.03
    without it).
    """

    share_of_epochs: ClassVar[float] = 0.1
    init_scale: ClassVar[float | None] = 1e-5 * MIN_SCALE

    @classmethod
    def of(cls, config: FitConfig) -> ModeConfig:
        """Return the configuration of the deterministic fit that precedes a fit."""
        arguments = {field.name: getattr(config, field.name) for field in fields(FitConfig)}
        arguments |= {
            "init": None,
            "guide": "mean_field",
            "objective": "trace",
            "n_particles": 1,
            "estimator": "reparam",
            "kl_warmup": 0.0,
            "validation": None,
            "patience": None,
            "callbacks": (),
        }
        return cls(**arguments)


def run_from_init(
    config: FitConfig, starts: Sequence[ChainStart], folder: Path | None, make_result: MakeResult
) -> tuple[FittedChain, ...]:
    """Fit a chain from each start, or from the mode near it; see `run_chains`."""
    is_interrupted = False
    if config.init == "map":
        starts, is_interrupted = find_modes(config, starts, folder)
    return run_chains(config, starts, folder, make_result, is_interrupted=is_interrupted)


def find_modes(
    config: FitConfig, starts: Sequence[ChainStart], folder: Path | None
) -> tuple[list[ChainStart], bool]:
    """Fit the weights without noise from each start, side by side.

    Returns
    -------
    starts : list of ChainStart
        With networks whose weights are the fitted ones.
    is_interrupted : bool
        Whether Ctrl-C has ended the fit.
    """
    logger.info("The fit begins at a mode: the weights are first fitted without noise.")
    isolated = IsolatedState(starts[0].seed)
    without_kl = [replace(chain, kl_weight=no_kl) for chain in starts]
    with isolated.active():
        run = start(ModeConfig.of(config), without_kl, None if folder is None else folder / MODE)
    train(run, isolated, tuple)
    for network, guide in zip(run.networks, run.guides, strict=True):
        assert isinstance(guide, MeanFieldGuide)
        means = guide.split(guide.loc.detach())
        with torch.no_grad():
            for name, parameter in network.bayesian_parameters():
                parameter.copy_(means[name])
    modes = [replace(chain, network=net) for chain, net in zip(starts, run.networks, strict=True)]
    return modes, run.state.is_interrupted
