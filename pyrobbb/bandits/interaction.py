"""The interaction of an agent with an environment, and its regret."""

from __future__ import annotations

from typing import Any, Protocol

import numpy as np
from tqdm.auto import tqdm

from .._core.arrays import ArrayLike, as_count


class ActingAgent(Protocol):
    """Interface that `run` requires of an agent."""

    def act(self, context: ArrayLike) -> int:
        """Choose an action."""
        ...

    def observe(self, context: ArrayLike, action: int, reward: float) -> None:
        """Learn from the reward of an action."""
        ...


class Environment(Protocol):
    """Interface that `run` requires of an environment: that of gymnasium, with a regret."""

    def reset(self) -> tuple[Any, dict[str, Any]]:
        """Return the first context."""
        ...

    def step(self, action: int) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        """Return the next context and the reward, with the regret as ``info["regret"]``."""
        ...


def run(
    agent: ActingAgent, environment: Environment, n_steps: int, *, progress: bool = False
) -> np.ndarray:
    """Run an agent in an environment, and return its cumulative regret.

    Parameters
    ----------
    agent : ThompsonSampler, EpsilonGreedy, or any object with `act` and `observe`
        Changed in place.
    environment : MushroomBandit, or any object with `reset` and `step`
        The last of the five results of `step` is a dict that has the ``"regret"`` of the step.
    n_steps : int
        Number of interactions.
    progress : bool
        Show a progress bar.

    Returns
    -------
    ndarray of shape (n_steps,)
        Cumulative regret after each interaction, in the units of the rewards.
    """
    n_steps = as_count("n_steps", n_steps)
    _check_interface("agent", agent, ("act", "observe"))
    _check_interface("environment", environment, ("reset", "step"))
    regret = np.empty(n_steps)
    context, _ = environment.reset()
    for i in tqdm(range(n_steps), unit="step", disable=not progress):
        action = agent.act(context)
        following, reward, terminated, truncated, info = environment.step(action)
        if "regret" not in info:
            raise ValueError(
                "`environment` must return the regret of each step as info['regret'], got the keys "
                f"{list(info)}."
            )
        agent.observe(context, action, reward)
        regret[i] = info["regret"]
        context = environment.reset()[0] if terminated or truncated else following
    return regret.cumsum()


def _check_interface(argument: str, value: Any, methods: tuple[str, ...]) -> None:
    """Raise a TypeError unless an argument is an object with these methods."""
    missing = [name for name in methods if not callable(getattr(value, name, None))]
    if missing or isinstance(value, type):
        raise TypeError(
            f"`{argument}` must be an object with the methods {' and '.join(methods)}, got "
            f"{'the class ' + value.__name__ if isinstance(value, type) else type(value).__name__}."
        )
