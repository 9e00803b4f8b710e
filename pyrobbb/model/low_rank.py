"""LowRankGuide: a normal guide with a covariance of low rank plus diagonal."""

from __future__ import annotations

import math
from typing import Self

import pyro.distributions as dist
import torch
from torch import Tensor, nn

from .._core.arrays import ArrayLike, as_count
from .._core.random_state import seeded
from .flat_guide import inverse_softplus, scale_of
from .jit import as_constants
from .joint_guide import JointGuide
from .network import BayesianNetwork


class LowRankGuide(JointGuide):
    """Normal guide over all latent sites together, with a covariance of low rank plus diagonal.

    With S = diag(softplus(rho)) and the factor F the covariance is ``S (I + F F^T) S``, as in
    Pyro's `AutoLowRankMultivariateNormal`: weights may be correlated, within a layer and between
    layers, which a `MeanFieldGuide` rules out. A step takes O(n_latent * rank^2) operations, and
    the guide has rank + 2 parameters per weight. A site of constrained support (such as a noise
    scale) is normal in its unconstrained space.

    A draw of the latent values is ``u = loc + scale * z``, with ``scale = softplus(rho)``,
    ``z = F e1 + e2`` and standard normal noise e1 and e2.

    Parameters
    ----------
    network : BayesianNetwork
    rank : int, optional
        Number of columns of F. None: the square root of the number of latent values, rounded, as in
        Pyro. With as many columns as latent values every covariance can be represented.
    x : array-like of shape (n, ...), optional
        Any input. Needed only if the likelihood is a custom callable with latent sites.
    init_scale : float, optional
        As for `MeanFieldGuide`. The initial F is random, the same in each process: about half of
        the variance of a weight is shared with other weights, as in Pyro.

    Attributes
    ----------
    loc, rho : nn.Parameter of shape (n_latent,)
        Means, and the inverse softplus of the diagonal of S.
    cov_factor : nn.Parameter of shape (n_latent, rank)
        F: the factor of the covariance in units of S.
    scale, sd : Tensor of shape (n_latent,)
        The diagonal of S, and the standard deviations of the latent values.
    shapes : dict of str to torch.Size
        Shape of each site in unconstrained space, in the order of the flat vectors.

    Raises
    ------
    TypeError, ValueError
        If `rank` is not between 1 and the number of latent values, or `init_scale` is not positive.
        A guide of rank 0 is a `MeanFieldGuide`. If the network has a lower precision than float32,
        for which torch has no matrix decompositions.
    """

    kind = "low_rank"
    auxiliary_site = "_low_rank_latent"

    def __init__(
        self,
        network: BayesianNetwork,
        rank: int | None = None,
        x: ArrayLike | None = None,
        *,
        init_scale: float | None = None,
    ) -> None:
        super().__init__(network, x, init_scale=init_scale)
        n_latent = len(self.loc)
        if self.loc.dtype not in (torch.float32, torch.float64):
            raise ValueError(
                "`network` must have weights in float32 or float64 for a LowRankGuide, got "
                f"{self.loc.dtype}."
            )
        if rank is None:
            rank = round(math.sqrt(n_latent))
        if rank == 0:
            raise ValueError("`rank` must be at least 1, got 0: that is a MeanFieldGuide.")
        rank = as_count("rank", rank)
        if rank > n_latent:
            raise ValueError(
                f"`rank` must be at most {n_latent}, the number of latent values, got {rank}."
            )
        with seeded(0):
            factor = torch.randn(n_latent, rank, dtype=torch.float64) / math.sqrt(rank)
        with torch.no_grad():
            sd = scale_of(self.rho)
            self.cov_factor = nn.Parameter(factor.to(self.loc))
            self.rho.copy_(inverse_softplus(sd / _row_norms(self.cov_factor)))

    @property
    def rank(self) -> int:
        """Rank of the part of the covariance that is not diagonal."""
        return self.cov_factor.shape[-1]

    @property
    def sd(self) -> Tensor:
        """Marginal standard deviations of u, shape (n_latent,)."""
        return self.scale * _row_norms(self.cov_factor)

    @property
    def noise_sizes(self) -> list[int]:
        """Sizes of the pieces of noise of a draw: of the factor, and of the diagonal."""
        return [self.rank, len(self.loc)]

    def renewed(self, network: BayesianNetwork, x: ArrayLike | None = None) -> Self:
        """Return a new guide of this rank for a network, with initial values."""
        return type(self)(network, self.rank, x, init_scale=self.init_scale)

    def mixed(self, noise: Tensor, *factors: Tensor) -> Tensor:
        """Compute z = F e1 + e2 from the noise (e1, e2)."""
        (factor,) = factors
        of_factor, of_diagonal = split_noise(noise, factor)
        return mix(factor, of_factor, of_diagonal)

    def joint(self, *parameters: Tensor) -> LowRankNormal:
        """Return the joint distribution of u for values of the guide's parameters."""
        return LowRankNormal.of(*parameters)


