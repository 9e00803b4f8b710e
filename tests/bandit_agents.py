"""Small bandit agents and a deterministic environment, shared by the tests of the bandits."""

import numpy as np

from pyrobbb.bandits import EpsilonGreedy, ThompsonSampler

SMALL = {"hidden": (8,), "replay_size": 40, "batch_size": 16, "update_every": 8, "n_steps": 5}

KINDS = [ThompsonSampler, EpsilonGreedy]

N_FEATURES = 3


def small(kind=ThompsonSampler, n_actions=3, **options):
    return kind(N_FEATURES, n_actions, **{**SMALL, "seed": 0, **options})


def context_at(i):
    return np.sin(np.arange(1, N_FEATURES + 1) * (i + 1)).astype(np.float32)


def reward_at(i, action):
    return float(np.cos(i + 2.0 * action))


def advance(agent, n, start=0):
    """Run an agent for `n` steps in the deterministic environment; return its actions."""
    actions = []
    for i in range(start, start + n):
        actions.append(agent.act(context_at(i)))
        agent.observe(context_at(i), actions[-1], reward_at(i, actions[-1]))
    return actions


def state_of(agent):
    """Return the complete state of an agent, as bytes to compare."""
    posterior = agent.posterior
    tensors = [*agent._tensors().values(), *agent._learned(), *posterior.network.parameters()]
    return (
        agent.n_seen,
        agent._n_acted,
        agent._adam.n_steps,
        posterior.history.nelbo.tobytes(),
        *(tensor.detach().numpy().tobytes() for tensor in tensors),
    )
