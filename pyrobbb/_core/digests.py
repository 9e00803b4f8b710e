"""Digests of values and of code: equal for equal values, in any process and on any day.

Two callables have the same digest if they run the same code on the same values: constants,
defaults, closures, the state of instances, and the globals that the code names. Names of files and
line numbers do not count. What belongs to an installed package is identified by its qualified name.
"""

from __future__ import annotations

import copyreg
import dis
import functools
import hashlib
import sys
import sysconfig
import types
import weakref
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

PLAIN = (type(None), bool, int, float, complex, str, bytes, type(Ellipsis))
NOT_CODE = {
    *("__dict__", "__weakref__", "__module__", "__qualname__", "__doc__", "_abc_impl"),
    *("__annotations__", "__annotate__", "__annotate_func__", "__annotations_cache__"),
    *("__orig_bases__", "__parameters__", "__type_params__", "__abstractmethods__"),
    *("__firstlineno__", "__static_attributes__", "__match_args__", "__conditional_annotations__"),
    *("__dataclass_fields__", "__dataclass_params__"),
}
"""Attributes of a class that its methods do not depend on."""
NOT_FORWARD = {"training", "_parameters", "_buffers", "_compiled_call_impl"}
"""Attributes of a module that are set by a fit, or are part of its state dict."""
STDLIB = sysconfig.get_path("stdlib")
HEAP_TYPE = 1 << 9
"""Flag of the classes that are made by Python code."""


class NoDigestError(TypeError):
    """A value whose content cannot be read, such as an open file."""


def digest(value: Any, *, with_parameters: bool = True) -> str:
    """Return a digest of a value.

    Parameters
    ----------
    value : object
    with_parameters : bool
        False: of the parameters and buffers of modules, only the shapes count.

    Raises
    ------
    NoDigestError
        If the value holds something whose content cannot be read, which it names.
    """
    return _shortened(_Digester(with_parameters).of, value)


def digest_of_constants(value: Any) -> str:
    """Return a digest of the code of a callable, and of the numbers and strings it is made with.

    Unlike `digest`, it disregards objects that may change from call to call, such as lists.
    """
    return _shortened(_ConstantsDigester().of, value)


def _shortened(of: Any, value: Any) -> str:
    try:
        digested: bytes = of(value)
    except RecursionError as error:
        raise NoDigestError("deeply nested objects") from error
    return digested.hex()[:16]


def _join(kind: str, *parts: bytes | memoryview | str | Iterable[bytes]) -> bytes:
    """Return the hash of a kind of value with its parts."""
    whole = hashlib.sha256(kind.encode())
    for part in parts:
        if isinstance(part, str):
            part = part.encode("utf-8", "surrogatepass")
        if not isinstance(part, bytes | memoryview):
            part = b"".join(part)
        whole.update(len(part).to_bytes(8, "little"))
        whole.update(part)
    return whole.digest()


