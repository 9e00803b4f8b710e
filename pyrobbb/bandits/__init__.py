"""Contextual bandits: Thompson sampling for loops of your own, and baselines beside it.

- `ThompsonSampler`, `EpsilonGreedy`: agents with ``act(context)``,
  ``observe(context, action, reward)``, `save` and `load`.
- `MushroomBandit`: the environment of Blundell et al. (2015), section 5.3.
- `run`: an agent in an environment, and its regret.
"""

from .epsilon_greedy import EpsilonGreedy
from .interaction import run
from .mushrooms import MushroomBandit
from .thompson import ThompsonSampler

__all__ = ["EpsilonGreedy", "MushroomBandit", "ThompsonSampler", "run"]
