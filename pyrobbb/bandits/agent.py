"""Agent: the base class of bandit agents.

An agent is used in a custom loop: it chooses an action for a context (`act`) and learns from the
reward (`observe`). Each kind of agent has a network that maps context and action to the expected
reward, and fits it to a replay buffer of the last observations.
"""

from __future__ import annotations

import copy
import dataclasses
import os
from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Self

import numpy as np
import torch
from torch import Tensor

from .._core.arrays import ArrayLike, as_count, check_number
from .._core.global_state import global_state_locked, ordinary_modes, without_validation
from .._core.state_dicts import copy_tensors
from ..engines.auto import limit_threads
from ..engines.base import Steps
from ..engines.optimizers import FlatAdam
from ..fitted import FitSettings, FittedChain, History
from ..model.guides import MeanFieldGuide
from ..model.network import BayesianNetwork
from ..posterior.posterior import Posterior
from ..storage.strict_json import prefix_errors
from ..training.warm_start import load_chain
from . import storage
from .config import ACT, BATCHES, LEARN, AgentConfig
from .replay_buffer import ReplayBuffer


class Agent(ABC):
    """Base class of bandit agents, with `act`, `observe`, `save` and `load`.

    Parameters
    ----------
    config : AgentConfig
    network : BayesianNetwork
    guide : MeanFieldGuide
    optimizer : FlatAdam
        Optimizer of the learned tensors of the network and the guide.
    """

    _kl_weight = 1.0
    _is_real = True  # whether rewards may be any real numbers

    def __init__(
        self,
        config: AgentConfig,
        network: BayesianNetwork,
        guide: MeanFieldGuide,
        optimizer: FlatAdam,
    ) -> None:
        self._config, self._network, self._guide = config, network, guide
        self._adam = optimizer
        self._replay = ReplayBuffer(config.replay_size, config.n_inputs)
        self._n_acted = 0
        self._losses = np.empty((0, 2, 1))  # of the last update

    def __repr__(self) -> str:
        return (
            f"{type(self).__name__}({self._config.n_features} features, {self._config.n_actions} "
            f"actions, {self.n_seen} observations)"
        )

    @property
    def n_seen(self) -> int:
        """Number of observations so far."""
        return self._replay.n_seen

    @property
    def n_data(self) -> int:
        """Number of observations in the replay buffer: the number of data in the ELBO."""
        return len(self._replay)

    @property
    def posterior(self) -> Posterior:
        """A snapshot of the posterior, which later observations do not change.

        Its x are rows of `inputs`, its y are rewards divided by `reward_scale`, and its history is
        that of the last update.
        """
        config, n_steps = self._config, len(self._losses)
        nll, kl = self._losses[:, :, 0].T
        n_rows = np.full(n_steps, config.batch_size)
        history = History(nll + kl, nll, kl, np.zeros(n_steps, int), n_rows)
        settings = FitSettings(
            n_data=self.n_data,
            batch_size=config.batch_size,
            lr=float(config.lr),
            seed=config.seed,
            notes={"n_seen": self.n_seen, "reward_scale": float(config.reward_scale)},
        )
        network = copy.deepcopy(self._network).eval()
        guide = copy.deepcopy(self._guide)
        example = self._replay.x[:1].clone()
        return Posterior((FittedChain(network, guide, history, example, settings),))

    def inputs(self, context: ArrayLike) -> np.ndarray:
        """Return the network's inputs for a context, one row per action.

        Parameters
        ----------
        context : array-like of shape (n_features,)

        Returns
        -------
        ndarray of shape (n_actions, n_features + n_actions), float32
            The context, then an indicator for each action.
        """
        return self._config.inputs(self._config.checked_context(context)).numpy()

    def act(self, context: ArrayLike) -> int:
        """Choose an action. Until the first update, all are equally likely.

        Parameters
        ----------
        context : array-like of shape (n_features,)

        Returns
        -------
        int
            The action, 0 to n_actions - 1.

        Raises
        ------
        TypeError, ValueError
            If the context does not consist of `n_features` finite numbers.
        """
        inputs = self._config.inputs(self._config.checked_context(context))
        seed = self._config.seed_of(ACT, self._n_acted)
        if self.n_seen < self._config.update_every:
            action = int(np.random.default_rng(seed).integers(self._config.n_actions))
        else:
            with ordinary_modes(grad=False), without_validation():
                action = self._choose(inputs, seed)
        self._n_acted += 1
        return action

    def observe(self, context: ArrayLike, action: int, reward: float) -> None:
        """Store the reward of an action; learn after every `update_every` observations.

        The action need not be one that the agent chose. If this raises or is interrupted, the agent
        remains in its previous state.

        Parameters
        ----------
        context : array-like of shape (n_features,)
        action : int
        reward : float

        Raises
        ------
        TypeError, ValueError
            If an argument is not as described, or the reward is not in the likelihood's support.
        NonFiniteLossError
            If the loss is NaN or infinite while it learns.
        """
        config = self._config
        row = config.checked_context(context)
        action = as_count("action", action, least=0)
        if action >= config.n_actions:
            raise ValueError(
                f"`action` must be below n_actions={config.n_actions}, got {action}: actions are "
                "numbered from 0."
            )
        check_number("reward", reward)
        y = torch.tensor([reward / config.reward_scale], dtype=torch.float32)
        if not bool(y.isfinite()):
            raise ValueError(
                f"`reward` must be finite in units of reward_scale={config.reward_scale}, got "
                f"{reward}: choose a larger `reward_scale`."
            )
        x = config.inputs(row)[int(action)]
        if not self._is_real:
            self._check_support(x, y)
        is_due = (self.n_seen + 1) % config.update_every == 0
        with self._undo_on_error(is_due):
            self._replay.add(x, y)
            if is_due:
                self._update()

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the complete state of the agent into a folder, without pickle.

        An agent in the folder is replaced atomically. `Posterior.load` reads the posterior from the
        same folder.

        Parameters
        ----------
        path : path-like

        Raises
        ------
        TypeError
            If the prior or the likelihood is a custom callable: code is not stored.
        OSError
            If the folder cannot be written; it is then unchanged.
        """
        arguments = {**dataclasses.asdict(self._config), **self._extra_arguments()}
        stored = storage.StoredAgent(
            arguments, self._n_acted, self.n_seen, self._tensors(), self.posterior
        )
        storage.write(path, type(self).__name__, stored)

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> Self:
        """Read an agent from a folder.

        It continues bit for bit as the saved agent would have.

        Parameters
        ----------
        path : path-like

        Raises
        ------
        FileNotFoundError, ValueError
            If the folder does not exist, is damaged, or holds no agent of this class.
        """
        stored = storage.read(path, cls.__name__)
        with prefix_errors(f"`path` {os.fspath(path)!r} is damaged"):
            agent = cls._build(dict(stored.arguments), stored.posterior.network)
            agent._restore(stored)
        return agent

    @classmethod
    @abstractmethod
    def _build(cls, arguments: dict[str, Any], network: BayesianNetwork) -> Self:
        """Return an agent with stored arguments, and the prior and likelihood of a network."""

    @abstractmethod
    def _extra_arguments(self) -> dict[str, Any]:
        """Return the arguments that are neither in the configuration nor in the network."""

    @abstractmethod
    def _choose(self, inputs: Tensor, seed: int) -> int:
        """Choose an action with the fitted network."""

    @abstractmethod
    def _learn(self, steps: Steps, losses: np.ndarray, seed: int) -> None:
        """Take steps and write their losses into an array, as `Engine.run` does."""

    def _check_support(self, x: Tensor, y: Tensor) -> None:
        """Raise a ValueError if the reward is not in the likelihood's support."""
        try:
            self._network.prepare(x[None], y[None])
        except ValueError as error:
            raise ValueError(
                f"`reward` must be in the support of {self._network.likelihood}, got {y.item():g}: "
                f"{error}"
            ) from None

    def _update(self) -> None:
        config, n = self._config, self._config.n_steps
        number = self.n_seen // config.update_every
        steps = Steps(
            self._replay.x,
            self._replay.y,
            self._replay.batches(n, config.batch_size, config.seed_of(BATCHES, number)),
            n_rows=np.full(n, config.batch_size),
            n_data=self.n_data,
            kl_weight=np.full(n, self._kl_weight),
            step_weight=np.ones(n),
            lr=np.full(n, config.lr),
        )
        losses = np.full((n, 2, 1), np.nan)
        with (
            ordinary_modes(grad=True),
            global_state_locked(),
            limit_threads(self._guide.loc.numel()),
        ):
            self._learn(steps, losses, config.seed_of(LEARN, number))
        self._losses = losses

    @contextmanager
    def _undo_on_error(self, is_due: bool) -> Iterator[None]:
        """Restore the previous state if an observation fails or is interrupted."""
        n_seen, row = self.n_seen, self._replay.next_overwritten()
        losses, n_steps = self._losses, self._adam.n_steps
        before = [tensor.clone() for tensor in self._learned()] if is_due else []
        try:
            yield
        except BaseException:
            self._replay.undo_add(n_seen, row)
            if is_due:
                self._losses, self._adam.n_steps = losses, n_steps
                for tensor, value in zip(self._learned(), before, strict=True):
                    tensor.copy_(value)
            raise

    def _learned(self) -> list[Tensor]:
        return [*self._adam.tensors, *self._adam.first, *self._adam.second]

    def _tensors(self) -> dict[str, Tensor]:
        """Return the tensors to store with the posterior: replay buffer and moments of Adam."""
        n = len(self._replay)
        tensors = {"replay.x": self._replay.x[:n], "replay.y": self._replay.y[:n]}
        for name in ("first", "second"):
            moments = getattr(self._adam, name)
            tensors |= {f"adam.{name}.{i}": tensor for i, tensor in enumerate(moments)}
        return tensors

    def _restore(self, stored: storage.StoredAgent) -> None:
        load_chain(stored.posterior.chains[0], self._network, self._guide)
        self._n_acted, self._replay.n_seen = stored.n_acted, stored.n_seen
        copy_tensors(stored.tensors, self._tensors())
        self._adam.n_steps = self.n_seen // self._config.update_every * self._config.n_steps
        history = stored.posterior.history
        self._losses = np.stack([history.nll, history.kl], 1)[:, :, None]
