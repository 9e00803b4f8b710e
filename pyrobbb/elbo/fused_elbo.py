"""The negative ELBO without effect handling: flat vectors, one draw of noise, analytic gradients.

With the noise eps, u = loc + scale * eps is drawn from q. The sampled log q(u) has the same
gradient as the closed-form entropy: all of it but -1 / scale cancels. So with the slope
g = d/du [nll - log p(u)], the gradient of the loss is g in loc and g * eps - 1 / scale in scale
(Blundell et al. 2015, section 3.2), and only the network needs automatic differentiation.
"""

from __future__ import annotations

import operator
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Literal, get_args

import pyro
import pyro.poutine as poutine
import torch
from pyro.infer import ELBO
from pyro.poutine.runtime import _PYRO_STACK
from torch import Tensor, nn
from torch.distributions import biject_to
from torch.nn.functional import softplus

from .._core.arrays import check_count
from ..likelihoods import Conditional, as_observed, check_shape
from ..model.guides import LEAST_SCALE, MeanFieldGuide, scale_of
from ..model.network import BayesianNetwork, check_n_data, check_row_weight, param_site
from ..model.sequential import layers_of, run_layers, slopes_of_layers
from .flat_prior import FlatPrior, entropy_cost
from .gradient_estimators import DrawByRow, Estimator, check_layers
from .output_gradients import Slopes, closed_form


class CannotFuseError(ValueError):
    """A model, guide or objective is none that the fused loss covers."""


@dataclass(frozen=True)
class Step:
    """The parts of the negative ELBO, in nats at the scale of the data set, and its gradients.

    Attributes
    ----------
    nll, kl : Tensor of shape (*lead,)
        The nll times `data_weight`; the KL divergence without its weight.
    d_loc, d_rho : Tensor of shape (*lead, n_latent)
    d_points : tuple of Tensor
    """

    nll: Tensor
    kl: Tensor
    d_loc: Tensor
    d_rho: Tensor
    d_points: tuple[Tensor, ...]


