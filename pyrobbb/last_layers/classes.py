"""Bayesian logistic regression: a normal posterior that maximises a bound on the evidence.

The expected log-sum-exp in the ELBO has no closed form. It is replaced by the tilted bound of
Knowles and Minka (2011), which holds for any t: for logits a ~ N(m, V),

    E log sum_i exp a_i  <=  log sum_i exp(m_i + (e_i - t)^T V (e_i - t) / 2).

At t = 0 it is Jensen's bound, that of variational Bayesian last layers (Harrison et al. 2024, their
equation 12), which overstates the curvature: for two classes twice, so that variances would be
halved. At the best t, which equals the probabilities r that the bound implies, its derivative with
respect to V is that of the exact expectation up to second order. The bound on the ELBO is maximised
over mean and dense covariance by natural gradient steps (Khan and Rue 2023): they are Newton steps
of logistic regression, with r in place of the probabilities at the mean.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass

import torch
from torch import Tensor

logger = logging.getLogger(__name__)

MAX_STEPS, TOLERANCE = 500, 1e-10
SCALES = (1e-4, 1e4)


@dataclass(frozen=True)
class Classes:
    """Rows of features with their classes.

    Attributes
    ----------
    features : Tensor of shape (n, m)
    y : Tensor of shape (n, k)
        1 for the class of the row, 0 elsewhere.
    has_reference : bool
        Whether there is a further class with logit 0, as for a Bernoulli likelihood.
    """

    features: Tensor
    y: Tensor
    has_reference: bool


@dataclass(frozen=True)
class Fitted:
    """A normal distribution of the weights of all classes.

    Attributes
    ----------
    mean : Tensor of shape (k, m)
    covariance : Tensor of shape (k * m, k * m)
        By class, then by feature.
    scale : Tensor of shape ()
        Standard deviation of the prior.
    bound, nll : float
        Lower bound on the log evidence, and the upper bound of the expected negative log-likelihood
        in it, in nats.
    """

    mean: Tensor
    covariance: Tensor
    scale: Tensor
    bound: float
    nll: float


@dataclass(frozen=True)
class _Bound:
    """The bound at a normal distribution of the weights, and what a step needs."""

    mean: Tensor
    precision: Tensor
    covariance: Tensor
    probs: Tensor
    nll: Tensor
    value: Tensor


def fit_classes(
    data: Classes, prior_mean: Tensor, prior_precision: Tensor, *, learn_scale: bool = False
) -> Fitted:
    """Fit a normal distribution of the weights, by maximising the bound on the evidence.

    Parameters
    ----------
    data : Classes
    prior_mean : Tensor of shape (k, m)
    prior_precision : Tensor of shape (k * m,)
        Of independent normal priors.
    learn_scale : bool
        Whether the priors, then centred, have a common scale that maximises the bound too.
    """
    n_weights = prior_mean.numel()
    start = prior_mean.flatten()
    probs = _tilted(*_logits(data, start, None), data.has_reference)[0]
    precision = _curvature(data, probs) + prior_precision.diag()
    now = _bound(data, start, precision, start, prior_precision)
    scale = prior_precision[0] ** -0.5
    for _ in range(MAX_STEPS):
        before, scale_before = now.value, scale
        now = _step(data, now, start, prior_precision)
        gain = float((now.value - before).abs()) / (1 + float(now.value.abs()))
        if learn_scale:
            # MacKay's fixed point, which has the same solution as the EM step and is faster.
            spread = now.covariance.diagonal().sum()
            well_determined = (n_weights - spread / scale**2).clamp(min=1e-6 * n_weights)
            scale = (now.mean.square().sum() / well_determined).sqrt().clamp(*SCALES)
            prior_precision = torch.full_like(prior_precision, float(scale) ** -2)
            moved = now.precision.clone()
            moved.diagonal().add_(scale**-2 - scale_before**-2)
            now = _bound(data, now.mean, moved, start, prior_precision)
        if gain < TOLERANCE and float((scale / scale_before).log().abs()) < 1e-6:
            break
    else:
        logger.warning(
            "The bound on the evidence still rises after %d steps, by %.1g of its value in the "
            "last one.",
            MAX_STEPS,
            gain,
        )
    return Fitted(
        now.mean.reshape(prior_mean.shape),
        now.covariance,
        scale,
        float(now.value),
        float(now.nll),
    )


def _step(data: Classes, now: _Bound, prior_mean: Tensor, prior_precision: Tensor) -> _Bound:
    """Take the longest of some natural gradient steps that raises the bound."""
    gradient = ((data.y - now.probs).mT @ data.features).flatten()
    gradient = gradient - prior_precision * (now.mean - prior_mean)
    target = _curvature(data, now.probs) + prior_precision.diag()
    length = 1.0
    while length > 1e-6:
        precision = torch.lerp(now.precision, target, length)
        move = torch.cholesky_solve(gradient[:, None], torch.linalg.cholesky(precision))[:, 0]
        after = _bound(data, now.mean + length * move, precision, prior_mean, prior_precision)
        if after.value >= now.value:
            return after
        length *= 0.5
    return now


def _bound(
    data: Classes, mean: Tensor, precision: Tensor, prior_mean: Tensor, prior_precision: Tensor
) -> _Bound:
    """Compute the bound on the ELBO at a mean and a precision of the weights."""
    tril = torch.linalg.cholesky(precision)
    covariance = torch.cholesky_inverse(tril)
    logits, covariances = _logits(data, mean, covariance)
    probs, log_sums = _tilted(logits, covariances, data.has_reference)
    nll = (log_sums - (data.y * logits).sum(-1)).sum()
    shift = mean - prior_mean
    kl = 0.5 * (
        (prior_precision * (covariance.diagonal() + shift.square())).sum()
        - len(mean)
        - prior_precision.log().sum()
        + 2 * tril.diagonal().log().sum()
    )
    return _Bound(mean, precision, covariance, probs, nll, -nll - kl)


def _logits(data: Classes, mean: Tensor, covariance: Tensor | None) -> tuple[Tensor, Tensor]:
    """Return the means, (n, k), and covariances, (n, k, k), of the logits of each row."""
    phi, (n, k) = data.features, data.y.shape
    logits = phi @ mean.reshape(k, -1).mT
    covariances = phi.new_zeros((n, k, k))
    if covariance is not None:
        blocks = covariance.reshape(k, phi.shape[1], k, phi.shape[1])
        for i in range(k):
            for j in range(i + 1):
                value = ((phi @ blocks[i, :, j]) * phi).sum(-1)
                covariances[:, i, j] = covariances[:, j, i] = value
    return logits, covariances


def _curvature(data: Classes, probs: Tensor) -> Tensor:
    """Compute the sum over the rows of (diag(r) - r r^T) x phi phi^T, shape (k * m, k * m)."""
    phi, k = data.features, probs.shape[1]
    m = phi.shape[1]
    blocks = phi.new_empty((k, m, k, m))
    for i in range(k):
        for j in range(i + 1):
            weight = probs[:, i] * ((1.0 if i == j else 0.0) - probs[:, j])
            block = phi.mT @ (weight[:, None] * phi)
            blocks[i, :, j], blocks[j, :, i] = block, block.mT
    return blocks.reshape(k * m, k * m)


def _tilted(logits: Tensor, covariances: Tensor, has_reference: bool) -> tuple[Tensor, Tensor]:
    """Minimise the bound of the log-sum-exp over t, by Newton's method, as it is convex in t.

    Returns
    -------
    probs : Tensor of shape (n, k)
        The probabilities r at the best t.
    log_sums : Tensor of shape (n,)
        The bound.
    """
    n, k = logits.shape
    t = logits.new_full((n, k), 1 / (k + has_reference))
    value, r = _tilted_at(t, logits, covariances, has_reference)
    identity = torch.eye(k, dtype=t.dtype, device=t.device)
    for _ in range(100):
        hessian = r.diag_embed() - r[:, :, None] * r[:, None, :]
        move = torch.linalg.solve(identity + hessian @ covariances, (r - t)[..., None])[..., 0]
        if float(move.abs().max()) < 1e-12:
            break
        length = t.new_ones((n, 1))
        for _ in range(30):
            moved, moved_r = _tilted_at(t + length * move, logits, covariances, has_reference)
            worse = moved > value + 1e-12 * (1 + value.abs())
            if not bool(worse.any()):
                break
            length = torch.where(worse[:, None], 0.5 * length, length)
        t, value, r = t + length * move, moved, moved_r
    return r, value


def _tilted_at(
    t: Tensor, logits: Tensor, covariances: Tensor, has_reference: bool
) -> tuple[Tensor, Tensor]:
    """Compute the bound of the log-sum-exp at t, (n,), and the probabilities r, (n, k)."""
    pulled = (covariances @ t[..., None])[..., 0]
    common = 0.5 * (t * pulled).sum(-1, keepdim=True)
    exponents = logits + 0.5 * covariances.diagonal(dim1=-2, dim2=-1) - pulled + common
    if has_reference:
        exponents = torch.cat([exponents, common], -1)
    probs = exponents.softmax(-1)[:, : logits.shape[1]]
    return exponents.logsumexp(-1), probs
