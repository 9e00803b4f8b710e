"""Random states are restored: on the CPU, and on CUDA and Apple GPUs."""

import numpy as np
import pytest
import torch

from pyrobbb._core.random_state import (
    IsolatedState,
    PrivateRandomState,
    RandomState,
    as_seed,
    globally_seeded,
    seeded,
)


@pytest.mark.parametrize("block", [seeded, globally_seeded])
def test_a_seeded_block_draws_from_the_seed_and_leaves_the_state_unchanged(block):
    torch.manual_seed(3)
    expected = torch.randn(3)
    torch.manual_seed(3)
    with block(5):
        one = torch.randn(3)
    assert torch.equal(torch.randn(3), expected)
    torch.manual_seed(5)
    assert torch.equal(torch.randn(3), one)


@pytest.mark.parametrize("block", [seeded, globally_seeded])
def test_the_state_is_unchanged_when_the_block_raises(block):
    torch.manual_seed(3)
    before = torch.random.get_rng_state()
    with pytest.raises(ZeroDivisionError, match="by zero"), block(5):
        torch.randn(int(1 / 0))
    assert torch.equal(torch.random.get_rng_state(), before)


@pytest.mark.parametrize("outer", [seeded, globally_seeded])
@pytest.mark.parametrize("make", [PrivateRandomState, IsolatedState])
def test_a_separate_state_goes_on_where_it_stopped_in_any_block(make, outer):
    """A fit that a callback starts is such a state in a seeded block."""
    torch.manual_seed(7)
    expected = torch.randn(3), torch.randn(3)
    state = make(7)
    with outer(1):
        with state.active():
            first = torch.randn(3)
        between = torch.randn(3)
        with state.active():
            second = torch.randn(3)
    assert torch.equal(first, expected[0])
    assert torch.equal(second, expected[1])
    torch.manual_seed(1)
    assert torch.equal(between, torch.randn(3))


class _GPU:
    """A substitute for the random state of a GPU: a number."""

    def __init__(self):
        self.state = 7

    def get(self):
        return self.state

    def set(self, state):
        self.state = state


@pytest.fixture
def apple(monkeypatch):
    gpu = _GPU()
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: True)
    monkeypatch.setattr(torch.mps, "get_rng_state", gpu.get)
    monkeypatch.setattr(torch.mps, "set_rng_state", gpu.set)
    monkeypatch.setattr(torch.mps, "manual_seed", gpu.set)
    return gpu


@pytest.fixture
def nvidia(monkeypatch):
    gpu = _GPU()
    monkeypatch.setattr(torch.cuda, "is_initialized", lambda: True)
    monkeypatch.setattr(torch.cuda, "get_rng_state_all", lambda: [gpu.get()])
    monkeypatch.setattr(torch.cuda, "set_rng_state_all", lambda states: gpu.set(states[0]))
    monkeypatch.setattr(torch.cuda, "manual_seed_all", gpu.set)
    return gpu


@pytest.mark.parametrize("make", ["apple", "nvidia"])
def test_a_gpu_is_seeded_and_its_state_restored(make, request):
    gpu = request.getfixturevalue(make)
    with globally_seeded(5):
        assert gpu.state == 5
        gpu.state = 6  # a draw changes the state
    assert gpu.state == 7
    state = RandomState.now()
    gpu.state = 8
    state.restore()
    assert gpu.state == 7


@pytest.mark.parametrize("seed", [2**63, 2**64, 10**40, np.uint64(2**63), 10**6000], ids="abcde")
def test_a_seed_beyond_int64_is_refused(seed):
    with pytest.raises(ValueError, match=r"^`seed` must be below 2\*\*63, got .{1,80}\.$"):
        as_seed(seed)
    assert as_seed(2**63 - 1) == 2**63 - 1
