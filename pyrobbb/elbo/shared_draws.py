"""The expected nll at draws of the weights that all rows of a batch share."""

from __future__ import annotations

import torch
from torch import Tensor

from .._core.trees import Inputs, map_arrays
from ..model.sequential import gradients_of_layers, layers_of, run_layers
from .nll import NetworkNll, NllGradients
from .output_gradients import OutputGradients, closed_form


class SharedDraws:
    """Estimator of the expected nll with a draw shared by all rows: ``"reparam"``.

    Backpropagation is explicit for sequences of linear and elementwise layers, and by autograd for
    other modules.

    Parameters
    ----------
    nll : NetworkNll
    """

    def __init__(self, nll: NetworkNll) -> None:
        self._nll = nll
        self._network = nll.network
        self._layers = layers_of(nll.network.net, nll.network.select)

    def __call__(
        self,
        loc: Tensor,
        scale: Tensor,
        noise: Tensor,
        u: Tensor,
        points: tuple[Tensor, ...],
        x: Inputs,
        y: Tensor,
        weight: float | Tensor,
        row_weight: Tensor | None,
    ) -> NllGradients:
        """Compute ``weight * nll`` and its gradients; see `NllEstimator`."""
        n_lead, draws = loc.dim() - 1, u.shape[:-1]
        if draws:
            u = u.reshape((-1, u.shape[-1]))
            points = tuple(_per_draw(point, draws, n_lead) for point in points)
            if n_lead:
                x = map_arrays(lambda array: _per_draw(array, draws, n_lead), x)
                y = _per_draw(y, draws, n_lead)
                if row_weight is not None:
                    row_weight = _per_draw(row_weight, draws, n_lead)
            else:
                y = y.expand((len(u), *y.shape))
        has_layers = self._layers and self._network.autocast is None
        if has_layers and isinstance(x, Tensor) and x.dim() == 2 + n_lead:
            gradients = self._of_layers(u, points, x, y, weight, row_weight)
        else:
            gradients = self._by_autograd(u, points, x, y, weight, row_weight, n_lead)
        if not draws:
            return gradients
        d_points = tuple(d_point.unflatten(0, draws) for d_point in gradients.d_points)
        if len(draws) > n_lead:  # the draws of one fit have the same point parameters
            d_points = tuple(d_point.sum(n_lead) for d_point in d_points)
        nll, d_draw = gradients.nll.reshape(draws), gradients.d_draw.reshape((*draws, -1))
        return NllGradients(nll, d_draw, d_points)

    def _by_autograd(
        self,
        u: Tensor,
        points: tuple[Tensor, ...],
        x: Inputs,
        y: Tensor,
        weight: float | Tensor,
        row_weight: Tensor | None,
        n_lead: int,
    ) -> NllGradients:
        """Compute nll and gradients of one draw, or of many along the first dimension."""
        with torch.enable_grad():
            u = u.detach().requires_grad_()
            points = tuple(point.detach().requires_grad_() for point in points)
            values = self._nll.split(u)
            if u.dim() == 1:
                nll = weight * self._nll.of_one(values, points, x, y, row_weight)
            else:
                nll = weight * self._nll.of_many(
                    values, points, x, y, row_weight, x_per_draw=bool(n_lead)
                )
            d_draw, *d_points = torch.autograd.grad(
                nll.sum(), (u, *points), allow_unused=True, materialize_grads=True
            )
        return NllGradients(nll.detach(), d_draw, tuple(d_points))

    def _of_layers(
        self,
        u: Tensor,
        points: tuple[Tensor, ...],
        x: Tensor,
        y: Tensor,
        weight: float | Tensor,
        row_weight: Tensor | None,
    ) -> NllGradients:
        """Compute what `_by_autograd` computes, by explicit backpropagation through the layers."""
        assert self._layers is not None
        values = self._nll.split(u)
        latents = {name: values.pop(name) for name in self._nll.to_support}
        unused = {name: torch.zeros_like(values.pop(name)) for name in self._nll.scales}
        values.update(zip(self._nll.points, points, strict=True))
        hidden: list[Tensor] = []
        output = run_layers(self._layers, values, x, hidden=hidden)
        nll, d_output, gradients = closed_form(
            self._network.likelihood, output, latents, y, weight, row_weight
        ) or self._output_gradients(output, latents, y, weight, row_weight)
        gradients |= gradients_of_layers(self._layers, values, hidden, d_output) | unused
        flat = [gradients[name].reshape((*u.shape[:-1], -1)) for name in self._nll.sites]
        d_points = tuple(gradients[name] for name in self._nll.points)
        return NllGradients(nll, torch.cat(flat, -1), d_points)

    def _output_gradients(
        self,
        output: Tensor,
        latents: dict[str, Tensor],
        y: Tensor,
        weight: float | Tensor,
        row_weight: Tensor | None,
    ) -> OutputGradients:
        """Compute by autograd what `closed_form` computes, for any likelihood."""
        with torch.enable_grad():
            output = output.detach().requires_grad_()
            latents = {name: u.detach().requires_grad_() for name, u in latents.items()}
            nll_of = self._nll.of_output if output.dim() == 2 else self._nll.of_outputs
            nll = weight * nll_of(output, latents, y, row_weight)
            d_output, *d_latents = torch.autograd.grad(
                nll.sum(), (output, *latents.values()), allow_unused=True, materialize_grads=True
            )
        return nll.detach(), d_output, dict(zip(latents, d_latents, strict=True))


def _per_draw(value: Tensor, draws: torch.Size, n_lead: int) -> Tensor:
    """Repeat a tensor of each fit for each of its draws, and flatten the draws of all fits."""
    value = value if n_lead == len(draws) else value.unsqueeze(n_lead)
    shape = value.shape[len(draws) :]
    return value.expand((*draws, *shape)).reshape((-1, *shape))
