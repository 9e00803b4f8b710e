"""The negative ELBO without effect handling: flat vectors, one draw of noise, analytic gradients.

With the noise z, u = loc + scale * z is a draw from q. The sampled log q(u) has the same gradient
with respect to loc and scale as the closed-form entropy: all of it but -1 / scale cancels. So with
the gradient g = d/du [nll - log p(u)], the gradient of the loss is g with respect to loc and
g * z - 1 / scale with respect to scale (Blundell et al. 2015, section 3.2), and only the network
needs automatic differentiation. This holds for independent noise, of a mean-field guide, and for
noise that a guide of low rank has mixed (`MixedNoise`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.distributions import transforms
from torch.nn.functional import softplus

from .._core.trees import Inputs
from ..model.flat_guide import MIN_SCALE, FlatGuide, initial_loc_and_scale
from ..model.guides import is_flat
from ..model.network import BayesianNetwork
from .flat_prior import FlatPrior, sampled_log_q
from .gradient_estimators import Estimator
from .mixed_noise import MixedNoise
from .nll import NetworkNll, NllEstimator
from .per_example_draws import PerExampleDraws
from .shared_draws import SharedDraws


class CannotFuseError(ValueError):
    """The fused loss does not support a model, guide or objective."""


@dataclass(frozen=True)
class LossGradients:
    """The parts of the negative ELBO, in nats at the scale of the data set, and its gradients.

    Attributes
    ----------
    nll, kl : Tensor of shape (*lead,)
        The nll, multiplied by `data_weight`, and the KL divergence, not multiplied by `kl_weight`.
    d_guide : tuple of Tensor
        Gradients with respect to the parameters of the guide: `loc`, `rho` and any others.
    d_points : tuple of Tensor
    """

    nll: Tensor
    kl: Tensor
    d_guide: tuple[Tensor, ...]
    d_points: tuple[Tensor, ...]

    @property
    def d_loc(self) -> Tensor:
        """The gradient with respect to the means, shape (*lead, n_latent)."""
        return self.d_guide[0]

    @property
    def d_rho(self) -> Tensor:
        """The gradient with respect to rho, shape (*lead, n_latent)."""
        return self.d_guide[1]


class FusedLoss:
    """The negative ELBO of a network under a flat guide, as a function of the guide's parameters.

    Parameters
    ----------
    network : BayesianNetwork
    guide : FlatGuide
    closed_form_kl : bool
        Whether the KL divergence is computed in closed form where there is one, as in
        `TraceMeanField_ELBO`; otherwise it is sampled, as in `Trace_ELBO`, and always so for
        guides that are not mean-field.
    estimator : {"reparam", "local", "flipout"}
        Whether the rows of a batch share one draw of the weights (``"reparam"``), or each row has a
        different one, drawn from torch's random state.

    Raises
    ------
    ValueError
        If the guide was made for a network of other sizes; at the first call, if the estimator does
        not support the module.
    CannotFuseError
        If the model or the guide is not supported; the message states why.
    """

    def __init__(
        self,
        network: BayesianNetwork,
        guide: FlatGuide,
        *,
        closed_form_kl: bool = False,
        estimator: Estimator = "reparam",
    ) -> None:
        _check_covered(network, guide)
        self.estimator = estimator
        self._guide = guide
        self._closed_form_kl = closed_form_kl and guide.is_mean_field
        if estimator != "reparam" and not guide.is_mean_field:
            raise CannotFuseError(
                "the guide must be a MeanFieldGuide for draws that differ between rows, got "
                f"{type(guide).__name__}: use estimator='reparam'"
            )
        nll = NetworkNll(network, guide)
        self._to_support = nll.to_support | dict.fromkeys(nll.scales, transforms.ExpTransform())
        self._nll: NllEstimator = (
            SharedDraws(nll) if estimator == "reparam" else PerExampleDraws(nll, estimator)
        )
        priors: dict[str, Any] = dict(network.learned_scales())  # each with the site of its scale
        for name, parameter in network.bayesian_parameters():
            if name not in priors:
                priors[name] = network.prior(name, parameter)
        priors |= getattr(network.likelihood, "latents", None) or {}
        if any(_is_learned(prior) for prior in priors.values()):
            raise CannotFuseError("the prior has learned parameters")
        self._prior = FlatPrior.of(
            [(priors[name], shape) for name, shape in guide.shapes.items() if name in priors],
            like=guide.loc,
        )

    def noise(self, n_particles: int = 1) -> Tensor:
        """Draw standard normal noise from torch's random state, in the order of the sites.

        The numbers are those that the guide would draw from the same state.

        Returns
        -------
        Tensor of shape (n_noise,), or (n_particles, n_noise) for more than one
        """
        lead = (n_particles,) if n_particles > 1 else ()
        loc = self._guide.loc
        return torch.cat(
            [loc.new_empty((*lead, n)).normal_() for n in self._guide.noise_sizes], dim=-1
        )

    def draws(self, values: Sequence[Tensor], noise: Tensor) -> dict[str, Tensor]:
        """Return the sites' values for parameters of the guide and noise, shape (..., n_noise)."""
        drawn = self._guide.drawn(values, noise)
        return {n: self._to_support[n](v) if n in self._to_support else v for n, v in drawn.items()}

    def __call__(
        self,
        values: Sequence[Tensor],
        points: tuple[Tensor, ...],
        noise: Tensor,
        x: Inputs,
        y: Tensor,
        *,
        data_weight: float | Tensor = 1.0,
        kl_weight: float | Tensor = 1.0,
        row_weight: Tensor | None = None,
    ) -> LossGradients:
        """Compute ``data_weight * nll + kl_weight * kl``, in parts, and its gradients.

        Leading dimensions index independent fits.

        Parameters
        ----------
        values : sequence of Tensor of shape (*lead, *parameter)
            Of the guide's parameters: loc, rho and any others.
        points : tuple of Tensor of shape (*lead, *parameter)
        noise : Tensor of shape (*lead, n_noise) or (*lead, n_particles, n_noise)
        x : Inputs of shape (*lead, n_rows, ...)
        y : Tensor of shape (*lead, n_rows, ...)
        data_weight : float
        kl_weight : float, or Tensor of shape (*lead,)
        row_weight : Tensor of shape (*lead, n_rows), optional
            Factor on the nll of each row.
        """
        loc, rho, *factors = values
        raw = softplus(rho)
        scale = raw.clamp(min=MIN_SCALE)
        mixed = MixedNoise.of(factors[0], noise) if factors else None
        if mixed is not None:
            noise = mixed.z
        many = noise.dim() > loc.dim()
        if many:
            u = loc.unsqueeze(-2) + scale.unsqueeze(-2) * noise
        else:
            u = torch.addcmul(loc, scale, noise)
        share = 1 / u.shape[-2] if many else 1  # weight of each draw in the average
        data = self._nll(loc, scale, noise, u, points, x, y, data_weight * share, row_weight)
        g = data.d_draw
        d_factors: tuple[Tensor, ...] = ()
        if self._closed_form_kl:
            kl, kl_d_loc, kl_d_scale = self._prior.kl(loc, scale, noise)
            if isinstance(kl_weight, Tensor):
                kl_weight = kl_weight.unsqueeze(-1)
            sums = (g.sum(-2), (g * noise).sum(-2)) if many else (g, g * noise)
            d_loc = sums[0] + kl_weight * kl_d_loc
            d_scale = sums[1] + kl_weight * kl_d_scale
        else:
            neg_log_prior, prior_gradient = self._prior.neg_log_prob_and_gradient(u)
            # Tensor weights allow addcmul and addcdiv: fewer passes over the flat vectors.
            weight = torch.as_tensor(kl_weight, dtype=loc.dtype, device=loc.device)
            if weight.dim():
                weight = weight.unsqueeze(-1)
            of_draw = weight
            if many:
                of_draw = (weight.unsqueeze(-2) if weight.dim() else weight) * share
            d_loc = torch.addcmul(g, prior_gradient, of_draw)
            if mixed is not None:
                d_factors = (mixed.d_factor(d_loc, scale, weight),)
            d_scale = d_loc * noise
            if many:
                neg_log_prior = neg_log_prior.mean(-1)
                d_loc, d_scale = d_loc.sum(-2), d_scale.sum(-2)
            d_scale = torch.addcdiv(d_scale, -weight, scale)
            kl = neg_log_prior + sampled_log_q(scale, noise)
            if mixed is not None:
                kl = kl + mixed.log_ratio()
        d_loc, d_scale = data.add_to(d_loc, d_scale)
        # d scale / d rho is the logistic function of rho; 0 where the scale is at its bound.
        above = torch.ops.aten.threshold_backward(d_scale, raw, MIN_SCALE)
        d_rho = torch.ops.aten.softplus_backward(above, rho, 1.0, 20.0)
        return LossGradients(
            data.nll.sum(-1) if many else data.nll, kl, (d_loc, d_rho, *d_factors), data.d_points
        )


