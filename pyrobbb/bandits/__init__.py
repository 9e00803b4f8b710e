"""Contextual bandits: Thompson sampling in custom loops, and a baseline to compare it with.

- `ThompsonSampler`, `EpsilonGreedy`: agents with ``act(context)``,
  ``observe(context, action, reward)``, `save` and `load`.
- `MushroomBandit`: the environment of Blundell et al. (2015), section 5.3.
- `run`: runs an agent in an environment, and returns its regret.
"""

from .epsilon_greedy import EpsilonGreedy
from .interaction import run
from .mushrooms import MushroomBandit
from .thompson import ThompsonSampler

__all__ = ["EpsilonGreedy", "MushroomBandit", "ThompsonSampler", "run"]
