"""Agents for contextual bandits: Thompson sampling, and epsilon-greedy to compare it with.

An agent belongs into a loop of the user's own: it chooses an action for a context (`act`) and is
told the reward (`observe`). Both kinds have one network that takes the context and the action and
gives the expected reward, and learn it alike from a memory of the last observations.
"""

from __future__ import annotations

import copy
import dataclasses
import os
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Literal, Self, get_args

import numpy as np
import pyro
import torch
from torch import Tensor

from . import bandit_storage, priors
from .architectures import Activation, mlp
from .auto_engine import few_threads
from .compiled_engine import CompiledEngine
from .data import ArrayLike, check_count, check_number, check_positive, to_numpy
from .engine import Engine, Steps, non_finite
from .fused import FastCall
from .fused_engine import Chain, FusedEngine
from .guides import MeanFieldGuide
from .history import History
from .likelihoods import (
    Bernoulli,
    Gaussian,
    HeteroscedasticGaussian,
    Likelihood,
    NegativeBinomial,
    Poisson,
    StudentT,
)
from .network import BayesianNetwork
from .optimizers import FlatAdam, flat_optimizer
from .posterior import Posterior
from .randomness import ONE_AT_A_TIME, as_seed, seeded
from .replay import Replay
from .strict_json import blaming
from .warm_start import take_up

EngineName = Literal["fused", "compiled"]
ACT, LEARN, BATCHES = range(3)
"""What a seed is for. Each action and each update has its own, made of the agent's seed and its
number: an agent that was saved needs no random state to go on as if it had not been."""


@dataclass(frozen=True)
class Plan:
    """What all agents are told: sizes, and how they learn."""

    n_features: int
    n_actions: int
    hidden: Sequence[int]
    activation: Activation
    replay_size: int
    batch_size: int
    update_every: int
    n_steps: int
    lr: float
    reward_scale: float
    seed: int

    def __post_init__(self) -> None:
        for name in ("n_features", "replay_size", "batch_size", "update_every", "n_steps"):
            check_count(name, getattr(self, name))
        check_count("n_actions", self.n_actions, least=2)
        check_positive("lr", self.lr)
        check_positive("reward_scale", self.reward_scale)

    @property
    def n_inputs(self) -> int:
        """What the network takes: the context, and one column for each action."""
        return self.n_features + self.n_actions


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
        self._hot = torch.eye(plan.n_actions)

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
        return Posterior(network, copy.deepcopy(self._guide), history, example, settings)

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
        return self._inputs(self._checked_context(context)).numpy()

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
        inputs = self._inputs(self._checked_context(context))
        seed = self._seed(ACT, self._n_acted)
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
        row = self._checked_context(context)
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
        x = torch.cat([row, self._hot[int(action)]])
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
        with blaming(f"`path` {os.fspath(path)!r} is damaged"):
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
            self._replay.batches(n, plan.batch_size, self._seed(BATCHES, number)),
            n_rows=np.full(n, plan.batch_size),
            n_data=self.n_data,
            kl_weight=np.full(n, self._kl_weight),
            step_weight=np.ones(n),
            lr=np.full(n, plan.lr),
        )
        losses = np.full((n, 2, 1), np.nan)
        with ONE_AT_A_TIME, few_threads(self._guide.loc.numel()):
            self._learn(steps, losses, self._seed(LEARN, number))
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
        take_up(stored.posterior, self._network, self._guide)
        self._n_acted, self._replay.n_seen = stored.n_acted, stored.n_seen
        bandit_storage.fill(self._tensors(), stored.tensors)
        self._adam.n_steps = self.n_seen // self._plan.update_every * self._plan.n_steps
        history = stored.posterior.history
        self._losses = np.stack([history.nll, history.kl], 1)[:, :, None]

    def _inputs(self, context: Tensor) -> Tensor:
        return torch.cat([context.expand(self._plan.n_actions, -1), self._hot], 1)

    def _checked_context(self, context: ArrayLike) -> Tensor:
        array = to_numpy(context)
        if array.dtype.kind not in "buif":
            raise TypeError(
                f"`context` must hold numbers, got {array.dtype}. Encode it: categories as one "
                "column each."
            )
        if array.shape != (self._plan.n_features,):
            raise ValueError(
                f"`context` must have the shape ({self._plan.n_features},), a number for each of "
                f"n_features={self._plan.n_features}, got {array.shape}."
            )
        with np.errstate(over="ignore"):
            row = torch.from_numpy(array.astype(np.float32))
        if not bool(row.isfinite().all()):
            i = int(torch.nonzero(~row.isfinite())[0])
            raise ValueError(
                f"`context` must be finite, got {array[i]} for feature {i}. Fill it in, or leave "
                "this step out."
            )
        return row

    def _seed(self, purpose: int, number: int) -> int:
        sequence = np.random.SeedSequence([self._plan.seed, purpose, number])
        return int(sequence.generate_state(1, np.uint64)[0] >> np.uint64(1))


