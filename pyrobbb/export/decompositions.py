"""Decompositions of activations that onnxruntime has in single precision only."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from .standard_distributions import standard_normal

aten = torch.ops.aten


def softplus(x: Tensor, beta: float = 1.0, threshold: float = 20.0) -> Tensor:
    """Return log(1 + exp(beta x)) / beta, and x above the threshold."""
    scaled = beta * x
    smooth = (scaled.clamp(min=0) + torch.log1p((-scaled.abs()).exp())) / beta
    return torch.where(scaled > threshold, x, smooth)


def gelu(x: Tensor, *, approximate: str = "none") -> Tensor:
    """Return x times the normal distribution function of x."""
    if approximate != "none" or x.dtype != torch.float64:
        return NotImplemented
    return x * standard_normal(fitted=True).cdf(x)


def elu(x: Tensor, alpha: float = 1.0, scale: float = 1.0, input_scale: float = 1.0) -> Tensor:
    """Return the exponential linear unit."""
    below = alpha * torch.expm1(input_scale * x.clamp(max=0))
    return scale * torch.where(x > 0, x, below)


def onnx_decompositions() -> dict[Any, Callable[..., Any]]:
    """Return the functions by the operations that they replace."""
    return {
        aten.softplus.default: softplus,
        aten.gelu.default: gelu,
        aten.elu.default: elu,
    }
