"""Agents on disk: a loaded agent continues as the saved one."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from bandit_agents import KINDS, advance, context_at, small, state_of
from stored_folders import header_of, write_header

from pyrobbb import BayesianNetwork, Posterior, fit, mlp, priors
from pyrobbb.bandits import ThompsonSampler
from pyrobbb.likelihoods import Gaussian

CONTINUE = """
    import sys, numpy as np, torch
    torch.set_num_threads(1)
    sys.path.insert(0, sys.argv[3])
    from bandit_agents import advance, state_of
    from pyrobbb import bandits
    agent = getattr(bandits, sys.argv[1]).load(sys.argv[2])
    print(advance(agent, 60, agent.n_seen))
    agent.save(sys.argv[2])
"""


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("n", [0, 3, 69])
def test_a_loaded_agent_continues_as_the_saved_one(kind, n, tmp_path):
    agent = small(kind)
    advance(agent, n)
    agent.save(tmp_path / "agent")
    again = kind.load(tmp_path / "agent")
    assert state_of(again) == state_of(agent)
    assert advance(again, 60, n) == advance(agent, 60, n)
    assert state_of(again) == state_of(agent)


@pytest.mark.parametrize("kind", KINDS)
def test_an_agent_continues_in_another_process(kind, tmp_path):
    agent = small(kind)
    advance(agent, 69)  # five observations after an update
    agent.act(context_at(69))  # and one action whose reward is not observed
    agent.save(tmp_path / "agent")
    code = "\n".join(line.removeprefix("    ") for line in CONTINUE.splitlines())
    arguments = [kind.__name__, str(tmp_path / "agent"), str(Path(__file__).parents[1])]
    printed = subprocess.check_output([sys.executable, "-c", code, *arguments], text=True)
    assert json.loads(printed) == advance(agent, 60, 69)
    assert state_of(kind.load(tmp_path / "agent")) == state_of(agent)


def test_a_loaded_agent_has_the_arguments_of_the_saved_one(tmp_path):
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
        ({"n_acted": 2.5}, r"damaged: 'n_acted' in its 'bandit' must be a whole number, got 2.5"),
        ({"class": "EpsilonGreedy"}, "must hold a ThompsonSampler, got a EpsilonGreedy"),
        ({"arguments": {}}, r"damaged: .*n_features"),
    ],
)
def test_an_inconsistent_folder_is_rejected(folder, change, message):
    header = header_of(folder)
    header["extra"]["bandit"] |= change
    write_header(folder, header)
    with pytest.raises(ValueError, match=message):
        ThompsonSampler.load(folder)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"batch_size": 0}, "damaged: `batch_size` must be at least 1, got 0"),
        ({"hidden": [9]}, r"damaged: `start` must have the same sites .*'0.weight.*\(9, 6\)"),
        ({"engine": "none"}, "damaged: `engine` must be one of fused, compiled, got 'none'"),
        ({"odd": 1}, "damaged: .*'odd'"),
    ],
)
def test_modified_arguments_are_rejected(folder, change, message):
    header = header_of(folder)
    header["extra"]["bandit"]["arguments"] |= change
    write_header(folder, header)
    with pytest.raises(ValueError, match=message):
        ThompsonSampler.load(folder)


def test_a_truncated_or_modified_folder_is_rejected(folder):
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


def test_a_folder_without_an_agent_is_rejected(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"holds no posterior \(no posterior.json\)"):
        ThompsonSampler.load(tmp_path)
    network = BayesianNetwork(mlp(2, [3], 1, seed=0))
    fit(network, np.eye(2), np.eye(2)[:, :1], epochs=2, progress=False).save(tmp_path / "fit")
    with pytest.raises(ValueError, match=r"no bandit agent: read it with Posterior\.load"):
        ThompsonSampler.load(tmp_path / "fit")


def test_a_custom_callable_is_not_stored(tmp_path):
    agent = small(prior=lambda name, parameter: priors.Normal()(name, parameter))
    with pytest.raises(TypeError, match=r"`prior` must be one of pyrobbb's .* got a custom"):
        agent.save(tmp_path / "agent")
    assert list(tmp_path.iterdir()) == []