class _Digester:
    def __init__(self, with_parameters: bool = True) -> None:
        self._with_parameters = with_parameters
        self._done: dict[int, bytes] = {}
        self._depth: dict[int, int] = {}  # of the objects whose parts are being digested
        self._alive: list[Any] = []  # so that no identity is used twice

    def of(self, value: Any) -> bytes:
        """Return the digest of a value."""
        if type(value) in PLAIN:
            return _join(type(value).__name__, repr(value))
        number = id(value)
        if number in self._depth:
            return _join("cycle", str(len(self._depth) - self._depth[number]))
        if number not in self._done:
            self._depth[number] = len(self._depth)
            self._alive.append(value)
            try:
                self._done[number] = self._of_object(value)
            finally:
                del self._depth[number]
        return self._done[number]

    def of_all(self, values: Iterable[Any]) -> list[bytes]:
        """Return the digests of several values."""
        return [self.of(value) for value in values]

    def _of_object(self, value: Any) -> bytes:
        if isinstance(value, type):
            return self._of_class(value)
        if isinstance(value, types.FunctionType):
            return self._of_function(value)
        if isinstance(value, types.CodeType):
            return self._of_code(value)
        if isinstance(value, types.MethodType):
            return _join("method", self.of(value.__func__), self.of(value.__self__))
        if isinstance(value, types.BuiltinFunctionType):
            return self._of_instance(value)
        if isinstance(value, types.ModuleType):
            return _join("python module", value.__name__)
        if isinstance(value, staticmethod | classmethod):
            return _join(type(value).__name__, self.of(value.__func__))
        if isinstance(value, property):
            return _join("property", self.of_all([value.fget, value.fset, value.fdel]))
        if isinstance(value, functools.cached_property):
            return _join("cached_property", self.of(value.func))
        if isinstance(value, functools.partial):
            options = tuple(sorted_items(value.keywords))
            return _join("partial", self.of_all([value.func, value.args, options]))
        if type(value) is tuple:
            return _join("tuple", self.of_all(value))
        return self._of_content(value)

    def _of_content(self, value: Any) -> bytes:
        if isinstance(value, nn.Parameter) and not self._with_parameters:
            return _join("parameter", str(tuple(value.shape)))
        if isinstance(value, Tensor):
            return _of_tensor(value)
        if isinstance(value, np.ndarray):
            kind = f"{value.dtype.str}{value.shape}"
            if value.dtype.hasobject:
                return _join("array", kind, self.of(value.tolist()))
            return _join("array", kind, value.tobytes())
        if isinstance(value, nn.Module):
            return self._of_module(value)
        if type(value) is list:
            return _join("list", self.of_all(value))
        if type(value) is dict:
            return _join("dict", self.of_all(part for item in value.items() for part in item))
        if type(value) in (set, frozenset):
            return _join("set", sorted(self.of_all(value)))
        if isinstance(value, weakref.ref):
            return _join("weak reference")
        return self._of_instance(value)

    def _of_instance(self, value: Any) -> bytes:
        """Return the digest of the class and the state of an instance, as pickle would read it."""
        reduce = copyreg.dispatch_table.get(type(value))
        try:
            reduced: Any = value.__reduce_ex__(4) if reduce is None else reduce(value)
        except Exception as error:  # the class decides
            raise NoDigestError(f"a {type(value).__name__}") from error
        if isinstance(reduced, str):
            wrapped = getattr(value, "__wrapped__", None)  # as by functools.lru_cache
            return _join("global", reduced, str(getattr(value, "__module__", "")), self.of(wrapped))
        function, arguments, *rest = reduced
        parts = [list(part) if isinstance(part, Iterator) else part for part in rest]
        return _join("instance", self.of_all([function, arguments, *parts]))

    def _of_module(self, module: nn.Module) -> bytes:
        """Return the digest of the class and the attributes of a module of torch."""
        parts = [self.of(type(module))]
        tensors = {**module._parameters, **module._buffers}
        for name, tensor in tensors.items():
            parts += [_join("name", name), self._of_parameter(tensor)]
        for name, value in sorted(vars(module).items()):
            if name not in NOT_FORWARD:
                # The keys of hooks are numbers, which depend on what the process has done before.
                is_hooks = name.endswith(("_hooks", "_hooks_with_kwargs", "_hooks_always_called"))
                value = list(value.values()) if is_hooks and isinstance(value, Mapping) else value
                parts += [_join("name", name), self.of(value)]
        return _join("module", parts)

    def _of_parameter(self, tensor: Tensor | None) -> bytes:
        if tensor is None:
            return _join("None")
        kind = f"{tuple(tensor.shape)} {tensor.dtype} {tensor.requires_grad}"
        return _join(kind, _of_tensor(tensor)) if self._with_parameters else _join(kind)

    def _of_class(self, cls: type) -> bytes:
        if is_installed(cls.__module__) and (
            _is_importable(cls) or not cls.__flags__ & HEAP_TYPE  # written in C
        ):
            return _join("global", cls.__module__, cls.__qualname__)
        members = sorted((n, v) for n, v in _own_members(cls) if n not in NOT_CODE)
        parts = (part for n, v in members for part in (_join("name", n), self.of(v)))
        return _join("class", cls.__name__, self.of_all(cls.__bases__), parts)

    def _of_function(self, function: types.FunctionType) -> bytes:
        installed = is_installed(function.__module__)
        if installed and _is_importable(function):
            return _join("global", function.__module__, function.__qualname__)
        parts = [function.__code__, function.__defaults__, function.__kwdefaults__]
        cells = (_content(cell) for cell in function.__closure__ or ())
        named = {} if installed else dict(_named_globals(function.__code__, function.__globals__))
        return _join(
            "function", self.of_all(parts), self.of_all(cells), self.of_all(sorted_items(named))
        )

    def _of_code(self, code: types.CodeType) -> bytes:
        counts = (code.co_argcount, code.co_posonlyargcount, code.co_kwonlyargcount, code.co_flags)
        names = (code.co_names, code.co_varnames, code.co_freevars, code.co_cellvars)
        return _join("code", code.co_code, repr((counts, names)), self.of_all(code.co_consts))


