"""bayesian-torch: a net whose layers it replaces by its own."""

from __future__ import annotations

from collections.abc import Iterable

from bayesian_torch.models.dnn_to_bnn import dnn_to_bnn, get_kl_loss
from torch import Tensor, nn

from .torch_learner import GradientLearner, plain_net


class BayesianTorch(GradientLearner):
    """Reparameterised layers; the KL divergence has a closed form."""

    def make(self) -> Iterable[nn.Parameter]:
        """Make the net, and replace its layers."""
        self.net = plain_net(self.problem)
        options = {
            "prior_mu": 0.0,
            "prior_sigma": self.problem.prior_scale,
            "posterior_mu_init": 0.0,
            "posterior_rho_init": -3.0,
            "type": "Reparameterization",
            "moped_enable": False,
            "moped_delta": 0.5,
        }
        dnn_to_bnn(self.net, options)
        return self.net.parameters()

    def nelbo(self, x: Tensor, y: Tensor) -> Tensor:
        """Draw the weights once; give the loss, with the library's own scale of the divergence."""
        return self.nll(self.net(x), y) + get_kl_loss(self.net)
