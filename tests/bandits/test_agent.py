"""All bandit agents: the replay buffer, seeds, and a consistent state after errors."""

import math

import numpy as np
import pytest
import torch
from bandit_agents import KINDS, advance, context_at, reward_at, small, state_of

from pyrobbb.engines.fused import FusedEngine


def test_until_the_first_update_actions_are_equally_likely():
    n = 3000
    agent = small()
    shares = np.bincount([agent.act(context_at(0)) for _ in range(n)], minlength=3) / n
    assert np.abs(shares - 1 / 3).max() < 4 * math.sqrt(2 / 9 / n)


def test_the_replay_buffer_keeps_the_last_observations():
    agent = small(replay_size=4, update_every=100)
    for i in range(6):
        agent.observe(context_at(i), i % 3, float(i))
    tensors = agent._tensors()
    assert sorted(tensors["replay.y"][:, 0].tolist()) == [2.0, 3.0, 4.0, 5.0]
    row = tensors["replay.x"][tensors["replay.y"][:, 0] == 5.0][0]
    np.testing.assert_array_equal(row, [*context_at(5), 0.0, 0.0, 1.0])
    assert (agent.n_data, agent.n_seen) == (4, 6)


def test_the_data_of_the_elbo_are_those_in_the_replay_buffer(monkeypatch):
    seen = []
    original = FusedEngine.run

    def spy(self, steps, losses):
        seen.append((steps.n_data, int(steps.rows.max()), steps.rows.shape, steps.x.shape))
        original(self, steps, losses)

    monkeypatch.setattr(FusedEngine, "run", spy)
    agent = small()
    advance(agent, 60)
    assert [n for n, *_ in seen] == [8, 16, 24, 32, 40, 40, 40]
    assert all(highest < n for n, highest, *_ in seen)
    assert {(tuple(rows), tuple(x)) for _, _, rows, x in seen} == {((5, 16), (40, 6))}
    assert agent.posterior.settings["n_data"] == 40


def test_rewards_are_learned_in_units_of_their_scale():
    ones, tens = small(), small(reward_scale=10.0)
    for i in range(8):
        ones.observe(context_at(i), i % 3, reward_at(i, 0))
        tens.observe(context_at(i), i % 3, 10 * reward_at(i, 0))
    torch.testing.assert_close(ones.posterior.guide.loc, tens.posterior.guide.loc)


@pytest.mark.parametrize("kind", KINDS)
def test_a_seed_makes_an_agent_reproducible(kind):
    first, again, other = small(kind), small(kind), small(kind, seed=1)
    actions = advance(first, 50)
    assert advance(again, 50) == actions
    assert state_of(again) == state_of(first)
    others = advance(other, 50)
    assert others[:8] != actions[:8]  # before the first update
    assert others[8:] != actions[8:]


@pytest.mark.parametrize("kind", KINDS)
def test_agents_affect_neither_each_other_nor_the_global_random_state(kind):
    alone = advance(small(kind), 50)
    torch.manual_seed(7)
    np.random.seed(7)  # noqa: NPY002  # the global state must not change
    states = torch.get_rng_state(), np.random.get_state()[1].copy()  # noqa: NPY002
    one, two = small(kind), small(kind, seed=1)
    together = []
    for i in range(50):
        together += advance(one, 1, i)
        advance(two, 1, i)
    assert together == alone
    assert torch.equal(torch.get_rng_state(), states[0])
    np.testing.assert_array_equal(np.random.get_state()[1], states[1])  # noqa: NPY002


def test_later_observations_do_not_change_a_snapshot_of_the_posterior():
    agent = small()
    advance(agent, 8)
    posterior = agent.posterior
    before = posterior.guide.loc.clone()
    advance(agent, 8, 8)
    assert torch.equal(posterior.guide.loc, before)
    assert not torch.equal(agent.posterior.guide.loc, before)
    assert len(posterior.history.nelbo) == 5
    prediction = posterior.predict(agent.inputs(context_at(0)), n_draws=4, seed=0)
    assert prediction.mean.shape == (3, 1)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ((np.zeros(2), 0, 1.0), ValueError, r"`context` must have the shape \(3,\).*got \(2,\)"),
        ((np.zeros((1, 3)), 0, 1.0), ValueError, r"n_features=3, got \(1, 3\)"),
        (([0.0, math.nan, 0.0], 0, 1.0), ValueError, "`context` must be finite, got nan for .* 1"),
        (([0.0, 0.0, 1e60], 0, 1.0), ValueError, "`context` must be finite, got 1e.60 for .* 2"),
        ((["a", "b", "c"], 0, 1.0), TypeError, "`context` must hold numbers, got <U1. Encode"),
        ((np.ma.masked_equal([0.0, 1, 2], 1), 0, 1.0), ValueError, "`context` must not be masked"),
        (([[0.0], [1.0, 2.0]], 0, 1.0), ValueError, "`context` must have the shape .* got ragged"),
        ((np.zeros(3), 3, 1.0), ValueError, "`action` must be below n_actions=3, got 3"),
        ((np.zeros(3), -1, 1.0), ValueError, "`action` must be at least 0, got -1"),
        ((np.zeros(3), 1.5, 1.0), TypeError, "`action` must be a whole number, got 1.5"),
        ((np.zeros(3), 0, math.inf), ValueError, "`reward` must be finite, got inf"),
        ((np.zeros(3), 0, "5"), TypeError, "`reward` must be a number, got '5'"),
        ((np.zeros(3), 0, 1e60), ValueError, r"`reward` .* reward_scale=1.0, got 1e\+60: choose"),
    ],
)
def test_an_invalid_observation_is_rejected_and_leaves_the_agent_unchanged(
    kind, arguments, error, message
):
    agent = small(kind)
    advance(agent, 15)  # the next one triggers an update
    before = state_of(agent)
    with pytest.raises(error, match=message):
        agent.observe(*arguments)
    assert state_of(agent) == before
    if "context" in message or "n_features" in message:
        with pytest.raises(error, match=message):
            agent.act(arguments[0])
        assert state_of(agent) == before


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("error", [KeyboardInterrupt, ValueError])
def test_an_interrupted_update_leaves_the_agent_unchanged(kind, error, monkeypatch):
    agent, uninterrupted = small(kind), small(kind)
    for each in (agent, uninterrupted):
        advance(each, 47)  # the buffer is full, so that a row would be overwritten
    before = state_of(agent)
    learn = agent._learn

    def broken(steps, losses, seed):
        learn(steps[:3], losses[:3], seed)
        raise error

    monkeypatch.setattr(agent, "_learn", broken)
    with pytest.raises(error):
        agent.observe(context_at(47), 0, 1.0)
    assert state_of(agent) == before
    monkeypatch.undo()
    assert advance(agent, 30, 47) == advance(uninterrupted, 30, 47)
    assert state_of(agent) == state_of(uninterrupted)
