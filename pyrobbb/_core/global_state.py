"""State that is global to the process: its lock, settings that threads share, and forks.

torch's default generator and the stack of Pyro's handlers belong to the process, not to a thread.
Whoever needs them holds a lock. Predictions by `MeanFieldGuide` do not need them.
"""

from __future__ import annotations

import gc
import logging
import os
import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from typing import Any

import pyro
import pyro.poutine as poutine
import torch
from pyro.poutine.runtime import _PYRO_STACK


class _Lock:
    """A reentrant lock that a thread which has just released it cannot take before a waiting one.

    Locks of Python are not fair: a fit that releases one between two steps and takes it again at
    once would keep all other threads out. Here a thread that waits holds `turn`, so that the next
    ones queue behind it.
    """

    def __init__(self) -> None:
        self.turn, self.lock = threading.Lock(), threading.RLock()
        self.undo: list[Callable[[], object]] = []  # for a forked child; see `undone_after_fork`

    def acquire(self, seconds: float = -1) -> bool:
        """Wait in the queue, and return whether the lock was free in time."""
        if not self.turn.acquire(timeout=seconds):
            return False
        try:
            return self.lock.acquire(timeout=seconds)
        finally:
            self.turn.release()

    def is_mine(self) -> bool:
        return bool(self.lock._is_owned())  # type: ignore[attr-defined]  # as in Condition


_lock = _Lock()
_forking = threading.local()

FORK_SECONDS = 5.0
"""How long a fork waits for a thread that changes the global state."""


@contextmanager
def global_state_locked() -> Iterator[None]:
    """Hold the lock of torch's default generator and of Pyro's stack of handlers."""
    if _lock.is_mine():
        yield
        return
    try:
        _lock.acquire()
        handlers, local_params = list(_PYRO_STACK), pyro.settings.get("module_local_params")
        with (
            undone_after_fork(lambda: _PYRO_STACK.__setitem__(slice(None), handlers)),
            undone_after_fork(lambda: pyro.settings.set(module_local_params=local_params)),
        ):
            yield
    finally:
        if _lock.is_mine():  # not if Ctrl-C came while it waited
            _lock.lock.release()


@contextmanager
def undone_after_fork(undo: Callable[[], object]) -> Iterator[None]:
    """Call a function in a child that another thread forks while this one is in the block.

    Parameters
    ----------
    undo : callable
        Restores what the block changes. The caller holds the lock.
    """
    _lock.undo.append(undo)
    try:
        yield
    finally:
        if undo in _lock.undo:
            _lock.undo.remove(undo)


@contextmanager
def isolated_from_pyro(params: dict[str, Any] | None = None) -> Iterator[None]:
    """Run a Pyro program with its own param store, unseen by the handlers around this block.

    Parameters
    ----------
    params : dict, optional
        State of the param store, updated at the end of the block. None: empty.
    """
    with global_state_locked():
        store = pyro.get_param_store()
        outside = store.get_state()

        def restore() -> None:
            store.clear()
            store.set_state(outside)

        with undone_after_fork(restore), store.scope(params), poutine.block():
            yield


class SharedSetting:
    """A setting of the process that is changed as long as any thread is in its block.

    A context manager that saves and restores such a setting goes wrong in threads: if A saves, B
    saves, A restores and B restores, the changed value stays for ever.

    Parameters
    ----------
    change : callable
        Returns the context manager that changes the setting.
    """

    def __init__(self, change: Callable[[], AbstractContextManager[Any]]) -> None:
        self._change = change
        self.lock, self._changed = threading.Lock(), ExitStack()
        self._users: dict[object, int] = {}  # the thread of each block
        self._threads: set[int] = set()

    @contextmanager
    def __call__(self) -> Iterator[None]:
        """Change the setting within the block."""
        user, thread = object(), threading.get_ident()
        try:
            with self.lock:
                if not self._users:
                    self._changed.enter_context(self._change())
                self._users[user] = thread
                self._threads.add(thread)
            yield
        finally:
            with self.lock:
                if self._users.pop(user, None) is not None and not self._users:
                    self._changed.close()

    def was_used_here(self) -> bool:
        """Return whether this thread has ever been in a block."""
        return threading.get_ident() in self._threads

    def after_fork(self) -> None:
        """Forget the blocks of threads that a forked child does not have."""
        self.lock = threading.Lock()
        here, others = threading.get_ident(), bool(self._users)
        self._users = {user: thread for user, thread in self._users.items() if thread == here}
        if others and not self._users:
            self._changed.close()


