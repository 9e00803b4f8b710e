"""A trial of a module with a few rows, to check that rows can have different draws."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from .._core.random_state import seeded
from .._core.trees import Inputs, n_rows, rows_of
from .layer_calls import LAYERS, LayerCall, LayerCalls

N_ROWS = 3
ROUNDING = 1e-4
"""Relative difference of activations below which they are equal but for rounding."""

MARK = 10.0
"""Change of a row, relative to 1 plus its absolute values."""


def reused_parameters(
    make_call: Callable[[], Callable[[Any], Tensor]],
    net: nn.Module,
    x: Inputs,
    parameters: Mapping[str, Tensor],
    estimator: str,
) -> set[str]:
    """Return the names of the parameters that a module uses more than once in a forward pass.

    Parameters
    ----------
    make_call : callable
        Returns a function that calls the module with the parameters, each by another
        `FunctionalCall`: its copy of the module keeps the buffers that it assigns.
    net : nn.Module
        Its buffers are restored.
    x : Inputs of shape (n, ...)
        Three of its rows are used.
    parameters : mapping of str to Tensor
    estimator : str
        For messages.

    Raises
    ------
    PerExampleError
        If a parameter is used by another function than those of `layer_calls`, or if the output of
        a row depends on the draws of other rows.
    """
    names = {id(parameter): name for name, parameter in parameters.items()}
    few = rows_of(x, [i % n_rows(x) for i in range(N_ROWS)])

    def run(n: int, changed_row: int | None = None) -> _Trial:
        trial = _Trial(estimator, names, n, changed_row)
        # The same buffers, and the same random numbers for dropout.
        with restored_buffers(net), torch.enable_grad(), seeded(0):
            try:
                with trial:
                    output = make_call()(rows_of(few, slice(n)))
                if changed_row is None:
                    trial.check_gradient(output, parameters)
            except (RuntimeError, IndexError) as error:
                reason = str(error).strip().splitlines()[0]
                raise trial.error(
                    f"cannot be used with this module: a trial with {n} rows fails ({reason})"
                ) from error
        trial.activations.append(("the output", output.detach()))
        return trial

    run(N_ROWS - 1)
    trial = run(N_ROWS)
    for row in (0, N_ROWS - 1):  # later rows may depend on earlier ones, and conversely
        trial.check_other_rows(row, run(N_ROWS, row))
    return {name for name, n in trial.n_uses.items() if n > 1}


class _Trial(LayerCalls):
    """A mode that records the uses of parameters, and may change a row of each layer's outputs.

    Such a change stands for another draw of that row.
    """

    def __init__(
        self, estimator: str, names: Mapping[int, str], n_rows: int, changed_row: int | None
    ) -> None:
        super().__init__(estimator, names, n_rows)
        self._changed_row = changed_row
        self.n_uses: Counter[str] = Counter()
        self.activations: list[tuple[str, Tensor]] = []

    def layer(self, call: LayerCall) -> Tensor:
        self.n_uses.update(call.names)
        x = call.x.detach() if call.x.is_floating_point() else call.x.double()
        self.activations.append((f"the input of {call}", x))
        # Like a draw, the product saves a tensor for backpropagation. So the trial fails if the
        # module calls layers again without this mode, as torch.utils.checkpoint does.
        outputs = call()
        outputs = (
            outputs * torch.ones((), dtype=outputs.dtype, device=outputs.device).requires_grad_()
        )
        if self._changed_row is not None:
            row = outputs.detach()[self._changed_row]
            outputs = outputs.clone()
            # Not random, because dropout would then have other random numbers.
            factors = torch.arange(row.numel(), device=row.device).cos().reshape(row.shape)
            outputs[self._changed_row] = row + MARK * factors.to(row.dtype) * (1 + row.abs())
        return outputs

    def check_gradient(self, output: Tensor, parameters: Mapping[str, Tensor]) -> None:
        """Raise if the output depends on a parameter in a way that has not been recorded."""
        if not output.requires_grad:
            return
        gradients = torch.autograd.grad(output.sum(), list(parameters.values()), allow_unused=True)
        for name, gradient in zip(parameters, gradients, strict=True):
            if gradient is not None and not self.n_uses[name]:
                raise self.error(f"supports only {LAYERS}, unlike {name!r}")

    def check_other_rows(self, row: int, changed: _Trial) -> None:
        """Raise if the change of a row has changed others."""
        others = torch.arange(N_ROWS) != row
        pairs = zip(self.activations, changed.activations, strict=False)
        for (what, values), (_, new) in pairs:
            mask = others.to(values.device)
            if not torch.allclose(values[mask], new[mask], ROUNDING, ROUNDING, equal_nan=True):
                raise self.error(
                    f"needs rows that do not affect each other, but in {what} they do (as by batch "
                    "norm in training mode)"
                )


@contextmanager
def restored_buffers(net: nn.Module) -> Iterator[Callable[[], bool]]:
    """Restore the buffers of a module at the end of the block, which may assign new ones.

    Yields
    ------
    callable
        Returns whether a buffer has changed so far.
    """
    buffers = [
        (part._buffers, name, buffer, None if buffer is None else buffer.clone())
        for part in net.modules()
        for name, buffer in part._buffers.items()
    ]

    def have_changed() -> bool:
        return any(
            of_part[name] is not buffer
            or (buffer is not None and before is not None and not torch.equal(buffer, before))
            for of_part, name, buffer, before in buffers
        )

    try:
        yield have_changed
    finally:
        with torch.no_grad():
            for of_part, name, buffer, before in buffers:
                of_part[name] = buffer
                if buffer is not None and before is not None:
                    buffer.copy_(before)
