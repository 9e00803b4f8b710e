"""The expected nll at draws of the weights that differ between the rows of a batch."""

from __future__ import annotations

import logging
from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor

from .._core.trees import Inputs, n_rows
from .gradient_estimators import Estimator, PerExampleSampling, UsedAgainError
from .layer_calls import PerExampleError
from .module_trial import reused_parameters
from .nll import NetworkNll, NllGradients
from .single_rows import RowsDifferError, draws_of_rows, mapped, way_of_running_rows

logger = logging.getLogger(__name__)


class PerExampleDraws:
    """Estimator of the expected nll with a draw per row: ``"local"`` or ``"flipout"``.

    Weights are drawn from torch's random state; latent sites of the likelihood are computed from
    the given noise. The first call tries the module with a few rows (`module_trial`). If a weight
    is used in a way that the estimator does not cover, each row is run alone, with a draw of all
    weights (`single_rows`).

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
        self._ways: dict[bool, set[str] | Callable[..., Tensor]] = {}
        """By the mode (training or evaluation): the parameters that are used more than once, or a
        function that runs rows alone."""

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
        weights = {name: locs[name] for name in self._nll.weights}
        mode = self._nll.network.net.training
        if mode not in self._ways:
            self._ways[mode] = self._tried(weights, points, x)
        reused = self._ways[mode]
        if not isinstance(reused, set):
            return reused(self._nll, draws_of_rows(weights, scales, n_rows(x)), points, x)
        names = {id(weight): name for name, weight in weights.items()}
        while True:
            try:
                with PerExampleSampling(self._estimator, names, scales, n_rows(x), reused):
                    return self._nll.output_of_one(weights, points, x)
            except UsedAgainError as error:  # the module uses its layers as the data require
                reused |= error.names

    def _tried(
        self, weights: dict[str, Tensor], points: tuple[Tensor, ...], x: Inputs
    ) -> set[str] | Callable[..., Tensor]:
        try:
            return reused_parameters(
                lambda: partial(self._nll.with_own_module().output_of_one, weights, points),
                self._nll.network.net,
                x,
                weights,
                self._estimator,
            )
        except PerExampleError as error:
            try:
                way = way_of_running_rows(self._nll, weights, points, x)
            except RowsDifferError as difference:
                raise error.also(str(difference)) from difference
            logger.info(
                "Each row is %s alone with its own draw of all %d weights: `estimator` %r %s",
                "mapped" if way is mapped else "run",
                sum(weight.numel() for weight in weights.values()),
                error.estimator,
                error.reason,
            )
        return way
