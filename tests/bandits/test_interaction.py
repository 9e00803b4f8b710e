"""Thompson sampling against exact probabilities; agents that go on after a restart as before it."""

import json
import math
import shutil
import subprocess
import sys

import numpy as np
import pytest
import torch
from pyro.distributions import Normal

from pyrobbb import BayesianNetwork, MeanFieldGuide, Posterior, bandits, fit, mlp, priors
from pyrobbb.bandits.interaction import EpsilonGreedy, MushroomBandit, ThompsonSampler
from pyrobbb.engines import compiled as compiled_engine
from pyrobbb.engines.fused import FusedEngine
from pyrobbb.likelihoods import Bernoulli, Categorical, Gaussian, HeteroscedasticGaussian, Poisson

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
    """Let an agent live through some steps of a fixed world; give its actions."""
    actions = []
    for i in range(start, start + n):
        actions.append(agent.act(context_at(i)))
        agent.observe(context_at(i), actions[-1], reward_at(i, actions[-1]))
    return actions


def state_of(agent):
    """Give all that an agent knows, as bytes that can be compared."""
    posterior = agent.posterior
    tensors = [*agent._tensors().values(), *agent._learnt(), *posterior.network.parameters()]
    return (
        agent.n_seen,
        agent._n_acted,
        agent._adam.n_steps,
        posterior.history.nelbo.tobytes(),
        *(tensor.detach().numpy().tobytes() for tensor in tensors),
    )


# The environment


def test_rewards_and_regrets_of_mushrooms_are_those_of_the_definition():
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


def test_mushrooms_come_alike_from_a_seed_whatever_is_eaten():
    environment = MushroomBandit(np.eye(7), np.arange(7) % 2, seed=3)
    walks = []
    for action in (0, 1, 1):
        first, _ = environment.reset(seed=5)
        walks.append([first, *(environment.step(action)[0] for _ in range(50))])
    for walk in walks[1:]:
        np.testing.assert_array_equal(walks[0], walk)
    assert np.ptp(np.argmax(walks[0], 1)) > 3


def test_what_is_wrong_with_mushrooms_is_said():
    with pytest.raises(RuntimeError, match=r"call reset\(\) before step\(\)"):
        MushroomBandit(np.eye(2), [0, 1]).step(0)
    environment = MushroomBandit(np.eye(2), [0, 1])
    environment.reset()
    with pytest.raises(ValueError, match=r"`action` must be 0 \(leave it\) or 1 \(eat it\), got 2"):
        environment.step(2)
    with pytest.raises(ValueError, match=r"0 or 1 for each of the 2 rows .* got the shape \(3,\)"):
        MushroomBandit(np.eye(2), [0, 1, 1])
    with pytest.raises(ValueError, match=r"`is_edible` must hold 0 or 1 .* the value 2"):
        MushroomBandit(np.eye(2), [0, 2])
    with pytest.raises(ValueError, match=r"`contexts` must have a row .* the shape \(2,\)"):
        MushroomBandit([0.0, 1.0], [0, 1])


def test_a_run_sums_up_the_regret_and_begins_again_after_an_end():
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


# What is learnt, against closed forms

NOISE = 0.5
ARMS = [np.linspace(-0.5, 0.9, 12), np.linspace(-0.6, 1.2, 6)]
"""Rewards of two arms; the context says nothing."""


@pytest.fixture(scope="module")
def taught():
    """Two arms as a linear network with known noise, whose posterior factorises: it is exact."""
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


def test_the_posterior_of_linear_rewards_is_the_closed_form(taught):
    guide = taught.posterior.guide
    loc, scale = (guide.split(v.detach())["0.weight"][0, 1:] for v in (guide.loc, guide.scale))
    mean, sd = exact_arms()
    np.testing.assert_allclose(scale, sd, rtol=0.05)
    assert (np.abs(loc.numpy() - mean) < 0.1 * sd).all()


@pytest.mark.parametrize("n_draws", [1, 2])
def test_an_arm_is_chosen_as_often_as_it_may_be_the_best(taught, n_draws, monkeypatch):
    """A mean of two draws has half the variance."""
    monkeypatch.setattr(taught, "_n_draws", n_draws)
    mean, sd = exact_arms()
    gap = (mean[1] - mean[0]) / math.sqrt((sd**2).sum() / n_draws)
    exact = float(Normal(0.0, 1.0).cdf(torch.tensor(gap)))
    n = 3000
    share = np.mean([taught.act(np.zeros(1)) for _ in range(n)])
    slack = 0.02  # what the fit may be off by
    assert abs(share - exact) < 4 * math.sqrt(exact * (1 - exact) / n) + slack
    assert 0.55 < exact < 0.85  # or it would be no test


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
    assert agent.act(context) == 1  # it is worth 0.5 more


