"""Rows that are run one by one, each with its own draw of all weights.

This is right for any module that computes a row alone as it does among others, whatever it uses its
weights for. It needs memory for a copy of the weights for each row. Rows are mapped by `torch.vmap`
or, where that fails or differs, run in a loop.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional
from torch.overrides import TorchFunctionMode

from .._core.global_state import without_vmap_warnings
from .._core.messages import first_line
from .._core.random_state import seeded
from .._core.trees import Inputs, arrays_of, map_arrays, n_rows, rows_of
from ..model.trial import different_row, is_close
from .module_trial import N_ROWS, restored_buffers
from .nll import NetworkNll

CHANGE = 0.1
"""Standard deviation of changes of the weights: a last layer that is 0 would hide a difference."""

ROUNDING = 4
"""Standard deviation, in units of rounding, of draws that hardly change a continuous output."""

DROPOUT = {
    getattr(functional, f"{kind}dropout{dims}")
    for kind, dims in (("", ""), ("", "1d"), ("", "2d"), ("", "3d"), ("alpha_", ""))
} | {functional.feature_alpha_dropout, functional.multi_head_attention_forward}
"""Functions that drop activations if their argument `training` is true."""


def draws_of_rows(
    locs: Mapping[str, Tensor], scales: Mapping[str, Tensor], n: int
) -> dict[str, Tensor]:
    """Draw n independent values of each weight, given means and standard deviations.

    Returns
    -------
    mapping of str to Tensor of shape (n, *parameter)
    """
    return {
        name: torch.addcmul(loc, scales[name], loc.new_empty((n, *loc.shape)).normal_())
        for name, loc in locs.items()
    }


def mapped(
    nll: NetworkNll, draws: Mapping[str, Tensor], points: tuple[Tensor, ...], x: Inputs
) -> Tensor:
    """Compute the output of each row under its own draw, by `torch.vmap`.

    Parameters
    ----------
    nll : NetworkNll
    draws : mapping of str to Tensor of shape (n, *parameter)
    points : tuple of Tensor
    x : Inputs of shape (n, ...)

    Returns
    -------
    Tensor of shape (n, ...)
    """

    def of_row(draw: Mapping[str, Tensor], row: Inputs) -> Tensor:
        return nll.output_of_one(draw, points, map_arrays(lambda array: array[None], row))[0]

    with without_vmap_warnings():  # of operations that it runs in a loop
        output: Tensor = torch.vmap(of_row, randomness="different")(dict(draws), x)
    return output


def looped(
    nll: NetworkNll, draws: Mapping[str, Tensor], points: tuple[Tensor, ...], x: Inputs
) -> Tensor:
    """Compute what `mapped` does, one row after the other."""
    return torch.cat(
        [
            nll.output_of_one({n: draw[i] for n, draw in draws.items()}, points, rows_of(x, [i]))
            for i in range(n_rows(x))
        ]
    )


class RowsDifferError(ValueError):
    """Rows that are run alone have other outputs than among others; the message states why."""


def way_of_running_rows(
    nll: NetworkNll, locs: Mapping[str, Tensor], points: tuple[Tensor, ...], x: Inputs
) -> Callable[..., Tensor]:
    """Return `mapped` or `looped`, the first that is right for a module in its present mode.

    Outputs and gradients of a few rows are compared with those of the rows together, without
    dropout, at other weights than those given, and outputs also at draws close to those given: a
    function that jumps there, such as a sign, has no useful gradient.

    Parameters
    ----------
    nll : NetworkNll
    locs : mapping of str to Tensor
    points : tuple of Tensor
    x : Inputs of shape (n, ...)

    Raises
    ------
    RowsDifferError
        If neither is right.
    """
    net, rows = nll.network.net, _three_rows(x)
    with restored_buffers(net) as have_changed, torch.enable_grad(), seeded(0), _WithoutDropout():
        draw = draws_of_rows(locs, {n: torch.full_like(loc, CHANGE) for n, loc in locs.items()}, 1)
        moved = {name: value[0].detach().requires_grad_() for name, value in draw.items()}
        copies = {name: value.expand((N_ROWS, *value.shape)) for name, value in moved.items()}
        rounding = {
            n: ROUNDING * eps * loc.abs() + eps**2
            for n, loc in locs.items()
            for eps in [torch.finfo(loc.dtype).eps]
        }
        nearby = draws_of_rows(locs, rounding, N_ROWS)

        def check(way: Callable[..., Tensor]) -> None:
            trial = nll.with_own_module()
            expected = trial.output_of_one(moved, points, rows)
            if have_changed():
                raise RowsDifferError("the module changes its buffers")
            if not torch.equal(expected, trial.output_of_one(moved, points, rows)):
                raise RowsDifferError("the module draws random numbers other than those of dropout")
            alone = way(trial, copies, points, rows)
            pairs = [(expected, alone)]
            if expected.requires_grad:
                pairs.append((_gradient(expected, moved), _gradient(alone, moved)))
            if not all(is_close(one, other) for one, other in pairs):
                raise RowsDifferError("a row alone has another output or gradient")
            # In units of the largest output at other weights: at the means it may be 0.
            jump = way(trial, nearby, points, rows) - trial.output_of_one(locs, points, rows)
            if not is_close(expected, expected + jump):
                raise RowsDifferError("the output jumps at the means of the weights")

        reason: Exception | None = None
        for way in (mapped, looped):
            try:
                check(way)
            except RowsDifferError as error:
                reason = error
            except Exception as error:  # squeezed rows, batch norm in training mode
                reason = RowsDifferError(f"a row alone fails ({first_line(error)})")
            else:
                return way
        assert reason is not None
        raise reason


def _three_rows(x: Inputs) -> Inputs:
    """Return three rows, not all equal: such rows would not show that they interact."""
    n = n_rows(x)
    rows: Inputs = rows_of(x, [0, different_row(x) if n > 1 else 0, n - 1])
    if any(bool((array != array[:1]).any()) for array in arrays_of(rows)):
        return rows
    with seeded(0):
        changed: Inputs = map_arrays(
            lambda array: (
                array + CHANGE * torch.randn_like(array) if array.is_floating_point() else array
            ),
            rows,
        )
    return changed


def _gradient(output: Tensor, values: Mapping[str, Tensor]) -> Tensor:
    gradients = torch.autograd.grad(
        output.square().sum(), list(values.values()), allow_unused=True, materialize_grads=True
    )
    return torch.cat([gradient.flatten() for gradient in gradients])


class _WithoutDropout(TorchFunctionMode):
    """A mode in which nothing is dropped: dropout draws other numbers for single rows."""

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        kwargs = kwargs or {}
        if func is functional.scaled_dot_product_attention:
            args, kwargs = (*args[:4], *([0.0] if len(args) > 4 else []), *args[5:]), dict(kwargs)
            if "dropout_p" in kwargs:
                kwargs["dropout_p"] = 0.0
        elif func in DROPOUT:
            call = inspect.signature(func).bind(*args, **kwargs)
            call.arguments["training"] = False
            args, kwargs = call.args, call.kwargs
        return func(*args, **kwargs)
