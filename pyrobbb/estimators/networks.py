"""Networks and likelihoods of the estimators."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

from .. import likelihoods, priors
from ..model.mlp import INPUT_SCALE, Activation, mlp
from ..model.names import PRIORS, REGRESSIONS, resolve
from ..model.network import BayesianNetwork

TINY, SMALL, LARGE = (10,), (50,), (50, 50)
FEW_ROWS, MANY_ROWS = 60, 5_000
"""Numbers of rows from which ``hidden="auto"`` is `SMALL` or `LARGE`; `TINY` is for regressions."""
SMALL_TABLE, RESTARTS, MANY_RESTARTS = 128, 4, 8
"""Regressions of at most so many rows, but of at least `FEW_ROWS`, have learned scales of their
inputs, and more restarts. With 108 training rows, scales raised the log density on most UCI sets,
by 0.22 nats on energy; with 400 they lowered it on one. Eight restarts raised it by 0.1 on kin8nm
and on a function of six inputs; elsewhere they made no difference, and where an epoch has several
steps they take long. With 20 rows both together made intervals wider, with 176 too, on one table
each."""
LOG_SCALE, LOG_SCALE_PRIOR = f"{INPUT_SCALE}.log_scale", priors.Normal(1.0)
"""With learned scales: the logarithms of the scales of the inputs, and their prior."""


def choose_sizes(
    parameters: Mapping[str, Any], n_rows: int, is_regression: bool
) -> tuple[tuple[int, ...], bool, int]:
    """Return the units of the hidden layers, whether inputs have learned scales, and the restarts.

    Parameters
    ----------
    parameters : mapping of str to object
        Of the estimator, whole numbers as integers; `hidden`, `ard` and `restarts` may be "auto".
    n_rows : int
        On which ``"auto"`` depends.
    is_regression : bool
        In a regression the noise is learned too, and fewer than `FEW_ROWS` rows do not separate it
        from the prior uncertainty of a wider layer: its intervals were up to twice as wide as
        necessary. For classes, a narrower layer was no better; scales and restarts are untried.
    """
    hidden, ard, restarts = (parameters[name] for name in ("hidden", "ard", "restarts"))
    is_small = is_regression and FEW_ROWS <= n_rows <= SMALL_TABLE
    if isinstance(hidden, str):
        hidden = LARGE if n_rows >= MANY_ROWS else SMALL
        if is_regression and n_rows < FEW_ROWS:
            hidden = TINY
    ard = is_small if isinstance(ard, str) else bool(ard)
    if isinstance(restarts, str):
        restarts = MANY_RESTARTS if is_small else RESTARTS
    return hidden, ard, restarts


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

    With `ard`, its inputs have learned scales.
    """
    net = mlp(n_inputs, hidden, n_outputs, activation, input_scale=ard, seed=seed)
    if ard:
        prior = priors.ByName({LOG_SCALE: LOG_SCALE_PRIOR}, resolve("prior", prior, PRIORS))
    return BayesianNetwork(net, prior, likelihood)


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
