"""MushroomBandit: rewards, regrets and reproducibility."""

import math

import numpy as np
import pytest

from pyrobbb.bandits import MushroomBandit


def test_rewards_and_regrets_of_mushrooms_follow_their_definition():
    environment = MushroomBandit(np.eye(2), [1, 0], seed=0)
    context, info = environment.reset()
    assert info == {}
    harms = []
    for i in range(4000):
        is_edible, action = bool(context[0]), i % 2
        context, reward, terminated, truncated, info = environment.step(action)
        best = 5.0 if is_edible else 0.0
        assert (terminated, truncated) == (False, False)
        assert info == {"regret": best - reward, "is_edible": is_edible}
        if action == 0:
            assert reward == 0.0
        elif is_edible:
            assert reward == 5.0
        else:
            assert reward in (5.0, -35.0)
            harms.append(reward < 0)
    assert abs(np.mean(harms) - 0.5) < 4 * 0.5 / math.sqrt(len(harms))


def test_a_seed_determines_the_mushrooms_whatever_the_actions():
    environment = MushroomBandit(np.eye(7), np.arange(7) % 2, seed=3)
    walks = []
    for action in (0, 1, 1):
        first, _ = environment.reset(seed=5)
        walks.append([first, *(environment.step(action)[0] for _ in range(50))])
    for walk in walks[1:]:
        np.testing.assert_array_equal(walks[0], walk)
    assert np.ptp(np.argmax(walks[0], 1)) > 3


def test_invalid_arguments_of_the_mushroom_bandit_are_named_in_the_error():
    with pytest.raises(RuntimeError, match=r"call reset\(\) before step\(\)"):
        MushroomBandit(np.eye(2), [0, 1]).step(0)
    environment = MushroomBandit(np.eye(2), [0, 1])
    environment.reset()
    with pytest.raises(ValueError, match=r"`action` must be 0 \(leave it\) or 1 \(eat it\), got 2"):
        environment.step(2)
    with pytest.raises(ValueError, match=r"0 or 1 for each of the 2 rows .* got shape \(3,\)"):
        MushroomBandit(np.eye(2), [0, 1, 1])
    with pytest.raises(ValueError, match=r"`is_edible` must hold 0 or 1 .* the value 2"):
        MushroomBandit(np.eye(2), [0, 2])
    with pytest.raises(ValueError, match=r"`contexts` must have a row .* got shape \(2,\)"):
        MushroomBandit([0.0, 1.0], [0, 1])
