"""Modules, parameters and priors that cannot become a Pyro model are refused before a step."""

import re

import numpy as np
import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro.nn import PyroModule, PyroParam, PyroSample
from torch import nn
from torch.nn import functional

from pyrobbb import BayesianNetwork, fit, mlp
from pyrobbb.priors import ByName, Normal

X, Y = torch.randn(10, 3), torch.randn(10, 1)
QUICK = {"epochs": 1, "progress": False, "seed": 0}


def in_order(*layers):
    return nn.Sequential(*layers, nn.Linear(3, 1))


class Sampling(PyroModule):
    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(3, 1)
        self.slope = PyroSample(dist.Normal(0.0, 1.0))

    def forward(self, x):
        return self.layer(x) * self.slope


class Learning(PyroModule):
    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(3, 1)
        self.slope = PyroParam(torch.ones(()))

    def forward(self, x):
        return self.layer(x) * self.slope


UNSUPPORTED = {
    "scripted": (lambda: torch.jit.script(mlp(3, [4], 1)), "compiled for its own parameters"),
    "traced": (lambda: torch.jit.trace(mlp(3, [4], 1), X), "compiled for its own parameters"),
    "scripted part": (lambda: in_order(torch.jit.script(nn.Linear(3, 3))), "at '0', which is comp"),
    "data parallel": (lambda: nn.DataParallel(mlp(3, [4], 1)), r"pass net\.module"),
    "part data parallel": (lambda: in_order(nn.DataParallel(nn.Linear(3, 3))), r"net\.0\.module"),
    "compiled": (lambda: torch.compile(mlp(3, [4], 1)), r"pass net\._orig_mod"),
    "PyroSample": (Sampling, "Sampling, a PyroModule"),
    "PyroParam": (Learning, "Learning, a PyroModule"),
    "Pyro linear": (lambda: PyroModule[nn.Linear](3, 1), "a PyroModule"),
    "max_norm": (lambda: nn.Embedding(5, 3, max_norm=1.0), "with `max_norm`"),
    "max_norm of a bag": (lambda: nn.EmbeddingBag(5, 3, max_norm=1.0), "with `max_norm`"),
    "sparse gradients": (lambda: nn.Embedding(5, 3, sparse=True), "sparse=False"),
    "sparse bag": (lambda: in_order(nn.EmbeddingBag(5, 3, sparse=True)), "at '0' with sparse"),
    "lazy": (lambda: nn.LazyLinear(2), "lazy parameter 'weight'"),
}


@pytest.mark.parametrize("name", UNSUPPORTED)
@pytest.mark.filterwarnings("ignore::DeprecationWarning:torch")
def test_unsupported_modules_raise_when_they_are_wrapped(name):
    make, message = UNSUPPORTED[name]
    with pytest.raises(ValueError, match=message) as caught:
        BayesianNetwork(make())
    assert "\n" not in str(caught.value)


def with_hook():
    net = mlp(3, [4], 1)
    net[0].weight.register_hook(lambda gradient: gradient * 0)
    return net


def test_a_gradient_hook_on_a_parameter_raises():
    with pytest.raises(ValueError, match=r"gradient hook on its parameter '0\.weight'"):
        BayesianNetwork(with_hook())


class Custom(nn.Module):
    """A module with a layer, and one more whose forward is given."""

    def __init__(self, forward):
        super().__init__()
        self.layer, self.other = nn.Linear(3, 1), nn.Linear(3, 1)
        self.forward = lambda x: forward(self, x)


class Forward(nn.Module):
    def __init__(self, function):
        super().__init__()
        self.layer, self.other, self.function = nn.Linear(3, 1), nn.Linear(3, 1), function

    def forward(self, x):
        return self.function(self, x)


UNREGISTERED = nn.Linear(3, 1)
LEARNABLE = torch.ones((), requires_grad=True)


def without_gradient(self, x):
    with torch.no_grad():
        h = self.other(x)
    return self.layer(x) + h


def of_pyro(self, x):
    return self.layer(x) + pyro.sample("shift", dist.Normal(0.0, 1.0))


def of_pyro_param(self, x):
    return self.layer(x) + pyro.param("shift", torch.zeros(1))


