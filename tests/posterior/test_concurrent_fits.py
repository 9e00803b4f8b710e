"""Fits in threads and forked children, and fits that a mode of torch surrounds."""

import threading
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pyro.distributions as dist
import pytest
import torch
from engine_fits import python_loop
from forks import forking, in_child
from ragged_fits import X, Y, network, quick_fit
from support import assert_equal
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from pyrobbb import BayesianNetwork, fit, mlp, update
from pyrobbb._core.global_state import global_state_locked
from pyrobbb.bandits import EpsilonGreedy, ThompsonSampler
from pyrobbb.engines import compiled

FITS = {
    "svi": {"engine": "svi"},
    "fused": {"engine": "fused"},
    "compiled": {"engine": "compiled"},
    "automatic guide": {"guide": "auto_normal"},
    "local": {"estimator": "local", "engine": "fused"},
    "flipout": {"estimator": "flipout", "engine": "fused"},
    "restarts": {"restarts": 2},
    "validation": {"validation": (X, Y), "engine": "svi"},
    "callbacks that draw": {"callbacks": lambda end: torch.randn(3) is None, "engine": "svi"},
}


@pytest.fixture
def compiles(monkeypatch):
    """Take compiled steps by a loop in Python, which takes no time to compile."""
    monkeypatch.setattr(compiled, "compile_loop", python_loop)


def with_dropout():
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Dropout(0.3), nn.Linear(4, 1))
    return BayesianNetwork(net)


LOADER = DataLoader(
    TensorDataset(torch.as_tensor(X), torch.as_tensor(Y)), batch_size=7, shuffle=True
)


def test_fits_in_threads_are_those_of_one_thread(compiles):
    kinds = [lambda options=options: quick_fit(**options) for options in FITS.values()]
    stochastic = with_dropout()  # made here: another thread must not seed torch during a fit
    kinds += [lambda: quick_fit(stochastic, batch_size=23)]
    kinds += [lambda: fit(network(), LOADER, n_data=23, epochs=2, seed=1, progress=False)]
    alone = [make() for make in kinds]
    with ThreadPoolExecutor(4) as pool:
        together = [pool.submit(make) for make in kinds * 2]
        for one, other in zip(alone * 2, together, strict=True):
            assert_equal(one, other.result(120))


def test_a_fit_that_a_callback_starts_is_that_of_a_fit_alone():
    inner = []

    def refit(end):
        inner.append(quick_fit(engine="svi", epochs=1))

    outer = quick_fit(engine="svi", callbacks=refit)
    assert_equal(outer, quick_fit(engine="svi"))
    for posterior in inner:
        assert_equal(posterior, quick_fit(engine="svi", epochs=1))


@forking
@pytest.mark.parametrize("guide", ["mean_field", "auto_normal"])
def test_a_child_forked_while_a_thread_fits_predicts_and_fits(guide):
    posterior = quick_fit(guide=guide)
    expected = posterior.predict(X, n_draws=20, seed=0).mean
    refit = quick_fit(engine="svi", guide=guide)
    started, stop = threading.Event(), threading.Event()

    def call(end):
        started.set()
        return stop.is_set()

    def check():
        np.testing.assert_array_equal(posterior.predict(X, n_draws=20, seed=0).mean, expected)
        assert_equal(quick_fit(engine="svi", guide=guide), refit)

    with ThreadPoolExecutor(1) as pool:
        thread = pool.submit(quick_fit, engine="svi", epochs=10**6, callbacks=call)
        started.wait(60)
        try:
            for _ in range(3):
                assert in_child(check) == 0
        finally:
            stop.set()
            thread.result(60)


@forking
def test_a_child_runs_on_one_thread_because_those_of_openmp_are_not_in_it():
    posterior = quick_fit(BayesianNetwork(mlp(3, [50], 1, seed=0)))
    x = torch.randn(4000, 3)
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        expected = posterior.predict(x, n_draws=20, seed=0).mean

        def check():
            assert torch.get_num_threads() == 1
            torch.testing.assert_close(posterior.predict(x, n_draws=20, seed=0).mean, expected)

        assert in_child(check) == 0
    finally:
        torch.set_num_threads(before)


MODES = {
    "no_grad": torch.no_grad,
    "inference_mode": torch.inference_mode,
    "autocast": lambda: torch.autocast("cpu", torch.bfloat16),
    "default device": lambda: torch.device("meta"),
    "anomaly detection": lambda: torch.autograd.set_detect_anomaly(True),
}
SURROUNDED = {name: FITS[name] for name in ("svi", "fused", "compiled", "automatic guide", "local")}


