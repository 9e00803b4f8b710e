"""Calls of linear and convolutional functions with given parameters, intercepted in a module."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional
from torch.overrides import TorchFunctionMode, resolve_name

_CONVOLUTION = ("input", "weight", "bias", "stride", "padding", "dilation", "groups")
ARGUMENTS: dict[Any, tuple[str, ...]] = {
    functional.linear: _CONVOLUTION[:3],
    functional.conv1d: _CONVOLUTION,
    functional.conv2d: _CONVOLUTION,
    functional.conv3d: _CONVOLUTION,
}
"""The functions whose parameters can be drawn for each row, with the names of their arguments."""

_PROPERTIES = (
    "shape dtype device layout ndim requires_grad grad_fn is_leaf is_cuda is_cpu is_mps is_meta "
    "is_mkldnn is_nested is_quantized is_sparse"
)
_METHODS = (
    "size dim numel nelement ndimension stride storage_offset element_size is_contiguous "
    "is_floating_point is_complex get_device __len__ new_zeros new_ones new_empty new_full"
)
_FUNCTIONS = "numel is_floating_point is_complex zeros_like ones_like empty_like rand_like"
_BY_OTHER = "to type_as view_as reshape_as expand_as"
WITHOUT_VALUE = {
    *(getattr(Tensor, name).__get__ for name in _PROPERTIES.split()),
    *(getattr(Tensor, name) for name in _METHODS.split()),
    *(getattr(torch, name) for name in _FUNCTIONS.split()),
}
"""Functions that do not use the values of a tensor, only its shape, dtype or device."""
WITHOUT_VALUE_OF_OTHER = {getattr(Tensor, name) for name in _BY_OTHER.split()}
"""Functions that do not use the values of their second argument."""
CONVERSIONS = {
    getattr(Tensor, name) for name in ("to", "type", "contiguous", "float", "double", "cpu", "cuda")
}
"""Functions that may return their argument itself."""


@dataclass(frozen=True)
class LayerCall:
    """A call of a linear or convolutional function.

    Attributes
    ----------
    function : callable
    x, weight : Tensor
    bias : Tensor or None
    weight_name, bias_name : str or None
        Names of the parameters that are drawn; None for constants.
    options : dict
        Stride, padding, dilation and groups of a convolution.
    """

    function: Any
    x: Tensor
    weight: Tensor
    bias: Tensor | None
    weight_name: str | None
    bias_name: str | None
    options: dict[str, Any] = field(default_factory=dict)

    def __call__(self, *inputs: Tensor | None) -> Tensor:
        """Call the function, with x, weight and bias replaced if they are given."""
        x, weight, bias = inputs or (self.x, self.weight, self.bias)
        result: Tensor = self.function(x, weight, bias, **self.options)
        return result

    def __str__(self) -> str:
        """Return the function and its parameter, for messages."""
        return f"{self.function.__name__} with {self.weight_name or self.bias_name!r}"

    @property
    def is_linear(self) -> bool:
        """Whether the function is linear, not a convolution."""
        return self.function is functional.linear

    @property
    def features(self) -> int:
        """The dimension of features: the last one of linear layers, the second of convolutions."""
        return -1 if self.is_linear else 1

    def aligned(self, values: Tensor, like: Tensor) -> Tensor:
        """Reshape one value per row and feature, (n, n_features), to broadcast against `like`."""
        shape = [1] * like.dim()
        shape[0], shape[self.features] = values.shape
        return values.reshape(shape)

    def per_row(self, weights: Tensor) -> Tensor:
        """Compute the outputs, without bias, under a different weight for each row.

        Parameters
        ----------
        weights : Tensor of shape (n, *weight)
        """
        n = len(weights)
        if self.is_linear:
            outputs = self.x.reshape((n, -1, self.x.shape[-1])) @ weights.mT
            return outputs.reshape((*self.x.shape[:-1], weights.shape[1]))
        # One image whose groups are the rows.
        options = {**self.options, "groups": n * self.options.get("groups", 1)}
        image = self.x.reshape((1, -1, *self.x.shape[2:]))
        outputs = self.function(image, weights.flatten(0, 1), None, **options)
        return outputs.reshape((n, -1, *outputs.shape[2:]))


class LayerCalls(TorchFunctionMode, ABC):
    """A mode that intercepts layers with given parameters, and refuses other uses of these.

    Parameters
    ----------
    estimator : str
        For messages.
    names : mapping of int to str
        Names of the parameters, by the id of their tensor.
    n_rows : int
        Number of rows that the input of each layer must have.

    Raises
    ------
    ValueError
        In the block, if a parameter is used by another function, or by a layer whose input does
        not have the rows in its first dimension.
    """

    def __init__(self, estimator: str, names: Mapping[int, str], n_rows: int) -> None:
        super().__init__()
        self._estimator, self._names, self._n_rows = estimator, names, n_rows

    @abstractmethod
    def layer(self, call: LayerCall) -> Tensor:
        """Return the result of a call with at least one of the parameters."""

    def error(self, reason: str, remedy: str = "") -> ValueError:
        """Return the error for a module that the estimator does not support."""
        return ValueError(
            f"`estimator` {self._estimator!r} {reason}: use estimator='reparam'{remedy}."
        )

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        """Call the function, or `layer` if it is one with the parameters."""
        kwargs = kwargs or {}
        used = next(self._named((args, kwargs)), None)
        if used is None or func in WITHOUT_VALUE:
            return func(*args, **kwargs)
        if func in WITHOUT_VALUE_OF_OTHER and id(args[0]) not in self._names:
            return func(*args, **kwargs)
        if func in ARGUMENTS:
            inputs = {**dict(zip(ARGUMENTS[func], args, strict=False)), **kwargs}
            x, weight, bias = inputs.pop("input"), inputs.pop("weight"), inputs.pop("bias", None)
            is_plain = weight.dim() == 2 or func is not functional.linear
            has_own_bias = bias is None or bias.shape == weight.shape[:1]  # not broadcast
            if is_plain and has_own_bias and id(x) not in self._names:
                names = self._names.get(id(weight)), self._names.get(id(bias))
                call = LayerCall(func, x, weight, bias, *names, inputs)
                self._check_rows(call)
                return self.layer(call)
        if func in CONVERSIONS:
            result = func(*args, **kwargs)
            if result is args[0]:
                return result
        function = resolve_name(func) or getattr(func, "__name__", repr(func))
        raise self.error(
            f"supports only linear layers and convolutions, but {used!r} is used by {function}",
            ", or set the prior of that parameter to None",
        )

    def _named(self, values: Any) -> Iterator[str]:
        """Yield the names of the parameters in nested arguments."""
        for value in values.values() if isinstance(values, dict) else values:
            if isinstance(value, Tensor):
                if id(value) in self._names:
                    yield self._names[id(value)]
            elif isinstance(value, tuple | list | dict):
                yield from self._named(value)

    def _check_rows(self, call: LayerCall) -> None:
        is_wrapped = torch._C._functorch.is_functorch_wrapped_tensor(call.x)
        n_dims = max(2, call.x.dim()) if call.is_linear else call.weight.dim()
        if is_wrapped or call.x.dim() != n_dims or len(call.x) != self._n_rows:
            place = " in torch.vmap or torch.func" if is_wrapped else ""
            shape = f"an input of shape {tuple(call.x.shape)}{place}"
            raise self.error(
                "needs the rows of x in the first dimension of each layer's input, but for "
                f"{self._n_rows} rows {call} has {shape}"
            )
