"""Shared by several test files: crashes in the middle of a fit, bitwise comparison of fits."""

import numpy as np
import torch

from pyrobbb import Posterior
from pyrobbb.engines.compiled import CompiledEngine
from pyrobbb.engines.fused import FusedEngine
from pyrobbb.engines.svi import SVIEngine
from pyrobbb.fitted import FittedChain


class Crash(BaseException):
    """What no code here catches, like a power cut."""


def crash_at(monkeypatch, n_steps):
    """Let whatever engine crash in mid-step when so many have been taken."""
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
    for a, b in zip(one.chains, other.chains, strict=True):
        for mine, theirs in ((a.guide, b.guide), (a.network.net, b.network.net)):
            own = mine.state_dict()
            assert own.keys() == theirs.state_dict().keys()
            for name, tensor in theirs.state_dict().items():
                assert torch.equal(own[name], tensor), name
        for name, values in vars(a.history).items():
            np.testing.assert_array_equal(values, getattr(b.history, name), err_msg=name)
        assert a.settings == b.settings
        assert a.network.training is b.network.training is False


def posterior_of(network, guide, history, example, settings=None):
    """Return a posterior with one chain, made by hand."""
    return Posterior((FittedChain(network, guide, history, example, settings or {}),))


def combined(posteriors):
    """Return the chains of several posteriors as one posterior."""
    return Posterior(tuple(chain for posterior in posteriors for chain in posterior.chains))


QUICK_ESTIMATOR = {"epochs": 60, "restarts": 1, "n_draws": 50, "random_state": 0}
"""Parameters of an estimator that is fitted in a fraction of a second."""


def noisy_sine(n=100, seed=0):
    """Return x and y of shape (n, 1)."""
    rng = np.random.default_rng(seed)
    x = rng.uniform(-2, 2, (n, 1))
    return x, np.sin(2 * x) + 0.1 * rng.normal(size=x.shape)