@pytest.mark.parametrize("epsilon", [0.0, 0.3, 1.0])
def test_epsilon_greedy_strays_as_often_as_it_is_told(epsilon):
    agent = small(EpsilonGreedy, 2, epsilon=epsilon)
    advance(agent, 8)
    n = 2000
    shares = np.bincount([agent.act(context_at(0)) for _ in range(n)], minlength=2) / n
    assert abs(shares.min() - epsilon / 2) <= 4 * math.sqrt(epsilon / 2 / n)


def test_until_the_first_update_actions_are_equally_likely():
    n = 3000
    agent = small()
    shares = np.bincount([agent.act(context_at(0)) for _ in range(n)], minlength=3) / n
    assert np.abs(shares - 1 / 3).max() < 4 * math.sqrt(2 / 9 / n)


def test_rewards_of_zero_and_one_are_learnt_by_a_bernoulli_likelihood():
    options = {"hidden": (), "prior": priors.Normal(2.0), "replay_size": 64, "update_every": 64}
    agent = small(n_actions=2, likelihood=Bernoulli(), n_steps=500, lr=0.02, **options)
    for i in range(64):
        agent.observe(np.zeros(3), i % 2, float(i % 2 and i % 8 != 1))
    assert np.mean([agent.act(np.zeros(3)) for _ in range(100)]) > 0.9
    with pytest.raises(ValueError, match=r"`reward` must be one that Bernoulli\(\) gives a prob"):
        agent.observe(np.zeros(3), 0, 0.5)
    assert agent.n_seen == 64


def test_a_likelihood_that_predicts_its_scale_brings_two_outputs():
    agent = small(likelihood=HeteroscedasticGaussian())
    advance(agent, 9)
    assert agent.posterior.network.net[-1].out_features == 2


# Memory and data


def test_the_memory_keeps_the_last_observations_and_forgets_the_others():
    agent = small(replay_size=4, update_every=100)
    for i in range(6):
        agent.observe(context_at(i), i % 3, float(i))
    tensors = agent._tensors()
    assert sorted(tensors["replay.y"][:, 0].tolist()) == [2.0, 3.0, 4.0, 5.0]
    row = tensors["replay.x"][tensors["replay.y"][:, 0] == 5.0][0]
    np.testing.assert_array_equal(row, [*context_at(5), 0.0, 0.0, 1.0])
    assert (agent.n_data, agent.n_seen) == (4, 6)


def test_the_data_of_the_elbo_are_those_in_the_memory(monkeypatch):
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


def test_rewards_are_learnt_in_units_of_their_scale():
    ones, tens = small(), small(reward_scale=10.0)
    for i in range(8):
        ones.observe(context_at(i), i % 3, reward_at(i, 0))
        tens.observe(context_at(i), i % 3, 10 * reward_at(i, 0))
    torch.testing.assert_close(ones.posterior.guide.loc, tens.posterior.guide.loc)


# Randomness


@pytest.mark.parametrize("kind", KINDS)
def test_a_seed_makes_an_agent_repeatable(kind):
    first, again, other = small(kind), small(kind), small(kind, seed=1)
    actions = advance(first, 50)
    assert advance(again, 50) == actions
    assert state_of(again) == state_of(first)
    others = advance(other, 50)
    assert others[:8] != actions[:8]  # before anything is learnt
    assert others[8:] != actions[8:]


@pytest.mark.parametrize("kind", KINDS)
def test_agents_side_by_side_disturb_neither_each_other_nor_the_callers_random_state(kind):
    alone = advance(small(kind), 50)
    torch.manual_seed(7)
    np.random.seed(7)  # noqa: NPY002  # that is the one to be left alone
    states = torch.get_rng_state(), np.random.get_state()[1].copy()  # noqa: NPY002
    one, two = small(kind), small(kind, seed=1)
    together = []
    for i in range(50):
        together += advance(one, 1, i)
        advance(two, 1, i)
    assert together == alone
    assert torch.equal(torch.get_rng_state(), states[0])
    np.testing.assert_array_equal(np.random.get_state()[1], states[1])  # noqa: NPY002


def test_a_snapshot_of_the_posterior_stays_as_it_was():
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


# Files

