"""Gradient estimators with a draw of the weights per example, which reduce gradient noise.

With one draw for a whole batch ("reparam"), the errors of its rows are correlated. Here each row
has a different draw: "local" draws a layer's outputs instead of its weights, and "flipout"
multiplies one draw by random signs per row. The distribution of each row's output is the same, and
therefore so is the expectation of the loss and of its gradient.

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
MIN_VARIANCE = 1e-20  # the square root is not differentiable at 0


def check_layers(net: nn.Module, names: list[str], estimator: str) -> None:
    """Raise a ValueError unless the parameters belong to linear and convolutional layers."""
    modules = dict(net.named_modules())
    for name in names:
        layer = modules[name.rpartition(".")[0]]
        if type(layer) not in LAYERS:
            raise ValueError(
                f"`estimator` {estimator!r} supports only nn.Linear, nn.Conv1d, nn.Conv2d and "
                f"nn.Conv3d, but {name!r} is a parameter of {type(layer).__name__}: use "
                "estimator='reparam', or set the prior of that parameter to None."
            )


class PerExampleSampling(TorchFunctionMode):
    """A mode in which linear and convolutional functions draw weights for each row of x.

    Parameters
    ----------
    estimator : {"local", "flipout"}
    scales : mapping of int to Tensor
        Standard deviations, by the id of the tensor of means. Other weights are constant.
    """

    def __init__(self, estimator: Estimator, scales: Mapping[int, Tensor]) -> None:
        super().__init__()
        self._draw = _local if estimator == "local" else _flipout
        self._scales = scales

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        """Call the function, with drawn weights if `scales` has their standard deviations."""
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
    # The noise has the dtype of the scales; under `torch.autocast` x and the mean have a lower one.
    dtype = next(s.dtype for s in scales if s is not None)
    if func is functional.linear:
        # The outputs of independent normal weights for a row are normal, independent across units.
        variance = torch.zeros((), dtype=x.dtype, device=x.device)
        if scale is not None:
            variance = functional.linear(x * x, scale * scale)
        if bias_scale is not None:
            variance = variance + bias_scale * bias_scale
        return mean + variance.clamp(min=MIN_VARIANCE).sqrt() * torch.randn_like(mean, dtype=dtype)
    # All positions of an image share the weights. Draw them per row, and make each row a group.
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
    # One sign per row and feature: the last dimension of linear layers, the second of convolutions.
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
