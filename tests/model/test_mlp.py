"""`mlp`, and `mlp_spec`, which recognises the networks that `mlp` builds."""

import itertools
import re
from collections import OrderedDict

import pytest
import torch
from torch import nn

from pyrobbb import InputScale, mlp
from pyrobbb.model.mlp import ACTIVATIONS, MLPSpec, mlp_spec


@pytest.mark.parametrize("activation", ACTIVATIONS)
@pytest.mark.parametrize("hidden", [[], [5], [4, 6, 3]])
def test_mlp_alternates_linear_layers_and_activations(activation, hidden):
    net = mlp(3, hidden, 2, activation)
    sizes = [3, *hidden, 2]
    linears = [layer for layer in net if isinstance(layer, nn.Linear)]
    assert [(layer.in_features, layer.out_features) for layer in linears] == list(
        itertools.pairwise(sizes)
    )
    assert [type(layer) for layer in list(net)[1::2]] == [ACTIVATIONS[activation]] * len(hidden)
    assert type(net) is nn.Sequential


def test_a_seed_determines_the_weights_and_leaves_the_random_state_unchanged():
    state = torch.get_rng_state()
    first = mlp(3, [4], 1, seed=1)
    assert torch.equal(torch.get_rng_state(), state)
    torch.testing.assert_close(mlp(3, [4], 1, seed=1).state_dict(), first.state_dict())
    assert not torch.equal(mlp(3, [4], 1, seed=2)[0].weight, first[0].weight)
    assert not torch.equal(mlp(3, [4], 1)[0].weight, mlp(3, [4], 1)[0].weight)


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ((0, [3], 1), ValueError, "`n_in` must be at least 1, got 0."),
        ((2, [3], -1), ValueError, "`n_out` must be at least 1, got -1."),
        ((2, [3, 0], 1), ValueError, "`hidden` must be at least 1, got 0."),
        ((2.5, [3], 1), TypeError, "`n_in` must be a whole number, got 2.5."),
        ((2, [3.5], 1), TypeError, "`hidden` must be a whole number, got 3.5."),
        ((2, None, 1), TypeError, "`hidden` must be a sequence such as [50, 50], got None."),
        ((2, "50", 1), TypeError, "`hidden` must be a sequence such as [50, 50], got '50'."),
        ((2, [3], 1, "swish"), ValueError, "`activation` must be one of relu, tanh, sigmoid, "),
    ],
)
def test_mlp_raises_on_invalid_arguments(arguments, error, message):
    with pytest.raises(error, match=re.escape(message)):
        mlp(*arguments)


@pytest.mark.parametrize("activation", ACTIVATIONS)
@pytest.mark.parametrize("hidden", [(5,), (4, 6, 3)])
def test_mlp_spec_returns_the_arguments_of_mlp(activation, hidden):
    assert mlp_spec(mlp(3, hidden, 2, activation)) == MLPSpec(3, hidden, 2, activation)


def test_an_activation_may_be_used_twice():
    activation = nn.ReLU()
    net = nn.Sequential(nn.Linear(2, 3), activation, nn.Linear(3, 4), activation, nn.Linear(4, 1))
    assert mlp_spec(net) == MLPSpec(2, (3, 4), 1, "relu")


@pytest.mark.parametrize("hidden", [[], [4, 5]])
def test_mlp_with_scales_of_its_inputs_begins_as_the_one_without(hidden):
    scaled = mlp(3, hidden, 2, input_scale=True, seed=0)
    plain = mlp(3, hidden, 2, seed=0)
    x = torch.randn(6, 3)
    assert torch.equal(scaled(x), plain(x))
    names = [name for name, _ in plain.named_parameters()]
    assert [name for name, _ in scaled.named_parameters()] == ["inputs.log_scale", *names]
    assert mlp_spec(scaled) == MLPSpec(3, tuple(hidden), 2, "relu", input_scale=True)


def test_the_spec_of_a_linear_model_builds_the_same_model():
    spec = mlp_spec(mlp(3, [], 2, "tanh"))
    assert (spec.n_in, spec.hidden, spec.n_out) == (3, (), 2)
    rebuilt = mlp(spec.n_in, spec.hidden, spec.n_out, spec.activation)
    assert repr(rebuilt) == repr(mlp(3, [], 2))


class MySequential(nn.Sequential):
    pass


class MyLinear(nn.Linear):
    pass


@pytest.mark.parametrize(
    "net",
    [
        nn.Linear(2, 1),
        nn.Sequential(),
        nn.Sequential(nn.ReLU()),
        nn.Sequential(nn.Linear(2, 1), nn.ReLU()),
        nn.Sequential(nn.ReLU(), nn.Linear(2, 1)),
        nn.Sequential(nn.Linear(2, 1), nn.Linear(1, 1)),
        nn.Sequential(nn.Linear(2, 1), nn.Linear(1, 1), nn.Linear(1, 1)),
        nn.Sequential(nn.Linear(2, 1), nn.ReLU(), nn.ReLU()),
        nn.Sequential(nn.Linear(2, 3, bias=False), nn.ReLU(), nn.Linear(3, 1)),
        nn.Sequential(nn.Linear(2, 3), nn.ReLU(), nn.Linear(3, 1, bias=False)),
        nn.Sequential(nn.Linear(2, 3), nn.LeakyReLU(), nn.Linear(3, 1)),
        nn.Sequential(nn.Linear(2, 3), nn.ReLU(inplace=True), nn.Linear(3, 1)),
        nn.Sequential(nn.Linear(2, 3), nn.GELU(approximate="tanh"), nn.Linear(3, 1)),
        nn.Sequential(nn.Linear(2, 3), nn.Softplus(beta=2), nn.Linear(3, 1)),
        nn.Sequential(nn.Linear(2, 3), nn.Dropout(), nn.Linear(3, 1)),
        nn.Sequential(nn.Linear(2, 3), nn.ReLU(), nn.Linear(3, 3), nn.Tanh(), nn.Linear(3, 1)),
        nn.Sequential(MyLinear(2, 3), nn.ReLU(), nn.Linear(3, 1)),
        MySequential(nn.Linear(2, 3), nn.ReLU(), nn.Linear(3, 1)),
        nn.Sequential(InputScale(2), nn.Linear(2, 1)),
        nn.Sequential(OrderedDict({"inputs": InputScale(1), "0": nn.Linear(2, 1)})),
        nn.Sequential(OrderedDict({"inputs": nn.Identity(), "0": nn.Linear(2, 1)})),
        nn.Sequential(OrderedDict({"0": nn.Linear(2, 1), "inputs": InputScale(1)})),
    ],
    ids=lambda net: re.sub(r"\s+", " ", repr(net)),
)
def test_mlp_spec_is_none_for_other_networks(net):
    assert mlp_spec(net) is None
