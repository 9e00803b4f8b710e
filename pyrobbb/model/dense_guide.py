"""DenseGuide: a normal guide with a dense covariance within blocks of latent values."""

from __future__ import annotations

import math
from typing import ClassVar, Self

import pyro.distributions as dist
import torch
from torch import Tensor, nn
from torch.distributions import constraints

from .._core.arrays import ArrayLike
from .flat_guide import inverse_softplus, scale_of
from .joint_guide import JointGuide
from .network import BayesianNetwork


class DenseGuide(JointGuide):
    """Normal guide with a dense covariance of all latent sites, or of blocks of them.

    A block holds the values of all sites at one index of their first dimension, such as the weights
    and the bias of one unit of a linear layer; different blocks are independent. With S =
    diag(softplus(rho)) and the lower triangular matrix L of a block, its covariance is
    ``S L L^T S``. A draw of the latent values is ``u = loc + scale * z``, with ``scale =
    softplus(rho)``, ``z = L e`` and standard normal noise e. `pyrobbb.last_layer` makes these
    guides; Pyro's SVI fits them too.

    Parameters
    ----------
    network : BayesianNetwork
    n_blocks : int
        1, or the size of the first dimension of every site.
    x : array-like of shape (n, ...), optional
        Any input. Needed only if the likelihood is a custom callable with latent sites.
    init_scale : float, optional
        As for `MeanFieldGuide`. Initially L is the identity.

    Attributes
    ----------
    loc, rho : nn.Parameter of shape (n_latent,)
        Means, and the inverse softplus of the diagonal of S.
    cov_tril : nn.Parameter of shape (n_latent, n_latent // n_blocks)
        The row of L of each latent value. What is above the diagonal of L is ignored.

    Raises
    ------
    ValueError
        If the sites cannot be divided into so many blocks.
    """

    kind = "dense"
    auxiliary_site = "_dense_latent"

    def __init__(
        self,
        network: BayesianNetwork,
        n_blocks: int = 1,
        x: ArrayLike | None = None,
        *,
        init_scale: float | None = None,
    ) -> None:
        super().__init__(network, x, init_scale=init_scale)
        leading = {(*shape, 1)[0] for shape in self.shapes.values()}
        if n_blocks != 1 and leading != {n_blocks}:
            raise ValueError(
                f"`n_blocks` must be 1 or the size of the first dimension of every site, got "
                f"{n_blocks} for the sizes {', '.join(map(str, sorted(leading)))}."
            )
        size = len(self.loc) // n_blocks
        # The index in the flat vector of each value of each block; it follows from the shapes.
        pieces = self.split(torch.arange(len(self.loc)))
        self._index = torch.cat([p.reshape(n_blocks, -1) for p in pieces.values()], -1)
        rows = torch.empty(len(self.loc), size, dtype=torch.float64)
        rows[self._index] = torch.eye(size, dtype=torch.float64).expand(n_blocks, size, size)
        self.cov_tril = nn.Parameter(rows.to(self.loc))

    @property
    def n_blocks(self) -> int:
        """Number of blocks."""
        return len(self._index)

    @property
    def sd(self) -> Tensor:
        """Marginal standard deviations of u, shape (n_latent,)."""
        return self.scale * self._from_blocks(self._tril(self.cov_tril).norm(dim=-1))

    @property
    def is_mean_field(self) -> bool:
        """Whether all latent values are independent."""
        return False

    @property
    def noise_sizes(self) -> list[int]:
        """Size of the noise of a draw."""
        return [len(self.loc)]

    def renewed(self, network: BayesianNetwork, x: ArrayLike | None = None) -> Self:
        """Return a new guide with as many blocks for a network, with initial values."""
        return type(self)(network, self.n_blocks, x, init_scale=self.init_scale)

    def mixed(self, noise: Tensor, *factors: Tensor) -> Tensor:
        """Compute z = L e."""
        (rows,) = factors
        return self._from_blocks((self._tril(rows) @ self.in_blocks(noise).unsqueeze(-1))[..., 0])

    def joint(self, *parameters: Tensor) -> DenseNormal:
        """Return the joint distribution of u for values of the guide's parameters."""
        loc, rho, rows = parameters
        scale = self.in_blocks(scale_of(rho))
        return DenseNormal(loc, scale.unsqueeze(-1) * self._tril(rows), self._index)

    def in_blocks(self, flat: Tensor) -> Tensor:
        """Return flat values, shape (..., n_latent), by block: (..., n_blocks, size)."""
        return flat[..., self._index.to(flat.device)]

    @torch.no_grad()
    def set_moments(self, mean: Tensor, covariance: Tensor) -> None:
        """Set the mean and the covariance of each block.

        Parameters
        ----------
        mean : Tensor of shape (n_blocks, size)
        covariance : Tensor of shape (n_blocks, size, size)
            Positive definite.
        """
        sd = covariance.diagonal(dim1=-2, dim2=-1).sqrt()
        correlation = covariance / (sd.unsqueeze(-1) * sd.unsqueeze(-2))
        tril = torch.linalg.cholesky(correlation)
        self.loc.copy_(self._from_blocks(mean))
        self.rho.copy_(self._from_blocks(inverse_softplus(sd)))
        index = self._index.to(tril.device)
        self.cov_tril[index] = tril.to(self.cov_tril)

    @torch.no_grad()
    def moments(self) -> tuple[Tensor, Tensor]:
        """Return the mean and the covariance of each block, in float64."""
        loc, rho, rows = (parameter.double() for parameter in self.parameters())
        joint = self.joint(loc, rho, rows)
        return self.in_blocks(loc), joint.scale_tril @ joint.scale_tril.mT

    def _tril(self, rows: Tensor) -> Tensor:
        return rows[self._index.to(rows.device)].tril()

    def _from_blocks(self, blocks: Tensor) -> Tensor:
        return from_blocks(blocks, self._index)


