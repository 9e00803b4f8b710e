"""InputScale: a learned scale for each input, for automatic relevance determination."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from .._core.arrays import as_count


class InputScale(nn.Module):
    """Multiply each input by a positive scale, the exponential of a parameter.

    In front of a perceptron, the scale of an input is a common factor of all weights of this input
    in the first layer. With a prior on its logarithm, the posterior of the scale of an irrelevant
    input shrinks: automatic relevance determination. Unlike learned scales of a prior
    (`priors.Learned`), it is independent of the weights a priori, a non-centred parametrisation.

    Parameters
    ----------
    n_in : int
        Number of inputs.

    Attributes
    ----------
    log_scale : nn.Parameter of shape (n_in,)
        Logarithms of the scales, initially 0.

    References
    ----------
    Neal (1996), "Bayesian Learning for Neural Networks", for automatic relevance determination.
    Betancourt and Girolami (2015), "Hamiltonian Monte Carlo for hierarchical models", for the
    non-centred parametrisation.

    Examples
    --------
    >>> net = mlp(6, [50], 1, input_scale=True)  # begins with InputScale(6), named "inputs"
    >>> scales = {"inputs.log_scale": priors.Normal()}
    >>> network = BayesianNetwork(net, priors.ByName(scales, priors.FanInNormal()))
    """

    def __init__(self, n_in: int) -> None:
        super().__init__()
        self.log_scale = nn.Parameter(torch.zeros(as_count("n_in", n_in)))

    def reset_parameters(self) -> None:
        """Set all scales to 1."""
        nn.init.zeros_(self.log_scale)

    def forward(self, x: Tensor) -> Tensor:
        """Return the scaled inputs, shape (..., n_in)."""
        return x * self.log_scale.exp()

    def extra_repr(self) -> str:
        """Return the number of inputs, for `repr`."""
        return str(len(self.log_scale))
