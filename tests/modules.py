"""Modules, likelihoods, draws and guides that several test files share."""

import copy
import math
import re

import pyro
import pyro.distributions as dist
import torch
from torch import nn

from pyrobbb import BayesianNetwork, LowRankGuide, MeanFieldGuide, mlp
from pyrobbb.likelihoods import Gaussian, NegativeBinomial


class LastState(nn.Module):
    def __init__(self):
        super().__init__()
        self.lstm = nn.LSTM(2, 3, batch_first=True)
        self.head = nn.Linear(3, 1)

    def forward(self, x):
        states, _ = self.lstm(x)
        return self.head(states[:, -1])


class Tied(nn.Module):
    def __init__(self):
        super().__init__()
        self.first, self.second = nn.Linear(3, 3), nn.Linear(3, 3)
        self.second.weight = self.first.weight

    def forward(self, x):
        return self.second(torch.tanh(self.first(x)))


class ByRow(nn.Module):
    """A network with one number per row as output, shape (n,)."""

    def __init__(self):
        super().__init__()
        self.net = mlp(3, [4], 1, "tanh")

    def forward(self, x):
        return self.net(x)[:, 0]


def cnn():
    """Return a small convolutional network for images of 5 x 5 pixels."""
    layers = [nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2), nn.ReLU(), nn.Flatten(), nn.Linear(18, 3)]
    return nn.Sequential(*layers)


def batch_norm():
    return nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Tanh(), nn.Linear(4, 2))


def embedding_bag():
    return nn.Sequential(nn.EmbeddingBag(7, 3), nn.Linear(3, 3))


def prior_draws(network, n_draws):
    return {
        name: network.prior(name, parameter).sample((n_draws,))
        for name, parameter in network.bayesian_parameters()
    }


def one_by_one(network, draws, x):
    """Return the outputs of copies of the module that have the draws as their parameters."""
    outputs = []
    for i in range(len(next(iter(draws.values())))):
        module = copy.deepcopy(network.net)
        with torch.no_grad():
            for name, parameter in module.named_parameters():
                if name in draws:
                    parameter.copy_(draws[name][i])
            outputs.append(module(x))
    return torch.stack(outputs)


def custom_noise(output):
    scale = pyro.sample("scale", dist.LogNormal(output.new_zeros(()), 1.0))
    tilt = pyro.sample("tilt", dist.Normal(output.new_zeros(2), 1.0).to_event(1))
    return dist.Normal(output + tilt, scale)


LATENTS = {
    "one noise scale": Gaussian(),
    "a noise scale for each output": Gaussian(noise_median=(0.5, 2.0)),
    "total count": NegativeBinomial(),
    "custom callable with latent sites": custom_noise,
}


def network_and_data(likelihood=None, prior=None, n_out=1, dtype=torch.float64):
    network = BayesianNetwork(mlp(3, [4], n_out, "tanh", seed=1).to(dtype), prior, likelihood)
    x, y = torch.randn(6, 3, dtype=dtype), torch.randn(6, n_out, dtype=dtype)
    return network, x, y


def by_site(guide, flat):
    """Split a flat vector in the order in which the model draws its sites."""
    pieces, start = {}, 0
    for name, shape in guide.shapes.items():
        pieces[name] = flat[start : start + math.prod(shape)].reshape(shape)
        start += math.prod(shape)
    assert start == len(flat)
    return pieces


def loc_and_scale(guide):
    """Return the means and standard deviations of a guide, in unconstrained space."""
    if isinstance(guide, LowRankGuide):
        root = nn.functional.softplus(guide.rho)[:, None] * guide.cov_factor
        variance = (root @ root.T).diagonal() + nn.functional.softplus(guide.rho).square()
        return by_site(guide, guide.loc), by_site(guide, variance.sqrt())
    if isinstance(guide, MeanFieldGuide):
        return by_site(guide, guide.loc), by_site(guide, nn.functional.softplus(guide.rho))
    name = re.compile("_unconstrained$")
    loc = {name.sub("", n): p for n, p in guide.locs.named_parameters()}
    scale = {name.sub("", n): nn.functional.softplus(p) for n, p in guide.scales.named_parameters()}
    return loc, scale


def learned(network, guide):
    """Return the learned parameters: those of the guide, and the point parameters."""
    return [*guide.parameters(), *(point for _, point in network.point_parameters())]
