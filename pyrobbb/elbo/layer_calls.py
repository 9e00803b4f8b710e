"""Calls of layers' functions with given parameters, intercepted in a module."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional
from torch.overrides import TorchFunctionMode, resolve_name

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


LAYERS = "linear layers, convolutions, embeddings and normalisations"


class PerExampleError(ValueError):
    """A module whose rows an estimator cannot give different draws.

    Parameters
    ----------
    estimator : str
    reason : str
        What the estimator does not support.
    remedy : str
        What may be done instead of using another estimator.
    """

    def __init__(self, estimator: str, reason: str, remedy: str = "") -> None:
        super().__init__(f"`estimator` {estimator!r} {reason}: use estimator='reparam'{remedy}.")
        self.estimator, self.reason, self.remedy = estimator, reason, remedy

    def also(self, reason: str) -> PerExampleError:
        """Return the error with a further reason."""
        return PerExampleError(self.estimator, f"{self.reason}, and {reason}", self.remedy)


@dataclass(frozen=True)
class LayerCall(ABC):
    """A call of a layer's function.

    Attributes
    ----------
    function : callable
    x, weight : Tensor
    bias : Tensor or None
    weight_name, bias_name : str or None
        Names of the parameters that are drawn; None for constants.
    options : dict
        The other arguments of the function.
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
        values = {"input": x, "weight": weight, "bias": bias}
        taken = {name: values[name] for name in ARGUMENTS[self.function] if name in values}
        result: Tensor = self.function(**taken, **self.options)
        return result

    def __str__(self) -> str:
        """Return the function and its parameter, for messages."""
        return f"{self.function.__name__} with {self.weight_name or self.bias_name!r}"

    @property
    def names(self) -> set[str]:
        """The names of its parameters that are drawn."""
        return {name for name in (self.weight_name, self.bias_name) if name}

    @property
    @abstractmethod
    def is_supported(self) -> bool:
        """Whether the function has the usual arguments, of the usual shapes."""

    @property
    @abstractmethod
    def has_rows(self) -> bool:
        """Whether x has a dimension of rows before those that the function needs."""

    @property
    def features(self) -> int:
        """The dimension of the output's features: the second, or the last one."""
        return -1

    def aligned(self, values: Tensor, like: Tensor) -> Tensor:
        """Reshape one value per row and feature, (n, n_features), to broadcast against `like`."""
        shape = [1] * like.dim()
        shape[0], shape[self.features] = values.shape
        return values.reshape(shape)

    @abstractmethod
    def per_row(self, weights: Tensor) -> Tensor:
        """Compute the outputs, without bias, under a different weight for each row.

        Parameters
        ----------
        weights : Tensor of shape (n, *weight)
        """


class LinearCall(LayerCall):
    """A call of a linear function."""

    @property
    def is_supported(self) -> bool:
        """Whether the weight is a matrix."""
        return self.weight.dim() == 2 and _has_own_bias(self)

    @property
    def has_rows(self) -> bool:
        """Whether x has at least 2 dimensions."""
        return self.x.dim() >= 2

    def per_row(self, weights: Tensor) -> Tensor:
        """Multiply x by the weights of its row."""
        outputs = self.x.reshape((len(weights), -1, self.x.shape[-1])) @ weights.mT
        return outputs.reshape((*self.x.shape[:-1], weights.shape[1]))


class ConvolutionCall(LayerCall):
    """A call of a convolution."""

    @property
    def is_supported(self) -> bool:
        """Whether the bias has a value per output."""
        return _has_own_bias(self)

    @property
    def has_rows(self) -> bool:
        """Whether x is a batch of images."""
        return self.x.dim() == self.weight.dim()

    @property
    def features(self) -> int:
        """The second dimension."""
        return 1

    def per_row(self, weights: Tensor) -> Tensor:
        """Convolve one image whose groups are the rows."""
        n = len(weights)
        options = {**self.options, "groups": n * self.options.get("groups", 1)}
        image = self.x.reshape((1, -1, *self.x.shape[2:]))
        outputs = self.function(image, weights.flatten(0, 1), None, **options)
        return outputs.reshape((n, -1, *outputs.shape[2:]))


@dataclass(frozen=True)
class EmbeddingCall(LayerCall):
    """A call of an embedding, whose x holds indices of rows of the weight.

    Attributes
    ----------
    is_drawn : Tensor of bool, optional
        Elements of the weight that are drawn, unlike those of its padding. None: all of them.
    """

    is_drawn: Tensor | None = None

    def __call__(self, *inputs: Tensor | None) -> Tensor:
        """Call the function, or with x and a deviation of the weight if they are given."""
        if not inputs:
            return super().__call__()
        x, deviation, _ = inputs
        assert deviation is not None
        return super().__call__(x, self._masked(deviation), None)

    @property
    def is_supported(self) -> bool:
        """Whether the weight is a matrix and neither it nor its gradient is changed."""
        changing = ("max_norm", "scale_grad_by_freq", "sparse")
        return self.weight.dim() == 2 and not any(self.options.get(name) for name in changing)

    @property
    def has_rows(self) -> bool:
        """Whether x has a dimension."""
        return self.x.dim() >= 1

    def per_row(self, weights: Tensor) -> Tensor:
        """Look up in the weights of a row."""
        rows = torch.arange(len(weights), device=weights.device)
        return self._masked(weights)[rows.reshape((-1, *[1] * (self.x.dim() - 1))), self.x]

    def _masked(self, deviation: Tensor) -> Tensor:
        return deviation if self.is_drawn is None else deviation * self.is_drawn


