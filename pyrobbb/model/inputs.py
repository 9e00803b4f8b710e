"""Validation of data against a module and a likelihood, before the first step."""

from __future__ import annotations

import pyro.poutine as poutine
import torch
from pyro.distributions.torch_distribution import TorchDistribution
from torch import Tensor, nn

from .._core.arrays import ArrayLike, as_tensor, check_same_length, supports_float64
from ..likelihoods import Likelihood, as_observed, check_output, check_shape, check_support
from .functional import evaluating
from .observation import one_per_row
from .sites import at_start


def prepare_inputs(net: nn.Module, like: Tensor, x: ArrayLike) -> tuple[Tensor, Tensor]:
    """Convert the inputs for the module, and compute its output for the first rows.

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
    output : Tensor of shape (min(n, 2), ...)
    """
    x = as_tensor("x", x)
    takes_integers = any(isinstance(m, nn.Embedding | nn.EmbeddingBag) for m in net.modules())
    if x.is_floating_point() or not takes_integers:
        x = x.to(like.dtype)
    x = x.to(like.device)
    return x, _trial_output(net, x[:2])


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
    with poutine.block():
        return one_per_row(at_start(likelihood)(output), 0)


def _trial_output(net: nn.Module, x: Tensor) -> Tensor:
    """Return the module's output for some rows, without changing its mode and buffers."""
    try:
        with evaluating(net), torch.no_grad():
            output = net(x)
    except (RuntimeError, IndexError, ValueError) as error:
        if x.dim() == 1:
            fix = "Pass x.reshape(-1, 1) if each row is one number"
        else:
            fix = f"Its error for {len(x)} rows: {str(error).strip().splitlines()[0]}"
        raise ValueError(
            f"`x` with rows of shape {tuple(x.shape[1:])} and dtype {x.dtype} does not fit the "
            f"network. {fix}."
        ) from error
    if not isinstance(output, Tensor) or output.dim() == 0 or len(output) != len(x):
        got = f"shape {tuple(output.shape)}" if isinstance(output, Tensor) else type(output)
        raise ValueError(
            f"`net` must return a tensor with one row for each row of x: for {len(x)} rows it "
            f"returned {got}."
        )
    return output