class ThompsonSampler(Agent):
    """Thompson sampling with a Bayesian network, for any bandit of finitely many actions.

    To act, it draws the weights from their posterior, and takes the action that would be best if
    they were true: an action is tried as often as it may be the best. The posterior is fitted by
    Bayes by Backprop to the last `replay_size` observations, each update from where the last one
    ended, the optimiser's state included.

    Contexts are best of the order 1, as inputs of any network: standardised, or categories as one
    column each.

    Parameters
    ----------
    n_features : int
        Numbers in a context.
    n_actions : int
        At least 2; they are called 0 to n_actions - 1.
    hidden : sequence of int
        Units of the hidden layers. The network takes a context with one column more for each
        action, and gives the expected reward.
    activation : str
        See `pyrobbb.mlp`.
    prior : callable, optional
        See `pyrobbb.priors`. By default that of `BayesianNetwork`.
    likelihood : callable
        How a reward scatters about its expectation, in units of `reward_scale`; see
        `pyrobbb.likelihoods`. `Bernoulli` is for rewards of 0 and 1, `Poisson` for counts.
    n_draws : int
        Draws of the weights that are averaged to act. Thompson sampling proper is 1; with 2, as in
        the paper, it explores less.
    replay_size : int
        Observations that are remembered. They are the data of the ELBO.
    batch_size : int
        Observations a step, drawn with replacement.
    update_every : int
        Observations between two updates.
    n_steps : int
        Steps of Adam an update.
    lr : float
        Learning rate.
    reward_scale : float
        What rewards are divided by, before the network sees them, so that prior and likelihood can
        be of the order 1: about their standard deviation, or what is at stake in a choice. It is
        fixed, as the weights that have been learnt depend on it.
    kl_weight : float
        Factor on the KL divergence from the prior; 1 is the ELBO. Smaller ones explore less.
    init_scale : float, optional
        Standard deviation at which the posterior of each weight starts. None: that of
        `MeanFieldGuide`.
    engine : {"fused", "compiled"}
        How steps are taken; see `pyrobbb.fit`. ``"compiled"`` spends some seconds on its first
        update and pays from some ten thousand steps on; where there is no compiler it is
        ``"fused"``, with a warning.
    seed : int, optional
        Makes all it does repeatable. None: one is drawn.

    Raises
    ------
    TypeError, ValueError
        If an argument is not as described.

    References
    ----------
    Blundell et al. (2015), "Weight Uncertainty in Neural Networks", sections 4 and 5.3; Thompson
    (1933), "On the likelihood that one unknown probability exceeds another".

    Examples
    --------
    >>> agent = ThompsonSampler(n_features=4, n_actions=3, seed=0)
    >>> action = agent.act(context)
    >>> agent.observe(context, action, reward)
    """

    def __init__(
        self,
        n_features: int,
        n_actions: int,
        *,
        hidden: Sequence[int] = (100, 100),
        activation: Activation = "relu",
        prior: priors.Prior | None = None,
        likelihood: Likelihood = Gaussian(),  # noqa: B008  # it is frozen
        n_draws: int = 2,
        replay_size: int = 4096,
        batch_size: int = 64,
        update_every: int = 32,
        n_steps: int = 64,
        lr: float = 1e-3,
        reward_scale: float = 1.0,
        kl_weight: float = 1.0,
        init_scale: float | None = None,
        engine: EngineName = "fused",
        seed: int | None = None,
    ) -> None:
        plan = Plan(
            n_features,
            n_actions,
            hidden=hidden,
            activation=activation,
            replay_size=replay_size,
            batch_size=batch_size,
            update_every=update_every,
            n_steps=n_steps,
            lr=lr,
            reward_scale=reward_scale,
            seed=as_seed(seed),
        )
        check_count("n_draws", n_draws)
        check_positive("kl_weight", kl_weight)
        if engine not in get_args(EngineName):
            raise ValueError(
                f"`engine` must be one of {', '.join(get_args(EngineName))}, got {engine!r}."
            )
        self._n_draws, self._kl_weight = n_draws, float(kl_weight)
        self._init_scale, self._engine_name = init_scale, engine
        n_out = 2 if isinstance(likelihood, HeteroscedasticGaussian) else 1
        net = mlp(plan.n_inputs, hidden, n_out, activation, seed=plan.seed)
        network = BayesianNetwork(net, prior, likelihood)
        with seeded(plan.seed):  # a likelihood of the user's own may draw
            self._is_real = _check_likelihood(network, plan)
            guide = MeanFieldGuide(network, torch.zeros(1, plan.n_inputs), init_scale=init_scale)
        self._fused = FusedEngine(
            [Chain(network, guide, plan.seed)],
            closed_form_kl=True,
            estimator="reparam",
            n_particles=1,
            optimizer=torch.optim.Adam,
        )
        adam = self._fused.optimizer
        assert isinstance(adam, FlatAdam)
        super().__init__(plan, network, guide, adam)
        self._engine: Engine = self._fused
        if engine == "compiled":
            self._engine = CompiledEngine(self._fused, n_in_a_row=n_steps, ragged=False)

    @classmethod
    def _made(cls, arguments: dict[str, Any], network: BayesianNetwork) -> Self:
        return cls(**arguments, prior=network.prior, likelihood=network.likelihood)

    def _own_arguments(self) -> dict[str, Any]:
        return {
            "n_draws": self._n_draws,
            "kl_weight": self._kl_weight,
            "init_scale": self._init_scale,
            "engine": self._engine_name,
        }

    def _choose(self, inputs: Tensor, seed: int) -> int:
        loc, rho = self._fused.state[:2]
        generator = torch.Generator().manual_seed(seed)
        noise = torch.randn((self._n_draws, len(loc)), generator=generator)
        draws = self._fused.loss.draws(loc, rho, noise)
        output = self._network.output(draws, inputs)
        rewards = self._network.distribution(output, self._network.latents_of(draws)).mean
        return int(rewards.mean(0).argmax())

    def _learn(self, steps: Steps, losses: np.ndarray, seed: int) -> None:
        self._fused.reseed(seed)
        at_once = self._engine.at_once
        try:
            for first in range(0, len(steps), at_once):
                part = slice(first, first + at_once)
                self._engine.run(steps[part], losses[part])
        finally:
            self._engine.sync()


