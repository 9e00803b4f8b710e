"""What bandit agents share: the loop's side, the memory, when to learn, files.

An agent belongs into a loop of the user's own: it chooses an action for a context (`act`) and is
told the reward (`observe`). All kinds have one network that takes the context and the action and
gives the expected reward, and learn it from a memory of the last observations.
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
import pyro
import torch
from torch import Tensor

from .._core.arrays import ArrayLike, check_count, check_number
from .._core.random_state import GLOBAL_STATE_LOCK
from ..engines.auto import limit_threads
from ..engines.base import Steps
from ..engines.optimizers import FlatAdam
from ..fitted import FitSettings, FittedChain, History
from ..model.guides import MeanFieldGuide
from ..model.network import BayesianNetwork
from ..posterior.posterior import Posterior
from ..storage.strict_json import prefix_errors
from ..training.warm_start import load_chain
from . import storage as bandit_storage
from .plan import ACT, BATCHES, LEARN, Plan
from .replay import Replay


class Agent(ABC):
    """What the agents share: the loop's side, the memory, when to learn, files.

    Parameters
    ----------
    plan : Plan
    network : BayesianNetwork
    guide : MeanFieldGuide
    optimizer : FlatAdam
        Over what is learnt, tensors of the network and the guide.
    """

    _kl_weight = 1.0
    _is_real = True  # whether rewards may be any numbers

    def __init__(
        self, plan: Plan, network: BayesianNetwork, guide: MeanFieldGuide, optimizer: FlatAdam
    ) -> None:
        self._plan, self._network, self._guide = plan, network, guide
        self._adam = optimizer
        self._replay = Replay(plan.replay_size, plan.n_inputs)
        self._n_acted = 0
        self._losses = np.empty((0, 2, 1))  # those of the last update

    def __repr__(self) -> str:
        return (
            f"{type(self).__name__}({self._plan.n_features} features, {self._plan.n_actions} "
            f"actions, {self.n_seen} observations)"
        )

    @property
    def n_seen(self) -> int:
        """How many rewards it has observed."""
        return self._replay.n_seen

    @property
    def n_data(self) -> int:
        """How many of them it remembers: the number of data in the ELBO."""
        return len(self._replay)

    @property
    def posterior(self) -> Posterior:
        """A snapshot of the posterior, which later observations do not change.

        Its x are rows as `inputs` gives them, its y are rewards divided by `reward_scale`, and its
        history is that of the last update.
        """
        plan, n = self._plan, len(self._losses)
        nll, kl = self._losses[:, :, 0].T
        rows = np.full(n, plan.batch_size)
        history = History(nll + kl, nll, kl, np.zeros(n, int), rows)
        settings = {
            "n_data": self.n_data,
            "n_seen": self.n_seen,
            "batch_size": plan.batch_size,
            "lr": float(plan.lr),
            "reward_scale": float(plan.reward_scale),
            "seed": plan.seed,
        }
        example = self._replay.x[:1].clone()
        network = copy.deepcopy(self._network).eval()
        guide = copy.deepcopy(self._guide)
        return Posterior(
            (FittedChain(network, guide, history, example, FitSettings.from_mapping(settings)),)
        )

    def inputs(self, context: ArrayLike) -> np.ndarray:
        """Give the rows that the network sees of a context, one for each action.

        Parameters
        ----------
        context : array-like of shape (n_features,)

        Returns
        -------
        ndarray of shape (n_actions, n_features + n_actions), float32
            The context, then the action as a column of its own.
        """
        return self._plan.inputs(self._plan.checked_context(context)).numpy()

    def act(self, context: ArrayLike) -> int:
        """Choose an action. Until the first update, each is as likely as the others.

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
            If the context is not of so many finite numbers.
        """
        inputs = self._plan.inputs(self._plan.checked_context(context))
        seed = self._plan.seed_of(ACT, self._n_acted)
        if self.n_seen < self._plan.update_every:
            action = int(np.random.default_rng(seed).integers(self._plan.n_actions))
        else:
            with torch.no_grad(), pyro.validation_enabled(False):
                action = self._choose(inputs, seed)
        self._n_acted += 1
        return action

    def observe(self, context: ArrayLike, action: int, reward: float) -> None:
        """Take up the reward of an action; after every `update_every` of them, learn.

        The action need not be the agent's own. If it raises, or is interrupted, the agent is as it
        was before.

        Parameters
        ----------
        context : array-like of shape (n_features,)
        action : int
        reward : float

        Raises
        ------
        TypeError, ValueError
            If an argument is not as described, or the likelihood knows no such reward.
        NonFiniteLossError
            If the loss is NaN or infinite while it learns.
        """
        plan = self._plan
        row = plan.checked_context(context)
        check_count("action", action, least=0)
        if action >= plan.n_actions:
            raise ValueError(
                f"`action` must be below n_actions={plan.n_actions}, got {action}: they are "
                "numbered from 0."
            )
        check_number("reward", reward)
        y = torch.tensor([reward / plan.reward_scale], dtype=torch.float32)
        if not bool(y.isfinite()):
            raise ValueError(
                f"`reward` {reward} is too large in units of reward_scale={plan.reward_scale}: "
                "give a larger `reward_scale`."
            )
        x = plan.inputs(row)[int(action)]
        if not self._is_real:
            self._check_support(x, y)
        is_due = (self.n_seen + 1) % plan.update_every == 0
        with self._all_or_nothing(is_due):
            self._replay.add(x, y)
            if is_due:
                self._update()

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the agent into a folder, without pickle: `load` goes on as if nothing had been.

        An agent that the folder holds already is replaced at one moment. The folder is also one of
        `Posterior.load`.

        Parameters
        ----------
        path : path-like

        Raises
        ------
        TypeError
            If prior or likelihood are callables of your own: code is not stored.
        OSError
            If the folder cannot be written; it is then as it was.
        """
        arguments = {**dataclasses.asdict(self._plan), **self._own_arguments()}
        stored = bandit_storage.Stored(
            arguments, self._n_acted, self.n_seen, self._tensors(), self.posterior
        )
        bandit_storage.write(path, type(self).__name__, stored)

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> Self:
        """Read an agent from a folder.

        What it does from here on is bit for bit what the one that was saved would have done.

        Parameters
        ----------
        path : path-like

        Raises
        ------
        FileNotFoundError, ValueError
            If the folder is not there, is damaged, or holds no agent of this class.
        """
        stored = bandit_storage.read(path, cls.__name__)
        with prefix_errors(f"`path` {os.fspath(path)!r} is damaged"):
            agent = cls._made(dict(stored.arguments), stored.posterior.network)
            agent._restore(stored)
        return agent

    @classmethod
    @abstractmethod
    def _made(cls, arguments: dict[str, Any], network: BayesianNetwork) -> Self:
        """Make an agent of stored arguments, with the prior and likelihood of a network."""

    @abstractmethod
    def _own_arguments(self) -> dict[str, Any]:
        """Give the arguments that are not in the plan, nor the network's."""

    @abstractmethod
    def _choose(self, inputs: Tensor, seed: int) -> int:
        """Choose an action by what has been learnt."""

    @abstractmethod
    def _learn(self, steps: Steps, losses: np.ndarray, seed: int) -> None:
        """Take steps, and write down the losses, as `Engine.run` does."""

    def _check_support(self, x: Tensor, y: Tensor) -> None:
        """Raise a ValueError if the likelihood knows no such reward."""
        try:
            self._network.prepare(x[None], y[None])
        except ValueError as error:
            raise ValueError(
                f"`reward` must be one that {self._network.likelihood} gives a probability, got "
                f"{y.item():g}: {error}"
            ) from None

    def _update(self) -> None:
        plan, n = self._plan, self._plan.n_steps
        number = self.n_seen // plan.update_every
        steps = Steps(
            self._replay.x,
            self._replay.y,
            self._replay.batches(n, plan.batch_size, self._plan.seed_of(BATCHES, number)),
            n_rows=np.full(n, plan.batch_size),
            n_data=self.n_data,
            kl_weight=np.full(n, self._kl_weight),
            step_weight=np.ones(n),
            lr=np.full(n, plan.lr),
        )
        losses = np.full((n, 2, 1), np.nan)
        with GLOBAL_STATE_LOCK, limit_threads(self._guide.loc.numel()):
            self._learn(steps, losses, self._plan.seed_of(LEARN, number))
        self._losses = losses

    @contextmanager
    def _all_or_nothing(self, is_due: bool) -> Iterator[None]:
        """Undo an observation that does not come to its end."""
        n_seen, row = self.n_seen, self._replay.next_to_go()
        losses, n_steps = self._losses, self._adam.n_steps
        before = [tensor.clone() for tensor in self._learnt()] if is_due else []
        try:
            yield
        except BaseException:
            self._replay.take_back(n_seen, row)
            if is_due:
                self._losses, self._adam.n_steps = losses, n_steps
                for tensor, value in zip(self._learnt(), before, strict=True):
                    tensor.copy_(value)
            raise

    def _learnt(self) -> list[Tensor]:
        return [*self._adam.tensors, *self._adam.first, *self._adam.second]

    def _tensors(self) -> dict[str, Tensor]:
        """Give what is stored beside the posterior: the memory, and Adam's moments."""
        n = len(self._replay)
        tensors = {"replay.x": self._replay.x[:n], "replay.y": self._replay.y[:n]}
        for name in ("first", "second"):
            moments = getattr(self._adam, name)
            tensors |= {f"adam.{name}.{i}": tensor for i, tensor in enumerate(moments)}
        return tensors

    def _restore(self, stored: bandit_storage.Stored) -> None:
        load_chain(stored.posterior.chains[0], self._network, self._guide)
        self._n_acted, self._replay.n_seen = stored.n_acted, stored.n_seen
        bandit_storage.fill(self._tensors(), stored.tensors)
        self._adam.n_steps = self.n_seen // self._plan.update_every * self._plan.n_steps
        history = stored.posterior.history
        self._losses = np.stack([history.nll, history.kl], 1)[:, :, None]
