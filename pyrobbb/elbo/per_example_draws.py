"""The expected nll at draws of the weights that differ between the rows of a batch."""

from __future__ import annotations

import torch
from torch import Tensor

from .gradient_estimators import Estimator, PerExampleSampling, check_layers
from .nll import NetworkNll, NllGradients


class PerExampleDraws:
    """Estimator of the expected nll with a draw per row: ``"local"`` or ``"flipout"``.

    Weights are drawn from torch's random state; latent sites of the likelihood are computed from
    the given noise.

    Parameters
    ----------
    nll : NetworkNll
    estimator : {"local", "flipout"}

    Raises
    ------
    ValueError
        If the estimator does not support a layer.
    """

    def __init__(self, nll: NetworkNll, estimator: Estimator) -> None:
        check_layers(nll.network.net, nll.weights, estimator)
        self._nll, self._estimator = nll, estimator

    def __call__(
        self,
        loc: Tensor,
        scale: Tensor,
        noise: Tensor,
        u: Tensor,
        points: tuple[Tensor, ...],
        x: Tensor,
        y: Tensor,
        weight: float | Tensor,
        row_weight: Tensor | None,
    ) -> NllGradients:
        """Compute ``weight * nll`` and its gradients; see `NllEstimator`."""
        with torch.enable_grad():
            loc, scale = loc.detach().requires_grad_(), scale.detach().requires_grad_()
            points = tuple(point.detach().requires_grad_() for point in points)
            locs, scales = self._nll.split(loc), self._nll.split(scale)
            scale_of_loc = {id(locs[name]): scales[name] for name in self._nll.weights}
            nlls = []
            for particle in noise.reshape((-1, noise.shape[-1])):
                eps = self._nll.split(particle)
                latents = {n: locs[n] + scales[n] * eps[n] for n in self._nll.to_support}
                with PerExampleSampling(self._estimator, scale_of_loc):
                    nll = self._nll.of_one({**locs, **latents}, points, x, y, row_weight)
                nlls.append(weight * nll)
            nll = torch.stack(nlls)
            d_loc, d_scale, *d_points = torch.autograd.grad(
                nll.sum(), (loc, scale, *points), allow_unused=True, materialize_grads=True
            )
        nll = nll.detach().reshape(noise.shape[:-1])
        return NllGradients(nll, torch.zeros_like(u), tuple(d_points), d_loc, d_scale)
