"""The observed site of the model: likelihood under vectorised draws, data plate and row weights."""

from __future__ import annotations

import weakref
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import pyro
import pyro.poutine as poutine
import torch
from pyro.distributions.torch_distribution import TorchDistribution
from pyro.poutine.messenger import Messenger
from pyro.poutine.util import site_is_subsample
from torch import Tensor

from .._core.arrays import as_count
from .._core.global_state import global_state_locked, isolated_from_pyro
from .._core.random_state import seeded
from ..likelihoods import Conditional, Likelihood, log_density
from .sites import at_start
from .vectorized import without_data_dim


class AlignLatents(Messenger):
    """Align draws of a likelihood's latent sites with the rows of the network's output.

    A vectorised draw has batch shape (n_draws, 1), where 1 is the dimension of the data plate
    (Pyro's Predictive omits it for sites with an event). Only the value that the likelihood
    receives is reshaped, not the one that outer handlers see.

    Parameters
    ----------
    n_dims : int
        Number of dimensions of the output.
    """

    def __init__(self, n_dims: int) -> None:
        super().__init__()
        self._n_dims = n_dims

    def _pyro_post_sample(self, msg: Any) -> None:
        if site_is_subsample(msg):
            return
        value, n_event = msg["value"], msg["fn"].event_dim
        n_batch = value.dim() - n_event
        batch, event = value.shape[:n_batch], value.shape[n_batch:]
        fn_batch = msg["fn"].batch_shape
        if not batch or (fn_batch and fn_batch[-1] != 1):  # a single draw, or one per row
            return
        batch = without_data_dim(batch)
        ones = (1,) * (self._n_dims - len(batch) - n_event)
        msg["value"] = value.reshape((*batch, *ones, *event))


def apply_likelihood(likelihood: Likelihood, output: Tensor) -> TorchDistribution:
    """Return the distribution of y, with latent sites drawn by Pyro and aligned with the output."""
    with AlignLatents(output.dim()):
        return likelihood(output)


def distribution_given(
    likelihood: Likelihood, output: Tensor, latents: Mapping[str, Tensor]
) -> TorchDistribution:
    """Return the distribution of y under draws of the output and of the latent sites.

    Parameters
    ----------
    likelihood : Likelihood
    output : Tensor of shape (n_draws, n, ...)
    latents : mapping of str to Tensor of shape (n_draws, *site)

    Returns
    -------
    distribution of batch shape (n_draws, n)
    """
    if isinstance(likelihood, Conditional):
        aligned = {
            name: _aligned(value, likelihood.latents[name].event_dim, output.dim())
            for name, value in latents.items()
        }
        distribution = likelihood.given(output, aligned)
    elif not latents and not has_pyro_sites(likelihood, output):
        distribution = likelihood(output)
    else:
        data = {name: value[:, None] for name, value in latents.items()}
        with global_state_locked(), poutine.block(), poutine.condition(data=data):
            distribution = apply_likelihood(likelihood, output)
    return one_per_row(distribution, 1).expand(output.shape[:2])


_HAVE_SITES: weakref.WeakKeyDictionary[Likelihood, bool] = weakref.WeakKeyDictionary()


def has_pyro_sites(likelihood: Likelihood, output: Tensor) -> bool:
    """Return whether a callable uses Pyro, whose handlers belong to the process.

    It is traced once. Later calls of one without sites need no lock, so that predictions do not
    wait for fits in other threads.
    """
    try:
        return _HAVE_SITES[likelihood]
    except TypeError:  # not hashable
        return True
    except KeyError:
        with isolated_from_pyro(), poutine.trace() as tracer, seeded(0):
            at_start(likelihood)(output)
        return _HAVE_SITES.setdefault(likelihood, bool(tracer.trace.nodes))


def latent_log_densities(
    likelihood: Likelihood, output: Tensor, latents: Mapping[str, Tensor]
) -> list[Tensor]:
    """Return the log prior density, shape (n_draws,), of each latent site that is drawn by Pyro.

    Parameters
    ----------
    likelihood, output, latents
        As for `distribution_given`.
    """
    data = {name: value[:, None] for name, value in latents.items()}
    aligned = AlignLatents(output.dim())
    with global_state_locked(), poutine.block(), poutine.condition(data=data), aligned:
        nodes = poutine.trace(likelihood).get_trace(output).nodes
    return [log_density(nodes[name]["fn"], nodes[name]["value"]) for name in latents]


def one_per_row(distribution: TorchDistribution, n_batch: int) -> TorchDistribution:
    """Return a distribution whose event is a whole row, after `n_batch` draw dimensions."""
    surplus = len(distribution.batch_shape) - n_batch - 1
    if surplus < 0:
        raise ValueError(
            "`likelihood` must return one distribution per row of the output, got batch shape "
            f"{tuple(distribution.batch_shape)}."
        )
    return distribution.to_event(surplus) if surplus else distribution


def data_plate(n_rows: int, n_data: int | None) -> pyro.plate:
    """Return the plate of the rows: a subsample of the data set if `n_data` is given."""
    if n_data is None:
        return pyro.plate("data", n_rows, dim=-1)
    n_data = check_n_data(n_data, n_rows)
    return pyro.plate("data", n_data, subsample=torch.arange(n_rows), dim=-1)


@contextmanager
def weighted(row_weight: Tensor | None, n_rows: int) -> Iterator[None]:
    """Multiply the log-likelihood of each row by its weight."""
    if row_weight is None:
        yield
        return
    check_row_weight(row_weight, n_rows)
    counts = row_weight > 0  # poutine.scale rejects 0
    with poutine.mask(mask=counts), poutine.scale(scale=row_weight.where(counts, 1.0)):
        yield


def check_n_data(n_data: int | None, n_rows: int) -> int | None:
    """Return `n_data` as an integer, or raise unless it is at least the number of rows."""
    if n_data is None:
        return None
    n_data = as_count("n_data", n_data)
    if n_data < n_rows:
        raise ValueError(
            f"`n_data` must be the size of the whole data set, at least the {n_rows} rows of x, "
            f"got {n_data}."
        )
    return n_data


def check_row_weight(row_weight: Tensor | None, n_rows: int) -> None:
    """Raise unless there is one non-negative weight for each row."""
    if row_weight is None:
        return
    if tuple(row_weight.shape) != (n_rows,):
        raise ValueError(
            f"`row_weight` must have shape ({n_rows},), one number for each row of x, got "
            f"{tuple(row_weight.shape)}."
        )
    if not bool((row_weight >= 0).all()):
        raise ValueError(f"`row_weight` must be at least 0, got {float(row_weight.min())}.")


def _aligned(value: Tensor, n_event: int, n_dims: int) -> Tensor:
    """Reshape draws, (n_draws, *event), to broadcast against an output of `n_dims` dimensions."""
    event = value.shape[value.dim() - n_event :]
    return value.reshape((len(value), *(1,) * (n_dims - 1 - n_event), *event))
