"""When `engine="auto"` compiles, and how many threads a fit uses."""

import logging

import pytest
import torch
from engine_fits import X, Y, assert_same_fit, messages_between_start_and_end, network, quick_fit
from torch import nn

from pyrobbb import BayesianNetwork, NonFiniteLossError, likelihoods
from pyrobbb.engines import auto as auto_engine
from pyrobbb.engines import compiled as compiled_engine


def test_auto_does_not_compile_for_a_few_steps(caplog, monkeypatch):
    monkeypatch.setattr(torch, "compile", None)  # would fail
    caplog.set_level(logging.INFO, logger="pyrobbb")
    automatic = quick_fit(engine="auto", epochs=40)
    assert automatic.settings["engine"] == "fused"
    assert_same_fit(automatic, quick_fit(engine="fused", epochs=40))
    (message,) = messages_between_start_and_end(caplog)
    assert message.endswith("72 are left: they will not be compiled.")


def test_auto_compiles_if_enough_steps_are_left(calls_of_256_steps, caplog, monkeypatch):
    monkeypatch.setattr(auto_engine, "COMPILE_SECONDS", 0.0)
    monkeypatch.setattr(auto_engine, "CACHED_COMPILE_SECONDS", 0.0)
    caplog.set_level(logging.INFO, logger="pyrobbb")
    lengths = []
    take = compiled_engine.CompiledEngine._take
    monkeypatch.setattr(
        compiled_engine.CompiledEngine,
        "_take",
        lambda self, steps, noise: lengths.append(len(steps)) or take(self, steps, noise),
    )
    automatic = quick_fit(engine="auto", epochs=40)
    assert automatic.settings["engine"] == "compiled"
    assert lengths == [72]  # 120 steps, of which 3 times 16 measured how long one takes
    assert_same_fit(automatic, quick_fit(engine="fused", epochs=40), rtol=1e-9, atol=1e-10)
    assert any(r.getMessage().endswith("they will be compiled.") for r in caplog.records)


def test_auto_does_not_compile_without_a_compiler(loop_cache, monkeypatch):
    monkeypatch.setattr(auto_engine, "COMPILE_SECONDS", 0.0)
    monkeypatch.setattr(torch, "compile", None)  # would fail
    monkeypatch.setenv("PATH", "")
    monkeypatch.delenv("CXX", raising=False)
    assert quick_fit(engine="auto", epochs=40).settings["engine"] == "fused"


def test_auto_does_not_try_to_compile_an_optimiser_that_is_not_supported(monkeypatch):
    monkeypatch.setattr(auto_engine, "COMPILE_SECONDS", 0.0)
    automatic = quick_fit(engine="auto", epochs=40, optimizer=torch.optim.SGD, lr=1e-5)
    assert automatic.settings["engine"] == "fused"


def test_auto_continues_with_fused_steps_and_one_warning_if_compilation_fails(
    no_compiler, monkeypatch
):
    monkeypatch.setattr(auto_engine, "COMPILE_SECONDS", 0.0)
    with pytest.warns(RuntimeWarning, match="No working C\\+\\+ compiler found") as record:
        automatic = quick_fit(engine="auto", epochs=40)
    assert len(record) == 1
    assert automatic.settings["engine"] == "fused"
    assert_same_fit(automatic, quick_fit(engine="fused", epochs=40))


@pytest.mark.parametrize("options", [{}, {"restarts": 2}, {"batch_size": 23, "epochs": 120}])
def test_auto_expects_a_low_cost_if_a_similar_loop_is_cached(
    loop_cache, python_compiler, monkeypatch, options
):
    costs = []
    pays_to_compile = auto_engine.pays_to_compile
    monkeypatch.setattr(
        auto_engine,
        "pays_to_compile",
        lambda *args: costs.append(args[-1]) or pays_to_compile(*args),
    )
    options = {"epochs": 40, **options}
    low, high = auto_engine.CACHED_COMPILE_SECONDS, auto_engine.COMPILE_SECONDS
    quick_fit(engine="auto", **options)
    quick_fit(engine="compiled", **options)
    quick_fit(engine="auto", **options)
    quick_fit(network(likelihood=likelihoods.Gaussian(0.3)), "auto", **options)
    quick_fit(engine="auto", x=X[:22], y=Y[:22], **options)
    assert costs == [high, low, high, high]


@pytest.mark.parametrize(
    ("seconds", "n_steps", "pays"),
    [(0.3e-3, 20_000, False), (0.3e-3, 30_000, True), (0.1, 100, False), (0.1, 200, True)],
)
def test_the_time_saved_depends_on_the_time_in_python_and_in_arithmetic(seconds, n_steps, pays):
    assert auto_engine.pays_to_compile(seconds, n_steps, n_steps, cost=6.0) is pays
    assert auto_engine.pays_to_compile(seconds, n_steps // 10, n_steps, cost=0.6) is pays


def test_compiling_never_pays_for_small_steps_that_are_evaluated_one_by_one():
    assert not auto_engine.pays_to_compile(0.3e-3, 10**9, 1, cost=6.0)
    assert not auto_engine.pays_to_compile(0.3e-3, 10**9, 3, cost=6.0)
    assert auto_engine.pays_to_compile(0.3e-3, 10**9, 10, cost=6.0)
    assert auto_engine.pays_to_compile(0.1, 200, 1, cost=6.0)


# Threads


class ThreadRecorder(nn.Module):
    """A module that records the number of threads it runs on."""

    def __init__(self, seen):
        super().__init__()
        self.net = nn.Linear(3, 1)
        self.record = seen.append

    def forward(self, x):
        if self.training and torch.is_grad_enabled():  # not in a trial run
            self.record(torch.get_num_threads())
        return self.net(x)

    def __deepcopy__(self, memo):
        return ThreadRecorder(self.record.__self__)


@pytest.fixture
def two_threads(monkeypatch):
    for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(auto_engine, "DEFAULT_THREADS", 2)
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(before)


def threads_of_a_fit(engine="fused", **kwargs):
    seen = []
    net = BayesianNetwork(ThreadRecorder(seen))
    quick_fit(net, engine, **kwargs)
    return set(seen)


@pytest.mark.parametrize("engine", ["svi", "fused"])
def test_a_small_network_is_fitted_on_one_thread_and_the_number_is_restored(two_threads, engine):
    assert threads_of_a_fit(engine) == {1}
    assert torch.get_num_threads() == 2


def test_the_number_of_threads_is_restored_after_a_fit_that_fails(two_threads):
    with pytest.raises(NonFiniteLossError, match="not finite at step"):
        threads_of_a_fit(lr=1e30)
    assert torch.get_num_threads() == 2


def test_a_larger_network_is_fitted_on_all_threads(two_threads, monkeypatch):
    # two vectors of 5 elements: three weights, a bias and a noise scale
    monkeypatch.setattr(auto_engine, "MAX_SINGLE_THREAD_SIZE", 8)
    assert threads_of_a_fit() == {2}


@pytest.mark.parametrize("variable", ["OMP_NUM_THREADS", "MKL_NUM_THREADS"])
def test_a_number_of_threads_set_by_the_user_is_kept(two_threads, monkeypatch, variable):
    torch.set_num_threads(3)
    assert threads_of_a_fit() == {3}
    assert torch.get_num_threads() == 3
    torch.set_num_threads(2)
    assert threads_of_a_fit() == {1}
    monkeypatch.setenv(variable, "2")
    assert threads_of_a_fit() == {2}
