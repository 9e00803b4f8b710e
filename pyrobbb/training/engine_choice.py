"""Choice of the engine of a fit: the requested one, or the fallback that the model requires."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Any

from torch import nn

from ..elbo.fused_elbo import FusedELBO
from ..elbo.fused_loss import CannotFuseError
from ..elbo.objectives import traced
from ..engines.auto import AutoEngine
from ..engines.base import Engine
from ..engines.compiled import CompiledEngine
from ..engines.fused import Chain, FusedEngine
from ..engines.svi import SVIEngine
from ..model.network import BayesianNetwork
from .batches import BatchSource
from .config import FitConfig
from .loader_batches import LoaderBatches

logger = logging.getLogger(__name__)


def make_engine(
    config: FitConfig,
    networks: Sequence[BayesianNetwork],
    guides: Sequence[Any],
    seeds: Sequence[int],
    fitted: list[nn.Parameter],
    data: BatchSource,
    n_steps: int,
) -> Engine:
    """Return the engine of a fit, which starts at the current parameters.

    Parameters
    ----------
    config : FitConfig
    networks, guides, seeds : sequence
        One per chain.
    fitted : list of Parameter
        All parameters that the first chain fits, for Pyro's SVI.
    data : BatchSource
    n_steps : int
        Number of steps of the whole fit.

    Raises
    ------
    ValueError
        If the estimator needs the fused loss and the model cannot be fused.
    """
    fused = None if config.engine == "svi" else _fused_engine(config, networks, guides, seeds)
    if fused is None:
        return SVIEngine(
            networks[0],
            guides[0],
            elbo=traced(config.elbo),
            optimizer=config.optimizer_and_lr[0],
            parameters=fitted,
            clip_norm=config.clip_norm,
            team=config.team,
        )
    if config.engine == "fused":
        return fused
    if reason := _steps_are_single(config, data):
        if config.engine == "compiled":
            logger.warning("%s: the steps are taken by engine='fused'.", reason)
        return fused
    ragged = data.n_data % data.batch_size > 0
    if config.engine == "compiled":
        return CompiledEngine(fused, batch_size=data.batch_size, ragged=ragged)
    n_consecutive = data.n_consecutive
    if n_consecutive is None:
        n_consecutive = data.n_batches if config.pauses_at_epochs else n_steps
    return AutoEngine(
        fused, n_steps, n_consecutive=n_consecutive, batch_size=data.batch_size, ragged=ragged
    )


def _fused_engine(
    config: FitConfig,
    networks: Sequence[BayesianNetwork],
    guides: Sequence[Any],
    seeds: Sequence[int],
) -> FusedEngine | None:
    """Return the fused engine, or log the reason and return None if Pyro's SVI is needed."""
    elbo = config.elbo
    try:
        if not isinstance(elbo, FusedELBO):
            raise CannotFuseError(f"the objective is a {type(elbo).__name__}")
        return FusedEngine(
            [Chain(*chain) for chain in zip(networks, guides, seeds, strict=True)],
            closed_form_kl=elbo.objective == "mean_field",
            estimator=elbo.estimator,
            n_particles=elbo.num_particles,
            optimizer=config.optimizer_and_lr[0],
            clip_norm=config.clip_norm,
            team=config.team,
            noise="own" if config.processes == "own_noise" else "same",
        )
    except CannotFuseError as error:
        estimator = getattr(elbo, "estimator", "reparam")
        if estimator != "reparam":
            raise ValueError(f"`estimator` {estimator!r}: {error}.") from error
        level = logging.INFO if config.engine == "auto" else logging.WARNING
        logger.log(level, "The steps are taken by engine='svi': %s.", error)
        return None


def _steps_are_single(config: FitConfig, data: BatchSource) -> str | None:
    """Return why steps can only be taken one at a time, or None if they need not be."""
    if isinstance(data, LoaderBatches):
        return "A DataLoader yields its batches one at a time"
    if config.team.size > 1:
        return "Several processes sum their gradients at each step"
    return None