class FusedLoss:
    """The negative ELBO of a network under a mean-field guide, as a function of flat tensors.

    Parameters
    ----------
    network : BayesianNetwork
    guide : MeanFieldGuide
    closed_form_kl : bool
        Take the KL divergence in closed form where both are normal, as `TraceMeanField_ELBO` does;
        otherwise it is sampled, as in `Trace_ELBO`.
    estimator : {"reparam", "local", "flipout"}
        Whether a batch shares a draw of the weights, or each row has its own; then drawn from
        torch's random state.

    Raises
    ------
    ValueError
        If the estimator is not known for a layer.
    CannotFuseError
        If the model is more than this function covers; the message says why.
    """

    def __init__(
        self,
        network: BayesianNetwork,
        guide: MeanFieldGuide,
        *,
        closed_form_kl: bool = False,
        estimator: Estimator = "reparam",
    ) -> None:
        _check_covered(network, guide)
        self._network, self._guide = network, guide
        self._closed_form_kl = closed_form_kl
        self._weights = [name for name, _ in network.bayesian_parameters()]
        self._points = [name for name, _ in network.point_parameters()]
        self.estimator = estimator
        if estimator != "reparam":
            check_layers(network.net, self._weights, estimator)
        self._layers = layers_of(network.net)
        self._call = FastCall(network.net, [*self._weights, *self._points])
        priors: dict[str, Any] = {n: network.prior(n, p) for n, p in network.bayesian_parameters()}
        priors |= getattr(network.likelihood, "latents", None) or {}
        if any(_is_learnt(prior) for prior in priors.values()):
            raise CannotFuseError("the prior has parameters that are learnt")
        self._prior = FlatPrior.of(
            [(priors[name], shape) for name, shape in guide.shapes.items()], like=guide.loc
        )
        self._to_support = {
            name: biject_to(guide.supports[name])
            for name in guide.shapes
            if name not in self._weights
        }

    def noise(self, n_particles: int = 1) -> Tensor:
        """Draw standard normal noise from torch's random state, in the order of the sites.

        These are the numbers that the guide would draw from the same state.

        Returns
        -------
        Tensor of shape (n_latent,), or (n_particles, n_latent) for more than one
        """
        lead = (n_particles,) if n_particles > 1 else ()
        loc = self._guide.loc
        sizes = [shape.numel() for shape in self._guide.shapes.values()]
        return torch.cat([loc.new_empty((*lead, n)).normal_() for n in sizes], dim=-1)

    def draws(self, loc: Tensor, rho: Tensor, noise: Tensor) -> dict[str, Tensor]:
        """Give the values of the sites that noise of shape (..., n_latent) makes."""
        values = self._guide.split(loc + scale_of(rho) * noise)
        return {
            n: self._to_support[n](v) if n in self._to_support else v for n, v in values.items()
        }

    def __call__(
        self,
        loc: Tensor,
        rho: Tensor,
        points: tuple[Tensor, ...],
        noise: Tensor,
        x: Tensor,
        y: Tensor,
        *,
        data_weight: float | Tensor = 1.0,
        kl_weight: float | Tensor = 1.0,
        row_weight: Tensor | None = None,
    ) -> Step:
        """Give ``data_weight * nll + kl_weight * kl``, in parts, and its gradients.

        Leading dimensions are those of independent fits.

        Parameters
        ----------
        loc, rho : Tensor of shape (*lead, n_latent)
        points : tuple of Tensor of shape (*lead, *parameter)
        noise : Tensor of shape (*lead, n_latent) or (*lead, n_particles, n_latent)
        x, y : Tensor of shape (*lead, n_rows, ...)
        data_weight, kl_weight : float
        row_weight : Tensor of shape (*lead, n_rows), optional
            Factor on the nll of each row.
        """
        raw = softplus(rho)
        scale = raw.clamp(min=LEAST_SCALE)
        many = noise.dim() > loc.dim()
        if many:
            u = loc.unsqueeze(-2) + scale.unsqueeze(-2) * noise
        else:
            u = torch.addcmul(loc, scale, noise)
        share = 1 / u.shape[-2] if many else 1  # of each draw in the average
        if self.estimator == "reparam":
            nll, slope, d_points = self._nll_and_slopes(
                u, points, x, y, data_weight * share, row_weight, n_lead=loc.dim() - 1
            )
        else:
            nll, by_row, d_points = self._nll_and_slopes_by_row(
                loc, scale, points, noise, x, y, data_weight * share, row_weight
            )
            slope = torch.zeros_like(u)
        if many:
            nll = nll.sum(-1)
        if self._closed_form_kl:
            kl, kl_d_loc, kl_d_scale = self._prior.kl(loc, scale, noise)
            sums = (slope.sum(-2), (slope * noise).sum(-2)) if many else (slope, slope * noise)
            d_loc = sums[0] + kl_weight * kl_d_loc
            d_scale = sums[1] + kl_weight * kl_d_scale
        else:
            cost, prior_slope = self._prior.cost_and_slope(u)
            # Weights are tensors here, so that few passes are made over the flat vectors.
            weight = torch.as_tensor(kl_weight, dtype=loc.dtype, device=loc.device)
            d_loc = torch.addcmul(slope, prior_slope, weight * share if many else weight)
            d_scale = d_loc * noise
            if many:
                cost, d_loc, d_scale = cost.mean(-1), d_loc.sum(-2), d_scale.sum(-2)
            d_scale = torch.addcdiv(d_scale, -weight, scale)
            kl = cost + entropy_cost(scale, noise)
        if self.estimator != "reparam":
            d_loc, d_scale = d_loc + by_row[0], d_scale + by_row[1]
        # d scale / d rho is the logistic function of rho; 0 at the floor.
        above = torch.ops.aten.threshold_backward(d_scale, raw, LEAST_SCALE)
        d_rho = torch.ops.aten.softplus_backward(above, rho, 1.0, 20.0)
        return Step(nll, kl, d_loc, d_rho, d_points)

    def _nll_and_slopes(
        self,
        u: Tensor,
        points: tuple[Tensor, ...],
        x: Tensor,
        y: Tensor,
        weight: float | Tensor,
        row_weight: Tensor | None,
        n_lead: int,
    ) -> tuple[Tensor, Tensor, tuple[Tensor, ...]]:
        """Give ``weight * nll`` of each draw, and the gradients of their sum."""
        draws = u.shape[:-1]
        if draws:
            u = u.reshape((-1, u.shape[-1]))
            points = tuple(_per_draw(point, draws, n_lead) for point in points)
            if n_lead:
                x, y = _per_draw(x, draws, n_lead), _per_draw(y, draws, n_lead)
                if row_weight is not None:
                    row_weight = _per_draw(row_weight, draws, n_lead)
            else:
                y = y.expand((len(u), *y.shape))
        if self._layers and self._network.autocast is None and x.dim() == 2 + n_lead:
            parts = self._by_hand(u, points, x, y, weight, row_weight)
        else:
            parts = self._by_autograd(u, points, x, y, weight, row_weight, n_lead)
        nll, slope, d_points = parts
        if not draws:
            return nll, slope, d_points
        d_points = tuple(slope.unflatten(0, draws) for slope in d_points)
        if len(draws) > n_lead:  # a point is the same in all draws of a fit
            d_points = tuple(slope.sum(n_lead) for slope in d_points)
        return nll.reshape(draws), slope.reshape((*draws, -1)), d_points

    def _by_autograd(
        self,
        u: Tensor,
        points: tuple[Tensor, ...],
        x: Tensor,
        y: Tensor,
        weight: float | Tensor,
        row_weight: Tensor | None,
        n_lead: int,
    ) -> tuple[Tensor, Tensor, tuple[Tensor, ...]]:
        """Give nll and slopes of one draw, or of many in the first dimension, for any module."""
        with torch.enable_grad():
            u = u.detach().requires_grad_()
            points = tuple(point.detach().requires_grad_() for point in points)
            values = self._guide.split(u)
            if u.dim() == 1:
                nll = weight * self._nll_of_one(values, points, x, y, row_weight)
            else:
                nll = weight * self._nll_of_many(values, points, x, y, row_weight, n_lead)
            slopes = torch.autograd.grad(
                nll.sum(), (u, *points), allow_unused=True, materialize_grads=True
            )
        return nll.detach(), slopes[0], slopes[1:]

    def _by_hand(
        self,
        u: Tensor,
        points: tuple[Tensor, ...],
        x: Tensor,
        y: Tensor,
        weight: float | Tensor,
        row_weight: Tensor | None,
    ) -> tuple[Tensor, Tensor, tuple[Tensor, ...]]:
        """Give the same for a chain of layers, by backpropagation by hand."""
        assert self._layers is not None
        values = self._guide.split(u)
        latents = {name: values.pop(name) for name in self._to_support}
        values.update(zip(self._points, points, strict=True))
        hidden: list[Tensor] = []
        output = run_layers(self._layers, values, x, hidden=hidden)
        likelihood = self._network.likelihood
        nll, slope, slopes = closed_form(
            likelihood, output, latents, y, weight, row_weight
        ) or self._slopes_by_autograd(output, latents, y, weight, row_weight)
        slopes |= slopes_of_layers(self._layers, values, hidden, slope)
        flat = [slopes[name].reshape((*u.shape[:-1], -1)) for name in self._guide.shapes]
        return nll, torch.cat(flat, -1), tuple(slopes[name] for name in self._points)

    def _slopes_by_autograd(
        self,
        output: Tensor,
        latents: dict[str, Tensor],
        y: Tensor,
        weight: float | Tensor,
        row_weight: Tensor | None,
    ) -> Slopes:
        """Give what `closed_form` gives, for any likelihood."""
        with torch.enable_grad():
            output = output.detach().requires_grad_()
            latents = {name: u.detach().requires_grad_() for name, u in latents.items()}
            nll_of = self._nll_of_output if output.dim() == 2 else self._nll_of_outputs
            nll = weight * nll_of(output, latents, y, row_weight)
            slope, *slopes = torch.autograd.grad(
                nll.sum(), (output, *latents.values()), allow_unused=True, materialize_grads=True
            )
        return nll.detach(), slope, dict(zip(latents, slopes, strict=True))

    def _nll_and_slopes_by_row(
        self,
        loc: Tensor,
        scale: Tensor,
        points: tuple[Tensor, ...],
        noise: Tensor,
        x: Tensor,
        y: Tensor,
        weight: float | Tensor,
        row_weight: Tensor | None,
    ) -> tuple[Tensor, tuple[Tensor, Tensor], tuple[Tensor, ...]]:
        """Give the same where each row has draws of its own: the gradients in loc and scale."""
        with torch.enable_grad():
            loc, scale = loc.detach().requires_grad_(), scale.detach().requires_grad_()
            points = tuple(point.detach().requires_grad_() for point in points)
            values, scales = self._guide.split(loc), self._guide.split(scale)
            uncertain = {id(values[name]): scales[name] for name in self._weights}
            nlls = []
            for draw in noise.reshape((-1, noise.shape[-1])):
                own = self._guide.split(draw)
                latents = {n: values[n] + scales[n] * own[n] for n in self._to_support}
                with DrawByRow(self.estimator, uncertain):
                    nll = self._nll_of_one({**values, **latents}, points, x, y, row_weight)
                nlls.append(weight * nll)
            nll = torch.stack(nlls)
            d_loc, d_scale, *d_points = torch.autograd.grad(
                nll.sum(), (loc, scale, *points), allow_unused=True, materialize_grads=True
            )
        nll = nll.detach().reshape(noise.shape[:-1])
        return nll, (d_loc, d_scale), tuple(d_points)

    def _nll_of_one(
        self,
        values: Mapping[str, Tensor],
        points: tuple[Tensor, ...],
        x: Tensor,
        y: Tensor,
        row_weight: Tensor | None,
    ) -> Tensor:
        weights = {name: values[name] for name in self._weights}
        weights.update(zip(self._points, points, strict=True))
        with self._network.autocasting(x) as restored:
            output = self._call(weights, x)
        return self._nll_of_output(restored(output), values, y, row_weight)

    def _nll_of_output(
        self, output: Tensor, values: Mapping[str, Tensor], y: Tensor, row_weight: Tensor | None
    ) -> Tensor:
        likelihood = self._network.likelihood
        if isinstance(likelihood, Conditional):
            latents = {name: to(values[name]) for name, to in self._to_support.items()}
            distribution = likelihood.given(output, latents)
            check_shape(likelihood, distribution.shape(), y)
        else:
            latents = {name: to(values[name])[None] for name, to in self._to_support.items()}
            distribution = self._network.distribution(output[None], latents)
            check_shape(likelihood, distribution.shape()[1:], y)
            y = y[None]
        log_prob = distribution.log_prob(as_observed(distribution, y, output.dtype))
        if row_weight is None:
            return -log_prob.sum()
        return -(log_prob.reshape((len(row_weight), -1)).sum(-1) * row_weight).sum()

    def _nll_of_many(
        self,
        values: Mapping[str, Tensor],
        points: tuple[Tensor, ...],
        x: Tensor,
        y: Tensor,
        row_weight: Tensor | None,
        n_lead: int,
    ) -> Tensor:
        draws_of_points = dict(zip(self._points, points, strict=True))
        with self._network.autocasting(x) as restored:
            output = self._network.output(values, x, draws_of_points, x_per_draw=bool(n_lead))
        return self._nll_of_outputs(restored(output), values, y, row_weight)

    def _nll_of_outputs(
        self, output: Tensor, values: Mapping[str, Tensor], y: Tensor, row_weight: Tensor | None
    ) -> Tensor:
        latents = {name: to(values[name]) for name, to in self._to_support.items()}
        distribution = self._network.distribution(output, latents)
        check_shape(self._network.likelihood, distribution.shape()[1:], y[0])
        log_prob = distribution.log_prob(as_observed(distribution, y, output.dtype))
        if row_weight is not None:
            log_prob = log_prob * row_weight
        return -log_prob.sum(-1)


