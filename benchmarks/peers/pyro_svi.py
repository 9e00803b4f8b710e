"""Pyro's SVI, AutoNormal and Trace_ELBO, as its tutorials put them together."""

from __future__ import annotations

import pyro
import pyro.distributions as dist
import torch
from pyro.infer import SVI, Trace_ELBO
from pyro.infer.autoguide import AutoNormal
from pyro.infer.autoguide.initialization import init_to_value
from pyro.nn import PyroModule, PyroSample
from torch import Tensor, nn

from problems import Problem

from . import Weights
from .torch_learner import TorchLearner


class PyroNet(PyroModule):
    """A net of lifted linear layers with normal priors."""

    def __init__(self, problem: Problem) -> None:
        super().__init__()
        self.problem = problem
        self.n_layers = len(problem.widths) - 1
        for i, start in enumerate(problem.start()):
            n_out, n_in = start.weight.shape
            layer = PyroModule[nn.Linear](n_in, n_out)
            prior = dist.Normal(0.0, problem.prior_scale)
            layer.weight = PyroSample(prior.expand([n_out, n_in]).to_event(2))
            layer.bias = PyroSample(prior.expand([n_out]).to_event(1))
            setattr(self, f"layer{i}", layer)

    def forward(self, x: Tensor, y: Tensor | None = None) -> Tensor:
        """Draw the weights, then y."""
        rows = x
        for i in range(self.n_layers):
            x = getattr(self, f"layer{i}")(x)
            if i < self.n_layers - 1:
                x = x.relu()
        # Of the subsample only the length counts. By `subsample_size`, Pyro would shuffle all rows.
        with pyro.plate("data", self.problem.n_data, subsample=rows):
            if self.problem.task == "regression":
                noisy = dist.Normal(x, self.problem.noise_scale).to_event(1)
                return pyro.sample("y", noisy, obs=y)
            return pyro.sample("y", dist.Categorical(logits=x), obs=y)


class PyroSVI(TorchLearner):
    """Takes steps by `SVI.step`."""

    def __init__(self, problem: Problem, lr: float = 1e-3) -> None:
        super().__init__(problem, lr)
        pyro.clear_param_store()
        model = PyroNet(problem)
        starts = {}
        for i, start in enumerate(problem.start()):
            starts[f"layer{i}.weight"] = torch.as_tensor(start.weight)
            starts[f"layer{i}.bias"] = torch.as_tensor(start.bias)
        self.guide = AutoNormal(model, init_loc_fn=init_to_value(values=starts))
        self.guide(self.x[:1], self.y[:1])  # autoguides make their parameters when they first run
        for i, start in enumerate(problem.start()):
            scales = getattr(self.guide.scales, f"layer{i}")
            scales.weight = torch.full(start.weight.shape, start.weight_scale)
            scales.bias = torch.full(start.bias.shape, start.bias_scale)
        self.svi = SVI(model, self.guide, pyro.optim.Adam({"lr": lr}), Trace_ELBO())

    def step(self, x: Tensor, y: Tensor) -> float:
        """Take a step, and give the loss before it."""
        return self.svi.step(x, y)

    def weights(self) -> list[Weights]:
        """Return the posterior of each layer."""
        layers = []
        for i in range(len(self.problem.widths) - 1):
            loc = getattr(self.guide.locs, f"layer{i}")
            scale = getattr(self.guide.scales, f"layer{i}")
            parts = (loc.weight, scale.weight, loc.bias, scale.bias)
            layers.append(Weights(*(part.detach().numpy().copy() for part in parts)))
        return layers