class InPlainList(nn.Module):
    def __init__(self):
        super().__init__()
        self.layer, self.layers = nn.Linear(3, 3), [nn.Linear(3, 1)]

    def forward(self, x):
        return self.layers[0](self.layer(x))


class Holder:
    def __init__(self, module):
        self.module = module


class HeldElsewhere(nn.Module):
    """Reaches its layer through an object that is not a module."""

    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(3, 1)
        self.holder = Holder(self.layer)

    def forward(self, x):
        return self.holder.module(x)


UNLIFTABLE = {
    "closure": (lambda: Custom(lambda self, x: self.layer(x)), "learnable tensor of shape"),
    "global layer": (
        lambda: Forward(lambda self, x: self.layer(x) + UNREGISTERED(x)),
        "learnable tensor of shape",
    ),
    "layers in a plain list": (InPlainList, "learnable tensor of shape"),
    "layer held by another object": (HeldElsewhere, "learnable tensor of shape"),
    "no_grad": (lambda: Forward(without_gradient), r"uses its parameter 'other\.weight' without"),
    "detach": (
        lambda: Forward(lambda self, x: self.layer(x) + self.other(x).detach()),
        r"uses its parameter 'other\.weight' without a gradient",
    ),
    "data": (
        lambda: Forward(lambda self, x: functional.linear(x, self.layer.weight.data)),
        r"uses its parameter 'layer\.weight' without a gradient",
    ),
    "sample in forward": (lambda: Forward(of_pyro), "Pyro site 'shift'"),
    "param in forward": (lambda: Forward(of_pyro_param), "Pyro site 'shift'"),
    "half": (lambda: mlp(3, [4], 1).half(), r"'0\.weight' in torch\.float16"),
    "bfloat16": (lambda: mlp(3, [4], 1).bfloat16(), r"'0\.weight' in torch\.bfloat16"),
    "complex": (lambda: nn.Linear(3, 1, dtype=torch.complex64), "'weight' in torch.complex64"),
    "mixed": (lambda: in_order(nn.Linear(3, 3).double()), r"float64 .* '1\.weight' in torch\.fl"),
    "two outputs": (lambda: Forward(lambda self, x: (self.layer(x), x)), "return a tensor"),
    "no rows": (lambda: Forward(lambda self, x: self.layer(x).mean()), "one row for each row"),
}


@pytest.mark.parametrize("engine", ["svi", "fused"])
@pytest.mark.parametrize("name", UNLIFTABLE)
def test_modules_that_do_not_follow_their_draws_raise_before_the_first_step(name, engine):
    make, message = UNLIFTABLE[name]
    with pytest.raises(ValueError, match=message) as caught:
        fit(BayesianNetwork(make()), X, Y, engine=engine, **QUICK)
    assert "\n" not in str(caught.value)


def test_a_half_precision_module_is_fitted_in_the_dtype_that_is_asked_for():
    posterior = fit(BayesianNetwork(mlp(3, [4], 1).half()), X, Y, dtype=torch.float32, **QUICK)
    assert posterior.guide.loc.dtype == torch.float32


def test_parameters_that_are_not_used_are_named_once(caplog):
    net = Forward(lambda self, x: self.layer(x))
    fit(BayesianNetwork(net), X, Y, **QUICK)
    warnings = [record.getMessage() for record in caplog.records if record.levelname == "WARNING"]
    assert warnings == [
        "The output of the network does not depend on 'other.weight', 'other.bias': what is learned"
        " of it is the prior."
    ]


def counting(self, x):
    self.n_calls += self.training
    return self.layer(x) * (1 + 0.1 * self.n_calls)


def test_a_counter_that_is_not_a_buffer_is_named(caplog):
    net = Forward(counting)
    net.n_calls = 0
    posterior = fit(BayesianNetwork(net), X, Y, **QUICK)
    assert "`net` changes its attribute 'n_calls' in forward" in caplog.text
    assert posterior.network.net.n_calls == 0


class LearnableScale(nn.Module):
    def __init__(self):
        super().__init__()
        self.log_scale = nn.Parameter(torch.zeros(()))

    def forward(self, name, parameter):
        return over(parameter, self.log_scale.exp())


