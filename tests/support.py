"""Shared by several test files: small fits, their comparison, crashes in the middle of one."""

import functools

import numpy as np
import torch

from pyrobbb import BayesianNetwork, Posterior, fit, mlp
from pyrobbb.engines.compiled import CompiledEngine
from pyrobbb.engines.fused import FusedEngine
from pyrobbb.engines.svi import SVIEngine
from pyrobbb.fitted import FittedChain

RNG = np.random.default_rng(0)
X = RNG.normal(size=(23, 3))
Y = X.sum(1, keepdims=True) + RNG.normal(size=(23, 1))


def small_network(n_outputs=1, *, dtype=torch.float64, device="cpu", **parts):
    """Return a network of 3 inputs and 4 hidden units; `parts` are a prior and a likelihood."""
    net = mlp(3, [4], n_outputs, "tanh", seed=0)
    return BayesianNetwork(net.to(device, dtype), **parts)


def quick_fit(network=None, x=X, y=Y, **options):
    """Fit 12 steps by the fused engine, in batches of 10, 10 and 3 rows."""
    defaults = {"epochs": 4, "batch_size": 10, "engine": "fused", "seed": 1, "progress": False}
    network = small_network() if network is None else network
    return fit(network, x, y, **{**defaults, **options})


@functools.cache
def shared_fit(**options):
    """Return a cached `quick_fit` with these options, which no test may change."""
    return quick_fit(**options)


def learned(posterior):
    """Return the fitted tensors of a chain: those of its guide and its point parameters."""
    points = [point for _, point in posterior.network.point_parameters()]
    return [p.detach() for p in (*posterior.guide.parameters(), *points)]


def assert_same_fit(one, other, rtol=0.0):
    """Check that two posteriors have the same fitted tensors and losses in all chains."""
    for a, b in zip(one.chains, other.chains, strict=True):
        torch.testing.assert_close(learned(a), learned(b), rtol=rtol, atol=rtol)
        for name in ("nll", "kl"):
            values = getattr(a.history, name), getattr(b.history, name)
            np.testing.assert_allclose(*values, rtol=rtol)


class Crash(BaseException):
    """An exception that no code here catches, like a power cut."""


def crash_at(monkeypatch, n_steps):
    """Make every engine crash in the first call after `n_steps` steps."""
    taken = 0

    def crashing(original):
        def run(self, steps, losses):
            nonlocal taken
            if taken >= n_steps:
                raise Crash
            taken += len(steps)
            original(self, steps, losses)

        return run

    for kind in (SVIEngine, FusedEngine, CompiledEngine):
        monkeypatch.setattr(kind, "run", crashing(kind.run))


def assert_equal(one, other):
    """Check that two posteriors are bitwise equal in tensors, history and settings."""
    for a, b in zip(one.chains, other.chains, strict=True):
        for module, expected in ((a.guide, b.guide), (a.network.net, b.network.net)):
            tensors = module.state_dict()
            assert tensors.keys() == expected.state_dict().keys()
            for name, tensor in expected.state_dict().items():
                assert torch.equal(tensors[name], tensor), name
        for name, values in vars(a.history).items():
            np.testing.assert_array_equal(values, getattr(b.history, name), err_msg=name)
        assert a.settings == b.settings
        assert a.network.training is b.network.training is False


def posterior_of(network, guide, history, example, settings=None):
    """Return a posterior with a single chain of these parts."""
    return Posterior((FittedChain(network, guide, history, example, settings or {}),))


def combined(posteriors):
    """Return one posterior with the chains of several."""
    return Posterior(tuple(chain for posterior in posteriors for chain in posterior.chains))


QUICK_ESTIMATOR = {"epochs": 60, "restarts": 1, "n_draws": 50, "random_state": 0}
"""Parameters with which an estimator is fitted in a fraction of a second."""


def noisy_sine(n=100, seed=0):
    """Return x and y of shape (n, 1)."""
    rng = np.random.default_rng(seed)
    x = rng.uniform(-2, 2, (n, 1))
    return x, np.sin(2 * x) + 0.1 * rng.normal(size=x.shape)
