"""Gradient estimators with a draw of the weights per example, which reduce gradient noise.

With one draw for a whole batch ("reparam"), the errors of its rows are correlated. Here each row
has a different draw: "local" draws a layer's outputs instead of its weights, and "flipout"
multiplies one draw by random signs per row. The distribution of each row's output is the same, and
therefore so is the expectation of the loss and of its gradient.

A row has one draw of a weight in a forward pass, however often the weight is used and however many
positions (steps of a sequence, pixels) the row has. Outputs of a layer are normal and independent
only if the layer is used once, at one position, and not differentiated by the module; otherwise
"local" draws the weights of each row.

References
----------
Kingma, Salimans and Welling (2015), "Variational dropout and the local reparameterization trick".
Wen et al. (2018), "Flipout: efficient pseudo-independent weight perturbations on mini-batches".
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Literal

import torch
from torch import Tensor
from torch.nn import functional

from .layer_calls import LayerCall, LayerCalls

Estimator = Literal["reparam", "local", "flipout"]

DERIVATIVES = (torch.autograd.grad, torch.autograd.backward, Tensor.backward)
MIN_VARIANCE = 1e-20  # the square root is not differentiable at 0


class UsedAgainError(Exception):
    """Parameters whose outputs have been drawn are used again, or outputs are differentiated.

    Attributes
    ----------
    names : set of str
    """

    def __init__(self, names: set[str]) -> None:
        super().__init__(names)
        self.names = names


class PerExampleSampling(LayerCalls):
    """A mode in which linear and convolutional functions draw weights for each row of x.

    Enter a new mode for each forward pass.

    Parameters
    ----------
    estimator : {"local", "flipout"}
    names : mapping of int to str
        Names of the parameters that are drawn, by the id of the tensor of means.
    scales : mapping of str to Tensor
        Standard deviations, by the name of the parameter.
    n_rows : int
    reused : set of str
        Parameters that are used more than once in a forward pass.

    Raises
    ------
    UsedAgainError
        In the block, if "local" meets a further parameter that is used more than once.
    """

    def __init__(
        self,
        estimator: Estimator,
        names: Mapping[int, str],
        scales: Mapping[str, Tensor],
        n_rows: int,
        reused: set[str],
    ) -> None:
        super().__init__(estimator, names, n_rows)
        self._draw = self._local if estimator == "local" else self._flipout
        self._scales, self._reused = scales, reused
        self._drawn_by_output: set[str] = set()
        self._drawn: dict[tuple[str, str], Tensor] = {}

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        """Call the function, or draw if it is a layer."""
        if func in DERIVATIVES and self._drawn_by_output:
            # The derivative of a drawn output with respect to x is not that under a drawn weight.
            raise UsedAgainError(set(self._drawn_by_output))
        return super().__torch_function__(func, types, args, kwargs)

    def layer(self, call: LayerCall) -> Tensor:
        """Compute the outputs of a layer under the draws of each row."""
        return self._draw(call, call())

    def _local(self, call: LayerCall, mean: Tensor) -> Tensor:
        used = {name for name in (call.weight_name, call.bias_name) if name}
        if again := used & self._drawn_by_output:
            raise UsedAgainError(again)
        if call.is_linear and call.x.dim() == 2 and not used & self._reused:
            self._drawn_by_output |= used
            return self._outputs(call, mean)
        if name := call.weight_name:
            mean = mean + call.per_row(self._row_draws(name, mean))
        if name := call.bias_name:
            mean = mean + call.aligned(self._row_draws(name, mean), mean)
        return mean

    def _outputs(self, call: LayerCall, mean: Tensor) -> Tensor:
        # The outputs of independent normal weights for a row are normal, independent across units.
        variance = torch.zeros((), dtype=call.x.dtype, device=call.x.device)
        scale, bias_scale = (
            self._scales[name] if name else None for name in (call.weight_name, call.bias_name)
        )
        if scale is not None:
            variance = functional.linear(call.x * call.x, scale * scale)
        if bias_scale is not None:
            variance = variance + bias_scale * bias_scale
        # The noise has the dtype of the scales; under `torch.autocast` x and the mean have a lower
        # one.
        dtype = next(s.dtype for s in (scale, bias_scale) if s is not None)
        return mean + variance.clamp(min=MIN_VARIANCE).sqrt() * torch.randn_like(mean, dtype=dtype)

    def _row_draws(self, name: str, mean: Tensor) -> Tensor:
        """Return the deviation of each row's draw of a parameter, shape (n, *parameter)."""
        scale = self._scales[name]
        shape = (len(mean), *scale.shape)
        return self._once(
            name,
            "rows",
            lambda: scale * torch.randn(shape, dtype=scale.dtype, device=scale.device),
        )

    def _flipout(self, call: LayerCall, mean: Tensor) -> Tensor:
        name, bias_name = call.weight_name, call.bias_name
        shared = {n: self._deviation(n) for n in (name, bias_name) if n}
        outgoing = self._signs(name or bias_name or "", "outgoing", call, mean)
        if name:
            incoming = self._signs(name, "incoming", call, call.x)
            change = call(call.x * call.aligned(incoming, call.x), shared[name], None)
            mean = mean + change * call.aligned(outgoing, mean)
        if bias_name:
            rows = self._once(bias_name, "rows", lambda: shared[bias_name] * outgoing)
            mean = mean + call.aligned(rows, mean)
        return mean

    def _deviation(self, name: str) -> Tensor:
        scale = self._scales[name]
        return self._once(name, "shared", lambda: scale * torch.randn_like(scale))

    def _signs(self, name: str, side: str, call: LayerCall, like: Tensor) -> Tensor:
        """Return one sign per row and feature of the input or the output, shape (n, n_features)."""
        shape = (len(like), like.shape[call.features])
        signs = self._once(
            name,
            side,
            lambda: torch.randint(0, 2, shape, device=like.device).to(like.dtype) * 2 - 1,
        )
        if signs.shape != shape:
            raise self.error(
                f"needs one number of groups for each weight, but {name!r} is used with several"
            )
        return signs

    def _once(self, name: str, kind: str, draw: Callable[[], Tensor]) -> Tensor:
        """Draw at the first use of a parameter in this forward pass."""
        key = name, kind
        if key not in self._drawn:
            self._drawn[key] = draw()
        return self._drawn[key]
