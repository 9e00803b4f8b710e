"""Draws of the weights for each example apart, which make gradients less noisy.

One draw for a whole batch ("reparam") makes the errors of its rows alike. Here each row has a draw
of its own: in "local" by drawing what the weights do to it, in "flipout" by signs on one draw. The
distribution of each row's output, and so the expectation of the loss and gradient, is the same.

References
----------
Kingma, Salimans and Welling (2015), "Variational dropout and the local reparameterization trick".
Wen et al. (2018), "Flipout: efficient pseudo-independent weight perturbations on mini-batches".
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.overrides import TorchFunctionMode

Estimator = Literal["reparam", "local", "flipout"]

LAYERS = (nn.Linear, nn.Conv1d, nn.Conv2d, nn.Conv3d)
CONVOLUTIONS = (functional.conv1d, functional.conv2d, functional.conv3d)
LEAST_VARIANCE = 1e-20  # the square root has no slope at 0


def check_layers(net: nn.Module, names: list[str], estimator: str) -> None:
    """Raise a ValueError unless the parameters belong to linear and convolutional layers."""
    owners = dict(net.named_modules())
    for name in names:
        owner = owners[name.rpartition(".")[0]]
        if type(owner) not in LAYERS:
            raise ValueError(
                f"`estimator` {estimator!r} draws for each row apart, which is known for nn.Linear "
                f"and nn.Conv1d to 3d only, but {name!r} belongs to a {type(owner).__name__}: use "
                "estimator='reparam', or give that parameter the prior None."
            )


class DrawByRow(TorchFunctionMode):
    """Within it, linear and convolutional functions of uncertain weights draw for each row apart.

    Parameters
    ----------
    estimator : {"local", "flipout"}
    scales : mapping of int to Tensor
        From the id of a tensor of means to its standard deviations.
    """

    def __init__(self, estimator: Estimator, scales: Mapping[int, Tensor]) -> None:
        super().__init__()
        self._draw = _local if estimator == "local" else _flipout
        self._scales = scales

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        """Take the place of the function where it uses uncertain weights."""
        kwargs = kwargs or {}
        if func is functional.linear or func in CONVOLUTIONS:
            x, weight, *rest = args
            kwargs = dict(kwargs)
            bias = rest[0] if rest else kwargs.pop("bias", None)
            options = rest[1:]
            scales = self._scales.get(id(weight)), self._scales.get(id(bias))
            if scales != (None, None):
                return self._draw(func, x, (weight, bias), scales, options, kwargs)
        return func(*args, **kwargs)


def _local(
    func: Callable[..., Tensor],
    x: Tensor,
    means: tuple[Tensor, Tensor | None],
    scales: tuple[Tensor | None, Tensor | None],
    options: list[Any],
    kwargs: dict[str, Any],
) -> Tensor:
    mean = func(x, *means, *options, **kwargs)
    scale, bias_scale = scales
    # Noise of the scales' precision, where `torch.autocast` gives x and the mean less.
    dtype = next(s.dtype for s in scales if s is not None)
    if func is functional.linear:
        # What independent weights do to a row is normal, and independent between the units.
        variance = torch.zeros((), dtype=x.dtype, device=x.device)
        if scale is not None:
            variance = functional.linear(x * x, scale * scale)
        if bias_scale is not None:
            variance = variance + bias_scale * bias_scale
        return mean + variance.clamp(min=LEAST_VARIANCE).sqrt() * torch.randn_like(
            mean, dtype=dtype
        )
    # The places of an image share a row's weights: these are drawn, and each row is a group.
    if scale is not None:
        n = len(x)
        deviations = scale * torch.randn((n, *scale.shape), dtype=dtype, device=x.device)
        groups = options[3] if len(options) > 3 else kwargs.get("groups", 1)
        options = [*options[:3], n * groups] if options else options
        kwargs = kwargs if options else {**kwargs, "groups": n * groups}
        grouped = x.reshape((1, -1, *x.shape[2:])), deviations.flatten(0, 1)
        mean = mean + func(*grouped, None, *options, **kwargs).reshape(mean.shape)
    if bias_scale is not None:
        drawn = bias_scale * torch.randn(mean.shape[:2], dtype=dtype, device=x.device)
        mean = mean + drawn.reshape((*drawn.shape, *(1,) * (mean.dim() - 2)))
    return mean


def _flipout(
    func: Callable[..., Tensor],
    x: Tensor,
    means: tuple[Tensor, Tensor | None],
    scales: tuple[Tensor | None, Tensor | None],
    options: list[Any],
    kwargs: dict[str, Any],
) -> Tensor:
    mean = func(x, *means, *options, **kwargs)
    deviation, bias_deviation = (
        None if scale is None else scale * torch.randn_like(scale) for scale in scales
    )
    # One sign for each row and feature: of a linear layer's last dimension, an image's second.
    features = -1 if func is functional.linear else 1
    outgoing = _signs(mean, features)
    if deviation is not None:
        change = func(x * _signs(x, features), deviation, None, *options, **kwargs)
        mean = mean + change * outgoing
    if bias_deviation is not None:
        shape = [1] * mean.dim()
        shape[features] = -1
        mean = mean + bias_deviation.reshape(shape) * outgoing
    return mean


def _signs(like: Tensor, features: int) -> Tensor:
    shape = [1] * like.dim()
    shape[0], shape[features] = like.shape[0], like.shape[features]
    return torch.randint(0, 2, shape, device=like.device).to(like.dtype) * 2 - 1
