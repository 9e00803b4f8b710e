"""The nll of the most common likelihoods, and its slopes, in closed form.

For others there is automatic differentiation, which for a small batch takes longer than the net.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping

import torch
from torch import Tensor
from torch.nn.functional import binary_cross_entropy_with_logits

from .likelihoods import Bernoulli, Categorical, Gaussian, Likelihood

HALF_LOG_2PI = 0.5 * math.log(2 * math.pi)

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
    return function and function(likelihood, output, latents, y, weight, row_weight)


def _gaussian(
    likelihood: Gaussian,
    output: Tensor,
    latents: Mapping[str, Tensor],
    y: Tensor,
    weight: float | Tensor,
    row_weight: Tensor | None,
) -> Slopes | None:
    if y.shape != output.shape:
        return None
    n_rows, k = output.shape[-2:]
    precision: float | Tensor
    log_scales: float | Tensor  # their sum over the columns of y
    if likelihood.scale is not None:
        precision, log_scales = likelihood.scale**-2, k * math.log(likelihood.scale)
    else:
        log_scale = latents["noise_scale"]  # its support is reached by exp
        by_column = log_scale.dim() == output.dim() - 1
        if by_column and log_scale.shape[-1] != k:
            return None
        in_line = log_scale[..., None, :] if by_column else log_scale[..., None, None]
        precision = torch.exp(-2 * in_line)
        log_scales = log_scale.sum(-1) if by_column else k * log_scale
    residual = output - y.to(output.dtype)
    slope = residual * (weight * precision)
    count = weight * n_rows
    if row_weight is not None:
        slope, count = slope * row_weight[..., None], weight * row_weight.sum(-1)
    squares = (residual * slope).sum(-2)
    nll = 0.5 * squares.sum(-1) + count * (log_scales + k * HALF_LOG_2PI)
    if likelihood.scale is not None:
        return nll, slope, {}
    if by_column:
        count = torch.as_tensor(count, dtype=output.dtype, device=output.device)
        return nll, slope, {"noise_scale": count[..., None] - squares}
    return nll, slope, {"noise_scale": count * k - squares.sum(-1)}


def _categorical(
    likelihood: Categorical,
    output: Tensor,
    latents: Mapping[str, Tensor],
    y: Tensor,
    weight: float | Tensor,
    row_weight: Tensor | None,
) -> Slopes | None:
    if y.shape != output.shape[:-1]:
        return None
    label = y.long()[..., None]
    log_probs = torch.log_softmax(output, -1)
    nll = -log_probs.gather(-1, label)[..., 0]
    is_label = label == torch.arange(output.shape[-1], device=label.device)
    slope = log_probs.exp() - is_label.to(output.dtype)
    if row_weight is not None:
        nll, slope = nll * row_weight, slope * row_weight[..., None]
    return weight * nll.sum(-1), weight * slope, {}


def _bernoulli(
    likelihood: Bernoulli,
    output: Tensor,
    latents: Mapping[str, Tensor],
    y: Tensor,
    weight: float | Tensor,
    row_weight: Tensor | None,
) -> Slopes | None:
    if y.shape != output.shape:
        return None
    y = y.to(output.dtype)
    nll = binary_cross_entropy_with_logits(output, y, reduction="none")
    slope = torch.sigmoid(output) - y
    if row_weight is not None:
        nll, slope = nll * row_weight[..., None], slope * row_weight[..., None]
    return weight * nll.sum((-2, -1)), weight * slope, {}


_CLOSED: dict[type, Callable[..., Slopes | None]] = {
    Gaussian: _gaussian,
    Categorical: _categorical,
    Bernoulli: _bernoulli,
}
