"""Trial runs of a module on a few rows: whether it fits the data, and can be run under draws."""

from __future__ import annotations

import contextlib
import copy
import logging
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

import pyro.poutine as poutine
import torch
from torch import Tensor, nn

from .._core.global_state import isolated_from_pyro, ordinary_modes
from .._core.messages import first_line
from .._core.private_generators import ThreadLocalMode
from .._core.random_state import RandomState, seeded
from .._core.state_dicts import equal_tensors
from .._core.trees import (
    Inputs,
    arrays_of,
    clone,
    describe_rows,
    device_of,
    map_arrays,
    n_rows,
    named_arrays,
    row_size,
    rows_of,
)
from .arguments import call_module, forward_arguments
from .functional import FunctionalCall
from .outputs import OutputError, Selection, remedy_for
from .sequential import layers_of
from .supported import without_graphs

logger = logging.getLogger(__name__)

N_ROWS = 2
N_VALUES = 2**14
"""Values of x in one call of a run over all rows."""
TOLERANCE = 1e-4
"""Difference of outputs, in units of the largest, that is more than rounding: matrix products of
different shapes add their terms in a different order."""
NO_VALUES: Mapping[str, Tensor] = MappingProxyType({})
NOISE = 0.01
"""Standard deviation of the changes of all parameters in a run that looks for interactions."""
STEP = 0.1
"""Relative change of a parameter that changes the output if it is used."""


@dataclass(frozen=True)
class Traits:
    """What must be known of a module to run it on rows, in evaluation mode.

    Attributes
    ----------
    mixes_rows : bool
        Whether the output of a row may depend on the other rows, as with batch norm without running
        statistics: then all rows are one input.
    needs_all_rows : bool
        Whether it fails for some of the rows, as a graph network does.
    draws_numbers : bool
        Whether it draws random numbers.
    """

    mixes_rows: bool = False
    needs_all_rows: bool = False
    draws_numbers: bool = False


def trial_output(net: nn.Module, x: Inputs, select: Selection | None = None) -> Tensor:
    """Run a module on two rows in evaluation mode, or on all rows if it needs them.

    Parameters
    ----------
    net : nn.Module
    x : Inputs of shape (n, ...)
    select : Selection, optional
        Takes a part of the output.

    Returns
    -------
    Tensor of shape (min(n, 2), ...) or (n, ...)

    Raises
    ------
    ValueError
        If the module fails, or does not return a row for each row of x.
    """
    return _run(net, x, select=select)[0]


@contextlib.contextmanager
def explained(net: nn.Module, x: Inputs, select: Selection | None = None) -> Iterator[None]:
    """Raise the error of a trial run if a module fails in the block because x does not fit it."""
    try:
        yield
    except Exception:
        for name, array in named_arrays("x", x):
            if not isinstance(array, Tensor):
                raise TypeError(
                    f"`{name}` must be a tensor in a call of the model, got "
                    f"{type(array).__name__}: pass torch.as_tensor({name})."
                ) from None
        trial_output(net, x, select)
        if has_embeddings(net):
            check_rows(net, x)
        raise


def has_embeddings(net: nn.Module) -> bool:
    """Return whether a module takes indices."""
    return any(isinstance(module, nn.Embedding | nn.EmbeddingBag) for module in net.modules())


def traits_of(net: nn.Module, x: Inputs, select: Selection | None = None) -> Traits:
    """Run a module on different numbers of rows, and compare its outputs.

    Parameters
    ----------
    net : nn.Module
    x : Inputs of shape (n, ...)
    select : Selection, optional
        Takes a part of the output.
    """
    if layers_of(net) is not None:
        return Traits()
    with seeded(0):  # a last layer that is 0 at first would hide that rows interact
        values = {
            name: parameter.detach() + NOISE * torch.randn_like(parameter)
            for name, parameter in net.named_parameters()
            if parameter.requires_grad and parameter.is_floating_point()  # frozen: may be large
        }
    output, draws_numbers = _run(net, x, values, select)
    if n_rows(x) == 1:
        return Traits(draws_numbers=draws_numbers)
    if len(output) > N_ROWS:
        return Traits(True, True, draws_numbers)
    if draws_numbers:
        return Traits(draws_numbers=True)
    pair = rows_of(x, [0, different_row(x)])
    call = FunctionalCall(net, values, training=False, select=select)
    try:
        with ordinary_modes(grad=False), seeded(0):
            together = call(values, pair)
            # To statistics of the rows, such as those of an observer.
            has_changed_buffers = call.has_changed_buffers
        with ordinary_modes(grad=False), seeded(0):
            alone = call(values, rows_of(x, slice(1)))
    except Exception:  # batch norm without running statistics fails for one row
        return Traits(mixes_rows=True)
    return Traits(mixes_rows=has_changed_buffers or not is_close(together[:1], alone))


