"""Fits in batches of 7, 7, 7 and 2 rows, and an optimizer that records its steps."""

import numpy as np
import support
import torch

from pyrobbb import BayesianNetwork, mlp

RNG = np.random.default_rng(0)
X = RNG.normal(size=(23, 3)).astype(np.float32)
Y = X.sum(1, keepdims=True)


def network(**kwargs):
    return BayesianNetwork(mlp(3, [4], 1, seed=0), **kwargs)


def quick_fit(net=None, x=X, y=Y, **kwargs):
    kwargs = {"engine": "auto", "epochs": 3, "batch_size": 7, "kl_warmup": 0, **kwargs}
    return support.quick_fit(network() if net is None else net, x, y, **kwargs)


class RecordedSGD(torch.optim.SGD):
    """Gradient descent that records the learning rates and gradients of its steps."""

    seen = ()

    def __init__(self, params, lr):
        super().__init__(params, lr=lr)
        type(self).seen = []

    def step(self, closure=None):
        group = self.param_groups[0]
        type(self).seen.append((group["lr"], [p.grad.clone() for p in group["params"]]))
        return super().step(closure)