def over(parameter, scale):
    return dist.Normal(0.0, scale).expand(parameter.shape).to_event(parameter.dim())


UNFIXED_PRIORS = {
    "sample": (
        lambda name, p: over(p, pyro.sample("tau", dist.HalfCauchy(1.0))),
        "the Pyro site 'tau'",
    ),
    "sample per parameter": (
        lambda name, p: over(p, pyro.sample(f"tau_{name}", dist.LogNormal(0.0, 1.0))),
        "the Pyro site 'tau_0.weight'",
    ),
    "param": (
        lambda name, p: over(
            p, pyro.param("tau", torch.ones(()), constraint=dist.constraints.positive)
        ),
        "the Pyro site 'tau'",
    ),
    "module": (LearnableScale(), "a tensor that requires a gradient"),
    "leaf": (
        lambda name, p: over(p, LEARNABLE),
        "a tensor that requires a gradient",
    ),
    "NumPy": (
        lambda name, p: over(p, np.random.default_rng().uniform()),
        "other random numbers in each call",
    ),
    "torch": (lambda name, p: over(p, torch.rand(())), "other random numbers in each call"),
}


@pytest.mark.parametrize("engine", ["svi", "fused"])
@pytest.mark.parametrize("name", UNFIXED_PRIORS)
def test_priors_that_are_not_fixed_raise_before_the_first_step(name, engine):
    prior, message = UNFIXED_PRIORS[name]
    pyro.clear_param_store()
    with pytest.raises(ValueError, match=rf"`prior` has {message} for '0\.weight'"):
        fit(BayesianNetwork(mlp(3, [4], 1), prior), X, Y, engine=engine, **QUICK)


def sites_of(posterior):
    return [name for name in posterior.draws(1, 0) if name != "noise_scale"]


@pytest.mark.parametrize("engine", ["svi", "fused"])
def test_a_layer_that_is_frozen_after_wrapping_is_frozen(engine):
    net = mlp(3, [4], 1)
    network = BayesianNetwork(net)
    net[0].requires_grad_(False)
    posterior = fit(network, X, Y, engine=engine, **QUICK)
    assert sites_of(posterior) == ["2.weight", "2.bias"]
    assert torch.equal(posterior.network.net[0].weight, net[0].weight)
    net[0].requires_grad_(True)
    assert len(sites_of(fit(network, X, Y, engine=engine, **QUICK))) == 4


def test_a_layer_that_is_added_after_wrapping_has_the_prior():
    net = mlp(3, [4], 4)
    network = BayesianNetwork(net)
    net.append(nn.Linear(4, 1))
    assert sites_of(fit(network, X, Y, **QUICK))[-2:] == ["3.weight", "3.bias"]


def test_a_prior_that_is_assigned_after_wrapping_decides():
    network = BayesianNetwork(mlp(3, [4], 1))
    network.prior = ByName({"0.*": None}, default=Normal())
    assert sites_of(fit(network, X, Y, **QUICK)) == ["2.weight", "2.bias"]


def test_a_fitted_network_keeps_its_sites_when_it_is_frozen():
    posterior = fit(BayesianNetwork(mlp(3, [4], 1)), X, Y, **QUICK)
    expected = posterior.predict(X, 5, seed=1).mean
    posterior.network.requires_grad_(False)
    assert torch.equal(posterior.predict(X, 5, seed=1).mean, expected)


def test_a_module_without_anything_left_to_learn_raises():
    network = BayesianNetwork(mlp(3, [4], 1))
    network.net.requires_grad_(False)
    with pytest.raises(ValueError, match="at least one parameter of `net` Bayesian"):
        fit(network, X, Y, **QUICK)


@pytest.mark.parametrize(
    "patterns",
    [
        {"*": Normal(1.0), "2.*": None},
        {"*.weight": Normal(1.0), "2.weight": Normal(2.0)},
        {"0.*": None, "[0]*": Normal(1.0)},
    ],
)
def test_a_pattern_that_never_decides_is_named(patterns):
    shadowed = list(patterns)[1]
    with pytest.raises(ValueError, match=re.escape(f"{shadowed!r} never decides")):
        BayesianNetwork(mlp(3, [4], 1), ByName(patterns, default=Normal()))
