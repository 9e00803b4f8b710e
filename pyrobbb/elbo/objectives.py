"""Objectives by name, and the weight of the KL divergence in each minibatch."""

from __future__ import annotations

import numbers
from collections.abc import Callable, Sequence
from typing import Literal, TypeAlias

import numpy as np
from pyro.infer import ELBO, Trace_ELBO, TraceMeanField_ELBO

from .._core.arrays import as_count, check_positive
from .._core.messages import is_one_of, shown
from .fused_elbo import FusedELBO
from .gradient_estimators import Estimator

Objective: TypeAlias = Literal["trace", "mean_field"] | ELBO
KLWeight: TypeAlias = Literal["uniform", "blundell", "auto"] | float | Callable[[int, int], float]
"""Of one chain; "auto" is only an argument of `fit`, which replaces it by a number."""
KLWeights: TypeAlias = KLWeight | Sequence[float]
"""Of all chains, or one number for each."""


def make_elbo(objective: Objective, n_particles: int = 1, estimator: Estimator = "reparam") -> ELBO:
    """Return the ELBO for an objective.

    Parameters
    ----------
    objective : {"trace", "mean_field"} or ELBO
        ``"trace"``: every term sampled (`Trace_ELBO`; Blundell et al. 2015, equation 2).
        ``"mean_field"``: KL divergences in closed form where Pyro has one. A `pyro.infer.ELBO` is
        returned unchanged.
    n_particles : int
        Number of draws per step, vectorised.
    estimator : {"reparam", "local", "flipout"}
        See `FusedELBO`.
    """
    n_particles = as_count("n_particles", n_particles)
    if isinstance(objective, ELBO):
        if estimator != "reparam":
            raise ValueError(
                f"`estimator` {estimator!r} needs an objective given by name; pass it to FusedELBO "
                "instead."
            )
        if type(objective).__name__.startswith("Jit"):
            kind = type(objective).__name__
            raise ValueError(
                f"`objective` {kind} records one step and repeats it, but fit changes the weights "
                f"of each step: use {kind.removeprefix('Jit')}."
            )
        if n_particles not in (1, objective.num_particles):
            raise ValueError(
                f"`n_particles` is {n_particles}, but the objective has num_particles="
                f"{objective.num_particles}: set it there."
            )
        return objective
    if is_one_of(objective, ("trace", "mean_field")):
        return FusedELBO(objective, n_particles, estimator)
    is_short = objective is None or isinstance(objective, str | type)
    got = shown(objective) if is_short else f"a {type(objective).__name__}"
    raise ValueError(
        f"`objective` must be one of trace, mean_field, or a pyro.infer.ELBO, got {got}."
    )


def traced(elbo: ELBO) -> ELBO:
    """Return Pyro's ELBO that is equivalent to a fused one; others are returned unchanged."""
    if not isinstance(elbo, FusedELBO):
        return elbo
    kind = {"trace": Trace_ELBO, "mean_field": TraceMeanField_ELBO}[elbo.objective]
    n = elbo.num_particles
    return kind(num_particles=n, vectorize_particles=n > 1, max_plate_nesting=1)


def kl_weights(kl_weight: KLWeight, n_batches: int) -> np.ndarray:
    """Compute the weight of the KL divergence in each minibatch of an epoch.

    Parameters
    ----------
    kl_weight : {"uniform", "blundell"}, float or callable
        ``"uniform"``: 1 / M (equation 8). ``"blundell"``: 2^(M-i) / (2^M - 1), so that the prior
        dominates early in each epoch and the data late (equation 9). A callable maps the number of
        the batch, 1 .. M, and M to the weight; the weights of an epoch should sum to 1.
        A number c: c / M, so that the whole divergence is multiplied by c. If c < 1 this is a cold
        posterior, as if each row had been observed 1 / c times.
    n_batches : int
        M.

    Returns
    -------
    ndarray of shape (n_batches,)

    References
    ----------
    Blundell et al. (2015), section 3.4.
    """
    n_batches = as_count("n_batches", n_batches)
    if is_one_of(kl_weight, ["uniform"]):
        return np.full(n_batches, 1 / n_batches)
    if isinstance(kl_weight, numbers.Real):
        check_positive("kl_weight", float(kl_weight))
        return np.full(n_batches, float(kl_weight) / n_batches)
    i = np.arange(1, n_batches + 1)
    if is_one_of(kl_weight, ["blundell"]):  # 2^M overflows for M >= 1024; this form does not
        return 2.0**-i / (1 - 2.0**-n_batches)
    if not callable(kl_weight):
        raise ValueError(
            "`kl_weight` must be 'uniform', 'blundell', a positive number or a callable "
            f"(batch, n_batches) -> weight, got {shown(kl_weight)}."
        )
    weights = np.array([float(kl_weight(int(k), n_batches)) for k in i])
    if not np.isfinite(weights).all() or (weights < 0).any():
        bad = int(np.flatnonzero(~(weights >= 0) | np.isinf(weights))[0])
        raise ValueError(
            f"`kl_weight` must return finite numbers of at least 0, got {weights[bad]} for batch "
            f"{bad + 1} of {n_batches}."
        )
    return weights


def kl_weight_per_chain(kl_weight: KLWeights, n_chains: int) -> tuple[KLWeight, ...]:
    """Return the weight of the KL divergence of each chain.

    Raises
    ------
    ValueError
        If it is a sequence, but not of one positive number for each chain.
    """
    if isinstance(kl_weight, str) or not isinstance(kl_weight, Sequence | np.ndarray):
        return (kl_weight,) * n_chains
    if np.ndim(kl_weight) != 1 or len(kl_weight) != n_chains:
        raise ValueError(
            f"`kl_weight` must be one weight, or a sequence of {n_chains}, one for each restart, "
            f"got {shown(kl_weight)}."
        )
    weights = tuple(float(weight) for weight in kl_weight)
    for weight in weights:
        check_positive("kl_weight", weight)
    return weights


def describe_kl_weight(kl_weight: KLWeight) -> str | float:
    """Return the name or number of a weight; "custom" for a callable."""
    if isinstance(kl_weight, str):
        return kl_weight
    return float(kl_weight) if isinstance(kl_weight, numbers.Real) else "custom"
