"""Trunks: the first part of a module, whose output does not depend on the draw of the weights."""

from __future__ import annotations

import copy
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from .._core.global_state import ordinary_modes
from .._core.messages import first_line, shown
from .._core.random_state import seeded
from .._core.trees import Inputs, arrays_of, clone, map_arrays, n_rows, rows_of, split
from .arguments import arguments_of
from .functional import FunctionalCall
from .outputs import Selection
from .supported import without_graphs

N_ROWS = 4
"""Rows on which trunk and head are compared with the module, unless they are equal."""


@dataclass(frozen=True, eq=False)
class Split:
    """A module as a trunk, whose parameters are not drawn, and a head.

    Attributes
    ----------
    net : nn.Module
    parts : tuple of str
        The submodules of the trunk, in the order of their first calls.
    n_calls : int
        How often the last part is called; the result of the last call is the features.
    head : nn.Module
        A copy of `net` that takes the features: identities replace the parts of the trunk. It
        shares all tensors with `net`, and its parameters have the same names.
    example : Inputs of shape (1, ...), optional
        A row of x that the head is called with in place of each row, if `net` works on x before the
        trunk; its last part returns the features. None: the head is called with the features.
    """

    net: nn.Module
    parts: tuple[str, ...]
    n_calls: int
    head: nn.Module
    example: Inputs | None = None

    @classmethod
    def of(
        cls, net: nn.Module, parts: tuple[str, ...], n_calls: int, example: Inputs | None = None
    ) -> Split:
        """Return a module split at the last of some submodules, not yet verified."""
        memo: dict[int, Any] = without_graphs(net)
        memo |= {id(tensor): tensor for tensor in (*net.parameters(), *net.buffers())}
        for part in parts:
            memo[id(net.get_submodule(part))] = nn.Identity()
        features = _Features()
        if example is not None:
            memo[id(net.get_submodule(parts[-1]))] = features
        head = copy.deepcopy(net, memo)
        if example is not None:
            enter = partial(_enter, features, example)
            head.register_forward_pre_hook(enter, with_kwargs=True)
        return cls(net, parts, n_calls, head, example)

    def like(self, net: nn.Module) -> Split:
        """Return the same split of another module of the same structure."""
        return Split.of(net, self.parts, self.n_calls, self.example)

    def has_trunk_of(self, other: Split) -> bool:
        """Return whether two splits have trunks with the same values."""
        if self.parts != other.parts:
            return False
        mine, others = (
            [t for p in split.parts for t in split.net.get_submodule(p).state_dict().values()]
            for split in (self, other)
        )
        pairs = zip(mine, others, strict=True)
        return all(a.data_ptr() == b.data_ptr() or torch.equal(a, b) for a, b in pairs)

    def features(
        self,
        x: Inputs,
        *,
        rows_at_once: int | None = None,
        record: Callable[..., None] | None = None,
    ) -> Tensor:
        """Run the trunk in evaluation mode.

        Parameters
        ----------
        x : Inputs of shape (n, ...)
        rows_at_once : int, optional
            None: all.
        record : callable, optional
            A forward hook for each of the submodules that are run.

        Returns
        -------
        Tensor of shape (n, ...)
        """
        call, n_left = FunctionalCall(self.net, (), training=False), self.n_calls

        def stop(module: nn.Module, args: Any, output: Any) -> None:
            nonlocal n_left
            n_left -= 1
            if not n_left:
                raise _ReachedEnd(output)

        if record is not None:
            for module in call.module.modules():
                module._forward_hooks[-2] = record
        call.module.get_submodule(self.parts[-1])._forward_hooks[-1] = stop
        features = []
        with ordinary_modes(grad=False):
            for rows in split(x, rows_at_once or n_rows(x)):
                n_left = self.n_calls
                try:
                    call({}, rows)
                except _ReachedEnd as reached:
                    features.append(reached.output)
        return features[0] if len(features) == 1 else torch.cat(features)


class _Features(nn.Module):
    """Stands for the end of a trunk: returns the features, whatever it is called with."""

    value: Tensor

    def forward(self, *args: Any, **kwargs: Any) -> Tensor:
        return self.value


def _enter(
    features: _Features, example: Inputs, head: nn.Module, args: Any, kwargs: Any
) -> tuple[Any, Any]:
    """Pass the input of a head to the end of its trunk, and call it with rows of x."""
    features.value = args[0]
    n = len(args[0])
    return arguments_of(
        head, map_arrays(lambda array: array.expand((n, *array.shape[1:])), example)
    )


class _ReachedEnd(Exception):  # noqa: N818  # it is a signal
    """The end of the trunk has been reached: the head need not run."""

    def __init__(self, output: Any) -> None:
        super().__init__()
        self.output = output


def split_at(
    net: nn.Module,
    trunk: str,
    learned: Collection[str],
    x: Inputs,
    select: Selection | None = None,
) -> Split:
    """Split a module at the output of a submodule.

    Parameters
    ----------
    net : nn.Module
    trunk : str
        Name of the submodule.
    learned : collection of str
        Names of the parameters whose values are drawn or learned.
    x : Inputs of shape (n, ...)
    select : Selection, optional
        Takes a part of the output.

    Raises
    ------
    ValueError
        If the submodule has some of these parameters, or the rest of the module cannot be computed
        from its output.
    """
    parameters = dict(net.named_parameters())
    inner = {id(parameter) for parameter in net.get_submodule(trunk).parameters()}
    for name in learned:
        if id(parameters[name]) in inner:
            raise ValueError(
                f"`trunk` {trunk!r} must have no parameters that are drawn or learned, got {name!r}"
                ": freeze it (requires_grad_(False)), or give it no prior."
            )
    found, reason = _verified(net, (trunk,), 1, learned, x, select)
    if found is None:
        raise ValueError(
            f"`trunk` {trunk!r} must be all that the network does with x before its head: {reason}."
        )
    return found


