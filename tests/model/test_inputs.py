"""Validation of data against a network, before the first step."""

import copy
import re

import numpy as np
import pytest
import torch
from modules import LATENTS, cnn, embedding_bag
from torch import nn

from pyrobbb import BayesianNetwork, mlp
from pyrobbb.likelihoods import Categorical
from pyrobbb.priors import ByName

POINTS_IN_NORM = ByName({"1.*": None})


def test_prepare_converts_data_to_the_dtype_of_the_network():
    network = BayesianNetwork(mlp(2, [], 1))
    x, y = network.prepare(np.arange(6).reshape(3, 2), [[1], [2], [3]])
    assert (x.dtype, y.dtype) == (torch.float32, torch.float32)
    assert (x.tolist(), y.tolist()) == ([[0, 1], [2, 3], [4, 5]], [[1], [2], [3]])


def test_prepare_keeps_integers_for_an_embedding():
    network = BayesianNetwork(embedding_bag(), likelihood=Categorical())
    x = network.prepare_inputs(np.array([[1, 2], [3, 4]], dtype=np.int32))
    assert x.dtype == torch.int32


def test_prepare_leaves_modes_buffers_and_random_state_unchanged():
    net = cnn().train()
    net[1].eval()
    network = BayesianNetwork(net, POINTS_IN_NORM, Categorical())
    modes = [module.training for module in network.modules()]
    before, state = copy.deepcopy(net.state_dict()), torch.get_rng_state()
    network.prepare(torch.randn(4, 1, 5, 5, generator=torch.Generator()), [0, 1, 2, 0])
    assert [module.training for module in network.modules()] == modes
    torch.testing.assert_close(net.state_dict(), before, rtol=0, atol=0)
    assert torch.equal(torch.get_rng_state(), state)


@pytest.mark.parametrize("likelihood", LATENTS.values(), ids=LATENTS)
def test_prepare_draws_no_latent_site_from_the_random_state(likelihood):
    network = BayesianNetwork(mlp(2, [4], 2), likelihood=likelihood)
    state = torch.get_rng_state()
    network.prepare(np.zeros((3, 2)), np.ones((3, 2)))
    network.latent_sites(np.zeros((3, 2)))
    assert torch.equal(torch.get_rng_state(), state)


@pytest.mark.parametrize(
    ("x", "message"),
    [
        (np.zeros((4, 2)), "`x` with rows of shape (2,) and dtype torch.float32 does not fit the"),
        (np.zeros(4), "`x` with rows of shape () and dtype torch.float32 does not fit the network"),
        (np.full((4, 3), np.nan), "`x` has 12 value(s) that are NaN or infinite"),
        (np.zeros((5, 3)), "`x` and `y` must have the same number of rows, got 5 and 4."),
    ],
)
def test_data_that_do_not_fit_the_network_raise(x, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        BayesianNetwork(mlp(3, [], 1)).prepare(x, np.zeros((4, 1)))


class Returns(nn.Linear):
    def __init__(self, change):
        super().__init__(2, 1)
        self.change = change

    def forward(self, x):
        return self.change(super().forward(x))


@pytest.mark.parametrize(
    ("change", "got"),
    [
        (lambda output: (output, output), "<class 'tuple'>"),
        (lambda output: output.mean(), "shape ()"),
        (lambda output: output[:1], "shape (1, 1)"),
    ],
)
def test_a_module_must_return_one_row_per_row_of_x(change, got):
    message = (
        f"`net` must return a tensor with one row for each row of x: for 2 rows it returned {got}."
    )
    with pytest.raises(ValueError, match=re.escape(message)):
        BayesianNetwork(Returns(change)).prepare_inputs(np.zeros((4, 2)))


class Words(nn.Module):
    def __init__(self, layer):
        super().__init__()
        self.layer, self.last = layer, nn.Linear(2, 1)

    def forward(self, x):
        return self.last(self.layer(x.long()).reshape((len(x), -1, 2)).mean(1))


INDICES = torch.arange(9).repeat(30)[:160].reshape(40, 4)


@pytest.mark.parametrize("layer", [nn.Embedding(9, 2), nn.EmbeddingBag(9, 2)], ids=["one", "bag"])
@pytest.mark.parametrize("index", [9, 1000, -1])
@pytest.mark.parametrize("row", [0, 2, 30, 39])
def test_the_row_of_an_index_out_of_range_is_named(layer, index, row):
    x = INDICES.clone()
    x[row, 2] = index
    network = BayesianNetwork(Words(layer))
    with pytest.raises(ValueError, match=r"^`x` .*") as refused:
        network.prepare_inputs(x)
    if row >= 2:  # the first rows are those of every trial
        message = f"`x` has a row that the network cannot take, row {row}: "
        assert str(refused.value).startswith(message)
    network.prepare_inputs(INDICES)


def test_rows_after_the_first_chunk_are_checked(monkeypatch):
    monkeypatch.setattr("pyrobbb.model.trial.N_VALUES", 8)
    x = INDICES.clone()
    x[33:, 1] = 9
    with pytest.raises(ValueError, match=r"^`x` .*, row 33: "):
        BayesianNetwork(Words(nn.Embedding(9, 2))).prepare_inputs(x)


@pytest.mark.parametrize("name", ["x", "y"])
def test_a_number_too_large_for_the_network_is_named_before_the_first_step(name):
    data = {"x": np.zeros((4, 3)), "y": np.zeros((4, 1))}
    data[name][2, 0] = 1e39
    message = rf"^`{name}` holds 1e\+39 in row 2, column 0, which is too large for torch\.float32"
    with pytest.raises(ValueError, match=message):
        BayesianNetwork(mlp(3, [], 1)).prepare(**data)
    BayesianNetwork(mlp(3, [], 1).double()).prepare(**data)
