"""Fixtures: networks of many modules, priors and likelihoods with data, and a regression."""

import pyro
import pyro.distributions as dist
import pytest
import torch
from modules import ByRow, LastState, Tied, batch_norm, embedding_bag
from torch import nn
from torch.nn.utils.parametrizations import weight_norm

from pyrobbb import BayesianNetwork, mlp
from pyrobbb.likelihoods import Categorical, Gaussian, Poisson
from pyrobbb.priors import ByName, FanInNormal, Normal


def half_frozen():
    net = mlp(3, [4, 4], 2, "tanh")
    net[2].requires_grad_(False)
    return net


class CustomLikelihood:
    """A custom callable that lists its latent site."""

    latents = {"spread": dist.Gamma(torch.tensor(2.0).double(), torch.tensor(3.0).double())}  # noqa: RUF012

    def __call__(self, output):
        return dist.Laplace(output, pyro.sample("spread", self.latents["spread"]))


# Module, prior, likelihood, and the shape of a row of x (None: five tokens).
ZOO = {
    "points by name": (lambda: mlp(3, [4], 2), ByName({"*.bias": None}), Gaussian(), (3,)),
    "batch norm, points": (batch_norm, ByName({"1.*": None}), Gaussian(), (3,)),
    "tied weights": (Tied, Normal(0.7), Gaussian(0.2), (3,)),
    "LSTM": (LastState, None, Gaussian(), (6, 2)),
    "LSTM, points": (LastState, ByName({"lstm.*": None}), Gaussian(), (6, 2)),
    "embedding": (embedding_bag, None, Categorical(), None),
    "frozen layer": (half_frozen, FanInNormal(), Poisson(), (3,)),
    "weight norm": (lambda: weight_norm(nn.Linear(3, 2)), None, Gaussian(), (3,)),
    "output without units": (ByRow, None, Gaussian(0.3), (3,)),
    "custom likelihood": (lambda: mlp(3, [4], 2), Normal(), CustomLikelihood(), (3,)),
}


@pytest.fixture(params=ZOO)
def case(request):
    make, prior, likelihood, row = ZOO[request.param]
    network = BayesianNetwork(make().double(), prior, likelihood)
    x = torch.randint(7, (5, 5)) if row is None else torch.randn(5, *row, dtype=torch.float64)
    with torch.no_grad():
        output = network.net.eval()(x)
    network.net.train()
    if isinstance(likelihood, Categorical):
        return network, x, output.argmax(-1)
    return network, x, torch.randint_like(output, 4)


@pytest.fixture
def regression():
    network = BayesianNetwork(mlp(3, [4], 1, "tanh", seed=0).double())
    x = torch.randn(9, 3, dtype=torch.float64)
    return network, x, x.sum(1, keepdim=True)