class DenseNormal(dist.TorchDistribution):
    """Normal distribution of a vector whose blocks of values are independent of each other.

    Parameters
    ----------
    loc : Tensor of shape (n,)
    scale_tril : Tensor of shape (n_blocks, size, size)
        Cholesky factors of the covariances of the blocks.
    index : Tensor of shape (n_blocks, size)
        The index in the vector of each value of each block.
    """

    arg_constraints: ClassVar[dict[str, constraints.Constraint]] = {}
    support = constraints.real_vector
    has_rsample = True

    def __init__(self, loc: Tensor, scale_tril: Tensor, index: Tensor) -> None:
        self.loc, self.scale_tril, self._index = loc, scale_tril, index
        super().__init__(torch.Size(), loc.shape, validate_args=False)

    @property
    def mean(self) -> Tensor:
        """The mean, shape (n,)."""
        return self.loc

    def at(self, *noise: Tensor) -> Tensor:
        """Return the draw for standard normal noise, computed like `rsample`."""
        (e,) = noise
        blocks = e[..., self._index.to(e.device)]
        return self.loc + from_blocks((self.scale_tril @ blocks.unsqueeze(-1))[..., 0], self._index)

    def rsample(self, sample_shape: torch.Size = torch.Size()) -> Tensor:  # noqa: B008
        """Return draws of shape (*sample_shape, n)."""
        return self.at(self.loc.new_empty((*sample_shape, len(self.loc))).normal_())

    def log_prob(self, value: Tensor) -> Tensor:
        """Compute the log-density, in the dtype of the value."""
        tril = self.scale_tril.to(value)
        centred = (value - self.loc.to(value))[..., self._index.to(value.device)]
        z = torch.linalg.solve_triangular(tril, centred.unsqueeze(-1), upper=False)[..., 0]
        log_det = tril.diagonal(dim1=-2, dim2=-1).abs().log().sum()
        constant = 0.5 * len(self.loc) * math.log(2 * math.pi)
        return -0.5 * z.square().sum((-2, -1)) - log_det - constant


def from_blocks(blocks: Tensor, index: Tensor) -> Tensor:
    """Return values by block, shape (..., n_blocks, size), as flat ones, shape (..., n)."""
    return blocks.flatten(-2)[..., index.to(blocks.device).flatten().argsort()]
