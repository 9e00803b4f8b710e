"""Calling a module with other values of its parameters, without changing the module."""

from __future__ import annotations

import copy
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from types import MethodType
from typing import Any

import torch
from torch import Tensor, nn

from .._core.trees import Inputs, clone
from .arguments import call_module
from .outputs import Selection

OF_EVERY_MODULE = frozenset(vars(nn.Module()))
OWN_DICTS = ("_parameters", "_buffers", "_forward_hooks", "_forward_pre_hooks")
"""Dictionaries of every module in which a copy may hold other items than the module."""


class FunctionalCall:
    """Calls a copy of a module with other values in place of its parameters.

    The copy is a second tree of modules with the same tensors. `torch.func.functional_call` puts
    the values into the module itself, where other threads see them, and leaves in it whatever
    `forward` stores there. Here nothing remains of a call, except that buffers are updated if the
    module is in training mode. The module receives a copy of x, because it may write into it.

    An instance is for one thread, and does not follow later changes of the module's attributes.

    Parameters
    ----------
    net : nn.Module
    names : iterable of str
        Names of the parameters to replace.
    training : bool, optional
        Mode of the copy; buffers are then not updated. None: that of each module.
    select : Selection, optional
        Takes a part of the output. None: all of it.

    Attributes
    ----------
    module : nn.Module
        The copy.
    """

    def __init__(
        self,
        net: nn.Module,
        names: Iterable[str],
        *,
        training: bool | None = None,
        select: Selection | None = None,
    ) -> None:
        self._select = select
        modules = list(net.modules())
        copies: dict[int, Any] = {id(m): object.__new__(type(m)) for m in modules}
        self.module: nn.Module = copies[id(net)]
        self._parts = [
            _ModuleCopy(m, copies, training, keeps_buffers=net.training and training is None)
            for m in modules
        ]
        self._parts_with_buffers = [part for part in self._parts if part.buffers]
        parameters = dict(net.named_parameters())
        replaced = {id(parameters[name]): name for name in names}
        self._slots = [  # a tied parameter has several slots
            (copies[id(module)]._parameters, key, replaced[id(parameter)], _constraint(module, key))
            for module in modules
            for key, parameter in module._parameters.items()
            if id(parameter) in replaced
        ]

    def __call__(self, values: Mapping[str, Tensor], x: Inputs) -> Tensor:
        """Call the module on x, and return what is selected of its output."""
        originals = [parameters[key] for parameters, key, *_ in self._slots]
        for part in self._parts_with_buffers:
            part.load_buffers()
        try:
            for parameters, key, name, constrained in self._slots:
                value = values[name]
                parameters[key] = value if constrained is None else constrained(value)
            output: Tensor = call_module(self.module, clone(x))
            return output if self._select is None else self._select(output)
        finally:
            for (parameters, key, *_), original in zip(self._slots, originals, strict=True):
                parameters[key] = original
            for part in self._parts:
                part.restore()

    @property
    def has_changed_buffers(self) -> bool:
        """Whether the last call has changed buffers, which are restored before the next.

        Layers may write back the values that a buffer had, as instance norm does in torch 2.6.
        """
        return any(part.has_changed_buffers for part in self._parts_with_buffers)


