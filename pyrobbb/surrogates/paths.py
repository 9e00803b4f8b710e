"""DrawnPaths: draws of the weights as sample paths of BoTorch, for Thompson sampling."""

from __future__ import annotations

import math
from typing import Any

import torch
from botorch.sampling.pathwise.paths import SamplePath
from botorch.sampling.pathwise.posterior_samplers import DrawMatheronPaths
from torch import Size, Tensor

from .model import BayesianNetworkModel


class DrawnPaths(SamplePath):
    """Functions of x drawn from a posterior: those of different draws of the weights.

    `get_matheron_path_model`, `PathwiseThompsonSampling` and `optimize_posterior_samples` of
    BoTorch use them in place of the Matheron paths of a Gaussian process. Draws of weights are
    functions already, so that nothing is approximated.

    Parameters
    ----------
    model : BayesianNetworkModel
    index : Tensor of shape sample_shape, int64
        The draws.
    """

    def __init__(self, model: BayesianNetworkModel, index: Tensor) -> None:
        super().__init__()
        self.model = model
        self.register_buffer("index", index)

    def forward(self, x: Tensor, **kwargs: Any) -> Tensor:
        """Return the values of the paths.

        Parameters
        ----------
        x : Tensor of shape (*batch, n, d); (*batch, 1, n, d) for several outputs
            The batch shape is broadcast with the sample shape, which comes last.

        Returns
        -------
        Tensor of shape (*batch, n); (*batch, m, n) for several outputs
        """
        has_outputs = self.model.num_outputs > 1
        if has_outputs:
            x = x.squeeze(-3)
        index, (n, d) = self.index, x.shape[-2:]
        batch = torch.broadcast_shapes(x.shape[:-2], index.shape)
        rest = batch[: len(batch) - index.dim()]
        by_path = x.expand((*batch, n, d)).reshape((*rest, index.numel(), n, d))
        by_path = by_path.reshape((-1, index.numel(), n, d)).transpose(0, 1)
        values = self.model.paths(index.flatten(), by_path.flatten(1, 2))
        values = values.unflatten(1, (-1, n)).transpose(0, 1).reshape((*batch, n, -1))
        return values.mT if has_outputs else values.squeeze(-1)

    def set_ensemble_as_batch(self, ensemble_as_batch: bool) -> None:
        """Do nothing: a path is one member of the ensemble."""


@DrawMatheronPaths.register(BayesianNetworkModel)
def draw_paths(model: BayesianNetworkModel, *, sample_shape: Size, **samplers: Any) -> DrawnPaths:
    """Draw different members of the ensemble, by torch's random state.

    Raises
    ------
    ValueError
        If there are not as many.
    """
    n_paths, n_draws = math.prod(sample_shape), model.outcomes.n_draws
    if n_paths > n_draws:
        raise ValueError(
            f"`sample_shape` has {n_paths} paths, but the model has {n_draws} draws of the "
            f"weights: call to_botorch(n_draws={n_paths}) or more."
        )
    return DrawnPaths(model, torch.randperm(n_draws)[:n_paths].reshape(sample_shape))
