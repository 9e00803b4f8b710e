"""Restarts: independent chains from different initial weights, side by side where possible."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import nn

from .._core import progress
from .._core.global_state import ordinary_modes
from .._core.random_state import as_seed, seeded
from ..elbo.fused_elbo import FusedELBO
from ..engines.optimizers import adam_settings
from ..fitted import FittedChain
from ..model.frozen import copy_without_frozen
from ..model.network import BayesianNetwork
from ..priors import Around, ByName, Prior
from .checkpoints import stored_seed
from .config import FitConfig
from .kl_search import is_automatic, search_kl_weight
from .loop import MakeResult
from .mode import run_from_init
from .run import ChainStart

logger = logging.getLogger(__name__)


@ordinary_modes(grad=True)
def fit_chains(config: FitConfig, make_result: MakeResult = tuple) -> tuple[FittedChain, ...]:
    """Fit all chains of a configuration: one, or those of its restarts.

    Parameters
    ----------
    config : FitConfig
    make_result : callable, optional
        Converts a tuple of chains to the return value of `EpochEnd.posterior`.

    Returns
    -------
    tuple of FittedChain
        In the order of the restarts; fewer after Ctrl-C.
    """
    network, folder, seed = config.network, config.checkpoint_folder, config.seed
    if seed is None and folder is not None:
        seed = stored_seed(folder)
    seed = config.team.broadcast(as_seed(seed))
    if is_automatic(config):
        with progress.bars_named("trying KL weights (1 of 2)"):
            search, tried = search_kl_weight(config, seed, _fit_from)
        config = replace(config, kl_weight=search.chosen, seed=seed)
        # After Ctrl-C, what there is of the posterior is the chain that was tried.
        with progress.bars_named("fitting (2 of 2)"):
            chains = (tried,) if tried.is_interrupted else fit_chains(config, make_result)
        return tuple(
            replace(chain, settings=replace(chain.settings, kl_search=search.as_record()))
            for chain in chains
        )
    is_fresh = config.start is None
    if is_fresh and config.restarts > 1:
        logger.info(
            "Restart 0 starts at the module's weights, the others at new ones, except frozen "
            "weights, weights of zeros and those with a prior Around a trained network."
        )
    of_chains = zip(config.initial_chains, config.kl_weights, config.rows_of_chains, strict=True)
    starts = [
        ChainStart(
            fresh_start(network, seed + r) if r and is_fresh else network,
            seed + r,
            fitted,
            kl_weight,
            rows,
            r > 0,
        )
        for r, (fitted, kl_weight, rows) in enumerate(of_chains)
    ]
    return _fit_from(config, starts, folder, make_result)


def _fit_from(
    config: FitConfig,
    starts: Sequence[ChainStart],
    folder: Path | None = None,
    make_result: MakeResult = tuple,
) -> tuple[FittedChain, ...]:
    """Fit a chain from each start; fewer after Ctrl-C."""
    if len(starts) == 1 or can_run_side_by_side(config):
        return run_from_init(config, starts, folder, make_result)
    chains: tuple[FittedChain, ...] = ()
    for r, start in enumerate(starts):
        subfolder = None if folder is None else folder / f"restart-{r}"
        chains += run_from_init(config, [start], subfolder, make_result)
        if chains[-1].is_interrupted:
            break
    return chains


def can_run_side_by_side(config: FitConfig) -> bool:
    """Return whether chains can share engine steps, with the same results as separate fits."""
    if config.engine == "svi" or not config.is_flat or config.validation is not None:
        return False
    if not isinstance(config.elbo, FusedELBO) or config.elbo.estimator != "reparam":
        return False
    if config.rows is not None and len({len(rows) for rows in config.rows}) > 1:
        return False  # their epochs may have different numbers of steps
    is_stateful = any(  # draws from the random state, or updates buffers
        isinstance(module, nn.modules.dropout._DropoutNd)
        or any(True for _ in module.buffers(False))
        for module in config.network.net.modules()
    )
    like = config.network.bayesian_parameters()[0][1].detach()
    return not is_stateful and adam_settings(config.optimizer_and_lr[0], [like]) is not None


def fresh_start(network: BayesianNetwork, seed: int) -> BayesianNetwork:
    """Return a copy of a network with new initial weights, by `reset_parameters` of its modules.

    Frozen parameters (``requires_grad=False``) are kept, and so are those of a trained network to
    which the prior refers: parameters with the prior `pyrobbb.priors.Around`, and parameters
    without a prior that it names. Matrices of zeros are kept as well, such as the factor of an
    adapter that is 0 at first, so that the network starts as it is without the adapter. Other
    trained weights are replaced.

    Restart r > 0 of ``fit(network, ..., restarts=4, seed=s)`` is
    ``fit(fresh_start(network, s + r), ..., seed=s + r)``.

    Parameters
    ----------
    network : BayesianNetwork
    seed : int
    """
    network = copy_without_frozen(network, [network])
    arounds = list(_arounds(network.prior))
    kept = {
        parameter: parameter.clone()
        for name, parameter in network.net.named_parameters()
        if not parameter.requires_grad
        or (parameter.dim() > 1 and not parameter.any())
        or _is_trained(network.prior, name, arounds)
    }
    with seeded(as_seed(seed)), torch.no_grad():
        module: Any
        for module in network.net.modules():
            direct = list(module.parameters(recurse=False))
            if direct and all(parameter in kept for parameter in direct):
                continue  # its buffers belong to the parameters that are kept
            if hasattr(module, "reset_parameters"):
                module.reset_parameters()
            elif any(parameter not in kept for parameter in direct):
                logger.warning(
                    "%s has no reset_parameters: each restart starts from its current weights.",
                    type(module).__name__,
                )
        for parameter, before in kept.items():
            parameter.copy_(before)
    return network


def _arounds(prior: Prior | None) -> Iterator[Around]:
    """Yield the priors around trained networks that a prior consists of."""
    if isinstance(prior, Around):
        yield prior
    if isinstance(prior, ByName):
        for rule in (*prior.patterns.values(), prior.default):
            yield from _arounds(rule)


def _is_trained(prior: Prior | None, name: str, arounds: Sequence[Around]) -> bool:
    """Return whether a parameter belongs to a trained network to which the prior refers."""
    while isinstance(prior, ByName):
        prior = prior.choice(name)
    return isinstance(prior, Around) or (
        prior is None and any(name in around.net for around in arounds)
    )
