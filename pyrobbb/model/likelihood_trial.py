"""Trial calls of a likelihood: whether it returns one distribution for the output of each row."""

from __future__ import annotations

import pyro.poutine as poutine
import torch
from pyro.distributions.torch_distribution import TorchDistribution
from torch import Tensor

from .._core.global_state import isolated_from_pyro, ordinary_modes
from .._core.random_state import seeded
from ..likelihoods import Likelihood
from .callables import called, check_distribution
from .observation import one_per_row
from .sites import at_start
from .trial import is_close, leaves_of


@ordinary_modes(grad=True)
def initial_distribution(likelihood: Likelihood, output: Tensor) -> TorchDistribution:
    """Return the distribution of y at the initial values of the likelihood's latent sites.

    Parameters
    ----------
    likelihood : Likelihood
    output : Tensor of shape (n, ...)
        The network's output for some rows.

    Raises
    ------
    TypeError, ValueError
        If the likelihood does not return one distribution of Pyro for each row, which depends on
        the output of that row and on nothing that is random or learned.
    """
    leaf = output.detach().clone().requires_grad_()
    with isolated_from_pyro(), poutine.trace() as tracer:
        distribution = _called(likelihood, output.detach())
    params = [name for name, site in tracer.trace.nodes.items() if site["type"] == "param"]
    if params:
        _refuse_learnable(f"the Pyro parameter {params[0]!r}")
    if distribution.batch_shape != output.shape[:1]:
        raise ValueError(
            "`likelihood` must return one distribution per row of the output, got batch shape "
            f"{tuple(distribution.batch_shape)} for {len(output)} rows."
        )
    try:
        with seeded(0):
            y = distribution.sample()
    except Exception:  # it has densities only
        return distribution
    with isolated_from_pyro():
        log_prob = _called(likelihood, leaf).log_prob(y)
        _check_log_prob(log_prob, leaf)
        again = _called(likelihood, leaf, seed=1).log_prob(y)
        alone = _called(likelihood, leaf[:1]).log_prob(y[:1])
    if not torch.equal(again, log_prob):
        raise ValueError(
            "`likelihood` returns other random numbers in each call: draw them by pyro.sample "
            "in it, as latent sites."
        )
    if not is_close(alone, log_prob[:1]):
        raise ValueError(
            "`likelihood` must use the output of a row alone for its distribution, but it depends "
            "on other rows: let the network compute what they have in common."
        )
    return distribution


def _called(likelihood: Likelihood, output: Tensor, seed: int = 0) -> TorchDistribution:
    where = f"an output of shape {tuple(output.shape)}"
    with seeded(seed):
        result = called("likelihood", where, at_start(likelihood), output)
    check_distribution("likelihood", result, where)
    return one_per_row(result, 0)


def _check_log_prob(log_prob: Tensor, leaf: Tensor) -> None:
    """Raise unless a log-density is computed from the output, and from nothing learnable."""
    if log_prob.device != leaf.device:
        raise ValueError(
            f"`likelihood` returns a distribution on {log_prob.device} for an output on "
            f"{leaf.device}: make its tensors by output.new_tensor."
        )
    if torch.finfo(log_prob.dtype).bits < torch.finfo(leaf.dtype).bits:
        raise ValueError(
            f"`likelihood` returns a distribution in {log_prob.dtype} for an output in "
            f"{leaf.dtype}: keep the dtype of the output."
        )
    leaves = leaves_of(log_prob)
    foreign = [tensor for tensor in leaves if tensor is not leaf]
    if foreign:
        _refuse_learnable(f"a tensor of shape {tuple(foreign[0].shape)} that requires a gradient")
    if not leaves:
        raise ValueError(
            "`likelihood` returns a distribution without a gradient with respect to the output, so "
            "that nothing could be learned: use the output, without .detach()."
        )


def _refuse_learnable(found: str) -> None:
    raise ValueError(
        f"`likelihood` uses {found}, which would not be learned: draw it by pyro.sample in the "
        "likelihood, as a latent site, or detach it."
    )
