"""Run: a fit that is ready to take steps, and the function that starts it."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pyro.poutine as poutine
import torch
from torch import nn

from .._core.messages import is_one_of, shown
from .._core.random_state import rank_seed, reseed, seeded
from ..elbo.objectives import KLWeight, describe_kl_weight
from ..engines.optimizer_state import check_storable
from ..fitted import FitSettings, FittedChain
from ..model.frozen import copy_without_frozen
from ..model.functional import evaluating
from ..model.guides import GUIDES, is_flat, named_guide
from ..model.network import BayesianNetwork
from .batches import BatchSource
from .checkpoints import Checkpoints
from .config import FitConfig
from .data_source import open_batches
from .early_stopping import Validation
from .engine_choice import make_engine
from .fingerprint import check_processes_agree, fingerprint_of
from .loader_batches import LoaderBatches
from .loader_record import LoaderRecord
from .run_state import RunState
from .step_plan import StepPlan
from .warm_start import check_not_pruned, load_chain

logger = logging.getLogger(__name__)

DEFAULT_STEPS, DEFAULT_EPOCHS = 10_000, 20


@dataclass(frozen=True)
class ChainStart:
    """The starting point of a chain.

    Attributes
    ----------
    network : BayesianNetwork
        Not changed: it is copied.
    seed : int
    fitted : FittedChain or None
        A fitted chain whose parameters the chain starts from.
    kl_weight : str, float or callable
    rows : ndarray of int, or None
        Indices of the rows that it is fitted to. None: all.
    is_restart : bool
        Whether the chain is not the first: it needs a guide of its own.
    """

    network: BayesianNetwork
    seed: int
    fitted: FittedChain | None
    kl_weight: KLWeight = "uniform"
    rows: np.ndarray | None = None
    is_restart: bool = False


@dataclass(frozen=True, eq=False)
class Run:
    """One fit, or several side by side: all that is constant, and a `RunState` that changes.

    Attributes
    ----------
    config : FitConfig
    networks, guides, seeds, kl_weights : list
        One per chain. Networks and guides hold the parameters that are fitted.
    parameters : list of Parameter
        All parameters that the first chain fits.
    data : BatchSource
    epochs : int
    plan : StepPlan
    state : RunState
    checkpoints : Checkpoints or None
    """

    config: FitConfig
    networks: list[BayesianNetwork]
    guides: list[Any]
    seeds: list[int]
    kl_weights: list[KLWeight]
    stacking_weights: list[float | None]
    parameters: list[nn.Parameter]
    data: BatchSource
    epochs: int
    plan: StepPlan
    state: RunState
    checkpoints: Checkpoints | None

    def chains(
        self, networks: Sequence[BayesianNetwork] | None = None, guides: Sequence[Any] | None = None
    ) -> tuple[FittedChain, ...]:
        """Return the chains as they are now; `networks` and `guides` may be copies of the run's."""
        settings = settings_of(self.config, self.data, self.epochs)
        per_chain = zip(
            networks or self.networks,
            guides or self.guides,
            self.state.histories(),
            self.seeds,
            map(describe_kl_weight, self.kl_weights),
            self.stacking_weights,
            strict=True,
        )
        return tuple(
            FittedChain(
                network,
                guide,
                history,
                self.data.example[0],
                replace(
                    settings,
                    engine=self.state.engine.name,
                    seed=seed,
                    kl_weight=kl_weight,
                    stacking_weight=stacking_weight,
                    is_interrupted=self.state.is_interrupted or None,
                ),
            )
            for network, guide, history, seed, kl_weight, stacking_weight in per_chain
        )

    def snapshot(self) -> tuple[FittedChain, ...]:
        """Return copies of the chains as they are now, ready to predict."""
        networks, guides = copy_without_frozen((self.networks, self.guides), self.networks)
        return self.chains([ready_to_predict(network) for network in networks], guides)


def settings_of(config: FitConfig, data: BatchSource, epochs: int) -> FitSettings:
    """Return the settings of the fit that the first chain records, except engine and seed."""
    return config.settings(epochs=epochs, batch_size=data.batch_size, n_data=data.n_data)