class _ModuleCopy:
    """A copy of one module of a tree, which can be restored.

    Parameters
    ----------
    module : nn.Module
    copies : mapping of int to nn.Module
        The copies of all modules of the tree, still empty, by the id of the module.
    training : bool, optional
        Mode of the copy. None: that of the module.
    keeps_buffers : bool
        Whether the module is given the buffers that the copy assigns; otherwise the copy's are
        restored.
    """

    def __init__(
        self,
        module: nn.Module,
        copies: Mapping[int, nn.Module],
        training: bool | None,
        *,
        keeps_buffers: bool,
    ) -> None:
        self._attributes = vars(copies[id(module)])
        self._constant: dict[str, Any] = {}
        self._containers: dict[str, Any] = {}
        self._tensors: dict[str, _Restorable] = {}
        for name, value in vars(module).items():
            if name in OWN_DICTS:
                self._constant[name] = {key: _relinked(v, copies) for key, v in value.items()}
            elif isinstance(value, Tensor) and not isinstance(value, nn.Parameter):
                self._tensors[name] = _Restorable(value)
            elif isinstance(value, list | dict | set | deque) and name not in OF_EVERY_MODULE:
                self._containers[name] = _relinked(value, copies)
            else:
                self._constant[name] = _relinked(value, copies)
        if training is not None:
            self._constant["training"] = training
        self._originals = module._buffers
        self.buffers: dict[str, Any] = self._constant["_buffers"]
        self._restorable = {
            name: _Restorable(buffer)
            for name, buffer in self._originals.items()
            if buffer is not None and not keeps_buffers
        }
        self._keeps_buffers = keeps_buffers
        self.load_buffers()
        self.restore()

    def restore(self) -> None:
        """Restore all attributes, and update the module's buffers if they are kept."""
        self._attributes.clear()
        self._attributes.update(self._constant)
        for name, value in self._containers.items():
            self._attributes[name] = _relinked(value, {})
        for name, tensor in self._tensors.items():
            self._attributes[name] = tensor.value
        if self._keeps_buffers:
            for name, buffer in self.buffers.items():
                if buffer is not self._originals[name] and not _is_mapped(buffer):
                    self._originals[name] = None if buffer is None else buffer.detach()

    def load_buffers(self) -> None:
        """Take over the module's buffers, or copies of them."""
        for name, buffer in self._originals.items():
            copied = self._restorable.get(name)
            self.buffers[name] = buffer if copied is None else copied.value

    @property
    def has_changed_buffers(self) -> bool:
        """Whether a buffer no longer has the values that it had."""
        return any(not copy.has_values(self.buffers[n]) for n, copy in self._restorable.items())


class _Restorable:
    """A copy of a tensor, made again after it has been written to."""

    def __init__(self, tensor: Tensor) -> None:
        self._tensor = tensor.detach()
        self._copy: Tensor | None = None
        self._version = 0

    @property
    def value(self) -> Tensor:
        """The copy, with the tensor's values."""
        if self._copy is None or not self.is_current(self._copy):
            with torch.inference_mode(False):  # whose tensors have no version
                self._copy = self._tensor.clone()
            self._version = self._copy._version
        return self._copy

    def is_current(self, tensor: Tensor | None) -> bool:
        """Return whether a tensor is the copy, not written to."""
        return tensor is not None and tensor is self._copy and tensor._version == self._version

    def has_values(self, tensor: Tensor | None) -> bool:
        """Return whether a tensor has the values of the copy, written to or not."""
        if tensor is None or self.is_current(tensor):
            return tensor is not None
        return tensor.dtype == self._tensor.dtype and torch.equal(tensor, self._tensor)


def _relinked(value: Any, copies: Mapping[int, nn.Module]) -> Any:
    """Return a value that refers to the copies of modules; containers are copied."""
    if isinstance(value, nn.Module):
        return copies.get(id(value), value)
    if isinstance(value, MethodType) and id(value.__self__) in copies:
        return MethodType(value.__func__, copies[id(value.__self__)])
    if type(value) is partial:
        arguments = (_relinked(argument, copies) for argument in value.args)
        keywords = _relinked(value.keywords, copies)
        return partial(_relinked(value.func, copies), *arguments, **keywords)
    if isinstance(value, dict):
        copied_dict = copy.copy(value)
        copied_dict.update((key, _relinked(item, copies)) for key, item in value.items())
        return copied_dict
    if isinstance(value, list):
        copied_list = copy.copy(value)
        copied_list[:] = [_relinked(item, copies) for item in value]
        return copied_list
    if type(value) is tuple:
        return tuple(_relinked(item, copies) for item in value)
    if isinstance(value, set | deque):
        return copy.copy(value)
    return value


def _constraint(module: nn.Module, key: str) -> Callable[[Tensor], Tensor] | None:
    """Return a function that sets the padding row of an embedding to its fixed value."""
    index = getattr(module, "padding_idx", None)
    if not isinstance(module, nn.Embedding) or index is None or key != "weight":
        return None
    weight = module.weight.detach()
    is_padding = (torch.arange(len(weight), device=weight.device) == index)[:, None]
    return lambda value: torch.where(is_padding, weight, value)


def _is_mapped(tensor: Tensor | None) -> bool:
    """Return whether a tensor exists only within a call of `torch.vmap`."""
    return tensor is not None and torch._C._functorch.is_functorch_wrapped_tensor(tensor)


@contextmanager
def evaluating(module: nn.Module) -> Iterator[None]:
    """Put a module into evaluation mode, and restore the mode of each submodule at the end."""
    modes = {part: part.training for part in module.modules()}
    try:
        module.eval()
        yield
    finally:
        for part, training in modes.items():
            part.training = training