def find_split(
    net: nn.Module, learned: Collection[str], x: Inputs, select: Selection | None = None
) -> Split | None:
    """Split a module before its first submodule with parameters that are drawn or learned.

    Return None if nothing with parameters is called before it, or if the rest of the module cannot
    be computed from the last output before it.
    """
    parameters = dict(net.named_parameters())
    is_learned = {id(parameters[name]) for name in learned}
    calls, parts, n_before = _calls(net, x), list[str](), 0
    for name in calls:
        module = net.get_submodule(name)
        if any(id(parameter) in is_learned for parameter in module._parameters.values()):
            break
        n_before += 1
        is_inner = any(name.startswith(f"{part}.") for part in parts)
        if name and not is_inner and not any(id(p) in is_learned for p in module.parameters()):
            if name in parts:
                parts.remove(name)
            parts.append(name)
    if not any(any(True for _ in net.get_submodule(part).parameters()) for part in parts):
        return None
    return _verified(net, tuple(parts), calls[:n_before].count(parts[-1]), learned, x, select)[0]


def trunk_name(net: nn.Module, trunk: str | nn.Module | None) -> str | None:
    """Return the name of a submodule that is given by its name or itself."""
    if trunk is None:
        return None
    names = {name: module for name, module in net.named_modules() if name}
    if isinstance(trunk, nn.Module):
        found = [name for name, module in names.items() if module is trunk]
    elif isinstance(trunk, str):
        found = [trunk] if trunk in names else []
    else:
        raise TypeError(
            f"`trunk` must be a submodule of `net` or its name, got {type(trunk).__name__}."
        )
    if not found:
        raise ValueError(
            f"`trunk` must be a submodule of `net`, such as {next(iter(names), 'none')!r}, got "
            f"{shown(trunk)}."
        )
    return found[0]


def _calls(net: nn.Module, x: Inputs) -> list[str]:
    """Return the names of the submodules in the order in which they are called."""
    call = FunctionalCall(net, (), training=False)
    calls: list[str] = []
    for name, module in call.module.named_modules():
        module._forward_pre_hooks[-1] = lambda *_, name=name: calls.append(name)
    with ordinary_modes(grad=False), seeded(0):
        call({}, rows_of(x, slice(N_ROWS)))
    return calls


def _verified(
    net: nn.Module,
    parts: tuple[str, ...],
    n_calls: int,
    learned: Collection[str],
    x: Inputs,
    select: Selection | None,
) -> tuple[Split | None, str]:
    """Return the split if trunk and head compute what the module does; otherwise why not."""
    reason = ""
    rows = _varied_rows(x)
    for example in (None, clone(rows_of(x, slice(1)))):
        candidate = Split.of(net, parts, n_calls, example)
        reason = _difference(candidate, learned, rows, select)
        if not reason:
            return candidate, ""
    return None, reason


def _varied_rows(x: Inputs) -> Inputs:
    """Return the first rows of x, and more if these are equal in one of the arrays.

    If the head uses a mask, its output shows it only if the masks of the rows differ.
    """
    index = list(range(min(N_ROWS, n_rows(x))))
    for array in arrays_of(x):
        differs = _differs_from_first(array)
        if not bool(differs[index].any()) and bool(differs.any()):
            index.append(int(differs.nonzero()[0, 0]))
    rows: Inputs = rows_of(x, index)
    return rows


def is_varied(x: Inputs) -> bool:
    """Return whether each of several arrays has different rows, which show if a head uses them."""
    arrays = arrays_of(x)
    return len(arrays) == 1 or all(bool(_differs_from_first(array).any()) for array in arrays)


def _differs_from_first(array: Tensor) -> Tensor:
    return (array != array[:1]).reshape((len(array), -1)).any(1)


def _difference(
    split: Split, learned: Collection[str], rows: Inputs, select: Selection | None
) -> str:
    """Return why trunk and head do not compute what the module does; empty if they do."""
    mode: dict[str, Any] = {"training": False, "select": select}
    with ordinary_modes(grad=False), seeded(0):
        # A last layer that is 0 at first would hide what precedes it.
        values: Mapping[str, Tensor] = {
            name: parameter + torch.randn_like(parameter)
            for name, parameter in split.head.named_parameters()
            if name in learned and parameter.is_floating_point()
        }
        try:
            features = split.features(rows)
            if not isinstance(features, Tensor) or len(features) != n_rows(rows):
                return "its output is not a tensor with a row for each row of x"
            output = FunctionalCall(split.head, values, **mode)(values, features)
            expected = FunctionalCall(split.net, values, **mode)(values, rows)
        except Exception as error:
            return f"the rest fails on its output ({first_line(error)})"
    is_same = output.shape == expected.shape and torch.equal(output, expected)
    return "" if is_same else "the rest also uses x"