def start(config: FitConfig, starts: Sequence[ChainStart], folder: Path | None) -> Run:
    """Build everything that a fit needs, and continue from its last checkpoint if there is one.

    Rank 0 reads the checkpoint, and all processes start at its parameters.
    """
    networks = [config.placement.copy(chain.network) for chain in starts]
    seeds = [chain.seed for chain in starts]
    for network in networks:
        if not network.training:  # otherwise the modes of submodules are the user's choice
            network.train()
    data = open_batches(
        networks[0],
        config.x,
        config.y,
        config.n_data,
        config.batch_size,
        config.sample_weight,
        config.team,
        [chain.rows for chain in starts if chain.rows is not None],
    )
    networks[0].check_trial(data.example[0])
    epochs = config.epochs or max(DEFAULT_EPOCHS, math.ceil(DEFAULT_STEPS / data.n_batches))
    epochs = math.ceil(config.share_of_epochs * epochs)
    validation = None
    if config.validation is not None:
        # The guide approximates the posterior only once the KL divergence has its full weight.
        n_warmup_epochs = math.ceil(config.kl_warmup * epochs)
        validation = Validation(networks[0], config.validation, seeds[0], n_warmup_epochs)
    guides = [
        make_guide(config, network, data, chain)
        for chain, network in zip(starts, networks, strict=True)
    ]
    for chain, network, guide in zip(starts, networks, guides, strict=True):
        if chain.fitted is not None:
            load_chain(chain.fitted, network, guide)
    parameters = parameters_of(networks[0], guides[0])
    kl_weights = [chain.kl_weight for chain in starts]
    plan = StepPlan(config, data, epochs, seeds, kl_weights)
    checkpoints = stored = None
    if folder is not None or config.team.size > 1:  # the fingerprint needs a pass over the data
        fingerprint = fingerprint_of(
            config,
            settings_of(config, data, epochs),
            networks,
            guides,
            [] if validation is None else validation.data,
            data,
            seeds[0],
        )
        calls = {"checkpoint": folder is not None, "number of callbacks": len(config.callback_list)}
        check_processes_agree(config.team.gather({**fingerprint, **calls}))
        if folder is not None:
            check_storable(config.optimizer_and_lr[0], parameters)
            if isinstance(data, LoaderBatches):
                data.record = LoaderRecord()
            checkpoints = Checkpoints(folder, config.every, fingerprint, is_vouched=config.resume)
            stored = _read_checkpoint(config, checkpoints, networks, guides)
    for network, guide in zip(networks, guides, strict=True):
        config.team.broadcast_tensors([*parameters_of(network, guide), *network.buffers()])
    engine = make_engine(config, networks, guides, seeds, parameters, data, plan.n_steps)
    # The SVI engine draws weights from torch's random state, the same ones in all processes. The
    # other engines draw dropout and per-example noise from it, which differ between processes.
    if engine.name != "svi" or config.processes == "own_noise":
        reseed(rank_seed(seeds[0], config.team.rank))
    state = RunState(engine, validation, data, config.team, seeds)
    if stored is not None:
        state.load_state_dict(stored)
        action = "is complete" if state.is_over else "continues"
        logger.info("The fit %s: its last checkpoint is at step %d.", action, state.n_steps)
    return Run(
        config,
        networks,
        guides,
        seeds,
        kl_weights,
        [c.fitted.settings.stacking_weight if c.fitted else None for c in starts],
        parameters,
        data,
        epochs,
        plan,
        state,
        checkpoints,
    )


def _read_checkpoint(
    config: FitConfig,
    checkpoints: Checkpoints,
    networks: Sequence[BayesianNetwork],
    guides: Sequence[Any],
) -> dict[str, Any] | None:
    """Load the parameters of the last checkpoint on rank 0, and return its state on all ranks."""
    state = None
    if config.team.is_rank_zero:
        latest = checkpoints.latest(copy_without_frozen(networks[0], networks[:1]))
        if latest is not None:
            state, chains = latest
            for chain, network, guide in zip(chains, networks, guides, strict=True):
                load_chain(chain, network, guide)
    stored: dict[str, Any] | None = config.team.broadcast(state)
    return stored


def make_guide(
    config: FitConfig, network: BayesianNetwork, data: BatchSource, chain: ChainStart
) -> Callable[..., Any]:
    """Return the named guide, or a custom one after checks, with its parameters created.

    A chain that is not the first gets a new guide like the one given.
    """
    guide = config.guide
    made: Callable[..., Any]
    if isinstance(guide, str) and is_one_of(guide, GUIDES):
        rank = None if chain.fitted is None else getattr(chain.fitted.guide, "rank", None)
        made = named_guide(guide, network, data.example[0], rank=rank, init_scale=config.init_scale)
    elif isinstance(guide, str | type) or not callable(guide):
        names = ", ".join(map(repr, GUIDES))
        raise ValueError(f"`guide` must be {names} or a Pyro guide, got {shown(guide)}.")
    elif chain.is_restart and is_flat(guide):
        made = guide.renewed(network, data.example[0])
    else:
        made = guide
        check_not_pruned("guide", made)
    with torch.no_grad(), seeded(0), evaluating(network):
        made(*data.example)  # autoguides create their parameters when they first run
        if made is guide:
            _check_sizes(made, network, data)
    return made


def _check_sizes(guide: Callable[..., Any], network: BayesianNetwork, data: BatchSource) -> None:
    """Raise unless a custom guide draws weights of the shapes that the network has."""
    with poutine.block():
        sites = poutine.trace(guide).get_trace(*data.example).nodes
    for name, parameter in network.bayesian_parameters():
        if name in sites and sites[name]["value"].shape != parameter.shape:
            raise ValueError(
                f"`guide` draws {name!r} of shape {tuple(sites[name]['value'].shape)}, but in the "
                f"network it has the shape {tuple(parameter.shape)}: make the guide for this one."
            )


def parameters_of(network: BayesianNetwork, guide: Any) -> list[nn.Parameter]:
    """Return all parameters to fit, in a fixed order: point parameters, then those of the guide."""
    parameters = [parameter for _, parameter in network.point_parameters()]
    parameters += guide.parameters() if isinstance(guide, nn.Module) else []
    if not parameters:
        raise ValueError(
            "`guide` has no parameters to fit: make it a PyroModule with parameters. Those of "
            "pyro.param are in Pyro's global store, which fit does not touch."
        )
    return parameters


def ready_to_predict(network: BayesianNetwork) -> BayesianNetwork:
    """Put a network into evaluation mode and full precision."""
    network.autocast = None
    network.fix_parameters()
    return network.eval()