@contextmanager
def _no_fallback_warnings() -> Iterator[None]:
    functorch: Any = torch._C._functorch
    functorch._set_vmap_fallback_warning_enabled(False)
    try:
        yield
    finally:
        functorch._set_vmap_fallback_warning_enabled(True)


@contextmanager
def _no_collection() -> Iterator[None]:
    if not gc.isenabled():
        yield
        return
    try:
        gc.disable()
        yield
    finally:
        gc.enable()


without_validation = SharedSetting(lambda: pyro.validation_enabled(False))
"""Turn off the validation of arguments of distributions and of Pyro's models within a block."""

without_vmap_warnings = SharedSetting(_no_fallback_warnings)
"""Silence, within a block, torch's warnings of operations that vmap runs in a loop.

This is a switch of torch. `warnings.catch_warnings` would replace the filters of all threads.
"""

without_collection = SharedSetting(_no_collection)
"""Do not look for cyclic garbage within a block that makes very many objects, most of which stay.

In a compilation by torch the search takes a fifth of the time of Python.
"""


_SETTINGS = (without_validation, without_vmap_warnings, without_collection)


@contextmanager
def ordinary_modes(*, grad: bool) -> Iterator[None]:
    """Compute as if the caller had not turned on any mode of torch.

    Under `torch.no_grad` or `torch.inference_mode` a fit would learn nothing; under
    `torch.autocast` it would run in half precision; and a default device need not be that of the
    network. Also for functions, as a decorator.

    Parameters
    ----------
    grad : bool
        Whether gradients are recorded.
    """
    with ExitStack() as modes:
        modes.enter_context(torch.inference_mode(False))
        modes.enter_context(torch.set_grad_enabled(grad))
        for device in ("cpu", "cuda"):
            if torch.is_autocast_enabled(device):
                modes.enter_context(torch.autocast(device, enabled=False))
        if torch._C._len_torch_function_stack():  # a default device is a mode, too
            modes.enter_context(torch.device("cpu"))
        yield


def _before_fork() -> None:
    """Wait until no other thread is changing the state that the child will have.

    Not for ever: whoever holds the lock could wait for the child. The child then restores what it
    can.
    """
    _forking.holds_lock = not _lock.is_mine() and _lock.acquire(FORK_SECONDS)
    for setting in _SETTINGS:
        setting.lock.acquire()


def _after_fork_in_parent() -> None:
    for setting in _SETTINGS:
        setting.lock.release()
    if _forking.holds_lock:
        _lock.lock.release()


def _after_fork_in_child() -> None:
    """Restore what other threads of the parent had changed, which are not in the child."""
    _lock.turn = threading.Lock()
    if not _lock.is_mine():
        undo = _lock.undo
        _lock.__init__()  # type: ignore[misc]
        for restore in reversed(undo):
            restore()
    elif _forking.holds_lock:
        _lock.lock.release()
    has_computed = without_validation.was_used_here()
    for setting in _SETTINGS:
        setting.after_fork()
    if has_computed and torch.get_num_threads() > 1:
        # The threads of OpenMP are not in the child. This thread would wait for them for ever.
        torch.set_num_threads(1)


if hasattr(os, "register_at_fork"):
    os.register_at_fork(
        before=_before_fork,
        after_in_parent=_after_fork_in_parent,
        after_in_child=_after_fork_in_child,
    )


@contextmanager
def without_messages_of(*names: str) -> Iterator[None]:
    """Silence what loggers of torch say below errors, unless the user has asked for its log."""
    loggers = [logging.getLogger(name) for name in names]
    before = [logger.level for logger in loggers]
    try:
        if "TORCH_LOGS" not in os.environ:
            for logger in loggers:
                logger.setLevel(logging.ERROR)
        yield
    finally:
        for logger, level in zip(loggers, before, strict=True):
            logger.setLevel(level)