def check_trial(
    net: nn.Module, names: Iterable[str], x: Inputs, select: Selection | None = None
) -> None:
    """Raise unless a module computes its output from the values of its parameters alone.

    Parameters
    ----------
    net : nn.Module
    names : iterable of str
        Names of the parameters whose values are drawn or learned.
    x : Inputs of shape (n, ...)
    select : Selection, optional
        Takes a part of the output.

    Raises
    ------
    ValueError
        If `forward` uses learnable tensors that are not its parameters, keeps a parameter from its
        gradient, or has Pyro sites.
    """
    if layers_of(net) is not None:
        return
    rows = rows_of(x, slice(len(_run(net, x, select=select)[0])))
    parameters = dict(net.named_parameters())
    leaves = {name: parameters[name].detach().clone().requires_grad_() for name in names}
    call = FunctionalCall(net, leaves, training=False, select=select)
    with torch.enable_grad(), isolated_from_pyro(), poutine.trace() as tracer, seeded(0):
        output = call(leaves, rows)
    sites = [
        name for name, site in tracer.trace.nodes.items() if site["type"] in ("sample", "param")
    ]
    if sites:
        raise ValueError(
            f"`net` has the Pyro site {sites[0]!r} in its forward, which the guide would not have: "
            "use modules of torch.nn, whose parameters BayesianNetwork makes random."
        )
    reached = leaves_of(output)
    ours = {id(leaf): name for name, leaf in leaves.items()}
    foreign = [tensor for tensor in reached if id(tensor) not in ours]
    if foreign:
        raise ValueError(
            "`net` computes with a learnable tensor of shape "
            f"{tuple(foreign[0].shape)} that is none of its parameters, so that its draws would "
            "have no effect: assign layers to attributes or to an nn.ModuleList, and let functions "
            "use them through `self`, not through a variable."
        )
    reached_ids = {id(tensor) for tensor in reached}
    unreached = [name for name, leaf in leaves.items() if id(leaf) not in reached_ids]
    if unreached:
        _check_unused(call, leaves, unreached, rows)
    if counters := _counters(net, rows):
        logger.warning(
            "`net` changes its attribute %r in forward, which is restored after each call: make it "
            "a buffer, if later steps depend on it.",
            counters[0],
        )