class _ConstantsDigester(_Digester):
    def _of_content(self, value: Any) -> bytes:
        cls = type(value)
        named = _join("type", cls.__module__, cls.__qualname__)
        if not callable(value) or is_installed(cls.__module__):
            return named
        plain = {n: v for n, v in getattr(value, "__dict__", {}).items() if _is_constant(v)}
        return _join("callable", self._of_class(cls), self.of_all(sorted_items(plain)))


def sorted_items(named: Mapping[str, Any]) -> list[tuple[str, Any]]:
    """Return the items of a mapping, sorted by name."""
    return sorted(named.items(), key=lambda item: item[0])


def _own_members(cls: type) -> Iterator[tuple[str, Any]]:
    """Yield the members of a class as they were before torch made its first instance.

    The first instance of an optimizer wraps the `step` of its class, and an inherited one too.
    """
    for name, member in vars(cls).items():
        is_wrapped = False
        while getattr(member, "hooked", False):
            member, is_wrapped = member.__wrapped__, True
        if not is_wrapped or member.__qualname__ == f"{cls.__qualname__}.{name}":
            yield name, member


def _is_constant(value: Any) -> bool:
    if isinstance(value, tuple):
        return all(_is_constant(part) for part in value)
    return type(value) in PLAIN or isinstance(value, types.FunctionType | functools.partial)


def _of_tensor(tensor: Tensor) -> bytes:
    values = tensor.detach()
    try:
        if values.layout != torch.strided:
            values = values.to_dense()
        values = values.resolve_conj().resolve_neg().cpu().contiguous().reshape(-1)
        content = values.view(torch.uint8).numpy()
    except (RuntimeError, TypeError, NotImplementedError) as error:
        raise NoDigestError(f"a tensor of {tensor.layout} on {tensor.device}") from error
    return _join("tensor", f"{tuple(tensor.shape)} {tensor.dtype}", content.data)


def _content(cell: types.CellType) -> Any:
    try:
        return cell.cell_contents
    except ValueError:  # a name that has no value yet
        return ("no value",)


def _named_globals(code: types.CodeType, namespace: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    """Yield the globals that code names; of modules not installed, the attributes that it names."""
    path: list[str] = []
    value: Any = None
    for instruction in dis.get_instructions(code):
        name = instruction.argval
        if instruction.opname in ("LOAD_GLOBAL", "LOAD_NAME") and name in namespace:
            path, value = [name], namespace[name]
        elif instruction.opname in ("LOAD_ATTR", "LOAD_METHOD") and path:
            path, value = [*path, name], getattr(value, name, None)
        else:
            path = []
        if path and isinstance(value, types.ModuleType) and not is_installed(value.__name__):
            continue  # which of its attributes comes with the next instruction
        if path:
            yield ".".join(path), value
            path = []
    for constant in code.co_consts:
        if isinstance(constant, types.CodeType):
            yield from _named_globals(constant, namespace)


@functools.cache
def is_installed(module: str | None) -> bool:
    """Return whether a Python module belongs to pyrobbb, an installed package or Python itself."""
    top = (module or "").partition(".")[0]
    if top in ("__main__", __name__.partition(".")[0]):  # pytest's __main__ is installed
        return top != "__main__"
    package = sys.modules.get(top)
    places = [getattr(package, "__file__", None), *getattr(package, "__path__", ())]
    known = [Path(place) for place in places if place]
    if not known:
        return top in sys.stdlib_module_names  # built in
    folders = {"site-packages", "dist-packages"}
    return any(place.is_relative_to(STDLIB) or folders & {*place.parts} for place in known)


def _is_importable(value: Any) -> bool:
    found: Any = sys.modules.get(value.__module__)
    for name in value.__qualname__.split("."):
        found = getattr(found, name, None)
    return found is value
