"""Gradient estimators with a draw of the weights per example, which reduce gradient noise.

With one draw for a whole batch ("reparam"), the errors of its rows are correlated. Here each row
has a different draw: "local" draws a layer's outputs instead of its weights, and "flipout"
multiplies one draw by random signs per row. The distribution of each row's output is the same, and
therefore so is the expectation of the loss and of its gradient.

A row has one draw of a weight in a forward pass, however often the weight is used and however many
positions (steps of a sequence, pixels) the row has. Outputs of a layer are normal and independent
only if the layer is used once, at one position, and not differentiated by the module; otherwise
"local" draws the weights of each row. Of an embedding that is used once, it draws the vectors that
the row looks up, each once. Weights of normalisations are drawn for each row by both estimators.

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

from .layer_calls import EmbeddingCall, LayerCall, LayerCalls, LinearCall, NormalisationCall

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
        if again := call.names & self._drawn_by_output:
            raise UsedAgainError(again)
        is_lookup = isinstance(call, EmbeddingCall)
        has_one_position = isinstance(call, LinearCall) and call.x.dim() == 2
        if (is_lookup or has_one_position) and not call.names & self._reused:
            self._drawn_by_output |= call.names
            return self._looked_up(call, mean) if is_lookup else self._outputs(call, mean)
        return self._by_row(call, mean)

    def _by_row(self, call: LayerCall, mean: Tensor) -> Tensor:
        if name := call.weight_name:
            mean = mean + call.per_row(self._row_draws(name, mean))
        if name := call.bias_name:
            mean = mean + call.aligned(self._row_draws(name, mean), mean)
        return mean

    def _looked_up(self, call: LayerCall, mean: Tensor) -> Tensor:
        # Only the vectors that a row looks up are drawn: once, even if it does so several times.
        scale = self._scales[call.weight_name or ""]
        rows = torch.arange(len(call.x), device=call.x.device)
        of_row = rows.reshape((-1, *[1] * (call.x.dim() - 1))) * len(scale) + call.x
        drawn, position = of_row.unique(return_inverse=True)
        shape = len(drawn), scale.shape[1]
        noise = torch.randn(shape, dtype=scale.dtype, device=scale.device)
        return mean + call(call.x, scale, None) * noise[position]

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
        if isinstance(call, NormalisationCall):  # of vectors: a draw for each row costs no more
            return self._by_row(call, mean)
        name, bias_name = call.weight_name, call.bias_name
        shared = {n: self._deviation(n) for n in (name, bias_name) if n}
        n, n_out, n_in = len(mean), len(call.weight), call.x.shape[call.features]
        if isinstance(call, EmbeddingCall):  # a linear function of x as indicators of its indices
            n_in = call.weight.shape[1]
        outgoing = self._signs(name or bias_name or "", "outgoing", (n, n_out), mean)
        if name:
            incoming = self._signs(name, "incoming", (n, n_in), mean)
            if isinstance(call, EmbeddingCall):
                signs = call.per_row(outgoing[..., None]) * call.aligned(incoming, mean)
                return mean + call(call.x, shared[name], None) * signs
            change = call(call.x * call.aligned(incoming, call.x), shared[name], None)
            mean = mean + change * call.aligned(outgoing, mean)
        if bias_name:
            rows = self._once(bias_name, "rows", lambda: shared[bias_name] * outgoing)
            mean = mean + call.aligned(rows, mean)
        return mean

    def _deviation(self, name: str) -> Tensor:
        scale = self._scales[name]
        return self._once(name, "shared", lambda: scale * torch.randn_like(scale))

    def _signs(self, name: str, side: str, shape: tuple[int, int], like: Tensor) -> Tensor:
        """Return one sign per row and feature of the input or the output, shape (n, n_features)."""
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