def check_rows(net: nn.Module, x: Inputs) -> None:
    """Raise a ValueError that names the first row for which a module fails, such as by its index.

    An index that an embedding does not have is found here on the CPU: a GPU would only stop.

    Parameters
    ----------
    net : nn.Module
    x : Inputs of shape (n, ...)
    """
    if device_of(x).type != "cpu":
        net, x = copy.deepcopy(net, without_graphs(net)).cpu(), map_arrays(Tensor.cpu, x)
    size, n = max(1, N_VALUES // max(1, row_size(x))), n_rows(x)
    for start in range(0, n, size):
        if _failure(net, x, start, start + size) is None:
            continue
        row, end = start, min(start + size, n)
        while end - row > 1:
            middle = (row + end) // 2
            row, end = (row, middle) if _failure(net, x, row, middle) else (middle, end)
        if error := _failure(net, x, row, end):
            raise ValueError(
                f"`x` has a row that the network cannot take, row {row}: {first_line(error)}. An "
                "index must be at least 0 and below the `num_embeddings` of its layer."
            ) from error


def _failure(net: nn.Module, x: Inputs, start: int, end: int) -> Exception | None:
    try:
        _call(net, rows_of(x, slice(start, end)))
    except Exception as error:
        return error
    return None


def _check_unused(
    call: FunctionalCall, values: Mapping[str, Tensor], names: list[str], rows: Inputs
) -> None:
    """Raise if the output depends on parameters that receive no gradient; log the unused ones."""
    with torch.no_grad():
        with seeded(0):
            before = call(values, rows)
        for name in names:
            moved = {**values, name: values[name] + STEP * (1 + values[name].abs())}
            with seeded(0):
                after = call(moved, rows)
            if after.shape != before.shape or not torch.equal(after, before):
                raise ValueError(
                    f"`net` uses its parameter {name!r} without a gradient (torch.no_grad, "
                    ".detach() or .data in forward), so that it could not be learned: remove that, "
                    "or set its prior to None and requires_grad=False."
                )
    logger.warning(
        "The output of the network does not depend on %s: what is learned of it is the prior.",
        ", ".join(map(repr, names[:5])) + (" and others" if len(names) > 5 else ""),
    )


def _counters(net: nn.Module, rows: Inputs) -> list[str]:
    """Return the names of numbers that `forward` changes in training mode."""
    copied_net = FunctionalCall(net, (), training=True).module
    # Batch norm in training mode fails for one row.
    with seeded(0), torch.no_grad(), contextlib.suppress(Exception):
        call_module(copied_net, clone(rows))  # a FunctionalCall would restore the attributes
    return [
        f"{name}.{key}" if name else key
        for (name, module), copied in zip(net.named_modules(), copied_net.modules(), strict=True)
        for key, value in vars(module).items()
        if key != "training" and isinstance(value, int | float) and vars(copied)[key] != value
    ]


def _run(
    net: nn.Module,
    x: Inputs,
    values: Mapping[str, Tensor] = NO_VALUES,
    select: Selection | None = None,
) -> tuple[Tensor, bool]:
    """Return the output for two rows, or for all, and whether random numbers were drawn."""
    recorder = _RandomnessRecorder()
    rows: Inputs = rows_of(x, slice(N_ROWS))
    try:
        with recorder:
            output = _call(net, rows, values, select)
    except OutputError:
        raise
    except Exception as error:
        try:
            rows = x
            with recorder:
                output = _call(net, rows, values, select)
        except Exception:
            raise _misfit(net, x, error) from error
    if not isinstance(output, Tensor) or output.dim() == 0 or len(output) != n_rows(rows):
        got = f"shape {tuple(output.shape)}" if isinstance(output, Tensor) else type(output)
        raise ValueError(
            f"`net` must return a tensor with one row for each row of x: for {n_rows(rows)} rows "
            f"it returned {got}.{remedy_for(output)}"
        )
    return output, recorder.found


def _call(
    net: nn.Module,
    rows: Inputs,
    values: Mapping[str, Tensor] = NO_VALUES,
    select: Selection | None = None,
) -> Tensor:
    if not values and layers_of(net, select) is not None:  # needs neither a copy nor a generator
        with ordinary_modes(grad=False):
            output: Tensor = call_module(net, rows)
            return output
    with ordinary_modes(grad=False), seeded(0):
        return FunctionalCall(net, values, training=False, select=select)(values, rows)


def _misfit(net: nn.Module, x: Inputs, error: Exception) -> ValueError:
    if isinstance(x, Tensor) and x.dim() == 1:
        fix = "Pass x.reshape(-1, 1) if each row is one number"
    else:
        fix = f"Its error for {min(n_rows(x), N_ROWS)} rows: {first_line(error)}"
    if not isinstance(x, Tensor):
        if isinstance(error, TypeError):
            fix += f". Its forward takes {forward_arguments(net)}"
        elif not all(array.is_floating_point() for array in arrays_of(x)):
            fix += ". Integers among several arrays stay integers: pass numbers as floats"
    return ValueError(f"`x` with {describe_rows(x)} does not fit the network. {fix}.")


def different_row(x: Inputs) -> int:
    """Return the index of a row that differs from the first, in the most arrays, or 1."""
    heads = [leaf[:1000].reshape((min(len(leaf), 1000), -1)) for leaf in arrays_of(x)]
    differs = torch.stack([(head != head[:1]).any(1) for head in heads]).sum(0)
    return int(differs.argmax()) if bool(differs.any()) else 1


def is_close(one: Tensor, other: Tensor) -> bool:
    """Return whether two results differ by rounding only."""
    if one.shape != other.shape:
        return False
    one, other = (tensor.detach().cpu().double() for tensor in (one, other))
    return bool(((one - other).abs() <= TOLERANCE * one.abs().max()).all())


def leaves_of(output: Tensor) -> list[Tensor]:
    """Return the tensors to which backpropagation from the output leads."""
    nodes, seen, leaves = [output.grad_fn], set(), []
    while nodes:
        node: Any = nodes.pop()
        if node is None or node in seen:
            continue
        seen.add(node)
        if hasattr(node, "variable"):
            leaves.append(node.variable)
        nodes.extend(following for following, _ in node.next_functions)
    return leaves


class _RandomnessRecorder(ThreadLocalMode):
    """Records whether an operation draws random numbers."""

    def __init__(self) -> None:
        super().__init__()
        self.found = False

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        kwargs = kwargs or {}
        if torch.Tag.nondeterministic_seeded not in func.tags:
            return func(*args, **kwargs)
        # Attention and recurrent layers have the tag also without dropout, and then draw nothing.
        before = _state_of(kwargs.get("generator"))
        result = func(*args, **kwargs)
        self.found |= not equal_tensors(before, _state_of(kwargs.get("generator")))
        return result


def _state_of(generator: torch.Generator | None) -> dict[str, Tensor]:
    """Return the state of a generator, or of torch's default ones."""
    return {"": generator.get_state()} if generator else RandomState.now().tensors()
