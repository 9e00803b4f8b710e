"""blitz: layers that keep the log-probabilities of their last draw."""

from __future__ import annotations

import itertools
from collections.abc import Iterable

from blitz.losses import kl_divergence_from_nn
from blitz.modules import BayesianLinear
from torch import Tensor, nn

from .torch_learner import GradientLearner, interleaved


class Blitz(GradientLearner):
    """A net of `BayesianLinear`."""

    def make(self) -> Iterable[nn.Parameter]:
        """Make the net; with pi = 1, its prior is a single normal."""
        options = {"prior_sigma_1": self.problem.prior_scale, "prior_pi": 1.0}
        self.net = interleaved(
            BayesianLinear(n_in, n_out, posterior_rho_init=-3.0, **options)
            for n_in, n_out in itertools.pairwise(self.problem.widths)
        )
        return self.net.parameters()

    def nelbo(self, x: Tensor, y: Tensor) -> Tensor:
        """Draw the weights once; give the loss."""
        return self.nll(self.net(x), y) + kl_divergence_from_nn(self.net)