class EpsilonGreedy(Agent):
    """The action that seems best, but with probability epsilon any: to be compared with.

    The same network and memory as of `ThompsonSampler`, but the weights are points, fitted to the
    rewards by least squares.

    Parameters
    ----------
    n_features, n_actions, hidden, activation
        As for `ThompsonSampler`.
    epsilon : float
        Probability of an action drawn at random, in [0, 1]. 0: greedy.
    replay_size, batch_size, update_every, n_steps, lr, reward_scale, seed
        As for `ThompsonSampler`.

    Raises
    ------
    TypeError, ValueError
        If an argument is not as described.
    """

    def __init__(
        self,
        n_features: int,
        n_actions: int,
        *,
        epsilon: float = 0.05,
        hidden: Sequence[int] = (100, 100),
        activation: Activation = "relu",
        replay_size: int = 4096,
        batch_size: int = 64,
        update_every: int = 32,
        n_steps: int = 64,
        lr: float = 1e-3,
        reward_scale: float = 1.0,
        seed: int | None = None,
    ) -> None:
        plan = Plan(
            n_features,
            n_actions,
            hidden=hidden,
            activation=activation,
            replay_size=replay_size,
            batch_size=batch_size,
            update_every=update_every,
            n_steps=n_steps,
            lr=lr,
            reward_scale=reward_scale,
            seed=as_seed(seed),
        )
        check_number("epsilon", epsilon)
        if not 0 <= epsilon <= 1:
            raise ValueError(f"`epsilon` must be a probability, in [0, 1], got {epsilon}.")
        self._epsilon = float(epsilon)
        net = mlp(plan.n_inputs, hidden, 1, activation, seed=plan.seed)
        # Point masses are a posterior, too, if one without doubt.
        network = BayesianNetwork(net, priors.Normal(), Gaussian(scale=1.0))
        guide = MeanFieldGuide(network)
        with torch.no_grad():
            guide.rho.fill_(-torch.inf)
        adam = flat_optimizer([guide.loc.detach()], torch.optim.Adam)
        assert isinstance(adam, FlatAdam)
        super().__init__(plan, network, guide, adam)
        self._call = FastCall(net, guide.shapes)

    @classmethod
    def _made(cls, arguments: dict[str, Any], network: BayesianNetwork) -> Self:
        return cls(**arguments)

    def _own_arguments(self) -> dict[str, Any]:
        return {"epsilon": self._epsilon}

    def _choose(self, inputs: Tensor, seed: int) -> int:
        rng = np.random.default_rng(seed)
        if rng.random() < self._epsilon:
            return int(rng.integers(self._plan.n_actions))
        return int(self._expected(self._adam.tensors[0], inputs).argmax())

    def _learn(self, steps: Steps, losses: np.ndarray, seed: int) -> None:
        for i in range(len(steps)):
            x, y = steps.batch(i)
            weights = self._adam.tensors[0].detach().requires_grad_()
            nll = steps.data_weight[i] * 0.5 * (self._expected(weights, x) - y).square().sum()
            (slope,) = torch.autograd.grad(nll, weights)
            self._adam.step([slope], float(steps.lr[i]))
            losses[i] = [[nll.item()], [0.0]]
        if not np.isfinite(losses).all() or not bool(self._adam.tensors[0].isfinite().all()):
            raise non_finite(self._adam.n_steps, "the loss")

    def _expected(self, weights: Tensor, x: Tensor) -> Tensor:
        return self._call(self._guide.split(weights), x)


def _check_likelihood(network: BayesianNetwork, plan: Plan) -> bool:
    """Check that a likelihood is one of rewards; say whether these may be any real numbers."""
    likelihood, x = network.likelihood, torch.zeros(1, plan.n_inputs)
    if network.targets_like(x).shape != (1, 1):
        raise ValueError(
            f"`likelihood` must be one of a single number, the reward, got {likelihood}."
        )
    if isinstance(likelihood, Bernoulli | Poisson | NegativeBinomial) and plan.reward_scale != 1:
        raise ValueError(
            f"`reward_scale` must be 1 for {likelihood}, which knows no rewards but as they are, "
            f"got {plan.reward_scale}."
        )
    return isinstance(likelihood, Gaussian | HeteroscedasticGaussian | StudentT)