GOES_ON = """
    import sys, numpy as np, torch
    torch.set_num_threads(1)
    sys.path.insert(0, sys.argv[3])
    from test_interaction import advance, bandits, state_of
    agent = getattr(bandits, sys.argv[1]).load(sys.argv[2])
    print(advance(agent, 60, agent.n_seen))
    agent.save(sys.argv[2])
"""


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("n", [0, 3, 69])
def test_an_agent_goes_on_as_if_it_had_not_been_saved(kind, n, tmp_path):
    agent = small(kind)
    advance(agent, n)
    agent.save(tmp_path / "agent")
    again = kind.load(tmp_path / "agent")
    assert state_of(again) == state_of(agent)
    assert advance(again, 60, n) == advance(agent, 60, n)
    assert state_of(again) == state_of(agent)


@pytest.mark.parametrize("kind", KINDS)
def test_an_agent_goes_on_in_another_process(kind, tmp_path):
    agent = small(kind)
    advance(agent, 69)  # five after an update
    agent.act(context_at(69))  # and one that is not observed
    agent.save(tmp_path / "agent")
    code = "\n".join(line.removeprefix("    ") for line in GOES_ON.splitlines())
    arguments = [kind.__name__, str(tmp_path / "agent"), str(__file__).rpartition("/")[0]]
    printed = subprocess.check_output([sys.executable, "-c", code, *arguments], text=True)
    assert json.loads(printed) == advance(agent, 60, 69)
    assert state_of(kind.load(tmp_path / "agent")) == state_of(agent)


def test_all_that_an_agent_was_told_comes_back(tmp_path):
    options = {
        "prior": priors.ByName({"*.bias": None}, priors.Laplace(0.5)),
        "likelihood": Gaussian(0.3),
        "n_draws": 1,
        "reward_scale": 4.0,
        "kl_weight": 0.5,
        "init_scale": 0.05,
        "activation": "tanh",
    }
    agent = small(**options)
    advance(agent, 20)
    agent.save(tmp_path / "agent")
    again = ThompsonSampler.load(tmp_path / "agent")
    assert advance(again, 30, 20) == advance(agent, 30, 20)
    assert state_of(again) == state_of(agent)
    posterior = Posterior.load(tmp_path / "agent")
    assert posterior.network.prior == options["prior"]
    assert posterior.settings["n_data"] == 20


def header_of(folder):
    return json.loads((folder / "posterior.json").read_text())


@pytest.fixture
def folder(tmp_path):
    agent = small()
    advance(agent, 20)
    agent.save(tmp_path / "agent")
    return tmp_path / "agent"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"n_seen": 21}, r"damaged: its tensor 'replay.x' has shape \(20, 6\) and .*, must have"),
        ({"n_seen": -1}, r"damaged: its 'bandit' has the 'n_seen' -1, must be >= 0"),
        ({"n_acted": 2.5}, r"damaged: its 'bandit' has the 'n_acted' 2.5, must be a whole number"),
        ({"class": "EpsilonGreedy"}, "holds a EpsilonGreedy, no ThompsonSampler"),
        ({"arguments": {}}, r"damaged: .*n_features"),
    ],
)
def test_a_folder_that_does_not_hold_together_is_refused(folder, change, message):
    header = header_of(folder)
    header["extra"]["bandit"] |= change
    (folder / "posterior.json").write_text(json.dumps(header))
    with pytest.raises(ValueError, match=message):
        ThompsonSampler.load(folder)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"batch_size": 0}, "damaged: `batch_size` must be at least 1, got 0"),
        ({"hidden": [9]}, r"damaged: `start` must fit the network: .*'0.weight.*\(9, 6\)"),
        ({"engine": "none"}, "damaged: `engine` must be one of fused, compiled, got 'none'"),
        ({"odd": 1}, "damaged: .*'odd'"),
    ],
)
def test_arguments_that_were_changed_are_refused(folder, change, message):
    header = header_of(folder)
    header["extra"]["bandit"]["arguments"] |= change
    (folder / "posterior.json").write_text(json.dumps(header))
    with pytest.raises(ValueError, match=message):
        ThompsonSampler.load(folder)


def test_a_truncated_or_changed_folder_is_refused(folder):
    file = folder / header_of(folder)["tensors"]["file"]
    whole = file.read_bytes()
    file.write_bytes(whole[:-7])
    with pytest.raises(ValueError, match=r"is damaged: its file '.*' is truncated"):
        ThompsonSampler.load(folder)
    file.write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
    with pytest.raises(ValueError, match="has been changed"):
        ThompsonSampler.load(folder)
    file.write_bytes(whole)
    ThompsonSampler.load(folder)


