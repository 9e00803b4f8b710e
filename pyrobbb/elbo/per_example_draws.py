"""The expected nll at draws of the weights that differ between the rows of a batch."""

from __future__ import annotations

from functools import partial

import torch
from torch import Tensor

from .._core.trees import Inputs, n_rows
from .gradient_estimators import Estimator, PerExampleSampling, UsedAgainError
from .module_trial import reused_parameters
from .nll import NetworkNll, NllGradients


class PerExampleDraws:
    """Estimator of the expected nll with a draw per row: ``"local"`` or ``"flipout"``.

    Weights are drawn from torch's random state; latent sites of the likelihood are computed from
    the given noise. The first call tries the module with a few rows (`module_trial`).

    Parameters
    ----------
    nll : NetworkNll
    estimator : {"local", "flipout"}

    Raises
    ------
    ValueError
        At the first call, if the rows of the module cannot have different draws.
    """

    def __init__(self, nll: NetworkNll, estimator: Estimator) -> None:
        self._nll, self._estimator = nll, estimator
        self._reused: dict[bool, set[str]] = {}
        """Parameters that are used more than once, by the mode (training or evaluation)."""

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
        with torch.enable_grad():
            loc, scale = loc.detach().requires_grad_(), scale.detach().requires_grad_()
            points = tuple(point.detach().requires_grad_() for point in points)
            locs, scales = self._nll.split(loc), self._nll.split(scale)
            nlls = []
            for particle in noise.reshape((-1, noise.shape[-1])):
                eps = self._nll.split(particle)
                latents = {n: locs[n] + scales[n] * eps[n] for n in self._nll.to_support}
                output = self._output(locs, scales, points, x)
                nlls.append(weight * self._nll.of_output(output, latents, y, row_weight))
            nll = torch.stack(nlls)
            d_loc, d_scale, *d_points = torch.autograd.grad(
                nll.sum(), (loc, scale, *points), allow_unused=True, materialize_grads=True
            )
        nll = nll.detach().reshape(noise.shape[:-1])
        return NllGradients(nll, torch.zeros_like(u), tuple(d_points), d_loc, d_scale)

    def _output(
        self,
        locs: dict[str, Tensor],
        scales: dict[str, Tensor],
        points: tuple[Tensor, ...],
        x: Inputs,
    ) -> Tensor:
        """Compute the output of the network with a draw of the weights for each row."""
        reused = self._reused_parameters(locs, points, x)
        names = {id(locs[name]): name for name in self._nll.weights}
        while True:
            try:
                with PerExampleSampling(self._estimator, names, scales, n_rows(x), reused):
                    return self._nll.output_of_one(locs, points, x)
            except UsedAgainError as error:  # the module uses its layers as the data require
                reused |= error.names

    def _reused_parameters(
        self, locs: dict[str, Tensor], points: tuple[Tensor, ...], x: Inputs
    ) -> set[str]:
        net = self._nll.network.net
        if net.training not in self._reused:
            self._reused[net.training] = reused_parameters(
                lambda: partial(self._nll.with_own_module().output_of_one, locs, points),
                net,
                x,
                {name: locs[name] for name in self._nll.weights},
                self._estimator,
            )
        return self._reused[net.training]
