"""Validation of data against a module and a likelihood, before the first step."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from .._core.arrays import ArrayLike, as_tensor, converted, supports_float64
from .._core.trees import (
    Inputs,
    InputsLike,
    as_inputs,
    check_same_length,
    n_rows,
    named_arrays,
    unflatten,
)
from ..likelihoods import Likelihood, as_observed, check_output, check_shape, check_support
from .likelihood_trial import initial_distribution
from .outputs import Selection
from .trial import check_rows, trial_output


def prepare_inputs(
    net: nn.Module, like: Tensor, x: InputsLike, select: Selection | None = None
) -> tuple[Any, Tensor]:
    """Convert the inputs for the module, and compute its output for a few rows.

    Parameters
    ----------
    net : nn.Module
    like : Tensor
        The inputs are converted to its device and dtype, except that integers stay integers if the
        module has embeddings, or if there are several arrays: these may be indices, lengths or
        masks.
    x : array-like of shape (n, ...), or nested tuples and mappings of them
    select : Selection, optional
        Takes a part of the output.

    Returns
    -------
    x : Inputs of shape (n, ...)
    output : Tensor
        As returned by `trial_output`.
    """
    x = as_inputs("x", x)
    has_embeddings = any(isinstance(m, nn.Embedding | nn.EmbeddingBag) for m in net.modules())
    takes_integers = has_embeddings or not isinstance(x, Tensor)
    arrays = []
    for name, array in named_arrays("x", x):
        if array.is_floating_point() or not takes_integers:
            array = converted(name, array, like.dtype)
        arrays.append(array.to(like.device))
    x = unflatten(arrays, x)
    output = trial_output(net, x, select)
    if has_embeddings and len(output) < n_rows(x):
        check_rows(net, x)
    return x, output


def prepare_targets(
    net: nn.Module, likelihood: Likelihood, x: Inputs, output: Tensor, y: ArrayLike
) -> Tensor:
    """Check the targets, and convert them for the likelihood.

    Parameters
    ----------
    net : nn.Module
    likelihood : Likelihood
    x : Inputs
    output : Tensor
        As returned by `prepare_inputs`.
    y : array-like of shape (n, ...)

    Returns
    -------
    Tensor of shape (n, ...)
    """
    y = as_tensor("y", y)
    if y.dtype == torch.float64 and not supports_float64(output.device):
        y = y.to(output.dtype)
    y = y.to(output.device)
    check_same_length(x, y)
    check_output(likelihood, net, output)
    distribution = initial_distribution(likelihood, output)
    check_shape(likelihood, (len(y), *distribution.shape()[1:]), y)
    check_support(likelihood, distribution, y)
    converted("y", y, output.dtype)
    return as_observed(distribution, y, output.dtype)
