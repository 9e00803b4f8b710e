"""Sequences of layers under many draws, against torch.vmap over torch.func.functional_call."""

import copy

import pytest
import torch
from torch import nn
from torch.func import functional_call
from torch.testing import assert_close

from pyrobbb import BayesianNetwork, mlp
from pyrobbb.model.functional import evaluating
from pyrobbb.model.input_scale import InputScale
from pyrobbb.model.mlp import ACTIVATIONS
from pyrobbb.model.sequential import (
    BACKWARD,
    gradients_of_layers,
    layers_of,
    run_layers,
)

N_DRAWS = 5

NETWORKS = {
    "linear": lambda: mlp(3, [], 2),
    **{name: lambda name=name: mlp(3, [7, 4], 2, name) for name in ACTIVATIONS},
    "no bias": lambda: nn.Sequential(nn.Linear(3, 6, bias=False), nn.Tanh(), nn.Linear(6, 1)),
    "other activations": lambda: nn.Sequential(nn.Linear(3, 6), nn.LeakyReLU(0.3), nn.Hardtanh()),
    "two activations": lambda: nn.Sequential(nn.Linear(3, 6), nn.Tanh(), nn.Sigmoid()),
    "scaled inputs": lambda: nn.Sequential(InputScale(3), *mlp(3, [6], 2)),
    "scaled units": lambda: nn.Sequential(nn.Linear(3, 6), InputScale(6), nn.Tanh()),
    "an activation first": lambda: nn.Sequential(nn.ReLU(), nn.Tanh(), nn.Linear(3, 2), nn.ReLU()),
}


def drawn(net, names=None):
    return {
        name: torch.randn((N_DRAWS, *parameter.shape), dtype=torch.float64)
        for name, parameter in net.named_parameters()
        if names is None or name in names
    }


@pytest.mark.parametrize("make", NETWORKS.values(), ids=NETWORKS)
@pytest.mark.parametrize("x_per_draw", [False, True])
def test_layers_compute_what_vmap_computes(make, x_per_draw):
    net = make().double()
    values = drawn(net)
    x = torch.randn((N_DRAWS, 9, 3) if x_per_draw else (9, 3), dtype=torch.float64)
    in_dims = (0, 0 if x_per_draw else None)
    expected = torch.vmap(lambda v, x: functional_call(net, v, (x,)), in_dims)(values, x)
    assert_close(run_layers(layers_of(net), values, x), expected)


@pytest.mark.parametrize("make", NETWORKS.values(), ids=NETWORKS)
@pytest.mark.parametrize("graph", [False, True])
@pytest.mark.parametrize("n_rows", [2, 9])
def test_many_draws_at_the_same_inputs_equal_those_of_vmap(make, graph, n_rows):
    net = make().double()
    values, x = drawn(net), torch.randn(n_rows, 3, dtype=torch.float64)
    expected = torch.vmap(lambda v: functional_call(net, v, (x,)))(values)
    before = x.clone()
    with torch.set_grad_enabled(graph):
        output = run_layers(layers_of(net), values, x)
    assert_close(output, expected)
    assert torch.equal(x, before)


@pytest.mark.parametrize("names", [{"0.bias", "2.weight"}, {"0.weight", "2.bias"}, {"2.weight"}])
def test_parameters_that_are_not_drawn_keep_their_values(names):
    net = mlp(3, [6], 2).double()
    x = torch.randn(9, 3, dtype=torch.float64)
    values = drawn(net, names)
    expected = torch.vmap(lambda v: functional_call(net, v, (x,)))(values)
    assert_close(run_layers(layers_of(net), values, x), expected)


ELEMENTWISE = [
    *(kind() for kind in BACKWARD),
    nn.GELU(approximate="tanh"),
    nn.ELU(alpha=0.3),
    nn.LeakyReLU(0.3),
    nn.Softplus(beta=3.0, threshold=1.0),
    nn.Hardtanh(-0.2, 0.4),
]


@pytest.mark.parametrize("activation", ELEMENTWISE, ids=str)
@pytest.mark.parametrize("n_draws", [None, N_DRAWS])
def test_explicit_gradients_equal_those_of_autograd(activation, n_draws):
    net = nn.Sequential(
        nn.Linear(3, 6), activation, nn.Linear(6, 5, bias=False), activation, nn.Linear(5, 2)
    ).double()
    assert_gradients_equal_those_of_autograd(net, n_draws, kept={"4.weight"})


def test_activations_needed_for_gradients_are_not_overwritten():
    net = nn.Sequential(nn.Linear(3, 6), nn.Tanh(), nn.Sigmoid(), nn.Linear(6, 2)).double()
    x, values, hidden = torch.randn(9, 3).double(), drawn(net), []
    with torch.no_grad():
        run_layers(layers_of(net), values, x, hidden=hidden)
    assert_close(hidden[2], hidden[1].tanh())
    assert_close(hidden[3], hidden[2].sigmoid())


@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("kept", [set(), {"2.weight"}])
def test_a_layer_of_one_unit_has_the_same_output_and_gradients(bias, kept):
    net = nn.Sequential(nn.Linear(3, 6), nn.Tanh(), nn.Linear(6, 1, bias=bias)).double()
    output = assert_gradients_equal_those_of_autograd(net, None, kept)
    assert output.shape == (9, 1)


