"""EpsilonGreedy: a baseline for Thompson sampling."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Self

import numpy as np
import torch
from torch import Tensor

from .. import priors
from .._core.arrays import check_number
from .._core.global_state import ordinary_modes
from .._core.random_state import as_seed
from ..engines.base import Steps, non_finite_loss_error
from ..engines.optimizers import FlatAdam, flat_optimizer
from ..likelihoods import Gaussian
from ..model.functional import FunctionalCall
from ..model.guides import MeanFieldGuide
from ..model.mlp import Activation, mlp
from ..model.network import BayesianNetwork
from .agent import Agent
from .config import AgentConfig


class EpsilonGreedy(Agent):
    """Epsilon-greedy agent: the action with the highest expected reward, or a random one.

    The network and the replay buffer are those of `ThompsonSampler`, but the weights are point
    estimates, fitted to the rewards by least squares.

    Parameters
    ----------
    n_features, n_actions, hidden, activation
        As for `ThompsonSampler`.
    epsilon : float
        Probability of an action drawn uniformly at random, in [0, 1]. 0: greedy.
    replay_size, batch_size, update_every, n_steps, lr, reward_scale, seed
        As for `ThompsonSampler`.

    Raises
    ------
    TypeError, ValueError
        If an argument is not as described.
    """

    @ordinary_modes(grad=True)
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
        check_number("epsilon", epsilon)
        if not 0 <= epsilon <= 1:
            raise ValueError(f"`epsilon` must be a probability, in [0, 1], got {epsilon}.")
        self._epsilon = float(epsilon)
        net = mlp(config.n_inputs, hidden, 1, activation, seed=config.seed)
        # Point masses as a guide: a posterior without epistemic uncertainty.
        network = BayesianNetwork(net, priors.Normal(), Gaussian(scale=1.0))
        guide = MeanFieldGuide(network)
        with torch.no_grad():
            guide.rho.fill_(-torch.inf)
        adam = flat_optimizer([guide.loc.detach()], torch.optim.Adam)
        assert isinstance(adam, FlatAdam)
        super().__init__(config, network, guide, adam)
        self._call = FunctionalCall(net, guide.shapes)

    @classmethod
    def _build(cls, arguments: dict[str, Any], network: BayesianNetwork) -> Self:
        return cls(**arguments)

    def _extra_arguments(self) -> dict[str, Any]:
        return {"epsilon": self._epsilon}

    def _choose(self, inputs: Tensor, seed: int) -> int:
        rng = np.random.default_rng(seed)
        if rng.random() < self._epsilon:
            return int(rng.integers(self._config.n_actions))
        return int(self._expected_rewards(self._adam.tensors[0], inputs).argmax())

    def _learn(self, steps: Steps, losses: np.ndarray, seed: int) -> None:
        for i in range(len(steps)):
            x, y = steps.batch(i)
            weights = self._adam.tensors[0].detach().requires_grad_()
            error = self._expected_rewards(weights, x) - y
            nll = steps.data_weight[i] * 0.5 * error.square().sum()
            (gradient,) = torch.autograd.grad(nll, weights)
            self._adam.step([gradient], float(steps.lr[i]))
            losses[i] = [[nll.item()], [0.0]]
        if not np.isfinite(losses).all() or not bool(self._adam.tensors[0].isfinite().all()):
            raise non_finite_loss_error(self._adam.n_steps, "the loss")

    def _expected_rewards(self, weights: Tensor, x: Tensor) -> Tensor:
        return self._call(self._guide.split(weights), x)
