"""The nll of the most common likelihoods and its output gradients, in closed form.

Other likelihoods need autograd, which for a small batch takes longer than the network itself.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping

import torch
from torch import Tensor
from torch.nn.functional import binary_cross_entropy_with_logits

from ..likelihoods import HALF_LOG_2PI, Bernoulli, Categorical, Gaussian, Likelihood, LogNormal

OutputGradients = tuple[Tensor, Tensor, dict[str, Tensor]]
"""The nll of each draw, and its gradients with respect to the output and to the latent sites."""


def closed_form(
    likelihood: Likelihood,
    output: Tensor,
    latents: Mapping[str, Tensor],
    y: Tensor,
    weight: float | Tensor,
    row_weight: Tensor | None,
) -> OutputGradients | None:
    """Compute ``weight * nll`` of each draw, and the gradients of their sum.

    Return None for other likelihoods, and if the shape of y or of a site does not match.

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
    nll : Tensor of shape (*draws,)
    d_output : Tensor of shape (*draws, n, k)
    d_latents : dict of str to Tensor
        Of the shapes of `latents`.
    """
    function = _CLOSED_FORMS.get(type(likelihood))
    by_row = function and function(likelihood, output, latents, y)
    if by_row is None:
        return None
    nll, d_output, d_latents = by_row
    nll, d_output = weight * nll, weight * d_output
    d_latents = {name: weight * grad for name, grad in d_latents.items()}
    if row_weight is not None:
        nll, d_output = nll * row_weight, d_output * row_weight[..., None]
        d_latents = {name: grad * row_weight[..., None] for name, grad in d_latents.items()}
    summed = {n: grad.sum(-2).reshape(latents[n].shape) for n, grad in d_latents.items()}
    return nll.sum(-1), d_output, summed


def _gaussian(
    likelihood: Gaussian | LogNormal,
    output: Tensor,
    latents: Mapping[str, Tensor],
    y: Tensor,
) -> OutputGradients | None:
    if y.shape != output.shape:
        return None
    k = output.shape[-1]
    residual = output - y.to(output.dtype)
    if isinstance(likelihood.scale, tuple):
        scale = residual.new_tensor(likelihood.scale)
        d_output = residual * scale**-2
        constant = k * HALF_LOG_2PI + float(scale.double().log().sum())
        return 0.5 * (residual * d_output).sum(-1) + constant, d_output, {}
    if likelihood.scale is not None:
        d_output = residual * likelihood.scale**-2
        constant = k * (math.log(likelihood.scale) + HALF_LOG_2PI)
        return 0.5 * (residual * d_output).sum(-1) + constant, d_output, {}
    log_scale = latents["noise_scale"]  # exp maps it to its support
    by_column = log_scale.dim() == output.dim() - 1
    if by_column and log_scale.shape[-1] != k:
        return None
    aligned = log_scale[..., None, :] if by_column else log_scale[..., None, None]
    d_output = residual * torch.exp(-2 * aligned)
    squares = residual * d_output
    d_log_scale = 1 - squares if by_column else k - squares.sum(-1, keepdim=True)
    nll = (0.5 * squares + aligned + HALF_LOG_2PI).sum(-1)
    return nll, d_output, {"noise_scale": d_log_scale}


def _log_normal(
    likelihood: LogNormal, output: Tensor, latents: Mapping[str, Tensor], y: Tensor
) -> OutputGradients | None:
    log_y = y.to(output.dtype).log()
    by_row = _gaussian(likelihood, output, latents, log_y)
    if by_row is None:
        return None
    nll, d_output, d_latents = by_row
    return nll + log_y.sum(-1), d_output, d_latents


def _categorical(
    likelihood: Categorical, output: Tensor, latents: Mapping[str, Tensor], y: Tensor
) -> OutputGradients | None:
    if y.shape != output.shape[:-1]:
        return None
    label = y.long()[..., None]
    log_probs = torch.log_softmax(output, -1)
    is_label = label == torch.arange(output.shape[-1], device=label.device)
    return -log_probs.gather(-1, label)[..., 0], log_probs.exp() - is_label.to(output.dtype), {}


def _bernoulli(
    likelihood: Bernoulli, output: Tensor, latents: Mapping[str, Tensor], y: Tensor
) -> OutputGradients | None:
    if y.shape != output.shape:
        return None
    y = y.to(output.dtype)
    nll = binary_cross_entropy_with_logits(output, y, reduction="none").sum(-1)
    return nll, torch.sigmoid(output) - y, {}


# Each returns nll and gradients per row, without weights: shapes (*draws, n), (*draws, n, k) and,
# for a latent site, (*draws, n, 1) or (*draws, n, k).
_CLOSED_FORMS: dict[type, Callable[..., OutputGradients | None]] = {
    Gaussian: _gaussian,
    LogNormal: _log_normal,
    Categorical: _categorical,
    Bernoulli: _bernoulli,
}
