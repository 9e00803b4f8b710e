"""Noise mixed by a low-rank factor: what it adds to log q and its gradient."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.linalg import vecdot

from ..model.low_rank import mix, split_noise


@dataclass(frozen=True)
class MixedNoise:
    """Draws z = F e1 + e2 of a normal distribution with the covariance I + F F^T.

    With the capacitance matrix K = I + F^T F, b = K^-1 F^T z and a = z - F b, Woodbury's identity
    and the determinant lemma give ``(I + F F^T)^-1 z = a`` and ``|I + F F^T| = |K|``. As K has the
    size of the rank, all this takes O(n_latent * rank^2) operations.

    Attributes
    ----------
    factor : Tensor of shape (*lead, n_latent, rank)
        F.
    of_factor : Tensor of shape (*lead, [n_draws,] rank)
        e1.
    z : Tensor of shape (*lead, [n_draws,] n_latent)
    pulled, solved : Tensor of shape (*lead, [n_draws,] rank)
        F^T z and b.
    inverse : Tensor of shape (*lead, rank, rank)
        K^-1.
    half_log_det : Tensor of shape (*lead,)
        Half of log |K|.
    """

    factor: Tensor
    of_factor: Tensor
    z: Tensor
    pulled: Tensor
    solved: Tensor
    inverse: Tensor
    half_log_det: Tensor

    @classmethod
    def of(cls, factor: Tensor, noise: Tensor) -> MixedNoise:
        """Mix standard normal noise.

        Parameters
        ----------
        factor : Tensor of shape (*lead, n_latent, rank)
        noise : Tensor of shape (*lead, [n_draws,] rank + n_latent)
        """
        of_factor, of_diagonal = split_noise(noise, factor)
        z = mix(factor, of_factor, of_diagonal)
        rank = factor.shape[-1]
        identity = torch.eye(rank, dtype=factor.dtype, device=factor.device)
        stacked = torch.cat([identity.expand((*factor.shape[:-2], rank, rank)), factor], dim=-2)
        # K = R^T R, with R in the upper triangle. A Cholesky decomposition of K would raise errors
        # for values that are not finite, and torch's compiler has no C++ call for it.
        root = torch.geqrf(stacked)[0][..., :rank, :]
        inverse = torch.cholesky_inverse(root, upper=True)
        pulled = _times(z, factor)
        half_log_det = (root * identity).sum(-1).abs().log().sum(-1)
        return cls(factor, of_factor, z, pulled, _times(pulled, inverse), inverse, half_log_det)

    def log_ratio(self) -> Tensor:
        """Compute log q(z) of the mixed noise minus that of independent noise, averaged over draws.

        Returns
        -------
        Tensor of shape (*lead,)
        """
        excess = 0.5 * vecdot(self.pulled, self.solved)
        if self.z.dim() == self.factor.dim():
            excess = excess.mean(-1)
        return excess - self.half_log_det

    def d_factor(self, d_u: Tensor, scale: Tensor, weight: Tensor) -> Tensor:
        """Compute the gradient of the loss with respect to F, shape (*lead, n_latent, rank).

        The sampled log q(z) has the gradient ``-F K^-1 - a (e1 - b)^T``, whose second term is 0 in
        expectation.

        Parameters
        ----------
        d_u : Tensor of shape (*lead, [n_draws,] n_latent)
            Gradient of the loss without log q with respect to the draws u = loc + scale * z.
        scale : Tensor of shape (*lead, n_latent)
        weight : Tensor of shape () or (*lead, 1)
            Weight of log q in the loss.
        """
        of_factor, z, solved = self.of_factor, self.z, self.solved
        if z.dim() < self.factor.dim():
            d_u, of_factor, z, solved = (t.unsqueeze(-2) for t in (d_u, of_factor, z, solved))
        weight = weight.unsqueeze(-1)
        share = weight / z.shape[-2]
        d_z = d_u * scale.unsqueeze(-2)
        residual = share * (z - solved @ self.factor.mT)  # a
        left = torch.cat([d_z - residual, residual], dim=-2)
        right = torch.cat([of_factor, solved], dim=-2)
        return left.mT @ right - weight * (self.factor @ self.inverse)


def _times(rows: Tensor, matrix: Tensor) -> Tensor:
    """Multiply one row, or several, by a matrix from the right."""
    if rows.dim() < matrix.dim():
        return (rows.unsqueeze(-2) @ matrix).squeeze(-2)
    return rows @ matrix