class LowRankNormal(dist.LowRankMultivariateNormal):
    """A low-rank normal whose log-density is computed in the dtype of the value."""

    @classmethod
    def of(cls, loc: Tensor, rho: Tensor, factor: Tensor) -> LowRankNormal:
        """Return the distribution of loc + softplus(rho) * (F e1 + e2).

        Its constructor would raise an error of LAPACK for parameters that are not finite, which an
        engine explains, and compute the capacitance matrix with rounding errors of the scales.
        """
        scale = scale_of(rho)
        new: LowRankNormal = cls.__new__(cls)
        new.loc, new.cov_factor, new.cov_diag = loc, factor * scale.unsqueeze(-1), scale * scale
        new._unbroadcasted_cov_factor, new._unbroadcasted_cov_diag = new.cov_factor, new.cov_diag
        identity = torch.eye(factor.shape[-1], dtype=factor.dtype, device=factor.device)
        new._capacitance_tril = torch.linalg.cholesky_ex(factor.mT @ factor + identity).L
        with as_constants():  # torch would multiply a recorded size in float32
            size = torch.Size(loc.shape)
        torch.distributions.Distribution.__init__(new, torch.Size(), size)
        return new

    def at(self, of_factor: Tensor, of_diagonal: Tensor) -> Tensor:
        """Return the draw for standard normal noise, computed like `rsample`."""
        low_rank = (self._unbroadcasted_cov_factor @ of_factor.unsqueeze(-1)).squeeze(-1)
        return self.loc + low_rank + self._unbroadcasted_cov_diag.sqrt() * of_diagonal

    def log_prob(self, value: Tensor) -> Tensor:
        """Compute the log-density."""
        if value.dtype == self.loc.dtype:
            return super().log_prob(value)
        parameters = (self.loc, self._unbroadcasted_cov_factor, self._unbroadcasted_cov_diag)
        return dist.LowRankMultivariateNormal(*(p.to(value) for p in parameters)).log_prob(value)


def split_noise(noise: Tensor, factor: Tensor) -> tuple[Tensor, Tensor]:
    """Split the noise of a draw into that of the factor and that of the diagonal."""
    n_latent, rank = factor.shape[-2:]
    of_factor, of_diagonal = noise.split([rank, n_latent], dim=-1)
    return of_factor, of_diagonal


def mix(factor: Tensor, of_factor: Tensor, of_diagonal: Tensor) -> Tensor:
    """Compute F e1 + e2.

    Parameters
    ----------
    factor : Tensor of shape (*lead, n_latent, rank)
    of_factor : Tensor of shape (*lead, rank) or (*lead, n_draws, rank)
    of_diagonal : Tensor of shape (*lead, n_latent) or (*lead, n_draws, n_latent)
    """
    if of_factor.dim() < factor.dim():
        return of_diagonal + (factor @ of_factor.unsqueeze(-1)).squeeze(-1)
    return of_diagonal + of_factor @ factor.mT


def _row_norms(factor: Tensor) -> Tensor:
    """Compute the standard deviations of z."""
    return (1 + factor.square().sum(-1)).sqrt()
