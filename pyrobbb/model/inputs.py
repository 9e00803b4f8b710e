"""Validation of data against a module and a likelihood, before the first step."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from .._core.arrays import ArrayLike, as_tensor, check_same_length, converted, supports_float64
from ..likelihoods import Likelihood, as_observed, check_output, check_shape, check_support
from .likelihood_trial import initial_distribution
from .trial import check_rows, trial_output


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
        x = converted("x", x, like.dtype)
    x = x.to(like.device)
    output = trial_output(net, x)
    if takes_integers and len(output) < len(x):
        check_rows(net, x)
    return x, output


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
    converted("y", y, output.dtype)
    return as_observed(distribution, y, output.dtype)
