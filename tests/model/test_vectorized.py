"""Any module under many draws, against copies of the module with one draw each."""

import copy
import logging
import math

import pyro
import pytest
import torch
from modules import LastState, Tied, cnn, embedding_bag, one_by_one, prior_draws
from pyro.infer import SVI, Trace_ELBO
from torch import nn

from pyrobbb import BayesianNetwork, MeanFieldGuide, fit, mlp
from pyrobbb.likelihoods import Categorical, Gaussian
from pyrobbb.priors import ByName


class MeanOverSequence(nn.Module):
    def __init__(self):
        super().__init__()
        self.encoder = nn.TransformerEncoderLayer(4, 2, 8, batch_first=True)
        self.head = nn.Linear(4, 1)

    def forward(self, x):
        return self.head(self.encoder(x).mean(1))


POINTS_IN_NORM = ByName({"1.*": None})

# Module, prior, likelihood, and the shape of a row of x (None: five tokens).
ZOO = {
    "MLP": (lambda: mlp(3, [4, 4], 2, "tanh"), None, Gaussian(), (3,)),
    "CNN with batch norm": (cnn, POINTS_IN_NORM, Categorical(), (1, 5, 5)),
    "LSTM": (LastState, None, Gaussian(), (6, 2)),
    "EmbeddingBag": (embedding_bag, None, Categorical(), None),
    "TransformerEncoderLayer": (MeanOverSequence, None, Gaussian(), (6, 4)),
    "tied weights": (Tied, None, Gaussian(), (3,)),
}


@pytest.fixture(params=ZOO)
def case(request):
    make, prior, likelihood, row = ZOO[request.param]
    network = BayesianNetwork(make().double(), prior, likelihood)
    x = torch.randint(7, (4, 5)) if row is None else torch.randn(4, *row, dtype=torch.float64)
    with torch.no_grad():
        output = network.net.eval()(x)
    network.net.train()
    y = output.argmax(-1) if isinstance(likelihood, Categorical) else torch.randn_like(output)
    return network, x, y


@pytest.mark.parametrize("n_draws", [1, 3])
def test_vectorised_draws_equal_draws_one_at_a_time(case, n_draws):
    network, x, _ = case
    network.eval()
    draws = prior_draws(network, n_draws)
    with torch.no_grad():
        output = network.output(draws, x)
    torch.testing.assert_close(output, one_by_one(network, draws, x))
    assert len(output) == n_draws
    assert not (output[:1] == output[1:]).any()


def test_a_draw_has_the_same_output_when_repeated_and_row_by_row(case):
    network, x, _ = case
    network.eval()
    draws = prior_draws(network, 3)
    with torch.no_grad():
        output = network.output(draws, x)
        again = network.output(draws, x)
        rows = torch.cat([network.output(draws, row) for row in x.split(1)], dim=1)
    torch.testing.assert_close(again, output, rtol=0, atol=0)
    torch.testing.assert_close(rows, output)


def test_batch_norm_in_training_uses_the_statistics_of_each_draw():
    network = BayesianNetwork(cnn().double(), POINTS_IN_NORM, Categorical())
    x = torch.randn(4, 1, 5, 5, dtype=torch.float64)
    draws = prior_draws(network, 3)
    expected = one_by_one(network, draws, x)
    with torch.no_grad():
        torch.testing.assert_close(network.output(draws, x), expected)
    assert network.net[1].num_batches_tracked == 3


def test_a_failure_of_vmap_is_logged_once(caplog):
    caplog.set_level(logging.INFO, logger="pyrobbb")
    messages = []
    for net in (mlp(2, [3], 1), LastState()):
        network = BayesianNetwork(net).eval()
        x = torch.randn(4, 6, 2)
        for _ in range(2):
            network.output(prior_draws(network, 2), x)
        messages.append([record.getMessage() for record in caplog.records])
    assert messages[0] == []
    (message,) = messages[1]
    assert message.startswith("Draws run one at a time: torch.vmap fails for this module")


@pytest.mark.parametrize("n_particles", [1, 2])
def test_a_step_of_svi_changes_every_parameter(case, n_particles):
    network, x, y = case
    guide = MeanFieldGuide(network)
    learned = [guide.loc, guide.rho, *(point for _, point in network.point_parameters())]
    before = [parameter.detach().clone() for parameter in learned]
    elbo = Trace_ELBO(
        num_particles=n_particles, vectorize_particles=n_particles > 1, max_plate_nesting=1
    )
    loss = SVI(network, guide, pyro.optim.Adam({"lr": 0.01}), elbo).step(x, y)
    assert math.isfinite(loss)
    for parameter, old in zip(learned, before, strict=True):
        # Adam's first step is lr * g / (|g| + 1e-8).
        moved = (parameter - old).abs()
        assert ((moved > 0.005) & (moved < 0.0101)).all()


def test_fit_leaves_the_module_unchanged(case):
    network, x, y = case
    network.eval()
    before = copy.deepcopy(network.net.state_dict())
    posterior = fit(network, x, y, epochs=2, batch_size=2, progress=False)
    torch.testing.assert_close(network.net.state_dict(), before, rtol=0, atol=0)
    assert not any(module.training for module in network.modules())
    assert all(parameter.grad is None for parameter in network.parameters())
    for name, point in posterior.network.point_parameters():
        assert (point != before[name]).any()


def test_gradients_reach_tied_weights_through_both_uses():
    network = BayesianNetwork(Tied().double())
    assert [name for name, _ in network.bayesian_parameters()] == [
        "first.weight",
        "first.bias",
        "second.bias",
    ]
    x = torch.randn(4, 3, dtype=torch.float64)
    draws = {k: v.requires_grad_() for k, v in prior_draws(network, 1).items()}
    network.output(draws, x).sum().backward()
    w, b1, b2 = (draws[k][0] for k in ("first.weight", "first.bias", "second.bias"))
    leaf = w.detach().clone().requires_grad_()
    ((torch.tanh(x @ leaf.T + b1) @ leaf.T) + b2).sum().backward()
    torch.testing.assert_close(draws["first.weight"].grad[0], leaf.grad)
