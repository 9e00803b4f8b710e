"""ThompsonSampler: Thompson sampling by Bayes by Backprop."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal, Self, get_args

import numpy as np
import torch
from torch import Tensor

from .. import priors
from .._core.arrays import as_count, check_positive
from .._core.global_state import ordinary_modes
from .._core.messages import not_one_of
from .._core.random_state import as_seed, seeded
from ..engines.base import Engine, Steps
from ..engines.compiled import CompiledEngine
from ..engines.fused import Chain, FusedEngine
from ..engines.optimizers import FlatAdam
from ..likelihoods import (
    Bernoulli,
    Gaussian,
    HeteroscedasticGaussian,
    Likelihood,
    NegativeBinomial,
    Poisson,
    StudentT,
)
from ..model.guides import MeanFieldGuide
from ..model.mlp import Activation, mlp
from ..model.names import LIKELIHOODS, resolve
from ..model.network import BayesianNetwork
from .agent import Agent
from .config import AgentConfig

EngineName = Literal["fused", "compiled"]
DEFAULT_PRIOR, DEFAULT_LIKELIHOOD = priors.Normal(0.5), Gaussian(0.1)
"""Chosen on the mushroom bandit. With a learned noise scale, or with the narrow mixture prior that
is the default of a fit, epistemic uncertainty decreased too slowly: agents explored too long."""


class ThompsonSampler(Agent):
    """Thompson sampling with a Bayesian network, for any bandit of finitely many actions.

    To act, it draws the weights from their posterior and chooses the action that is best under
    them, so that each action is chosen with the probability that it is the best. The posterior is
    fitted by Bayes by Backprop to the last `replay_size` observations. Each update continues from
    the previous one, including the state of the optimizer.

    Contexts should be of order 1, like the inputs of any network: standardise numbers, and one-hot
    encode categories.

    Parameters
    ----------
    n_features : int
        Length of a context.
    n_actions : int
        At least 2; actions are numbered from 0.
    hidden : sequence of int
        Units of the hidden layers. The inputs of the network are a context and an indicator for
        each action; its output is the expected reward.
    activation : str
        See `pyrobbb.mlp`.
    prior : str or callable
        As for `BayesianNetwork`.
    likelihood : str or callable
        Distribution of a reward around its expectation, in units of `reward_scale`; see
        `pyrobbb.likelihoods`. `Bernoulli` is for rewards of 0 and 1, `Poisson` for counts.
    n_draws : int
        Draws of the weights whose expected rewards are averaged to act. 1 is Thompson sampling in
        the strict sense; 2, as in the paper, explores less.
    replay_size : int
        Size of the replay buffer: the last observations, which are the data of the ELBO.
    batch_size : int
        Observations per step, drawn with replacement.
    update_every : int
        Observations between two updates.
    n_steps : int
        Steps of Adam per update.
    lr : float
        Learning rate.
    reward_scale : float
        Divisor of the rewards, so that prior and likelihood can be of order 1: about the standard
        deviation of the rewards, or a typical difference between actions. It cannot be changed
        later, because the learned weights depend on it.
    kl_weight : float
        Factor on the KL divergence from the prior; 1 is the ELBO. Smaller values explore less.
    init_scale : float, optional
        Initial standard deviation of the posterior of each weight. None: as for
        `MeanFieldGuide`.
    engine : {"fused", "compiled"}
        How steps are taken; see `pyrobbb.fit`. ``"compiled"`` spends some seconds on its first
        update and is faster from about ten thousand steps on; without a C++ compiler, steps are
        taken by ``"fused"``, with a warning.
    seed : int, optional
        Makes the agent reproducible. None: drawn at random.

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

    @ordinary_modes(grad=True)
    def __init__(
        self,
        n_features: int,
        n_actions: int,
        *,
        hidden: Sequence[int] = (100, 100),
        activation: Activation = "relu",
        prior: str | priors.Prior = DEFAULT_PRIOR,
        likelihood: str | Likelihood = DEFAULT_LIKELIHOOD,
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
        config = AgentConfig(
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
        n_draws = as_count("n_draws", n_draws)
        check_positive("kl_weight", kl_weight)
        if engine not in get_args(EngineName):
            raise ValueError(not_one_of("engine", engine, get_args(EngineName)))
        self._n_draws, self._kl_weight = n_draws, float(kl_weight)
        self._init_scale, self._engine_name = init_scale, engine
        likelihood = resolve("likelihood", likelihood, LIKELIHOODS)
        n_out = 2 if isinstance(likelihood, HeteroscedasticGaussian) else 1
        net = mlp(config.n_inputs, hidden, n_out, activation, seed=config.seed)
        network = BayesianNetwork(net, prior, likelihood)
        with seeded(config.seed):  # a custom likelihood may draw random numbers
            self._is_real = _check_likelihood(network, config)
            guide = MeanFieldGuide(network, torch.zeros(1, config.n_inputs), init_scale=init_scale)
        self._fused = FusedEngine(
            [Chain(network, guide, config.seed)],
            closed_form_kl=True,
            estimator="reparam",
            n_particles=1,
            optimizer=torch.optim.Adam,
        )
        adam = self._fused.optimizer
        assert isinstance(adam, FlatAdam)
        super().__init__(config, network, guide, adam)
        self._engine: Engine = self._fused
        if engine == "compiled":
            self._engine = CompiledEngine(self._fused, batch_size=batch_size, ragged=False)

    @classmethod
    def _build(cls, arguments: dict[str, Any], network: BayesianNetwork) -> Self:
        return cls(**arguments, prior=network.prior, likelihood=network.likelihood)

    def _extra_arguments(self) -> dict[str, Any]:
        return {
            "n_draws": self._n_draws,
            "kl_weight": self._kl_weight,
            "init_scale": self._init_scale,
            "engine": self._engine_name,
        }

    def _choose(self, inputs: Tensor, seed: int) -> int:
        values = self._fused.state[:2]
        generator = torch.Generator().manual_seed(seed)
        noise = torch.randn((self._n_draws, len(values[0])), generator=generator)
        draws = self._fused.loss.draws(values, noise)
        output = self._network.output(draws, inputs)
        rewards = self._network.distribution(output, self._network.latents_of(draws)).mean
        return int(rewards.mean(0).argmax())

    def _learn(self, steps: Steps, losses: np.ndarray, seed: int) -> None:
        self._fused.reseed(seed)
        max_steps = self._engine.max_steps_per_call
        try:
            for first in range(0, len(steps), max_steps):
                part = slice(first, first + max_steps)
                self._engine.run(steps[part], losses[part])
        finally:
            self._engine.sync()


def _check_likelihood(network: BayesianNetwork, config: AgentConfig) -> bool:
    """Check that a likelihood suits rewards; return whether they may be any real numbers."""
    likelihood, x = network.likelihood, torch.zeros(1, config.n_inputs)
    if network.targets_like(x).shape != (1, 1):
        raise ValueError(
            f"`likelihood` must be a distribution of a single number, the reward, got {likelihood}."
        )
    if isinstance(likelihood, Bernoulli | Poisson | NegativeBinomial) and config.reward_scale != 1:
        raise ValueError(
            f"`reward_scale` must be 1 for {likelihood}, whose rewards cannot be rescaled, got "
            f"{config.reward_scale}."
        )
    return isinstance(likelihood, Gaussian | HeteroscedasticGaussian | StudentT)
