"""Linear regression with known noise, whose posterior is known in closed form."""

from dataclasses import dataclass

import numpy as np
import pyro
import pyro.distributions as dist
import torch
from support import posterior_of
from torch import nn

from pyrobbb import BayesianNetwork, likelihoods, priors
from pyrobbb.fitted.history import History

NOISE = 0.5
N_IN = 3


@dataclass(frozen=True, eq=False)
class LinearRegression:
    """y = x w + b + noise, with standard normal w and b."""

    x: torch.Tensor
    y: torch.Tensor

    @classmethod
    def simulate(cls, n, seed):
        """Return a regression with n simulated rows."""
        generator = torch.Generator().manual_seed(seed)
        x = torch.randn(n, N_IN, generator=generator, dtype=torch.float64)
        weights = torch.tensor([[1.0], [-0.5], [0.2]], dtype=torch.float64)
        noise = torch.randn(n, 1, generator=generator, dtype=torch.float64)
        return cls(x, x @ weights + 0.3 + NOISE * noise)

    @property
    def network(self):
        net = nn.Linear(N_IN, 1).double()
        return BayesianNetwork(net, priors.Normal(1.0), likelihoods.Gaussian(scale=NOISE))

    @property
    def design(self):
        return torch.cat([self.x, torch.ones_like(self.x[:, :1])], 1)

    def exact(self):
        """Return the mean and covariance of the posterior of (w, b)."""
        precision = self.design.T @ self.design / NOISE**2 + torch.eye(N_IN + 1).double()
        covariance = torch.linalg.inv(precision)
        return covariance @ self.design.T @ self.y[:, 0] / NOISE**2, covariance

    def log_evidence(self):
        covariance = NOISE**2 * torch.eye(len(self.x)).double() + self.design @ self.design.T
        zeros = torch.zeros(len(self.x), dtype=torch.float64)
        return float(dist.MultivariateNormal(zeros, covariance).log_prob(self.y[:, 0]))

    def loo(self):
        """Return the exact log p(y_i | all other y) of each row."""
        scores = []
        for i in range(len(self.x)):
            keep = torch.arange(len(self.x)) != i
            mean, covariance = LinearRegression(self.x[keep], self.y[keep]).exact()
            row = self.design[i]
            sd = (row @ covariance @ row + NOISE**2).sqrt()
            scores.append(float(dist.Normal(row @ mean, sd).log_prob(self.y[i, 0])))
        return np.array(scores)

    def posterior(self, width=1.0):
        """Return a posterior with a full-rank guide, whose scale is `width` times the exact one."""
        mean, covariance = self.exact()
        guide = FullRank(mean, width**2 * covariance)
        empty = np.empty(0)
        history = History(empty, empty, empty, empty.astype(int), empty)
        return posterior_of(self.network.eval(), guide, history, self.x[:1])


class FullRank(nn.Module):
    def __init__(self, mean, covariance):
        super().__init__()
        self.register_buffer("mean", mean)
        self.register_buffer("covariance", covariance)

    def forward(self, *args):
        joint = dist.MultivariateNormal(self.mean, self.covariance)
        w = pyro.sample("all", joint, infer={"is_auxiliary": True})
        pyro.sample("weight", dist.Delta(w[..., None, :N_IN], event_dim=2))
        pyro.sample("bias", dist.Delta(w[..., N_IN:], event_dim=1))
