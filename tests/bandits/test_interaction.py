"""run: the interaction of an agent with an environment."""

import numpy as np
import pytest
from bandit_agents import N_FEATURES

from pyrobbb import bandits


def test_run_accumulates_the_regret_and_resets_at_the_end_of_an_episode():
    class Coin:
        """Action 1 costs 2; an episode ends after three steps."""

        n_resets = n_steps = 0

        def reset(self):
            self.n_resets += 1
            return np.zeros(N_FEATURES), {}

        def step(self, action):
            self.n_steps += 1
            info = {"regret": 2.0 * action}
            return np.zeros(N_FEATURES), -2.0 * action, self.n_steps % 3 == 0, False, info

    class Always:
        seen = 0

        def act(self, context):
            return 1

        def observe(self, context, action, reward):
            self.seen += 1
            assert (action, reward) == (1, -2.0)

    environment, agent = Coin(), Always()
    np.testing.assert_array_equal(bandits.run(agent, environment, 7), 2.0 * np.arange(1, 8))
    assert (environment.n_resets, agent.seen) == (3, 7)
    with pytest.raises(ValueError, match="`n_steps` must be at least 1"):
        bandits.run(agent, environment, 0)


class Still:
    """An environment without a regret."""

    def reset(self):
        return np.zeros(N_FEATURES), {}

    def step(self, action):
        return np.zeros(N_FEATURES), 0.0, False, False, {}


@pytest.mark.parametrize(
    ("agent", "environment", "message"),
    [
        (None, Still(), "`agent` must be an object with the methods act and observe, got NoneType"),
        (Still(), Still(), "`agent` must be an object with the methods act and observe, got Still"),
        (bandits.ThompsonSampler, Still(), "got the class ThompsonSampler"),
        (bandits.EpsilonGreedy(N_FEATURES, 2), None, "`environment` must be an object with the m"),
    ],
)
def test_run_names_what_is_no_agent_or_no_environment(agent, environment, message):
    with pytest.raises(TypeError, match=message):
        bandits.run(agent, environment, 3)


def test_run_names_an_environment_without_a_regret():
    agent = bandits.EpsilonGreedy(N_FEATURES, 2, seed=0)
    with pytest.raises(ValueError, match=r"`environment` must return the regret .*, got the keys"):
        bandits.run(agent, Still(), 3)
    assert agent.n_seen == 0
