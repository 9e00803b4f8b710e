"""torchbnn: layers with a mean and a logarithm of the scale."""

from __future__ import annotations

import itertools
from collections.abc import Iterable

import torchbnn
from torch import Tensor, nn

from .torch_learner import GradientLearner, interleaved


class TorchBNN(GradientLearner):
    """A net of `BayesLinear`; the KL divergence has a closed form."""

    def make(self) -> Iterable[nn.Parameter]:
        """Make the net."""
        self.net = interleaved(
            torchbnn.BayesLinear(0.0, self.problem.prior_scale, n_in, n_out)
            for n_in, n_out in itertools.pairwise(self.problem.widths)
        )
        self.kl = torchbnn.BKLLoss(reduction="sum", last_layer_only=False)
        return self.net.parameters()

    def nelbo(self, x: Tensor, y: Tensor) -> Tensor:
        """Draw the weights once; give the loss."""
        return self.nll(self.net(x), y) + self.kl(self.net).sum()
