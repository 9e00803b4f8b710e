"""Bayesian linear regression: evidence, conditioning, and their sufficient statistics."""

from __future__ import annotations

import logging
import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

logger = logging.getLogger(__name__)

GRID, ZOOMS = 128, 8
"""Points of a grid over the log of the signal-to-noise ratio, and how often it is refined."""

RATIOS = (1e-8, 1e14)
"""Range of the prior variance of the strongest direction of the features, in noise variances."""


@dataclass(frozen=True)
class Statistics:
    """The sufficient statistics of rows of features and targets.

    Attributes
    ----------
    n : int
        Number of rows.
    gram : Tensor of shape (m, m)
        Products of features, summed over the rows.
    cross : Tensor of shape (m, k)
        Products of features and targets.
    squares : Tensor of shape (k,)
        Squares of targets.
    """

    n: int
    gram: Tensor
    cross: Tensor
    squares: Tensor

    @classmethod
    def of(cls, features: Iterable[Tensor], y: Tensor) -> Statistics:
        """Return the statistics of batches of features, (., m), and of y, (n, k)."""
        n = 0
        sums: list[Any] = [0.0, 0.0, 0.0]
        for phi in features:
            rows = y[n : n + len(phi)].to(phi)
            parts = phi.mT @ phi, phi.mT @ rows, rows.square().sum(0)
            sums = [whole + part for whole, part in zip(sums, parts, strict=True)]
            n += len(phi)
        return cls(n, *sums)

    def whitened(self, loc: Tensor, scale: Tensor) -> Statistics:
        """Return the statistics of one target in which its prior is standard normal.

        Parameters
        ----------
        loc, scale : Tensor of shape (m,)
            Of the independent normal priors of its weights.
        """
        pulled = self.gram @ loc
        squares = self.squares - 2 * (loc @ self.cross) + loc @ pulled
        cross = scale[:, None] * (self.cross - pulled[:, None])
        return Statistics(self.n, scale[:, None] * self.gram * scale, cross, squares)

    def of_target(self, k: int) -> Statistics:
        """Return the statistics of one target."""
        return Statistics(self.n, self.gram, self.cross[:, k : k + 1], self.squares[k : k + 1])


@dataclass(frozen=True)
class NormalBelief:
    """Normal distributions of the weights of each target, which are independent.

    Attributes
    ----------
    mean : Tensor of shape (k, m)
    precision : Tensor of shape (k, m, m)
    """

    mean: Tensor
    precision: Tensor

    @classmethod
    def isotropic(cls, scale: Tensor, n_features: int) -> NormalBelief:
        """Return centred distributions with a scale for each target, shape (k,)."""
        identity = torch.eye(n_features, dtype=scale.dtype, device=scale.device)
        return cls(scale.new_zeros((len(scale), n_features)), scale[:, None, None] ** -2 * identity)


@dataclass(frozen=True)
class Conditioned:
    """The posterior of the weights of each target.

    Attributes
    ----------
    mean : Tensor of shape (k, m)
    covariance : Tensor of shape (k, m, m)
    log_evidence, nll : float
        Log density of y, and expected negative log-likelihood under the posterior, in nats, summed
        over rows and targets.
    """

    mean: Tensor
    covariance: Tensor
    log_evidence: float
    nll: float


def choose_scales(
    statistics: Statistics, prior_scale: Tensor | None, noise_scale: Tensor | None
) -> tuple[Tensor, Tensor]:
    """Return the scales of prior and noise that maximise the evidence, separately by target.

    With the ratio g of the variances of prior and noise and the eigenvalues d of the Gram matrix,
    ``-2 log p(y) = n log(2 pi noise^2) + sum log(1 + g d) + Q(g) / noise^2`` (Bishop 2006, section
    3.5), where noise^2 = Q(g) / n is optimal: a search over one number.

    Parameters
    ----------
    statistics : Statistics
    prior_scale, noise_scale : Tensor of shape (k,), optional
        Scales that are given.

    Returns
    -------
    prior_scale, noise_scale : Tensor of shape (k,)
    """
    if prior_scale is not None and noise_scale is not None:
        return prior_scale, noise_scale
    eigenvalues, vectors = torch.linalg.eigh(statistics.gram)
    eigenvalues = eigenvalues.clamp(min=0)
    loads = (vectors.mT @ statistics.cross).square()
    chosen = []
    for k, squares in enumerate(statistics.squares):
        if not squares > 0:
            raise ValueError(
                f"`y` must not be 0 in all rows, as in its column {k}: the evidence has no maximum."
            )
        prior = None if prior_scale is None else prior_scale[k]
        noise = None if noise_scale is None else noise_scale[k]
        one = _OneTarget(statistics.n, eigenvalues, loads[:, k], squares, prior, noise)
        chosen.append(one.scales(one.best_ratio(k)))
    priors, noises = zip(*chosen, strict=True)
    return torch.stack(priors), torch.stack(noises)


