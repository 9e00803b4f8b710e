"""ThompsonSampler against closed forms and exact probabilities."""

import math
import shutil

import numpy as np
import pytest
import torch
from bandit_agents import advance, context_at, reward_at, small, state_of
from pyro.distributions import Normal

from pyrobbb import priors
from pyrobbb.bandits import EpsilonGreedy, ThompsonSampler
from pyrobbb.engines import compiled as compiled_engine
from pyrobbb.likelihoods import Bernoulli, Categorical, Gaussian, HeteroscedasticGaussian, Poisson

NOISE = 0.5

ARMS = [np.linspace(-0.5, 0.9, 12), np.linspace(-0.6, 1.2, 6)]
"""Rewards of two arms; the context is constant."""


@pytest.fixture(scope="module")
def two_armed_agent():
    """Return a linear agent with known noise, for which VI is exact: the posterior factorises."""
    n = sum(map(len, ARMS))
    agent = ThompsonSampler(
        1,
        2,
        hidden=(),
        prior=priors.ByName({"*.bias": priors.Normal(1e-3)}, priors.Normal(1.0)),
        likelihood=Gaussian(NOISE),
        n_draws=1,
        batch_size=128,
        update_every=n,
        n_steps=6000,
        lr=1e-3,
        seed=0,
    )
    for arm, rewards in enumerate(ARMS):
        for reward in rewards:
            agent.observe(np.zeros(1), arm, reward)
    return agent


def exact_arms():
    precision = np.array([len(r) / NOISE**2 + 1 for r in ARMS])
    return np.array([r.sum() / NOISE**2 for r in ARMS]) / precision, precision**-0.5


def test_the_posterior_of_linear_rewards_is_the_closed_form(two_armed_agent):
    guide = two_armed_agent.posterior.guide
    loc, scale = (guide.split(v.detach())["0.weight"][0, 1:] for v in (guide.loc, guide.scale))
    mean, sd = exact_arms()
    np.testing.assert_allclose(scale, sd, rtol=0.05)
    assert (np.abs(loc.numpy() - mean) < 0.1 * sd).all()


@pytest.mark.parametrize("n_draws", [1, 2])
def test_an_arm_is_chosen_with_the_probability_of_being_best(two_armed_agent, n_draws, monkeypatch):
    """A mean of two draws has half the variance."""
    monkeypatch.setattr(two_armed_agent, "_n_draws", n_draws)
    mean, sd = exact_arms()
    gap = (mean[1] - mean[0]) / math.sqrt((sd**2).sum() / n_draws)
    exact = float(Normal(0.0, 1.0).cdf(torch.tensor(gap)))
    n = 3000
    share = np.mean([two_armed_agent.act(np.zeros(1)) for _ in range(n)])
    tolerance = 0.02  # of the fit
    assert abs(share - exact) < 4 * math.sqrt(exact * (1 - exact) / n) + tolerance
    assert 0.55 < exact < 0.85  # otherwise the test would be trivial


def test_rewards_of_zero_and_one_are_learned_by_a_bernoulli_likelihood():
    options = {"hidden": (), "prior": priors.Normal(2.0), "replay_size": 64, "update_every": 64}
    agent = small(n_actions=2, likelihood=Bernoulli(), n_steps=500, lr=0.02, **options)
    for i in range(64):
        agent.observe(np.zeros(3), i % 2, float(i % 2 and i % 8 != 1))
    assert np.mean([agent.act(np.zeros(3)) for _ in range(100)]) > 0.9
    with pytest.raises(ValueError, match=r"`reward` must be in the support of Bernoulli.* 0.5"):
        agent.observe(np.zeros(3), 0, 0.5)
    assert agent.n_seen == 64


def test_a_likelihood_that_predicts_its_scale_has_two_outputs():
    agent = small(likelihood=HeteroscedasticGaussian())
    advance(agent, 9)
    assert agent.posterior.network.net[-1].out_features == 2


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"n_actions": 1}, ValueError, "`n_actions` must be at least 2, got 1"),
        ({"replay_size": 0}, ValueError, "`replay_size` must be at least 1, got 0"),
        ({"update_every": 1.5}, TypeError, "`update_every` must be a whole number, got 1.5"),
        ({"lr": -1.0}, ValueError, "`lr` must be positive"),
        ({"reward_scale": 0}, ValueError, "`reward_scale` must be positive"),
        ({"n_draws": 0}, ValueError, "`n_draws` must be at least 1"),
        ({"engine": "svi"}, ValueError, "`engine` must be one of fused, compiled, got 'svi'"),
        (
            {"likelihood": Categorical()},
            ValueError,
            "`likelihood` must be a distribution of a single number",
        ),
        (
            {"likelihood": Poisson(), "reward_scale": 2.0},
            ValueError,
            r"`reward_scale` must be 1 for Poisson\(\)",
        ),
        ({"hidden": None}, TypeError, "`hidden` must be a sequence"),
    ],
)
def test_an_invalid_argument_is_named_in_the_error(options, error, message):
    with pytest.raises(error, match=message):
        small(**options)
    if options.keys() <= {"n_actions", "replay_size", "update_every", "lr", "reward_scale"}:
        with pytest.raises(error, match=message):
            small(EpsilonGreedy, **options)


def test_compiled_steps_agree_with_fused_ones_and_are_compiled_once(tmp_path, monkeypatch):
    if not any(map(shutil.which, ("c++", "g++", "clang++"))):
        pytest.skip("There is no compiler.")
    options = {"hidden": (4,), "n_steps": 6, "replay_size": 20}
    fused, compiled = small(**options), small(**options, engine="compiled")
    calls = []
    original = compiled_engine.compile_loop
    monkeypatch.setattr(
        compiled_engine, "compile_loop", lambda *args: calls.append(1) or original(*args)
    )
    for i in range(32):
        for each in (fused, compiled):
            each.observe(context_at(i), i % 3, reward_at(i, i % 3))
    torch.testing.assert_close(
        fused.posterior.guide.loc, compiled.posterior.guide.loc, rtol=1e-3, atol=1e-4
    )
    assert len(calls) == 1  # whatever the contents of the replay buffer
    compiled.save(tmp_path / "agent")
    again = ThompsonSampler.load(tmp_path / "agent")
    assert advance(again, 20, 32) == advance(compiled, 20, 32)
    assert state_of(again) == state_of(compiled)


def test_without_a_compiler_steps_are_fused(monkeypatch):
    def missing(*args):
        raise FileNotFoundError("c++")

    monkeypatch.setattr(compiled_engine, "compile_loop", missing)
    agent, fused = small(engine="compiled"), small()
    with pytest.warns(RuntimeWarning, match="taken by engine='fused': FileNotFoundError"):
        advance(agent, 8)
    advance(fused, 8)
    assert torch.equal(agent.posterior.guide.loc, fused.posterior.guide.loc)