def _check_covered(network: Any, guide: Any) -> None:
    if type(network) is not BayesianNetwork:
        raise CannotFuseError(f"the model must be a BayesianNetwork, got {type(network).__name__}")
    if not is_flat(guide):
        raise CannotFuseError(
            f"the guide must be a MeanFieldGuide or LowRankGuide, got {type(guide).__name__}"
        )
    if guide.has_points:
        raise CannotFuseError("the guide is pruned: its point masses have no density")
    expected = {
        site.name: initial_loc_and_scale(site, None)[0].shape for site in network.latent_sites()
    }
    for name, shape in expected.items():
        found = guide.shapes.get(name)
        if found != shape:
            has = "no such site" if found is None else f"the shape {tuple(found)}"
            raise ValueError(
                f"`guide` was made for another network: in this one {name!r} has the shape "
                f"{tuple(shape)}, in the guide {has}. Make it with {type(guide).__name__}(network)."
            )
    if unlisted := [name for name in guide.shapes if name not in expected]:
        raise CannotFuseError(
            f"the likelihood draws latent sites that it does not list in `latents`: {unlisted[0]!r}"
        )


def _is_learned(prior: Any) -> bool:
    return any(
        value.requires_grad
        if isinstance(value, Tensor)
        else isinstance(value, torch.distributions.Distribution) and _is_learned(value)
        for value in vars(prior).values()
    )
