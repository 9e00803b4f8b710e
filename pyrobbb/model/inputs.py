"""Validation of data against a module and a likelihood, before the first step."""

from __future__ import annotations

import pyro.poutine as poutine
import torch
from pyro.distributions.torch_distribution import TorchDistribution
from torch import Tensor, nn

from .._core.arrays import ArrayLike, as_tensor, check_same_length, supports_float64
from .._core.global_state import global_state_locked
from ..likelihoods import Likelihood, as_observed, check_output, check_shape, check_support
from .observation import one_per_row
from .sites import at_start
from .trial import trial_output


def prepare_inputs(net: nn.Module, like: Tensor, x: ArrayLike) -> tuple[Tensor, Tensor]:
    """Convert the inputs for the module, and compute its output for a few rows.

    Parameters
    ----------
    net : nn.Module
    like : Tensor
        The inputs are converted to its device and dtype, except that integers stay integers if the
        module has embeddings.
    x : array-like of shape (n, ...)

    Returns
    -------
    x : Tensor of shape (n, ...)
    output : Tensor
        As returned by `trial_output`.
    """
    x = as_tensor("x", x)
    takes_integers = any(isinstance(m, nn.Embedding | nn.EmbeddingBag) for m in net.modules())
    if x.is_floating_point() or not takes_integers:
        x = x.to(like.dtype)
    x = x.to(like.device)
    return x, trial_output(net, x)


def prepare_targets(
    net: nn.Module, likelihood: Likelihood, x: Tensor, output: Tensor, y: ArrayLike
) -> Tensor:
    """Check the targets, and convert them for the likelihood.

    Parameters
    ----------
    net : nn.Module
    likelihood : Likelihood
    x, output : Tensor
        As returned by `prepare_inputs`.
    y : array-like of shape (n, ...)

    Returns
    -------
    Tensor of shape (n, ...)
    """
    y = as_tensor("y", y)
    if y.dtype == torch.float64 and not supports_float64(x.device):
        y = y.to(output.dtype)
    y = y.to(x.device)
    check_same_length(x, y)
    check_output(likelihood, net, output)
    distribution = initial_distribution(likelihood, output)
    check_shape(likelihood, (len(y), *distribution.shape()[1:]), y)
    check_support(likelihood, distribution, y)
    return as_observed(distribution, y, output.dtype)


def initial_distribution(likelihood: Likelihood, output: Tensor) -> TorchDistribution:
    """Return the distribution of y at the initial values of the likelihood's latent sites."""
    with global_state_locked(), poutine.block():
        return one_per_row(at_start(likelihood)(output), 0)
