"""Validation of data against a module and a likelihood, before the first step."""

from __future__ import annotations

from collections.abc import Hashable
from typing import Any
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn

from .._core.arrays import ArrayLike, as_tensor, converted, supports_float64
from .._core.trees import (
    Inputs,
    InputsLike,
    as_inputs,
    check_same_length,
    device_of,
    n_rows,
    named_arrays,
    rows_of,
    unflatten,
)
from ..likelihoods import Likelihood, as_observed, check_output, check_shape, check_support
from .likelihood_trial import initial_distribution
from .outputs import Selection
from .trial import N_ROWS, check_rows, has_embeddings, trial_output

_TRIED: WeakKeyDictionary[nn.Module, set[Hashable]] = WeakKeyDictionary()
"""For each module, the forms of rows that it has run on."""


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
    x = _converted(net, like, x)
    output = trial_output(net, x, select)
    if has_embeddings(net) and len(output) < n_rows(x):
        check_rows(net, x)
    return x, output


def inputs_to_run(
    net: nn.Module, like: Tensor, x: InputsLike, select: Selection | None = None
) -> Any:
    """Convert inputs for a run of the module that is `explained`.

    A trial run of a large module on two rows takes a tenth of the time of a run on hundreds, as it
    reads all weights. There is none if the module has run on rows of the same shapes and dtypes.
    Then, and on the CPU, an index that an embedding does not have is left to the run to find.

    Parameters
    ----------
    net, like, x, select
        As for `prepare_inputs`.

    Returns
    -------
    Inputs of shape (n, ...)
    """
    converted_x = _converted(net, like, x)
    if has_embeddings(net) and device_of(converted_x).type != "cpu":
        return prepare_inputs(net, like, x, select)[0]
    rows = rows_of(converted_x, slice(N_ROWS))
    form, tried = (id(select), form_of(rows)), _TRIED.setdefault(net, set())
    if form not in tried and len(trial_output(net, converted_x, select)) == n_rows(rows):
        tried.add(form)
    return converted_x


def form_of(x: Inputs) -> Hashable:
    """Return the names, shapes, dtypes and devices of arrays."""
    return tuple((name, a.shape, a.dtype, a.device) for name, a in named_arrays("x", x))


def _converted(net: nn.Module, like: Tensor, x: InputsLike) -> Any:
    x = as_inputs("x", x)
    takes_integers = not isinstance(x, Tensor) or has_embeddings(net)
    arrays = []
    for name, array in named_arrays("x", x):
        if array.is_floating_point() or not takes_integers:
            array = converted(name, array, like.dtype)
        arrays.append(array.to(like.device))
    return unflatten(arrays, x)


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
