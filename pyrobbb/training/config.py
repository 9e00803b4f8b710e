"""What a fit is to do: the arguments of `fit`, checked."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

from pyro.infer import ELBO
from torch import nn

from .._core.distributed import Team
from ..elbo.fused_elbo import FusedELBO
from ..elbo.objectives import KLWeight, Objective
from ..engines.optimizers import OptimizerFactory, adam_settings
from ..model.network import BayesianNetwork
from ..posterior.posterior import Posterior
from ..storage.specs import name_of
from .batches import AnyBatches
from .callbacks import Callback
from .placement import Placement
from .schedules import Schedule

EngineName = Literal["auto", "svi", "fused", "compiled"]
Together = Literal["same_noise", "own_noise", "alone"]


@dataclass(frozen=True)
class Plan:
    """The arguments of `fit`, checked."""

    x: Any
    y: Any
    n_data: int | None
    sample_weight: Any
    epochs: int | None
    batch_size: int
    lr: float
    schedule: Schedule
    optimizer: OptimizerFactory
    clip_norm: float | None
    engine: EngineName
    objective: Objective
    elbo: ELBO
    kl_weight: KLWeight
    kl_warmup: float
    guide: Any
    validation: Any
    patience: int | None
    callbacks: tuple[Callback, ...]
    every: int | None
    team: Team
    processes: Together
    progress: bool
    placement: Placement

    @property
    def stops_at_epochs(self) -> bool:
        """Whether something looks at the parameters after each epoch."""
        return self.validation is not None or bool(self.callbacks)

    def settings(self, data: AnyBatches, epochs: int) -> dict[str, Any]:
        """Give what a posterior tells of how it was fitted."""
        objective = self.objective
        settings = {
            "objective": objective if isinstance(objective, str) else type(objective).__name__,
            "kl_weight": _told(self.kl_weight),
            "kl_warmup": float(self.kl_warmup),
            "epochs": int(epochs),
            "batch_size": int(data.batch_size),
            "n_data": int(data.n_data),
            "lr": float(self.lr),
            "n_particles": self.elbo.num_particles,
        }
        if self.sample_weight is not None:
            settings["is_weighted"] = True
        if self.placement.autocast is not None:
            settings["autocast"] = str(self.placement.autocast).removeprefix("torch.")
        if self.team.size > 1:
            settings |= {"n_processes": self.team.size, "processes": self.processes}
        return settings

    def outline(self, data: AnyBatches, epochs: int) -> dict[str, Any]:
        """Give what two fits must share to be the same one."""
        return {
            **self.settings(data, epochs),
            "engine": self.engine,
            "estimator": getattr(self.elbo, "estimator", "reparam"),
            "guide": self.guide if isinstance(self.guide, str) else "custom",
            "schedule": self.schedule if isinstance(self.schedule, str) else "custom",
            "optimizer": name_of(self.optimizer),
            "clip_norm": self.clip_norm,
            "patience": self.patience,
            "is_validated": self.validation is not None,
            "data": data.checksum,
        }


@dataclass(frozen=True)
class Start:
    """Where a fit starts: its network and seed, and an earlier fit that it takes up from."""

    network: BayesianNetwork
    seed: int
    earlier: Posterior | None


def can_run_side_by_side(plan: Plan, network: BayesianNetwork) -> bool:
    """Say whether several fits can share each step, and each come out as it would alone."""
    if plan.engine == "svi" or plan.guide != "mean_field" or plan.validation is not None:
        return False
    if not isinstance(plan.elbo, FusedELBO) or plan.elbo.estimator != "reparam":
        return False
    draws_or_counts = any(
        isinstance(module, nn.modules.dropout._DropoutNd)
        or any(True for _ in module.buffers(False))
        for module in network.net.modules()
    )
    like = network.bayesian_parameters()[0][1].detach()
    return not draws_or_counts and adam_settings(plan.optimizer, [like]) is not None


def _told(kl_weight: KLWeight) -> str | float:
    """Give what the settings say of a KL weight."""
    if isinstance(kl_weight, str):
        return kl_weight
    return "custom" if callable(kl_weight) else float(kl_weight)