@pytest.mark.parametrize("n_draws", [None, N_DRAWS])
@pytest.mark.parametrize("kept", [set(), {"0.log_scale"}, {"2.log_scale"}, {"1.weight", "1.bias"}])
def test_gradients_of_scales_equal_those_of_autograd(n_draws, kept):
    layers = InputScale(3), nn.Linear(3, 6), InputScale(6), nn.Tanh(), nn.Linear(6, 2)
    assert_gradients_equal_those_of_autograd(nn.Sequential(*layers).double(), n_draws, kept)


def assert_gradients_equal_those_of_autograd(net, n_draws, kept):
    x = torch.randn(9, 3, dtype=torch.float64)
    values = {
        name: (value if n_draws else value[0]).requires_grad_()
        for name, value in drawn(net).items()
        if name not in kept
    }
    hidden = []
    output = run_layers(layers_of(net), values, x, hidden=hidden)
    if not n_draws:
        assert_close(output, functional_call(net, values, (x,)))
    grad_output = torch.randn_like(output)
    expected = torch.autograd.grad(output, list(values.values()), grad_output)
    gradients = gradients_of_layers(layers_of(net), values, hidden, grad_output)
    assert_close([gradients[name] for name in values], list(expected))
    return output


def test_backpropagation_stops_at_the_first_learned_layer():
    net = mlp(3, [6, 5], 2).double()
    values = {name: value.requires_grad_() for name, value in drawn(net, {"2.bias"}).items()}
    hidden = []
    output = run_layers(layers_of(net), values, torch.randn(9, 3).double(), hidden=hidden)
    (expected,) = torch.autograd.grad(output.sum(), list(values.values()))
    gradients = gradients_of_layers(layers_of(net), values, hidden, torch.ones_like(output))
    assert_close(gradients, {"2.bias": expected})


def test_a_layer_may_be_used_twice():
    relu = nn.ReLU()
    net = nn.Sequential(nn.Linear(3, 4), relu, nn.Linear(4, 4), relu, nn.Linear(4, 1)).double()
    values, x = drawn(net), torch.randn(9, 3, dtype=torch.float64)
    expected = torch.vmap(lambda v: functional_call(net, v, (x,)))(values)
    assert_close(run_layers(layers_of(net), values, x), expected)


def test_gradients_equal_those_of_vmap():
    net = mlp(3, [6], 2, "tanh").double()
    x = torch.randn(9, 3, dtype=torch.float64)
    values = {name: value.requires_grad_() for name, value in drawn(net).items()}
    outputs = [
        run_layers(layers_of(net), values, x),
        torch.vmap(lambda v: functional_call(net, v, (x,)))(values),
    ]
    *ours, expected = (
        torch.autograd.grad(output.square().sum(), list(values.values())) for output in outputs
    )
    for gradients in ours:
        assert_close(gradients, expected)


class MyLinear(nn.Linear):
    def forward(self, x):
        return -super().forward(x)


def hooked():
    net = mlp(3, [4], 1)
    net[0].register_forward_hook(lambda *_: None)
    return net


def tied():
    layer = nn.Linear(3, 3)
    return nn.Sequential(layer, nn.ReLU(), layer)


OTHER_MODULES = {
    "subclass of a layer": lambda: nn.Sequential(MyLinear(3, 2)),
    "subclass of Sequential": lambda: type("Mine", (nn.Sequential,), {})(nn.Linear(3, 2)),
    "parametrised": lambda: nn.Sequential(
        nn.utils.parametrizations.weight_norm(nn.Linear(3, 2)), nn.ReLU()
    ),
    "hooked": hooked,
    "softmax": lambda: nn.Sequential(nn.Linear(3, 2), nn.Softmax(dim=1)),
    "flatten": lambda: nn.Sequential(nn.Flatten(), nn.Linear(3, 2)),
    "dropout": lambda: nn.Sequential(nn.Linear(3, 2), nn.Dropout()),
    "tied": tied,
    "in place": lambda: nn.Sequential(nn.Linear(3, 2), nn.ELU(inplace=True)),
    "one layer": lambda: nn.Linear(3, 2),
}


@pytest.mark.parametrize("make", OTHER_MODULES.values(), ids=OTHER_MODULES)
def test_layers_of_is_none_for_other_modules(make):
    assert layers_of(make()) is None


@pytest.mark.parametrize(
    "make", [NETWORKS["tanh"], *OTHER_MODULES.values()], ids=["layers", *OTHER_MODULES]
)
def test_outputs_do_not_depend_on_the_number_of_rows_per_tile(make):
    network = BayesianNetwork(make())
    draws = {
        name: torch.randn(N_DRAWS, *parameter.shape)
        for name, parameter in network.bayesian_parameters()
    }
    x = torch.randn(10, 3)
    with evaluating(network):
        whole = network.output(draws, x)
        assert whole.shape[:2] == (N_DRAWS, 10)
        one_by_one = [
            # A copy, because functional_call does not restore a module that has two names.
            functional_call(copy.deepcopy(network.net), {n: v[i] for n, v in draws.items()}, (x,))
            for i in range(N_DRAWS)
        ]
        assert_close(whole, torch.stack(one_by_one))
        assert_close(network.output(draws, x, rows_at_once=4), whole)