def _per_draw(value: Tensor, draws: torch.Size, n_lead: int) -> Tensor:
    """Repeat what belongs to a fit for each of its draws, which become one dimension."""
    value = value if n_lead == len(draws) else value.unsqueeze(n_lead)
    own = value.shape[len(draws) :]
    return value.expand((*draws, *own)).reshape((-1, *own))


class FastCall:
    """Calls a module with other values in the place of its parameters.

    What `torch.func.functional_call` does; but the places are looked up once, not at each call,
    which takes a sixth of the step of a small net.
    """

    def __init__(self, net: nn.Module, names: Iterable[str]) -> None:
        parameters = dict(net.named_parameters())
        wanted = {id(parameters[name]): name for name in names}
        self._net = net
        self._places = [  # of a tied parameter there are several
            (module._parameters, key, wanted[id(parameter)])
            for module in net.modules()
            for key, parameter in module._parameters.items()
            if id(parameter) in wanted
        ]

    def __call__(self, values: Mapping[str, Tensor], x: Tensor) -> Tensor:
        """Call the module on x."""
        originals = [slots[key] for slots, key, _ in self._places]
        try:
            for slots, key, name in self._places:
                slots[key] = values[name]  # type: ignore[assignment]  # no Parameter, as it may be
            return self._net(x)
        finally:
            for (slots, key, _), original in zip(self._places, originals, strict=True):
                slots[key] = original


