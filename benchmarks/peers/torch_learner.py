"""What the learners in PyTorch have in common."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable

import numpy as np
import torch
from torch import Tensor, nn

from problems import Problem


class TorchLearner(ABC):
    """Data as tensors, and the loss of a batch at the scale of all rows."""

    def __init__(self, problem: Problem, lr: float = 1e-3) -> None:
        torch.manual_seed(0)
        self.problem, self.lr = problem, lr
        self.x, self.y = torch.as_tensor(problem.x), torch.as_tensor(problem.y)

    def batch(self, rows: np.ndarray) -> tuple[Tensor, Tensor]:
        """Return the rows of x and y."""
        index = torch.as_tensor(rows)
        return self.x[index], self.y[index]

    @abstractmethod
    def step(self, x: Tensor, y: Tensor) -> float:
        """Take a step, and give the loss before it."""

    def nll(self, output: Tensor, y: Tensor) -> Tensor:
        """Return the negative log-likelihood, without its constants."""
        factor = self.problem.n_data / len(y)
        if self.problem.task == "regression":
            return 0.5 * factor * ((y - output) / self.problem.noise_scale).square().sum()
        return factor * nn.functional.cross_entropy(output, y, reduction="sum")


class GradientLearner(TorchLearner):
    """Descends the gradient of a loss by PyTorch's fused Adam."""

    def __init__(self, problem: Problem, lr: float = 1e-3) -> None:
        super().__init__(problem, lr)
        self.optimizer = torch.optim.Adam(self.make(), lr=lr, fused=True)

    @abstractmethod
    def make(self) -> Iterable[nn.Parameter]:
        """Make what is learned, and give its parameters."""

    @abstractmethod
    def nelbo(self, x: Tensor, y: Tensor) -> Tensor:
        """Return the loss of a batch."""

    def step(self, x: Tensor, y: Tensor) -> float:
        """Take a step, and give the loss before it."""
        self.optimizer.zero_grad()
        nelbo = self.nelbo(x, y)
        nelbo.backward()
        self.optimizer.step()
        return nelbo.item()


def interleaved(layers: Iterable[nn.Module]) -> nn.Sequential:
    """Put ReLU units between layers."""
    modules = [module for layer in layers for module in (layer, nn.ReLU())]
    return nn.Sequential(*modules[:-1])


def plain_net(problem: Problem) -> nn.Sequential:
    """Build the problem's net of `nn.Linear`, at its start."""
    linears = []
    for start in problem.start():
        n_out, n_in = start.weight.shape
        linear = nn.Linear(n_in, n_out)
        with torch.no_grad():
            linear.weight.copy_(torch.as_tensor(start.weight))
            linear.bias.copy_(torch.as_tensor(start.bias))
        linears.append(linear)
    return interleaved(linears)
