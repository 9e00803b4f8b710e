"""The nll of the most common likelihoods, and its slopes, in closed form.

For others there is automatic differentiation, which for a small batch takes longer than the net.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping

import torch
from torch import Tensor
from torch.nn.functional import binary_cross_entropy_with_logits

from ..likelihoods import HALF_LOG_2PI, Bernoulli, Categorical, Gaussian, Likelihood

Slopes = tuple[Tensor, Tensor, dict[str, Tensor]]
"""The nll of each draw, its slope in the output, and its slopes in the latent sites."""


def closed_form(
    likelihood: Likelihood,
    output: Tensor,
    latents: Mapping[str, Tensor],
    y: Tensor,
    weight: float | Tensor,
    row_weight: Tensor | None,
) -> Slopes | None:
    """Give ``weight * nll`` of each draw, and the slopes of their sum, where they are known.

    Parameters
    ----------
    likelihood : Likelihood
    output : Tensor of shape (*draws, n, k)
    latents : mapping of str to Tensor of shape (*draws, *site)
        In unconstrained space.
    y : Tensor of shape (*draws, n, k) or (*draws, n)
    weight : float or Tensor of shape ()
    row_weight : Tensor of shape (*draws, n) or (n,), optional

    Returns
    -------
    nll : Tensor of shape draws
    slope : Tensor of shape (*draws, n, k)
    slopes of latents : dict of str to Tensor
        In the shapes of `latents`. None for other likelihoods, and where shapes do not fit.
    """
    function = _CLOSED.get(type(likelihood))
    by_row = function and function(likelihood, output, latents, y)
    if by_row is None:
        return None
    nll, slope, slopes = by_row
    nll, slope = weight * nll, weight * slope
    slopes = {name: weight * own for name, own in slopes.items()}
    if row_weight is not None:
        nll, slope = nll * row_weight, slope * row_weight[..., None]
        slopes = {name: own * row_weight[..., None] for name, own in slopes.items()}
    of_latents = {n: own.sum(-2).reshape(latents[n].shape) for n, own in slopes.items()}
    return nll.sum(-1), slope, of_latents


def _gaussian(
    likelihood: Gaussian, output: Tensor, latents: Mapping[str, Tensor], y: Tensor
) -> Slopes | None:
    if y.shape != output.shape:
        return None
    k = output.shape[-1]
    residual = output - y.to(output.dtype)
    if likelihood.scale is not None:
        slope = residual * likelihood.scale**-2
        constant = k * (math.log(likelihood.scale) + HALF_LOG_2PI)
        return 0.5 * (residual * slope).sum(-1) + constant, slope, {}
    log_scale = latents["noise_scale"]  # its support is reached by exp
    by_column = log_scale.dim() == output.dim() - 1
    if by_column and log_scale.shape[-1] != k:
        return None
    in_line = log_scale[..., None, :] if by_column else log_scale[..., None, None]
    slope = residual * torch.exp(-2 * in_line)
    squares = residual * slope
    each = 1 - squares if by_column else k - squares.sum(-1, keepdim=True)
    nll = (0.5 * squares + in_line + HALF_LOG_2PI).sum(-1)
    return nll, slope, {"noise_scale": each}


def _categorical(
    likelihood: Categorical, output: Tensor, latents: Mapping[str, Tensor], y: Tensor
) -> Slopes | None:
    if y.shape != output.shape[:-1]:
        return None
    label = y.long()[..., None]
    log_probs = torch.log_softmax(output, -1)
    is_label = label == torch.arange(output.shape[-1], device=label.device)
    return -log_probs.gather(-1, label)[..., 0], log_probs.exp() - is_label.to(output.dtype), {}


def _bernoulli(
    likelihood: Bernoulli, output: Tensor, latents: Mapping[str, Tensor], y: Tensor
) -> Slopes | None:
    if y.shape != output.shape:
        return None
    y = y.to(output.dtype)
    nll = binary_cross_entropy_with_logits(output, y, reduction="none").sum(-1)
    return nll, torch.sigmoid(output) - y, {}


# Each gives nll and slopes row by row, without weights: of shapes (*draws, n), (*draws, n, k) and,
# for a latent site, (*draws, n, 1) or (*draws, n, k).
_CLOSED: dict[type, Callable[..., Slopes | None]] = {
    Gaussian: _gaussian,
    Categorical: _categorical,
    Bernoulli: _bernoulli,
}
