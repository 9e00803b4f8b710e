"""The same net without Bayes: what a step costs at least."""

from __future__ import annotations

from collections.abc import Iterable

from torch import Tensor, nn

from .torch_learner import GradientLearner, plain_net


class DeterministicNet(GradientLearner):
    """Descends the negative log-likelihood."""

    def make(self) -> Iterable[nn.Parameter]:
        """Make the net."""
        self.net = plain_net(self.problem)
        return self.net.parameters()

    def nelbo(self, x: Tensor, y: Tensor) -> Tensor:
        """Return the negative log-likelihood alone."""
        return self.nll(self.net(x), y)
