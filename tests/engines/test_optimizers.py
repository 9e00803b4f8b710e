"""FlatAdam against torch's Adam, and the optimisers that fit accepts."""

import functools
import re

import numpy as np
import pyro
import pytest
import support
import torch
from torch import nn

from pyrobbb import BayesianNetwork, mlp, priors
from pyrobbb.engines.optimizers import FlatAdam, TorchOptimizer, as_factory, flat_optimizer

ADAMS = {
    "Adam": torch.optim.Adam,
    "Adam with weight decay": functools.partial(torch.optim.Adam, weight_decay=0.1),
    "Adam with other betas": functools.partial(torch.optim.Adam, betas=(0.5, 0.9), eps=1e-3),
    "AdamW": torch.optim.AdamW,
    "AdamW with weight decay": functools.partial(torch.optim.AdamW, weight_decay=0.5),
}
OTHERS = {
    "SGD with momentum": functools.partial(torch.optim.SGD, momentum=0.9, weight_decay=0.1),
    "RMSprop": torch.optim.RMSprop,
    "Adam(amsgrad)": functools.partial(torch.optim.Adam, amsgrad=True),
    "Adam(maximize)": functools.partial(torch.optim.Adam, maximize=True),
    "Adagrad": torch.optim.Adagrad,
}


def assert_same_20_steps(factory, kind):
    starts = [torch.randn(7, dtype=torch.float64), torch.randn(2, 3, dtype=torch.float64)]
    tensors = [tensor.clone() for tensor in starts]
    optimizer = flat_optimizer(tensors, factory)
    assert type(optimizer) is kind
    expected = [nn.Parameter(tensor.clone()) for tensor in starts]
    stock = factory(expected, lr=1.0)
    for step in range(20):
        lr = 0.01 * (1 + step % 3)
        for parameter in expected:
            parameter.grad = torch.randn_like(parameter)
        optimizer.step([parameter.grad.clone() for parameter in expected], lr)
        stock.param_groups[0]["lr"] = lr
        stock.step()
    for tensor, parameter, start in zip(tensors, expected, starts, strict=True):
        torch.testing.assert_close(tensor, parameter.detach(), rtol=1e-12, atol=1e-14)
        assert (tensor != start).all()


@pytest.mark.parametrize("name", ADAMS)
def test_flat_adam_takes_the_steps_of_torchs_adam(name):
    assert_same_20_steps(ADAMS[name], FlatAdam)


@pytest.mark.parametrize("name", OTHERS)
def test_every_other_optimiser_is_run_by_torch(name):
    assert_same_20_steps(OTHERS[name], TorchOptimizer)


def test_adam_in_half_precision_is_run_by_torch():
    tensors = [torch.ones(3, dtype=torch.bfloat16)]
    optimizer = flat_optimizer(tensors, torch.optim.Adam)
    optimizer.step([torch.ones_like(tensors[0])], 0.25)
    assert tensors[0].tolist() == [0.75] * 3


# In fit

X = np.random.default_rng(0).normal(size=(23, 3))
Y = X.sum(1, keepdims=True)


def quick_fit(optimizer, engine="fused", **kwargs):
    net = BayesianNetwork(mlp(3, [4], 1, seed=0).double(), priors.ByName({"2.bias": None}))
    kwargs = {"epochs": 3, "lr": 1e-3, **kwargs}
    return support.quick_fit(net, X, Y, optimizer=optimizer, engine=engine, **kwargs)


class RecordingOptimizer(torch.optim.Optimizer):
    """Wrap a torch optimiser and record the gradients it receives and its updates."""

    def __init__(self, params, lr, make):
        self.inner = make(params, lr=lr)
        super().__init__(self.inner.param_groups[0]["params"], {"lr": lr})
        self.param_groups = self.inner.param_groups
        self.seen = []

    def step(self, closure=None):
        (group,) = self.param_groups
        gradients = [p.grad.clone() for p in group["params"]]
        before = [p.detach().clone() for p in group["params"]]
        self.inner.step()
        after = [p.detach().clone() for p in group["params"]]
        self.seen.append((group["lr"], gradients, before, after))


