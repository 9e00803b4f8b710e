"""Bandits: Thompson sampling for loops of one's own, and what to compare it with.

- `ThompsonSampler`, `EpsilonGreedy`: agents, which ``act(context)`` and
  ``observe(context, action, reward)``, `save` and `load`.
- `MushroomBandit`: the environment of Blundell et al. (2015), section 5.3.
- `run`: an agent in an environment, and its regret.
"""

from __future__ import annotations

from typing import Any, Protocol

import numpy as np
from tqdm.auto import tqdm

from .._core.arrays import ArrayLike, check_count
from .epsilon_greedy import EpsilonGreedy
from .mushrooms import MushroomBandit
from .thompson import ThompsonSampler

__all__ = ["EpsilonGreedy", "MushroomBandit", "ThompsonSampler", "run"]


class Acts(Protocol):
    """What `run` needs of an agent."""

    def act(self, context: ArrayLike) -> int:
        """Choose an action."""
        ...

    def observe(self, context: ArrayLike, action: int, reward: float) -> None:
        """Take up the reward."""
        ...


class Environment(Protocol):
    """What `run` needs of an environment: gymnasium's interface, and a regret."""

    def reset(self) -> tuple[Any, dict[str, Any]]:
        """Give the first context."""
        ...

    def step(self, action: int) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        """Give the next context and the reward; the regret is in ``info["regret"]``."""
        ...


def run(
    agent: Acts, environment: Environment, n_steps: int, *, progress: bool = False
) -> np.ndarray:
    """Let an agent act in an environment, and learn.

    Parameters
    ----------
    agent : ThompsonSampler, EpsilonGreedy, or anything that acts and observes
        It is changed.
    environment : MushroomBandit, or one alike
    n_steps : int
        Interactions.
    progress : bool
        Show a progress bar.

    Returns
    -------
    ndarray of shape (n_steps,)
        Regret up to and with each interaction, in the units of the rewards.
    """
    check_count("n_steps", n_steps)
    regret = np.empty(n_steps)
    context, _ = environment.reset()
    for i in tqdm(range(n_steps), unit="step", disable=not progress):
        action = agent.act(context)
        following, reward, terminated, truncated, info = environment.step(action)
        agent.observe(context, action, reward)
        regret[i] = info["regret"]
        context = environment.reset()[0] if terminated or truncated else following
    return regret.cumsum()
