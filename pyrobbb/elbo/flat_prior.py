"""The prior of all latent sites at once, over a guide's flat vectors."""

from __future__ import annotations

import copy
import math
from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Any, Protocol

import pyro.distributions as dist
import torch
from pyro.distributions.torch_distribution import TorchDistribution
from torch import Tensor
from torch.distributions import biject_to
from torch.linalg import vecdot
from torch.nn.functional import softplus

from ..likelihoods import HALF_LOG_2PI, base_of
from ..model.network import is_real
from ..priors import ScaleMixtureNormal

Parameter = Tensor | float
"""One value for each weight, or a number where all have the same."""


class Piece(Protocol):
    """The prior of a stretch of the flat vector, in unconstrained space."""

    def cost_and_slope(self, u: Tensor) -> tuple[Tensor, Tensor]:
        """Give -log p(u), summed over the last dimension, and its gradient in u."""
        ...

    def kl(self, loc: Tensor, scale: Tensor) -> tuple[Tensor, Tensor, Tensor] | None:
        """Give KL(N(loc, scale) || prior), summed, and its gradients in loc and scale.

        None where it has no closed form.
        """
        ...


@dataclass(frozen=True)
class NormalPiece:
    """Normal priors; log-normal ones too, whose logarithm is normal."""

    loc: Parameter
    scale: Parameter
    n: int

    def cost_and_slope(self, u: Tensor) -> tuple[Tensor, Tensor]:
        centred = u - self.loc if isinstance(self.loc, Tensor) or self.loc else u
        slope = centred * self.scale**-2
        return 0.5 * vecdot(centred, slope) + self._constant(), slope

    def kl(self, loc: Tensor, scale: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        z, ratio = (loc - self.loc) / self.scale, scale / self.scale
        kl = (0.5 * (z * z + ratio * ratio) - ratio.log()).sum(-1) - 0.5 * self.n
        return kl, z / self.scale, ratio / self.scale - 1 / scale

    def _constant(self) -> float | Tensor:
        if isinstance(self.scale, Tensor):
            return self.scale.log().sum() + self.n * HALF_LOG_2PI
        return self.n * (math.log(self.scale) + HALF_LOG_2PI)


@dataclass(frozen=True)
class MixturePiece:
    """Scale mixtures of two normals (Blundell et al. 2015, equation 7), the same for all."""

    pi: float
    scale1: float
    scale2: float
    n: int

    def cost_and_slope(self, u: Tensor) -> tuple[Tensor, Tensor]:
        # By the log odds of the narrow component, which fall as u^2 grows: far out the density is
        # the wide component's and nothing cancels or underflows.
        wide, narrow, odds = self.scale1, self.scale2, (1 - self.pi) / self.pi
        if wide < narrow:
            wide, narrow, odds = narrow, wide, 1 / odds
        weight_of_wide = 1 / (1 + odds)
        squares = u * u
        drop = narrow**-2 - wide**-2
        log_odds = math.log(odds * wide / narrow) - 0.5 * drop * squares
        constant = math.log(wide) - math.log(weight_of_wide) + HALF_LOG_2PI
        cost = (0.5 * wide**-2 * squares - softplus(log_odds)).sum(-1) + self.n * constant
        return cost, u * (wide**-2 + drop * torch.sigmoid(log_odds))

    def kl(self, loc: Tensor, scale: Tensor) -> None:
        return None


@dataclass(frozen=True)
class OtherPiece:
    """Any distribution: its own log-density, and automatic differentiation."""

    distribution: TorchDistribution
    shape: torch.Size
    """Of the site in unconstrained space."""

    def cost_and_slope(self, u: Tensor) -> tuple[Tensor, Tensor]:
        with torch.enable_grad():
            u = u.detach().requires_grad_()
            site = u.reshape((*u.shape[:-1], *self.shape))
            to_support = biject_to(self.distribution.support)
            value = to_support(site)
            jacobian = to_support.log_abs_det_jacobian(site, value)
            log_prob = self.distribution.log_prob(value)
            n_lead = u.dim() - 1
            cost = -_sum_from(log_prob, n_lead) - _sum_from(jacobian, n_lead)
            (slope,) = torch.autograd.grad(cost.sum(), u)
        return cost.detach(), slope

    def kl(self, loc: Tensor, scale: Tensor) -> tuple[Tensor, Tensor, Tensor] | None:
        if not is_real(self.distribution.support):
            return None
        with torch.enable_grad():
            loc, scale = loc.detach().requires_grad_(), scale.detach().requires_grad_()
            shape = (*loc.shape[:-1], *self.shape)
            q = torch.distributions.Normal(loc.reshape(shape), scale.reshape(shape))
            try:
                kl = torch.distributions.kl_divergence(q, base_of(self.distribution))
            except NotImplementedError:
                return None
            kl = _sum_from(kl, loc.dim() - 1)
            d_loc, d_scale = torch.autograd.grad(kl.sum(), (loc, scale))
        return kl.detach(), d_loc, d_scale


@dataclass(frozen=True)
class FlatPrior:
    """The prior over a flat vector: pieces, each over as many elements as given."""

    pieces: tuple[tuple[int, Piece], ...]

    @classmethod
    def of(cls, sites: Iterable[tuple[TorchDistribution, torch.Size]], like: Tensor) -> FlatPrior:
        """Lay out the priors of sites, each given with its shape in unconstrained space.

        Neighbours of one family are joined. Their parameters take the dtype and device of `like`.
        """
        pieces: list[tuple[int, Piece]] = []
        for prior, shape in sites:
            piece = _piece_of(prior, shape, like)
            if pieces and (joined := _join(pieces[-1][1], piece, like)) is not None:
                pieces[-1] = (pieces[-1][0] + shape.numel(), joined)
            else:
                pieces.append((shape.numel(), piece))
        return cls(tuple(pieces))

    def cost_and_slope(self, u: Tensor) -> tuple[Tensor, Tensor]:
        """Give -log p(u), summed over the last dimension, and its gradient in u."""
        if len(self.pieces) == 1:
            return self.pieces[0][1].cost_and_slope(u)
        parts = u.split([n for n, _ in self.pieces], dim=-1)
        results = [
            piece.cost_and_slope(part) for (_, piece), part in zip(self.pieces, parts, strict=True)
        ]
        return torch.stack([cost for cost, _ in results]).sum(0), torch.cat(
            [slope for _, slope in results], dim=-1
        )

    def kl(self, loc: Tensor, scale: Tensor, noise: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Give KL(q || prior) of q = N(loc, scale), and its gradients in loc and scale.

        In closed form where the prior is normal; elsewhere sampled at loc + scale * noise, and
        averaged over the draws if `noise` has one dimension more than `loc`.
        """
        sizes = [n for n, _ in self.pieces]
        split = (tensor.split(sizes, dim=-1) for tensor in (loc, scale, noise))
        results = [
            piece.kl(*part[:2]) or _sampled_kl(piece, *part)
            for (_, piece), *part in zip(self.pieces, *split, strict=True)
        ]
        kls, d_locs, d_scales = zip(*results, strict=True)
        return torch.stack(kls).sum(0), torch.cat(d_locs, dim=-1), torch.cat(d_scales, dim=-1)


def entropy_cost(scale: Tensor, noise: Tensor) -> Tensor:
    """Give log q at loc + scale * noise, summed over the last dimension, averaged over draws."""
    squares = vecdot(noise, noise)
    if noise.dim() > scale.dim():
        squares = squares.mean(-1)
    return -0.5 * squares - scale.log().sum(-1) - scale.shape[-1] * HALF_LOG_2PI


def _sampled_kl(
    piece: Piece, loc: Tensor, scale: Tensor, noise: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    if noise.dim() == loc.dim():
        cost, slope = piece.cost_and_slope(loc + scale * noise)
        return cost + entropy_cost(scale, noise), slope, slope * noise - 1 / scale
    cost, slope = piece.cost_and_slope(loc.unsqueeze(-2) + scale.unsqueeze(-2) * noise)
    kl = cost.mean(-1) + entropy_cost(scale, noise)
    return kl, slope.mean(-2), (slope * noise).mean(-2) - 1 / scale


def _piece_of(prior: TorchDistribution, shape: torch.Size, like: Tensor) -> Piece:
    base, n = base_of(prior), shape.numel()
    if type(base) in (dist.Normal, torch.distributions.Normal, dist.LogNormal):
        return NormalPiece(_flat(base.loc, shape, like), _flat(base.scale, shape, like), n)
    if type(base) is ScaleMixtureNormal:
        values = [_flat(getattr(base, p), shape, like) for p in ("pi", "scale1", "scale2")]
        numbers = [value for value in values if isinstance(value, float)]
        if len(numbers) == 3:
            return MixturePiece(numbers[0], numbers[1], numbers[2], n)
    return OtherPiece(_unchecked(prior), shape)


def _unchecked(distribution: Any) -> Any:
    """Give a copy that does not validate its samples: a check depends on data, none is compiled."""
    copied = copy.copy(distribution)
    for name, value in vars(distribution).items():
        if isinstance(value, torch.distributions.Distribution):
            setattr(copied, name, _unchecked(value))
    copied._validate_args = False
    return copied


def _join(first: Piece, second: Piece, like: Tensor) -> Piece | None:
    """Make one piece of two neighbours, where they are of one kind."""
    if isinstance(first, MixturePiece) and isinstance(second, MixturePiece):
        longer = replace(first, n=first.n + second.n)
        return longer if longer == replace(second, n=longer.n) else None
    if isinstance(first, NormalPiece) and isinstance(second, NormalPiece):

        def join(one: Parameter, other: Parameter) -> Parameter:
            if isinstance(one, float) and isinstance(other, float) and one == other:
                return one
            pairs = ((one, first.n), (other, second.n))
            return torch.cat(
                [
                    torch.as_tensor(p, dtype=like.dtype, device=like.device).expand(n)
                    for p, n in pairs
                ]
            )

        loc, scale = join(first.loc, second.loc), join(first.scale, second.scale)
        return NormalPiece(loc, scale, first.n + second.n)
    return None


def _flat(value: Tensor, shape: torch.Size, like: Tensor) -> Parameter:
    flat = value.detach().to(like).expand(shape).flatten()
    return float(flat[0]) if bool((flat == flat[0]).all()) else flat.clone()


def _sum_from(tensor: Tensor, n_lead: int) -> Tensor:
    return tensor.sum(tuple(range(n_lead, tensor.dim()))) if tensor.dim() > n_lead else tensor
