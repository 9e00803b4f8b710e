"""EpsilonGreedy against least squares."""

import math

import numpy as np
import pytest
from bandit_agents import advance, context_at, small

from pyrobbb import MeanFieldGuide
from pyrobbb.bandits import EpsilonGreedy


def test_epsilon_greedy_fits_by_least_squares():
    agent = EpsilonGreedy(
        2, 2, epsilon=0.0, hidden=(), update_every=50, n_steps=4000, lr=5e-3, seed=0
    )
    rng = np.random.default_rng(0)
    rows, rewards = [], []
    for i in range(50):
        context = rng.normal(size=2)
        rewards.append(context @ [1.0, -2.0] + 0.5 * (i % 2) + 0.1 * rng.normal())
        rows.append([*agent.inputs(context)[i % 2], 1.0])
        agent.observe(context, i % 2, rewards[-1])
    fitted = np.array(rows) @ np.linalg.lstsq(np.array(rows), np.array(rewards))[0]
    x = np.array(rows)[:, :4].astype(np.float32)
    prediction = agent.posterior.predict(x, n_draws=3, seed=0)
    np.testing.assert_allclose(prediction.mean[:, 0], fitted, atol=0.03)
    np.testing.assert_allclose(prediction.epistemic_sd, 0.0, atol=1e-6)
    context = np.array([0.3, 0.2])
    assert agent.act(context) == 1  # its reward is higher by 0.5


@pytest.mark.parametrize("epsilon", [0.0, 0.3, 1.0])
def test_epsilon_greedy_explores_with_probability_epsilon(epsilon):
    agent = small(EpsilonGreedy, 2, epsilon=epsilon)
    advance(agent, 8)
    n = 2000
    shares = np.bincount([agent.act(context_at(0)) for _ in range(n)], minlength=2) / n
    assert abs(shares.min() - epsilon / 2) <= 4 * math.sqrt(epsilon / 2 / n)


def test_an_invalid_epsilon_is_named_in_the_error():
    with pytest.raises(ValueError, match=r"`epsilon` must be a probability, in \[0, 1\], got 1.5"):
        small(EpsilonGreedy, epsilon=1.5)


def test_the_guide_of_epsilon_greedy_consists_of_point_estimates():
    agent = small(EpsilonGreedy)
    guide = agent.posterior.guide
    assert isinstance(guide, MeanFieldGuide)
    assert guide.has_points