def test_a_folder_of_something_else_is_refused(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"holds no posterior \(no posterior.json\)"):
        ThompsonSampler.load(tmp_path)
    network = BayesianNetwork(mlp(2, [3], 1, seed=0))
    fit(network, np.eye(2), np.eye(2)[:, :1], epochs=2, progress=False).save(tmp_path / "fit")
    with pytest.raises(ValueError, match=r"no bandit agent: read it by Posterior\.load"):
        ThompsonSampler.load(tmp_path / "fit")


def test_code_of_ones_own_is_not_stored(tmp_path):
    agent = small(prior=lambda name, parameter: priors.Normal()(name, parameter))
    with pytest.raises(TypeError, match="`prior` is a callable of your own, and code is not"):
        agent.save(tmp_path / "agent")
    assert list(tmp_path.iterdir()) == []


# What is refused


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ((np.zeros(2), 0, 1.0), ValueError, r"`context` must have the shape \(3,\).*got \(2,\)"),
        ((np.zeros((1, 3)), 0, 1.0), ValueError, r"n_features=3, got \(1, 3\)"),
        (([0.0, math.nan, 0.0], 0, 1.0), ValueError, "`context` must be finite, got nan for .* 1"),
        (([0.0, 0.0, 1e60], 0, 1.0), ValueError, "`context` must be finite, got 1e.60 for .* 2"),
        ((["a", "b", "c"], 0, 1.0), TypeError, "`context` must hold numbers, got <U1. Encode"),
        ((np.zeros(3), 3, 1.0), ValueError, "`action` must be below n_actions=3, got 3"),
        ((np.zeros(3), -1, 1.0), ValueError, "`action` must be at least 0, got -1"),
        ((np.zeros(3), 1.0, 1.0), TypeError, "`action` must be a whole number, got 1.0"),
        ((np.zeros(3), 0, math.inf), ValueError, "`reward` must be finite, got inf"),
        ((np.zeros(3), 0, "5"), TypeError, "`reward` must be a number, got '5'"),
        ((np.zeros(3), 0, 1e60), ValueError, r"`reward` 1e\+60 is too large .* reward_scale=1.0"),
    ],
)
def test_a_bad_observation_is_refused_and_loses_nothing(kind, arguments, error, message):
    agent = small(kind)
    advance(agent, 15)  # the next one brings an update
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
def test_an_update_that_breaks_off_leaves_the_agent_as_it_was(kind, error, monkeypatch):
    agent, undisturbed = small(kind), small(kind)
    for each in (agent, undisturbed):
        advance(each, 47)  # the memory is full: something would be overwritten
    before = state_of(agent)
    whole = agent._learn

    def broken(steps, losses, seed):
        whole(steps[:3], losses[:3], seed)
        raise error

    monkeypatch.setattr(agent, "_learn", broken)
    with pytest.raises(error):
        agent.observe(context_at(47), 0, 1.0)
    assert state_of(agent) == before
    monkeypatch.undo()
    assert advance(agent, 30, 47) == advance(undisturbed, 30, 47)
    assert state_of(agent) == state_of(undisturbed)


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
        ({"likelihood": Categorical()}, ValueError, "`likelihood` must be one of a single number"),
        (
            {"likelihood": Poisson(), "reward_scale": 2.0},
            ValueError,
            r"`reward_scale` must be 1 for Poisson\(\)",
        ),
        ({"hidden": 50}, TypeError, "`hidden` must be a sequence"),
    ],
)
def test_a_bad_argument_is_named(options, error, message):
    with pytest.raises(error, match=message):
        small(**options)
    if options.keys() <= {"n_actions", "replay_size", "update_every", "lr", "reward_scale"}:
        with pytest.raises(error, match=message):
            small(EpsilonGreedy, **options)


def test_a_bad_epsilon_is_named():
    with pytest.raises(ValueError, match=r"`epsilon` must be a probability, in \[0, 1\], got 1.5"):
        small(EpsilonGreedy, epsilon=1.5)


# Engines


def test_compiled_steps_are_those_of_the_fused_engine_and_compiled_once(tmp_path, monkeypatch):
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
    assert len(calls) == 1  # whatever has come into the memory since
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


def test_a_guide_of_points_is_what_epsilon_greedy_learns():
    agent = small(EpsilonGreedy)
    guide = agent.posterior.guide
    assert isinstance(guide, MeanFieldGuide)
    assert guide.has_points
