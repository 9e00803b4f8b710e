"""FitConfig: the arguments of `fit`, checked."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar, Literal, get_args

import numpy as np
import torch
from pyro.infer import ELBO
from torch.utils.data import DataLoader

from .._core.arrays import as_count, check_number, check_positive
from .._core.distributed import Team
from .._core.messages import is_one_of, not_one_of
from .._core.trees import is_memory_mapped, is_structured
from ..elbo.gradient_estimators import Estimator
from ..elbo.objectives import (
    KLWeight,
    KLWeights,
    Objective,
    describe_kl_weight,
    kl_weight_per_chain,
    make_elbo,
)
from ..engines.optimizers import OptimizerFactory, as_factory
from ..fitted import FitSettings, FittedChain
from ..model.guides import FLAT_GUIDES, GUIDES, GuideName, is_flat
from ..model.network import BayesianNetwork
from ..streams import Parquet
from .array_batches import check_rows
from .callbacks import Callback
from .placement import Device, DType, Placement
from .schedules import Schedule, factor_of
from .warm_start import chains_of

EngineName = Literal["auto", "svi", "fused", "compiled"]
ProcessMode = Literal["same_noise", "own_noise", "alone"]
Init = Literal["map"]


@dataclass(frozen=True)
class FitConfig:
    """The arguments of `pyrobbb.fit`, with the same names and defaults.

    Raises
    ------
    TypeError, ValueError
        If an argument is invalid. The data are checked when they are read.
    """

    network: BayesianNetwork
    x: Any
    y: Any = None
    n_data: int | None = None
    sample_weight: Any = None
    rows: Any = None
    validation: Any = None
    epochs: int | None = None
    batch_size: int = 128
    lr: float = 0.01
    schedule: Schedule = "one_cycle"
    optimizer: OptimizerFactory = torch.optim.Adam
    clip_norm: float | None = None
    objective: Objective = "trace"
    n_particles: int = 1
    estimator: Estimator = "reparam"
    kl_weight: KLWeights = "uniform"
    kl_warmup: float = 0.5
    guide: GuideName | Callable[..., Any] = "mean_field"
    start: Any = None
    init: Init | None = None
    restarts: int = 1
    patience: int | None = None
    callbacks: Callback | Sequence[Callback] = ()
    progress: bool = True
    seed: int | None = None
    checkpoint: str | os.PathLike[str] | None = None
    every: int | None = None
    resume: bool = False
    engine: EngineName = "auto"
    processes: ProcessMode = "same_noise"
    device: Device | None = None
    dtype: DType | None = None
    autocast: DType | None = None
    cache_features: bool | str | os.PathLike[str] = False

    share_of_epochs: ClassVar[float] = 1.0
    init_scale: ClassVar[float | None] = None

    def __post_init__(self) -> None:
        if not isinstance(self.network, BayesianNetwork):
            raise TypeError(
                f"`network` must be a BayesianNetwork, got {type(self.network).__name__}: wrap the "
                "module with BayesianNetwork(net)."
            )
        check_positive("lr", self.lr)
        for argument in ("batch_size", "restarts", "n_particles"):
            self._set(argument, as_count(argument, getattr(self, argument)))
        check_number("kl_warmup", self.kl_warmup)
        if not 0 <= self.kl_warmup < 1:
            raise ValueError(f"`kl_warmup` must lie in [0, 1), got {self.kl_warmup}.")
        if self.clip_norm is not None:
            check_positive("clip_norm", self.clip_norm)
        for argument in ("epochs", "patience", "every", "n_data", "seed"):
            if (value := getattr(self, argument)) is not None:
                self._set(argument, as_count(argument, value, least=0 if argument == "seed" else 1))
        if self.patience is not None and self.validation is None:
            raise ValueError("`patience` needs `validation` data.")
        for callback in self.callback_list:
            if not callable(callback):
                raise TypeError(
                    "`callbacks` must be callables that take an EpochEnd, got a "
                    f"{type(callback).__name__}."
                )
        _check_choice("engine", self.engine, EngineName)
        _check_choice("processes", self.processes, ProcessMode)
        if self.init is not None:
            _check_choice("init", self.init, Init)
            if self.start is not None:
                raise ValueError("`init` must be left out with `start`, which is a starting point.")
        for argument in ("init", "start"):
            if getattr(self, argument) is not None and not isinstance(self.guide, str):
                self._refuse_guide(argument, "its parameters are already its starting point")
        self._check_kl_weight()
        if getattr(self.elbo, "estimator", "reparam") != "reparam" and self.engine == "svi":
            raise ValueError(
                "`estimator` 'local' or 'flipout' needs engine='fused' or 'auto': Pyro's SVI uses "
                "one draw per batch."
            )
        factor_of(self.schedule)
        check_positive("lr", self.optimizer_and_lr[1])
        if self.checkpoint is not None:
            self._check_known_guide("checkpoint", "it is not stored")
        if not isinstance(self.resume, bool):
            raise TypeError(f"`resume` must be True or False, got {type(self.resume).__name__}.")
        if not isinstance(self.cache_features, bool | str | os.PathLike):
            raise TypeError(
                "`cache_features` must be True, False or the path of a folder, got "
                f"{type(self.cache_features).__name__}."
            )
        if self.features_folder is not None and self.sample_weight is not None:
            self._check_in_memory("sample_weight", "pass cache_features=True")
        if self.resume and self.checkpoint is None:
            raise ValueError("`resume` needs the folder of the checkpoints, `checkpoint`.")
        if self.restarts > 1:
            self._check_known_guide("restarts", "all chains would share its parameters")
            self._check_in_memory("restarts", "call fit once per restart")
        if self.rows is not None:
            self._check_in_memory("rows", "select them in the loader or file")
            check_rows(self.rows, len(self.initial_chains))
        if not isinstance(self.guide, str) and self.placement.moves(self.network):
            raise ValueError(
                "`device` and `dtype` must be left out with a custom `guide`, which is not moved: "
                "move both before the fit, with network.to(...) and guide.to(...)."
            )

    def _set(self, argument: str, value: Any) -> None:
        object.__setattr__(self, argument, value)

    def _check_known_guide(self, argument: str, reason: str) -> None:
        if not isinstance(self.guide, str) and not is_flat(self.guide):
            self._refuse_guide(argument, reason)

    def _refuse_guide(self, argument: str, reason: str) -> None:
        *names, last = map(repr, GUIDES)
        raise ValueError(
            f"`{argument}` needs guide={', '.join(names)} or {last}, got a custom guide: {reason}."
        )

    @property
    def is_flat(self) -> bool:
        """Whether the guide is one of pyrobbb's over a flat vector, as the fused engine needs."""
        return is_flat(self.guide) or is_one_of(self.guide, FLAT_GUIDES)

    def _check_kl_weight(self) -> None:
        kl_weight_per_chain(self.kl_weight, len(self.initial_chains))
        if not is_one_of(self.kl_weight, ["auto"]):
            return
        if self.validation is None:
            raise ValueError(
                "`kl_weight`='auto' needs `validation`, a pair (x, y) of held-out rows that choose "
                "the weight."
            )
        if self.start is not None:
            raise ValueError(
                "`kl_weight`='auto' must not be combined with `start`: pass the weight of its fit."
            )
        self._check_known_guide("kl_weight", "'auto' fits a chain with each weight")
        self._check_in_memory("kl_weight", "'auto' fits a chain with each weight; pass a number")

    def _check_in_memory(self, argument: str, remedy: str) -> None:
        if self.features_folder is not None:
            raise ValueError(
                f"`{argument}` needs x and y in memory, but `cache_features` is the path of a "
                f"folder: {remedy}."
            )
        if isinstance(self.x, DataLoader | Parquet) or is_memory_mapped(self.x):
            kind = type(self.x).__name__
            if is_structured(self.x):
                kind += " of memory-mapped arrays"
            raise ValueError(f"`{argument}` needs x and y in memory, got a {kind}: {remedy}.")

    @cached_property
    def elbo(self) -> ELBO:
        """The objective as an ELBO."""
        return make_elbo(self.objective, self.n_particles, self.estimator)

    @cached_property
    def optimizer_and_lr(self) -> tuple[OptimizerFactory, float]:
        """The optimizer as a factory, and the learning rate: `lr`, or that of a Pyro optimizer."""
        return as_factory(self.optimizer, self.lr)

    @cached_property
    def callback_list(self) -> tuple[Any, ...]:
        """The callbacks as a tuple."""
        if callable(self.callbacks) or not isinstance(self.callbacks, Iterable):
            return (self.callbacks,)
        return tuple(self.callbacks)

    @cached_property
    def placement(self) -> Placement:
        """Device, dtype and autocast, checked against the network."""
        like = self.network.bayesian_parameters()[0][1]
        return Placement.of(self.device, self.dtype, self.autocast, like)

    @cached_property
    def team(self) -> Team:
        """The processes that share this fit."""
        return Team() if self.processes == "alone" else Team.current()

    @cached_property
    def initial_chains(self) -> tuple[FittedChain | None, ...]:
        """The fitted chain that each chain starts from, or None."""
        if self.start is None:
            return (None,) * self.restarts
        return chains_of(self.start, self.restarts)

    @cached_property
    def kl_weights(self) -> tuple[KLWeight, ...]:
        """The weight of the KL divergence of each chain."""
        return kl_weight_per_chain(self.kl_weight, len(self.initial_chains))

    @cached_property
    def rows_of_chains(self) -> tuple[np.ndarray | None, ...]:
        """The indices of the rows that each chain is fitted to; None: all."""
        if self.rows is None:
            return (None,) * len(self.initial_chains)
        return check_rows(self.rows, len(self.initial_chains))

    @property
    def features_folder(self) -> Path | None:
        """The folder of cached features."""
        return None if isinstance(self.cache_features, bool) else Path(self.cache_features)

    @property
    def checkpoint_folder(self) -> Path | None:
        """The folder of the checkpoints."""
        return None if self.checkpoint is None else Path(self.checkpoint)

    @property
    def pauses_at_epochs(self) -> bool:
        """Whether validation or a callback reads the parameters after each epoch."""
        return self.validation is not None or bool(self.callback_list)

    def settings(self, *, epochs: int, batch_size: int, n_data: int) -> FitSettings:
        """Return the settings of the fit that the first chain records, except engine and seed."""
        objective, autocast = self.objective, self.placement.autocast
        is_distributed = self.team.size > 1
        return FitSettings(
            objective=objective if isinstance(objective, str) else type(objective).__name__,
            kl_weight=describe_kl_weight(self.kl_weights[0]),
            kl_warmup=float(self.kl_warmup),
            epochs=int(epochs),
            batch_size=int(batch_size),
            n_data=int(n_data),
            lr=float(self.optimizer_and_lr[1]),
            n_particles=self.elbo.num_particles,
            is_weighted=True if self.sample_weight is not None else None,
            init=self.init,
            autocast=None if autocast is None else str(autocast).removeprefix("torch."),
            n_processes=self.team.size if is_distributed else None,
            processes=self.processes if is_distributed else None,
        )


def _check_choice(argument: str, value: Any, choices: Any) -> None:
    names = get_args(choices)
    if not is_one_of(value, names):
        raise ValueError(not_one_of(argument, value, names))