@dataclass(frozen=True)
class _OneTarget:
    """The evidence of one target, as a function of the ratio g."""

    n: int
    eigenvalues: Tensor
    loads: Tensor
    squares: Tensor
    prior: Tensor | None
    noise: Tensor | None

    def residual(self, g: Tensor) -> Tensor:
        """Compute Q(g), y^T (I + g Phi Phi^T)^-1 y, for g of shape (n_points,)."""
        gain = g[:, None] / (1 + g[:, None] * self.eigenvalues)
        return (self.squares - gain @ self.loads).clamp(min=1e-14 * float(self.squares))

    def scales(self, g: Tensor) -> tuple[Tensor, Tensor]:
        """Return the scales of prior and noise at a ratio, shape ()."""
        if self.noise is not None:
            return g.sqrt() * self.noise, self.noise
        if self.prior is not None:
            return self.prior, self.prior / g.sqrt()
        noise = (self.residual(g[None])[0] / self.n).sqrt()
        return g.sqrt() * noise, noise

    def negative_log_evidence(self, g: Tensor) -> Tensor:
        """Compute -2 log p(y), up to a constant, for g of shape (n_points,)."""
        log_det = torch.log1p(g[:, None] * self.eigenvalues).sum(-1)
        q = self.residual(g)
        if self.noise is not None:
            return log_det + q / self.noise**2
        if self.prior is not None:
            return log_det + q * g / self.prior**2 - self.n * g.log()
        return log_det + self.n * q.log()

    def best_ratio(self, target: int) -> Tensor:
        """Return the ratio with the highest evidence, by a grid that is refined."""
        strongest = math.log(max(float(self.eigenvalues[-1]), 1e-300))
        low, high = (math.log(ratio) - strongest for ratio in RATIOS)
        for zoom in range(ZOOMS):
            grid = torch.linspace(low, high, GRID, dtype=torch.float64).to(self.loads)
            best = int(self.negative_log_evidence(grid.exp()).argmin())
            if zoom == 0 and best == GRID - 1:
                logger.warning(
                    "The evidence of target %d is highest without noise: y is a linear function of "
                    "the features. Pass a `noise_scale`, or features of a smaller trunk.",
                    target,
                )
            if zoom == 0 and best == 0:
                logger.warning("The features say nothing of target %d: its weights are 0.", target)
            low, high = float(grid[max(best - 1, 0)]), float(grid[min(best + 1, GRID - 1)])
        return grid[best].exp()


def condition_on(prior: NormalBelief, statistics: Statistics, noise_scale: Tensor) -> Conditioned:
    """Condition normal distributions of the weights on rows (Bishop 2006, equations 3.50 to 3.51).

    Parameters
    ----------
    prior : NormalBelief
    statistics : Statistics
    noise_scale : Tensor of shape (k,)
    """
    weight = noise_scale**-2
    precision = prior.precision + weight[:, None, None] * statistics.gram
    pulled = (prior.precision @ prior.mean[..., None])[..., 0]
    tril = torch.linalg.cholesky(precision)
    information = pulled + weight[:, None] * statistics.cross.mT
    mean = torch.cholesky_solve(information[..., None], tril)[..., 0]
    covariance = torch.cholesky_inverse(tril)
    misfit = (
        statistics.squares
        - 2 * (statistics.cross.mT * mean).sum(-1)
        + ((mean @ statistics.gram) * mean).sum(-1)
    ).clamp(min=0)
    constant = 0.5 * statistics.n * (2 * math.pi * noise_scale**2).log()
    shift = mean - prior.mean
    distance = ((prior.precision @ shift[..., None])[..., 0] * shift).sum(-1)
    log_ratio = torch.logdet(prior.precision) - 2 * tril.diagonal(dim1=-2, dim2=-1).log().sum(-1)
    log_evidence = 0.5 * (log_ratio - weight * misfit - distance) - constant
    spread = (covariance * statistics.gram).sum((-2, -1))
    nll = constant + 0.5 * weight * (misfit + spread)
    return Conditioned(mean, covariance, float(log_evidence.sum()), float(nll.sum()))