@pytest.mark.parametrize("name", OTHERS)
def test_fit_accepts_every_torch_optimiser(name):
    made = []

    def factory(params, lr):
        made.append(RecordingOptimizer(params, lr, OTHERS[name]))
        return made[-1]

    posterior = quick_fit(factory)
    assert posterior.settings["engine"] == "fused"
    (used,) = [optimizer for optimizer in made if optimizer.seen]
    assert len(used.seen) == 9
    for (_, _, _, after), (_, _, before, _) in zip(used.seen, used.seen[1:], strict=False):
        assert all(torch.equal(a, b) for a, b in zip(after, before, strict=True))
    loc, rho, point = used.seen[-1][3]
    assert torch.equal(posterior.guide.loc, loc)
    assert torch.equal(posterior.guide.rho, rho)
    assert torch.equal(posterior.network.net[2].bias, point)
    by_name = quick_fit(OTHERS[name])
    assert torch.equal(by_name.guide.loc, posterior.guide.loc)


def test_fits_by_adam_and_adamw_differ_in_their_weight_decay():
    heavy = functools.partial(torch.optim.AdamW, weight_decay=10.0)
    fits = [quick_fit(optimizer) for optimizer in (torch.optim.Adam, torch.optim.AdamW, heavy)]
    norms = [float(posterior.guide.loc.detach().norm()) for posterior in fits]
    assert norms[2] < norms[1] < norms[0]


@pytest.mark.parametrize("engine", ["svi", "fused"])
def test_a_pyro_optimiser_equals_that_of_torch_at_its_learning_rate(engine):
    pyros = pyro.optim.Adam({"lr": 0.02, "betas": (0.8, 0.9)})
    by_pyro = quick_fit(pyros, engine, lr=99.0)
    by_torch = quick_fit(functools.partial(torch.optim.Adam, betas=(0.8, 0.9)), engine, lr=0.02)
    assert torch.equal(by_pyro.guide.loc, by_torch.guide.loc)
    assert by_pyro.settings["lr"] == 0.02
    without = quick_fit(pyro.optim.Adam({}), engine, lr=0.02)
    assert without.settings["lr"] == 0.02


@pytest.mark.parametrize("engine", ["svi", "fused"])
def test_clipped_adam_of_pyro_clips_the_gradients(engine):
    tight = quick_fit(pyro.optim.ClippedAdam({"lr": 0.01, "clip_norm": 1e-9}), engine)
    free = quick_fit(pyro.optim.ClippedAdam({"lr": 0.01, "clip_norm": 1e9}), engine)
    plain = quick_fit(torch.optim.Adam, engine, lr=0.01)
    torch.testing.assert_close(free.guide.loc, plain.guide.loc, rtol=1e-4, atol=1e-6)
    # Adam's steps do not depend on the gradient's size, unless it is as small as eps.
    assert (tight.guide.loc - plain.guide.loc).abs().max() > 1e-3


def schedule():
    return pyro.optim.ExponentialLR(
        {"optimizer": torch.optim.Adam, "optim_args": {"lr": 0.01}, "gamma": 0.1}
    )


@pytest.mark.parametrize(
    ("optimizer", "message"),
    [
        (schedule, "one set of options for all parameters, .*; set a schedule by `schedule`"),
        (lambda: pyro.optim.Adam(lambda name: {"lr": 0.1}), "one set of options for all"),
        (
            lambda: torch.optim.Adam([torch.zeros(1)]),
            r"`optimizer` must be a class such as torch.optim.Adam, got a Adam: "
            "`fit` passes the parameters to it",
        ),
        (lambda: 0.01, re.escape("must be a class such as torch.optim.Adam, got 0.01")),
    ],
)
def test_an_argument_that_is_not_an_optimiser_is_rejected(optimizer, message):
    with pytest.raises(TypeError, match=re.compile(message, re.DOTALL)):
        quick_fit(optimizer())
    with pytest.raises(TypeError, match=re.compile(message, re.DOTALL)):
        as_factory(optimizer(), 0.1)


def test_a_learning_rate_decay_in_the_optimiser_is_rejected():
    with pytest.raises(TypeError, match=r"`optimizer` has lrd=0\.9.*leave lrd out"):
        quick_fit(pyro.optim.ClippedAdam({"lr": 0.01, "lrd": 0.9}), "fused")


def test_the_learning_rate_of_a_pyro_optimiser_is_checked():
    with pytest.raises(ValueError, match=r"`lr` must be positive, got -0\.01"):
        quick_fit(pyro.optim.Adam({"lr": -0.01}), "fused")
