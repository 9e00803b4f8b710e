"""The global state: a fair lock, settings shared by threads, modes of torch, and forks."""

import gc
import threading
import time
import warnings
from concurrent.futures import ThreadPoolExecutor

import pyro
import pyro.distributions as dist
import pyro.poutine as poutine
import pytest
import torch
from forks import forking, in_child

from pyrobbb._core.global_state import (
    SharedSetting,
    global_state_locked,
    isolated_from_pyro,
    ordinary_modes,
    without_collection,
    without_validation,
    without_vmap_warnings,
)
from pyrobbb._core.random_state import globally_seeded


def _wait_for(condition):
    limit = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < limit
        time.sleep(0.001)


def test_the_lock_goes_to_a_thread_that_waits_before_its_last_holder():
    n_taken, taken_at, stop = 0, [], threading.Event()

    def take_again_at_once():
        nonlocal n_taken
        while not stop.is_set():
            with global_state_locked():
                n_taken += 1
                time.sleep(0.002)

    with ThreadPoolExecutor(1) as pool:
        greedy = pool.submit(take_again_at_once)
        _wait_for(lambda: n_taken)
        for _ in range(10):
            before = n_taken
            with global_state_locked():
                taken_at.append(n_taken - before)
        stop.set()
        greedy.result(30)
    assert max(taken_at) <= 2


def test_the_lock_can_be_taken_again_by_its_holder_and_is_free_after_an_error():
    with pytest.raises(KeyboardInterrupt), global_state_locked(), global_state_locked():
        raise KeyboardInterrupt
    with ThreadPoolExecutor(1) as pool:
        assert pool.submit(_take).result(30)


def _take():
    with global_state_locked():
        return True


def test_a_pyro_program_in_isolation_has_its_own_params_and_no_handlers():
    pyro.clear_param_store()
    kept = {"params": {}, "constraints": {}}
    with poutine.trace() as tracer:
        for expected in (1.0, 2.0):
            with isolated_from_pyro(kept):
                value = pyro.param("a", torch.tensor(1.0))
                assert value.item() == expected
                pyro.get_param_store()["a"] = value.detach() + 1
                pyro.sample("b", dist.Normal(0.0, 1.0))
    assert not tracer.trace.nodes
    assert "a" not in pyro.get_param_store()


def test_a_shared_setting_is_restored_by_the_last_thread_in_any_order():
    state = []
    setting = SharedSetting(lambda: _Recording(state))
    first, second = setting(), setting()
    first.__enter__()
    second.__enter__()
    first.__exit__(None, None, None)
    assert state == ["on"]
    second.__exit__(None, None, None)
    assert state == ["on", "off"]


class _Recording:
    def __init__(self, state):
        self._state = state

    def __enter__(self):
        self._state.append("on")

    def __exit__(self, *error):
        self._state.append("off")


def test_validation_is_as_before_after_many_threads_have_turned_it_off():
    def turn_off(_):
        for _ in range(50):
            with without_validation():
                dist.Normal(0.0, -1.0)

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(turn_off, range(16)))
    with pytest.raises(ValueError, match="Expected parameter scale"):
        dist.Normal(0.0, -1.0)


def test_warnings_of_vmap_are_silent_in_the_block_alone():
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        with without_vmap_warnings():
            _run_in_a_loop()
        assert not caught
        _run_in_a_loop()
    assert any("performance drop" in str(warning.message) for warning in caught)


def _run_in_a_loop():
    """Map an operation without a batching rule."""
    torch.vmap(torch.histc)(torch.randn(2, 3))


@pytest.mark.parametrize("grad", [True, False])
@pytest.mark.parametrize(
    "mode",
    [
        torch.no_grad,
        torch.enable_grad,
        torch.inference_mode,
        lambda: torch.autocast("cpu", torch.bfloat16),
        lambda: torch.device("meta"),
    ],
    ids=["no_grad", "enable_grad", "inference_mode", "autocast", "default device"],
)
def test_ordinary_modes_are_independent_of_those_of_the_caller(mode, grad):
    with mode():
        before = _modes()
        with ordinary_modes(grad=grad):
            assert _modes() == (grad, False, False, "cpu")
        assert _modes() == before


def _modes():
    is_autocast = torch.is_autocast_enabled("cpu")
    device = torch.zeros(()).device.type
    return torch.is_grad_enabled(), torch.is_inference_mode_enabled(), is_autocast, device


@forking
def test_a_child_has_the_global_state_that_another_thread_had_changed():
    pyro.clear_param_store()
    inside, leave = threading.Event(), threading.Event()
    torch.manual_seed(5)

    def hold():
        with (
            without_collection(),
            without_validation(),
            without_vmap_warnings(),
            globally_seeded(1),
            isolated_from_pyro(),
            pyro.settings.context(module_local_params=True),
            poutine.trace(),
        ):
            torch.randn(3)
            pyro.param("a", torch.tensor(1.0))
            inside.set()
            leave.wait(60)

    def check():
        with global_state_locked():
            assert torch.equal(torch.randn(3), expected)
        assert not pyro.poutine.runtime._PYRO_STACK
        assert "a" not in pyro.get_param_store()
        assert not pyro.settings.get("module_local_params")
        assert torch.distributions.Distribution._validate_args
        assert gc.isenabled()
        with without_validation(), isolated_from_pyro():
            pyro.sample("b", dist.Normal(0.0, 1.0))

    expected = torch.randn(3, generator=torch.Generator().manual_seed(5))
    with ThreadPoolExecutor(1) as pool:
        thread = pool.submit(hold)
        inside.wait(60)
        try:
            assert in_child(check) == 0
        finally:
            leave.set()
            thread.result(60)
    assert torch.equal(torch.randn(3), expected)


@forking
def test_a_child_of_the_thread_that_holds_the_lock_holds_it():
    def check():
        with global_state_locked():
            pass

    with global_state_locked(), without_validation():
        assert in_child(check) == 0
        assert not torch.distributions.Distribution._validate_args