class NormalisationCall(LayerCall):
    """A call of a function that normalises x, and multiplies it by its weight."""

    @property
    def is_supported(self) -> bool:
        """Whether the weight is a vector, and no running statistics are updated."""
        has_statistics = self.options.get("running_mean") is not None
        changes_them = self.options.get("training") or self.options.get("use_input_stats")
        return self.weight.dim() == 1 and not (has_statistics and changes_them)

    @property
    def has_rows(self) -> bool:
        """Whether x has at least 2 dimensions."""
        return self.x.dim() >= 2

    @property
    def features(self) -> int:
        """The last dimension, or that of channels."""
        return -1 if "normalized_shape" in self.options else 1

    def per_row(self, weights: Tensor) -> Tensor:
        """Multiply normalised x by the weights of its row."""
        normal = self(self.x, None, None)
        return normal * self.aligned(weights, normal)


_CONVOLUTION = ("input", "weight", "bias", "stride", "padding", "dilation", "groups")
_STATISTICS = ("input", "running_mean", "running_var", "weight", "bias")
ARGUMENTS: dict[Any, tuple[str, ...]] = {
    functional.linear: _CONVOLUTION[:3],
    functional.conv1d: _CONVOLUTION,
    functional.conv2d: _CONVOLUTION,
    functional.conv3d: _CONVOLUTION,
    functional.embedding: (
        *("input", "weight", "padding_idx", "max_norm", "norm_type"),
        *("scale_grad_by_freq", "sparse"),
    ),
    functional.layer_norm: ("input", "normalized_shape", "weight", "bias", "eps"),
    functional.rms_norm: ("input", "normalized_shape", "weight", "eps"),
    functional.group_norm: ("input", "num_groups", "weight", "bias", "eps"),
    functional.batch_norm: (*_STATISTICS, "training", "momentum", "eps"),
    functional.instance_norm: (*_STATISTICS, "use_input_stats", "momentum", "eps"),
}
"""The functions whose parameters can be drawn for each row, with the names of their arguments."""

KINDS: dict[Any, type[LayerCall]] = {
    function: NormalisationCall if "norm" in function.__name__ else ConvolutionCall
    for function in ARGUMENTS
} | {functional.linear: LinearCall, functional.embedding: EmbeddingCall}


def _has_own_bias(call: LayerCall) -> bool:
    """Return whether there is no bias, or one value per output, not broadcast."""
    return call.bias is None or call.bias.shape == call.weight.shape[:1]


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
    PerExampleError
        In the block, if a parameter is used by another function, or by a layer whose input does
        not have the rows in its first dimension.
    """

    def __init__(self, estimator: str, names: Mapping[int, str], n_rows: int) -> None:
        super().__init__()
        self._estimator, self._names, self._n_rows = estimator, dict(names), n_rows
        self._partly_fixed: dict[int, tuple[Tensor, Tensor]] = {}
        """By the id of a tensor: where it has constants in place of a parameter; the tensor."""

    @abstractmethod
    def layer(self, call: LayerCall) -> Tensor:
        """Return the result of a call with at least one of the parameters."""

    def error(self, reason: str, remedy: str = "") -> PerExampleError:
        """Return the error for a module that the estimator does not support."""
        return PerExampleError(self._estimator, reason, remedy)

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
            call = self._call(func, args, kwargs)
            if call is not None:
                self._check_rows(call)
                return self.layer(call)
        if func is torch.where and [*self._named(args)] == [*self._named(args[2:3])]:
            result = func(*args, **kwargs)
            self._names[id(result)] = used
            self._partly_fixed[id(result)] = args[0], result
            return result
        if func in CONVERSIONS:
            result = func(*args, **kwargs)
            if result is args[0]:
                return result
        function = resolve_name(func) or getattr(func, "__name__", repr(func))
        raise self.error(
            f"supports only {LAYERS}, but {used!r} is used by {function}",
            ", or set the prior of that parameter to None",
        )

    def _call(self, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> LayerCall | None:
        """Return the call of a layer's function, or None if it is an unusual one."""
        inputs = {**dict(zip(ARGUMENTS[func], args, strict=False)), **kwargs}
        x, weight, bias = (inputs.pop(name, None) for name in ("input", "weight", "bias"))
        if id(x) in self._names or weight is None:
            return None
        names = self._names.get(id(weight)), self._names.get(id(bias))
        if KINDS[func] is EmbeddingCall and len(x) == 1 and x.dim() > 1:  # the same for all rows
            x = x.expand((self._n_rows, *x.shape[1:]))
        parts = func, x, weight, bias, *names, inputs
        call: LayerCall
        if KINDS[func] is EmbeddingCall:
            is_fixed, _ = self._partly_fixed.get(id(weight), (None, None))
            call = EmbeddingCall(*parts, None if is_fixed is None else ~is_fixed)
        elif self._partly_fixed.keys() & {id(weight), id(bias)}:
            return None
        else:
            call = KINDS[func](*parts)
        return call if call.is_supported else None

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
        if is_wrapped or not call.has_rows or len(call.x) != self._n_rows:
            place = " in torch.vmap or torch.func" if is_wrapped else ""
            shape = f"an input of shape {tuple(call.x.shape)}{place}"
            raise self.error(
                "needs the rows of x in the first dimension of each layer's input, but for "
                f"{self._n_rows} rows {call} has {shape}"
            )
