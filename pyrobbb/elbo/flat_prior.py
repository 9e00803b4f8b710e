"""The joint prior of all latent sites, over a guide's flat vectors."""

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
from ..model.scales import LearnedScale
from ..model.sites import is_real
from ..priors import ScaleMixtureNormal

Parameter = Tensor | float
"""One value per weight, or a number if it is the same for all."""


class Segment(Protocol):
    """The prior of a segment of the flat vector, in unconstrained space."""

    def neg_log_prob_and_gradient(self, u: Tensor) -> tuple[Tensor, Tensor]:
        """Compute -log p(u), summed over the last dimension, and its gradient."""
        ...

    def kl(self, loc: Tensor, scale: Tensor, noise: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Compute KL(N(loc, scale) || prior), summed, and its gradients w.r.t. loc and scale.

        In closed form, or sampled at loc + scale * noise if there is none; see `FlatPrior.kl`.
        """
        ...


@dataclass(frozen=True)
class NormalSegment:
    """Normal priors, and log-normal ones, which are normal in unconstrained space."""

    loc: Parameter
    scale: Parameter
    n: int

    def neg_log_prob_and_gradient(self, u: Tensor) -> tuple[Tensor, Tensor]:
        centred = u - self.loc if isinstance(self.loc, Tensor) or self.loc else u
        gradient = centred * self.scale**-2
        return 0.5 * vecdot(centred, gradient) + self._constant(), gradient

    def kl(self, loc: Tensor, scale: Tensor, noise: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        z, ratio = (loc - self.loc) / self.scale, scale / self.scale
        kl = (0.5 * (z * z + ratio * ratio) - ratio.log()).sum(-1) - 0.5 * self.n
        return kl, z / self.scale, ratio / self.scale - 1 / scale

    def _constant(self) -> float | Tensor:
        if isinstance(self.scale, Tensor):
            return self.scale.log().sum() + self.n * HALF_LOG_2PI
        return self.n * (math.log(self.scale) + HALF_LOG_2PI)


@dataclass(frozen=True)
class MixtureSegment:
    """A scale mixture of two normals (Blundell et al. 2015, equation 7), shared by all weights."""

    pi: float
    scale1: float
    scale2: float
    n: int

    def neg_log_prob_and_gradient(self, u: Tensor) -> tuple[Tensor, Tensor]:
        # Written in terms of the log odds of the narrow component, which fall as u^2 grows: in the
        # tails the density is that of the wide component, and nothing cancels or underflows.
        wide, narrow, odds = self.scale1, self.scale2, (1 - self.pi) / self.pi
        if wide < narrow:
            wide, narrow, odds = narrow, wide, 1 / odds
        weight_of_wide = 1 / (1 + odds)
        squares = u * u
        drop = narrow**-2 - wide**-2
        log_odds = math.log(odds * wide / narrow) - 0.5 * drop * squares
        constant = math.log(wide) - math.log(weight_of_wide) + HALF_LOG_2PI
        neg_log_prob = (0.5 * wide**-2 * squares - softplus(log_odds)).sum(-1) + self.n * constant
        return neg_log_prob, u * (wide**-2 + drop * torch.sigmoid(log_odds))

    def kl(self, loc: Tensor, scale: Tensor, noise: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        return _sampled_kl(self, loc, scale, noise)


@dataclass(frozen=True)
class AutogradSegment:
    """Any other distribution: its log-density, differentiated by autograd."""

    distribution: TorchDistribution
    shape: torch.Size
    """The shape of the site in unconstrained space."""

    def neg_log_prob_and_gradient(self, u: Tensor) -> tuple[Tensor, Tensor]:
        with torch.enable_grad():
            u = u.detach().requires_grad_()
            site = u.reshape((*u.shape[:-1], *self.shape))
            to_support = biject_to(self.distribution.support)
            value = to_support(site)
            jacobian = to_support.log_abs_det_jacobian(site, value)
            log_prob = self.distribution.log_prob(value)
            n_lead = u.dim() - 1
            neg_log_prob = -_sum_from(log_prob, n_lead) - _sum_from(jacobian, n_lead)
            (gradient,) = torch.autograd.grad(neg_log_prob.sum(), u)
        return neg_log_prob.detach(), gradient

    def kl(self, loc: Tensor, scale: Tensor, noise: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        if not is_real(self.distribution.support):
            return _sampled_kl(self, loc, scale, noise)
        with torch.enable_grad():
            loc, scale = loc.detach().requires_grad_(), scale.detach().requires_grad_()
            shape = (*loc.shape[:-1], *self.shape)
            q = torch.distributions.Normal(loc.reshape(shape), scale.reshape(shape))
            try:
                kl = torch.distributions.kl_divergence(q, base_of(self.distribution))
            except NotImplementedError:
                return _sampled_kl(self, loc.detach(), scale.detach(), noise)
            kl = _sum_from(kl, loc.dim() - 1)
            d_loc, d_scale = torch.autograd.grad(kl.sum(), (loc, scale))
        return kl.detach(), d_loc, d_scale


@dataclass(frozen=True)
class ScaledSegment:
    """The log of a learned scale, then weights whose prior has this scale.

    With t the log of the scale, z = loc + (w - loc) exp(-t) has the prior at scale 1. The KL
    divergence of w from its prior is that of z, given t, which is drawn: as in Pyro's
    `TraceMeanField_ELBO`, it has a closed form given the draw of the scale.
    """

    hyperprior: Segment
    standard: Segment
    """The prior of the weights at scale 1."""
    loc: float
    n: int
    """Number of weights."""

    def neg_log_prob_and_gradient(self, u: Tensor) -> tuple[Tensor, Tensor]:
        t, w = u.split([1, self.n], dim=-1)
        of_t, d_t = self.hyperprior.neg_log_prob_and_gradient(t)
        shrink = torch.exp(-t)
        centred = shrink * (w - self.loc)
        of_z, d_z = self.standard.neg_log_prob_and_gradient(centred + self.loc)
        d_t = d_t + self.n - vecdot(centred, d_z).unsqueeze(-1)
        return of_t + of_z + self.n * t.squeeze(-1), torch.cat([d_t, shrink * d_z], -1)

    def kl(self, loc: Tensor, scale: Tensor, noise: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        many = noise.dim() > loc.dim()
        (t_loc, w_loc), (t_scale, w_scale), (t_noise, w_noise) = (
            tensor.split([1, self.n], dim=-1) for tensor in (loc, scale, noise)
        )
        kl_of_t, t_d_loc, t_d_scale = self.hyperprior.kl(t_loc, t_scale, t_noise)
        if many:
            t_loc, t_scale, w_loc, w_scale = (
                tensor.unsqueeze(-2) for tensor in (t_loc, t_scale, w_loc, w_scale)
            )
        shrink = torch.exp(-(t_loc + t_scale * t_noise))
        centred, z_scale = shrink * (w_loc - self.loc), shrink * w_scale
        kl, z_d_loc, z_d_scale = self.standard.kl(centred + self.loc, z_scale, w_noise)
        d_t = -(vecdot(centred, z_d_loc) + vecdot(z_scale, z_d_scale)).unsqueeze(-1)
        of_t, of_w = (d_t, d_t * t_noise), (shrink * z_d_loc, shrink * z_d_scale)
        if many:
            kl = kl.mean(-1)
            of_t, of_w = ((d_loc.mean(-2), d_scale.mean(-2)) for d_loc, d_scale in (of_t, of_w))
        d_loc, d_scale = (
            torch.cat([of_hyperprior + d_t, d_w], -1)
            for of_hyperprior, d_t, d_w in zip((t_d_loc, t_d_scale), of_t, of_w, strict=True)
        )
        return kl_of_t + kl, d_loc, d_scale


@dataclass(frozen=True)
class FlatPrior:
    """The prior over a flat vector, as segments with their sizes."""

    segments: tuple[tuple[int, Segment], ...]

    @classmethod
    def of(
        cls, sites: Iterable[tuple[TorchDistribution | LearnedScale, torch.Size]], like: Tensor
    ) -> FlatPrior:
        """Build the joint prior from the priors of sites and their shapes in unconstrained space.

        A site whose prior is a `LearnedScale` is preceded by the log of its scale. Adjacent
        segments of the same family are joined. Their parameters are converted to the dtype and
        device of `like`.
        """
        segments: list[tuple[int, Segment]] = []
        for prior, shape in sites:
            if isinstance(prior, LearnedScale):
                segments.append((1 + shape.numel(), _scaled_segment(prior, shape, like)))
                continue
            segment = _segment_of(prior, shape, like)
            if segments and (joined := _join(segments[-1][1], segment, like)) is not None:
                segments[-1] = (segments[-1][0] + shape.numel(), joined)
            else:
                segments.append((shape.numel(), segment))
        return cls(tuple(segments))

    def neg_log_prob_and_gradient(self, u: Tensor) -> tuple[Tensor, Tensor]:
        """Compute -log p(u), summed over the last dimension, and its gradient."""
        if len(self.segments) == 1:
            return self.segments[0][1].neg_log_prob_and_gradient(u)
        parts = u.split([n for n, _ in self.segments], dim=-1)
        results = [
            segment.neg_log_prob_and_gradient(part)
            for (_, segment), part in zip(self.segments, parts, strict=True)
        ]
        return torch.stack([value for value, _ in results]).sum(0), torch.cat(
            [gradient for _, gradient in results], dim=-1
        )

    def kl(self, loc: Tensor, scale: Tensor, noise: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Compute KL(q || prior) of q = N(loc, scale), and its gradients w.r.t. loc and scale.

        In closed form where there is one; otherwise sampled at loc + scale * noise, and averaged
        over the draws if `noise` has one dimension more than `loc`.
        """
        sizes = [n for n, _ in self.segments]
        split = (tensor.split(sizes, dim=-1) for tensor in (loc, scale, noise))
        results = [
            segment.kl(*part) for (_, segment), *part in zip(self.segments, *split, strict=True)
        ]
        kls, d_locs, d_scales = zip(*results, strict=True)
        return torch.stack(kls).sum(0), torch.cat(d_locs, dim=-1), torch.cat(d_scales, dim=-1)


def sampled_log_q(scale: Tensor, noise: Tensor) -> Tensor:
    """Compute log q at loc + scale * noise, summed over the last dimension, averaged over draws."""
    squares = vecdot(noise, noise)
    if noise.dim() > scale.dim():
        squares = squares.mean(-1)
    return -0.5 * squares - scale.log().sum(-1) - scale.shape[-1] * HALF_LOG_2PI


def _sampled_kl(
    segment: Segment, loc: Tensor, scale: Tensor, noise: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    if noise.dim() == loc.dim():
        neg_log_prior, g = segment.neg_log_prob_and_gradient(loc + scale * noise)
        return neg_log_prior + sampled_log_q(scale, noise), g, g * noise - 1 / scale
    neg_log_prior, g = segment.neg_log_prob_and_gradient(
        loc.unsqueeze(-2) + scale.unsqueeze(-2) * noise
    )
    kl = neg_log_prior.mean(-1) + sampled_log_q(scale, noise)
    return kl, g.mean(-2), (g * noise).mean(-2) - 1 / scale


def _segment_of(prior: TorchDistribution, shape: torch.Size, like: Tensor) -> Segment:
    base, n = base_of(prior), shape.numel()
    if type(base) in (dist.Normal, torch.distributions.Normal, dist.LogNormal):
        return NormalSegment(_flat(base.loc, shape, like), _flat(base.scale, shape, like), n)
    if type(base) is ScaleMixtureNormal:
        values = [_flat(getattr(base, p), shape, like) for p in ("pi", "scale1", "scale2")]
        numbers = [value for value in values if isinstance(value, float)]
        if len(numbers) == 3:
            return MixtureSegment(numbers[0], numbers[1], numbers[2], n)
    return AutogradSegment(_unchecked(prior), shape)


def _scaled_segment(scale: LearnedScale, shape: torch.Size, like: Tensor) -> ScaledSegment:
    loc = getattr(base_of(scale.standard), "loc", None)
    return ScaledSegment(
        _segment_of(scale.hyperprior, torch.Size([1]), like),
        _segment_of(scale.standard, shape, like),
        0.0 if loc is None else float(loc.flatten()[0]),
        shape.numel(),
    )


def _unchecked(distribution: Any) -> Any:
    """Return a copy that does not validate samples, as checks of values cannot be compiled."""
    copied = copy.copy(distribution)
    for name, value in vars(distribution).items():
        if isinstance(value, torch.distributions.Distribution):
            setattr(copied, name, _unchecked(value))
    copied._validate_args = False
    return copied


def _join(first: Segment, second: Segment, like: Tensor) -> Segment | None:
    """Join two adjacent segments; return None if they are not of the same family."""
    if isinstance(first, MixtureSegment) and isinstance(second, MixtureSegment):
        joined = replace(first, n=first.n + second.n)
        return joined if joined == replace(second, n=joined.n) else None
    if isinstance(first, NormalSegment) and isinstance(second, NormalSegment):

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
        return NormalSegment(loc, scale, first.n + second.n)
    return None


def _flat(value: Tensor, shape: torch.Size, like: Tensor) -> Parameter:
    flat = value.detach().to(like).expand(shape).flatten()
    return float(flat[0]) if bool((flat == flat[0]).all()) else flat.clone()


def _sum_from(tensor: Tensor, n_lead: int) -> Tensor:
    return tensor.sum(tuple(range(n_lead, tensor.dim()))) if tensor.dim() > n_lead else tensor