class FusedELBO(ELBO):
    """The negative ELBO of a `BayesianNetwork` under a `MeanFieldGuide`, without tracing.

    The same loss and gradients as Pyro's `Trace_ELBO` or `TraceMeanField_ELBO` from the same random
    state, many times faster. It may be handed to Pyro's `SVI`, or called on ``(network, guide)`` to
    get an `nn.Module` for any torch optimiser.

    Parameters
    ----------
    objective : {"trace", "mean_field"}
        Whether the KL divergence is sampled, or in closed form where there is one.
    num_particles : int
        Draws of the weights, vectorised.
    estimator : {"reparam", "local", "flipout"}
        Whether a batch shares a draw of the weights, or each row has its own; see
        `pyrobbb.gradient_estimators`.

    Raises
    ------
    CannotFuseError
        When used on another model or guide, or under handlers of Pyro's that would have no effect.

    Examples
    --------
    >>> svi = pyro.infer.SVI(network, MeanFieldGuide(network), optim, FusedELBO())
    >>> svi.step(x, y)
    """

    def __init__(
        self,
        objective: Literal["trace", "mean_field"] = "trace",
        num_particles: int = 1,
        estimator: Estimator = "reparam",
    ) -> None:
        check_count("num_particles", num_particles)
        if objective not in ("trace", "mean_field"):
            raise ValueError(f"`objective` must be 'trace' or 'mean_field', got {objective!r}.")
        super().__init__(num_particles=num_particles, vectorize_particles=True)
        if estimator not in get_args(Estimator):
            raise ValueError(
                f"`estimator` must be one of {', '.join(get_args(Estimator))}, got {estimator!r}."
            )
        self.objective, self.estimator = objective, estimator
        self._last: tuple[FusedLoss, tuple[Any, ...], Any] | None = None

    def loss(self, model: Any, guide: Any, *args: Any, **kwargs: Any) -> float:
        """Give the loss as a number."""
        return self.differentiable_loss(model, guide, *args, **kwargs).item()

    def loss_and_grads(self, model: Any, guide: Any, *args: Any, **kwargs: Any) -> float:
        """Give the loss as a number, and add its gradients to those of the parameters."""
        loss = self.differentiable_loss(model, guide, *args, **kwargs)
        loss.backward()
        return loss.item()

    def differentiable_loss(
        self,
        model: BayesianNetwork,
        guide: MeanFieldGuide,
        x: Tensor,
        y: Tensor,
        n_data: int | None = None,
        row_weight: Tensor | None = None,
    ) -> Tensor:
        """Give the loss as a tensor that can be differentiated once; the arguments are the model's.

        Parameters
        ----------
        model : BayesianNetwork
        guide : MeanFieldGuide
        x, y, n_data, row_weight
            As for `BayesianNetwork.forward`.
        """
        fused = self._fuse(model, guide)
        _check_handlers()
        check_n_data(n_data, len(x))
        check_row_weight(row_weight, len(x))
        loc, rho = param_site("guide.loc", guide.loc), param_site("guide.rho", guide.rho)
        points = [param_site(f"net.{name}", p) for name, p in model.point_parameters()]
        with torch.no_grad(), pyro.validation_enabled(False):
            step = fused(
                loc.detach(),
                rho.detach(),
                tuple(point.detach() for point in points),
                fused.noise(self.num_particles),
                x,
                y,
                data_weight=(n_data or len(x)) / len(x),
                row_weight=row_weight,
            )
        gradients = (step.d_loc, step.d_rho, *step.d_points)
        return _WithGradients.apply(step.nll + step.kl, gradients, loc, rho, *points)

    def _get_trace(self, *args: Any, **kwargs: Any) -> Any:
        raise NotImplementedError("Nothing is traced here.")

    def _fuse(self, model: Any, guide: Any) -> FusedLoss:
        key = (model, guide, *(getattr(model, n, None) for n in ("net", "prior", "likelihood")))
        loc = getattr(guide, "loc", None)
        kind: tuple[Any, ...] = ()
        if isinstance(loc, Tensor) and isinstance(model, BayesianNetwork):
            kind = (loc.dtype, loc.device, *(name for name, _ in model.point_parameters()))
        if self._last is not None:
            fused, last_key, last_kind = self._last
            if all(map(operator.is_, key, last_key)) and kind == last_kind:
                return fused
        fused = FusedLoss(
            model,
            guide,
            closed_form_kl=self.objective == "mean_field",
            estimator=self.estimator,
        )
        self._last = fused, key, kind
        return fused


