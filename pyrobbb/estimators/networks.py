"""Networks and likelihoods of the estimators."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Literal

from .. import likelihoods, priors
from .._core.messages import shown
from ..model.mlp import INPUT_SCALE, Activation, as_layers, mlp
from ..model.names import PRIORS, REGRESSIONS, resolve
from ..model.network import BayesianNetwork

TINY, SMALL, LARGE = (10,), (50,), (50, 50)
FEW_ROWS, MANY_ROWS = 60, 5_000
"""Numbers of rows from which ``hidden="auto"`` is `SMALL` or `LARGE`; `TINY` is for regressions."""
LOG_SCALE, LOG_SCALE_PRIOR = f"{INPUT_SCALE}.log_scale", priors.Normal(1.0)
"""With ``ard=True``: the logarithms of the scales of the inputs, and their prior."""


def choose_hidden(
    hidden: int | Sequence[int] | Literal["auto"], n_rows: int, smallest: tuple[int, ...] = SMALL
) -> tuple[int, ...]:
    """Return the units of the hidden layers.

    Parameters
    ----------
    hidden : int, sequence of int or "auto"
    n_rows : int
        On which ``"auto"`` depends.
    smallest : tuple of int
        Units for fewer than `FEW_ROWS` rows. In a regression the noise is learnt too, and so few
        rows do not separate it from the prior uncertainty of a wider layer: its intervals were up
        to twice as wide as necessary. For classes, a narrower layer was no better.
    """
    if not isinstance(hidden, str):
        return as_layers("hidden", hidden)
    if hidden != "auto":
        raise ValueError(
            f"`hidden` must be 'auto' or a sequence such as (50, 50), got {shown(hidden)}."
        )
    if n_rows < FEW_ROWS:
        return smallest
    return LARGE if n_rows >= MANY_ROWS else SMALL


def build_network(
    n_inputs: int,
    hidden: tuple[int, ...],
    n_outputs: int,
    *,
    activation: Activation,
    ard: bool,
    prior: str | priors.Prior,
    likelihood: likelihoods.Likelihood,
    seed: int,
) -> BayesianNetwork:
    """Return a multilayer perceptron with a prior, or the name of one, and a likelihood.

    With `ard`, its inputs have learnt scales.
    """
    net = mlp(n_inputs, hidden, n_outputs, activation, input_scale=ard, seed=seed)
    if ard:
        prior = priors.ByName({LOG_SCALE: LOG_SCALE_PRIOR}, resolve("prior", prior, PRIORS))
    return BayesianNetwork(net, prior, likelihood)


def has_ard(network: BayesianNetwork) -> bool:
    """Return whether a network was built with learnt scales of its inputs."""
    return any(name == LOG_SCALE for name, _ in network.net.named_parameters())


def resolve_likelihood(
    likelihood: str | likelihoods.Likelihood, n_targets: int
) -> likelihoods.Likelihood:
    """Return a likelihood, looked up if given by name, with one noise scale per target."""
    resolved = resolve("likelihood", likelihood, REGRESSIONS)
    has_noise_scale = isinstance(
        resolved, likelihoods.Gaussian | likelihoods.LogNormal | likelihoods.StudentT
    )
    if has_noise_scale and n_targets > 1 and isinstance(resolved.noise_median, float):
        return dataclasses.replace(resolved, noise_median=(resolved.noise_median,) * n_targets)
    return resolved


def likelihood_name(likelihood: likelihoods.Likelihood) -> str:
    """Return the name of the estimators for a likelihood, or that of its class or function."""
    for name, known in REGRESSIONS.items():
        if type(likelihood) is type(known):
            return name
    return getattr(likelihood, "__name__", type(likelihood).__name__)
