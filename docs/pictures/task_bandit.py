"""
Thompson sampling
=================

Regret of Thompson sampling and of an epsilon-greedy agent, over 600 rounds of a bandit with two
actions.
"""

import matplotlib.pyplot as plt
import numpy as np

from pyrobbb.bandits import EpsilonGreedy, ThompsonSampler
from pyrobbb.likelihoods import Gaussian
from pyrobbb.priors import Normal

figure, ax = plt.subplots()
options = {"hidden": (20,), "update_every": 20, "n_steps": 40, "lr": 5e-3, "seed": 0}
bayes = ThompsonSampler(2, 2, prior=Normal(0.5), likelihood=Gaussian(0.3), **options)
for name, agent in (("Thompson", bayes), ("5 % greedy", EpsilonGreedy(2, 2, **options))):
    rng, regret = np.random.default_rng(0), []
    for context in rng.normal(size=(600, 2)):
        rewards = np.array([0.0, context[0] * context[1]])
        action = agent.act(context)
        agent.observe(context, action, rewards[action] + 0.3 * rng.normal())
        regret.append(rewards.max() - rewards[action])
    ax.plot(np.cumsum(regret), label=name)
ax.set(title="Cumulative regret", xlabel="round", ylabel="regret")
ax.legend()