class _WithGradients(torch.autograd.Function):
    """A value whose gradients are known already."""

    @staticmethod
    def forward(ctx: Any, value: Tensor, gradients: tuple[Tensor, ...], *inputs: Tensor) -> Tensor:
        ctx.gradients = gradients
        return value.clone()

    @staticmethod
    def backward(ctx: Any, upstream: Tensor) -> tuple[Tensor | None, ...]:
        return None, None, *(upstream * gradient for gradient in ctx.gradients)


def _check_covered(network: Any, guide: Any) -> None:
    if type(network) is not BayesianNetwork:
        raise CannotFuseError(f"the model is a {type(network).__name__}, no BayesianNetwork")
    if type(guide) is not MeanFieldGuide:
        raise CannotFuseError(f"the guide is a {type(guide).__name__}, no MeanFieldGuide")
    if guide.has_points:
        raise CannotFuseError("the guide is pruned: its point masses have no density")
    names = [name for name, _ in network.bayesian_parameters()]
    declared = getattr(network.likelihood, "latents", None)
    if set(guide.shapes) != {*names, *(declared or ())}:
        raise CannotFuseError(
            "the likelihood draws latent sites that it does not list as `latents`, or the guide "
            "was made for another network"
        )


def _check_handlers() -> None:
    passive = (poutine.trace_messenger.TraceMessenger, poutine.block_messenger.BlockMessenger)
    for handler in _PYRO_STACK:
        if not isinstance(handler, passive):
            raise CannotFuseError(
                f"a {type(handler).__name__} is active, which has no effect where nothing is traced"
            )


def _is_learnt(prior: Any) -> bool:
    return any(
        value.requires_grad
        if isinstance(value, Tensor)
        else isinstance(value, torch.distributions.Distribution) and _is_learnt(value)
        for value in vars(prior).values()
    )
