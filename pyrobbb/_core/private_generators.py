"""Draws from generators of their own, which no other thread can disturb."""

from __future__ import annotations

import functools
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Self

import torch
from torch import Tensor
from torch.utils._python_dispatch import (
    TorchDispatchMode,
    _get_current_dispatch_mode,
    _pop_mode,
    _push_mode,
)

from .global_state import global_state_locked

aten = torch.ops.aten


class ThreadLocalMode(TorchDispatchMode):
    """A dispatch mode that is active in one thread, and costs as little as possible."""

    def __enter__(self) -> Self:
        # Not by `super`, which also sets a variable of torch's module, shared by all threads.
        _push_mode(self)
        return self

    def __exit__(self, *error: object) -> None:
        _pop_mode()

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        return False  # a wrapper that would double the cost of each call


class PrivateGenerators(ThreadLocalMode):
    """A block in which torch draws from generators of its own, in this thread only.

    It can be entered several times, and goes on where it stopped. Each operation of torch in the
    block takes about 5 microseconds longer.

    Parameters
    ----------
    seed : int
        Of the generators of all devices.
    """

    def __init__(self, seed: int) -> None:
        super().__init__()
        self._seed = seed
        self._generators: dict[torch.device, torch.Generator | None] = {}

    def __torch_dispatch__(
        self,
        func: Any,
        types: Iterable[type],
        args: tuple[Any, ...] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        """Run an operation, with a generator if it draws numbers."""
        kwargs = kwargs or {}
        if not _draws_numbers(func) or kwargs.get("generator") is not None:
            return func(*args, **kwargs)
        generator = self._generator(_device_of(args, kwargs))
        if generator is None:
            return func(*args, **kwargs)
        taking = _taking_generator(func)
        if taking is not None:
            return taking(*args, **{**kwargs, "generator": generator})
        return _with_default(generator, func, args, kwargs)

    def _generator(self, device: torch.device) -> torch.Generator | None:
        if device not in self._generators:
            try:
                made = torch.Generator(device).manual_seed(self._seed)
            except RuntimeError:  # a device without random numbers, such as "meta"
                made = None
            self._generators[device] = made
        return self._generators[device]


@contextmanager
def without_private_generators() -> Iterator[None]:
    """Let torch draw from its default generators within a block of `PrivateGenerators`."""
    suspended = []
    while isinstance(_get_current_dispatch_mode(), PrivateGenerators):
        suspended.append(_pop_mode())
    try:
        yield
    finally:
        for mode in reversed(suspended):
            _push_mode(mode)


@functools.cache
def _draws_numbers(func: Any) -> bool:
    return torch.Tag.nondeterministic_seeded in func.tags


@functools.cache
def _taking_generator(func: Any) -> Any:
    """Return the variant of an operation that has an argument `generator`, or None."""
    packet, name = func.overloadpacket, func._overloadname
    if name == "default" and packet in _LIKE and "generator" not in packet.overloads():
        return _LIKE[packet]  # torch has had the variant since 2.10
    for variant in (name, "generator" if name == "default" else f"{name}_generator"):
        overload = getattr(packet, variant, None)
        if overload and any(a.name == "generator" for a in overload._schema.arguments):
            return overload
    return None


_LIKE = {
    aten.rand_like: lambda like, generator, **kw: aten.empty_like(like, **kw).uniform_(
        generator=generator
    ),
    aten.randn_like: lambda like, generator, **kw: aten.empty_like(like, **kw).normal_(
        generator=generator
    ),
    aten.randint_like: lambda like, high, generator, **kw: aten.empty_like(like, **kw).random_(
        0, high, generator=generator
    ),
}


def _device_of(args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> torch.device:
    device = kwargs.get("device")
    if device is None:
        device = next((arg.device for arg in args if isinstance(arg, Tensor)), "cpu")
    device = torch.device(device)
    if device.type == "cuda" and device.index is None:
        return torch.device("cuda", torch.cuda.current_device())
    return device


def _with_default(
    generator: torch.Generator, func: Any, args: tuple[Any, ...], kwargs: Mapping[str, Any]
) -> Any:
    """Run an operation that uses the default generator alone, in the state of another."""
    device = generator.device
    default = torch.default_generator
    if device.type == "cuda":
        default = torch.cuda.default_generators[device.index]
    elif device.type == "mps":
        default = torch.mps._get_default_mps_generator()
    with global_state_locked():
        before = default.get_state()
        default.set_state(generator.get_state())
        try:
            result = func(*args, **kwargs)
            generator.set_state(default.get_state())
        finally:
            default.set_state(before)
    return result