@pytest.mark.parametrize("options", SURROUNDED.values(), ids=SURROUNDED)
@pytest.mark.parametrize("mode", MODES.values(), ids=MODES)
@pytest.mark.filterwarnings("ignore:Anomaly Detection has been enabled:UserWarning")
def test_a_fit_within_a_mode_of_torch_is_that_without(options, mode, compiles):
    net = network()
    alone = quick_fit(net, **options)
    expected = alone.predict(X, n_draws=4, seed=0)
    with mode():
        is_grad, is_inference = torch.is_grad_enabled(), torch.is_inference_mode_enabled()
        within = quick_fit(net, **options)
        prediction = within.predict(X, n_draws=4, seed=0)
        np.testing.assert_array_equal(prediction.mean, expected.mean)
        np.testing.assert_array_equal(prediction.sample(seed=1), expected.sample(seed=1))
        assert torch.is_grad_enabled() == is_grad
        assert torch.is_inference_mode_enabled() == is_inference
    assert_equal(within, alone)


def test_what_follows_a_fit_in_inference_mode_is_that_without():
    alone = quick_fit(with_dropout(), batch_size=23)
    expected = str(alone.diagnose(X, Y, seed=0)), alone.to_arviz(X, Y, seed=0), alone.draws(3, 0)
    with torch.inference_mode():
        posterior = quick_fit(with_dropout(), batch_size=23)
        assert str(posterior.diagnose(X, Y, seed=0)) == expected[0]
        assert posterior.to_arviz(X, Y, seed=0).equals(expected[1])
        for name, values in posterior.draws(3, 0).items():
            assert torch.equal(values, expected[2][name])
        updated = update(posterior, X, Y, epochs=1, seed=0, progress=False)
    assert_equal(updated, update(alone, X, Y, epochs=1, seed=0, progress=False))


@pytest.mark.parametrize("engine", ["svi", "fused"])
@pytest.mark.parametrize("kind", ["part of a graph", "leaf", "made in inference mode"])
def test_data_that_autograd_knows_are_used_as_they_are(engine, kind):
    def known(values):
        tensor = torch.as_tensor(values, dtype=torch.float32)
        if kind == "leaf":
            return tensor.clone().requires_grad_()
        if kind == "part of a graph":
            return tensor + torch.zeros(1, requires_grad=True)
        with torch.inference_mode():
            return tensor.clone()

    options = {"batch_size": 23, "engine": engine}
    pair = known(X), known(Y)
    posterior = quick_fit(with_dropout(), *pair, validation=pair, **options)
    assert_equal(posterior, quick_fit(with_dropout(), validation=(X, Y), **options))
    assert torch.isfinite(posterior.predict(pair[0], n_draws=3).log_prob(pair[1])).all()
    if kind == "leaf":
        assert pair[0].grad is pair[1].grad is None


def test_a_network_made_in_inference_mode_is_fitted():
    with torch.inference_mode():
        made = with_dropout()
    assert_equal(quick_fit(made, batch_size=23), quick_fit(with_dropout(), batch_size=23))


@pytest.mark.parametrize("kind", [ThompsonSampler, EpsilonGreedy])
@pytest.mark.parametrize("mode", ["no_grad", "inference_mode", "autocast"])
def test_an_agent_within_a_mode_of_torch_acts_as_without(kind, mode):
    def act():
        agent, rng = kind(3, 2, hidden=[4], update_every=16, n_steps=4, seed=0), _rng()
        actions = []
        for _ in range(40):
            context = rng.normal(size=3)
            actions.append(agent.act(context))
            agent.observe(context, actions[-1], context[actions[-1]])
        return actions

    expected = act()
    with MODES[mode]():
        assert act() == expected


def _rng():
    return np.random.default_rng(0)


def test_a_callable_likelihood_is_traced_once_and_then_needs_no_lock():
    posterior = quick_fit(BayesianNetwork(mlp(3, [4], 1), likelihood=_laplace))
    with ThreadPoolExecutor(1) as pool, global_state_locked():
        prediction = pool.submit(posterior.predict, X, n_draws=5, seed=0).result(30)
    assert prediction.mean.shape == (23, 1)


def _laplace(output):
    return dist.Laplace(output, 1.0)
