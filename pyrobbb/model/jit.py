"""Pyro's Jit objectives: parameters and constants while `torch.jit.trace` records a model."""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import pairwise

import pyro.poutine as poutine
import torch
from pyro.ops.jit import CompiledFunction
from pyro.poutine.runtime import _PYRO_STACK


def is_compiled_by_pyro() -> bool:
    """Return whether a Jit objective of Pyro is recording a step, or collecting its parameters.

    For the latter it runs the step in a block, under a trace of the parameters alone.
    """
    if torch._C._get_tracing_state() is None and not any(
        isinstance(outer, poutine.block_messenger.BlockMessenger)
        and isinstance(inner, poutine.trace_messenger.TraceMessenger)
        and inner.param_only
        for outer, inner in pairwise(_PYRO_STACK)
    ):
        return False
    frame = inspect.currentframe()
    while frame is not None:
        if frame.f_code is CompiledFunction.__call__.__code__:
            return True
        frame = frame.f_back
    return False


@contextmanager
def as_constants() -> Iterator[None]:
    """Do not record the block: what it computes from parameters, such as shapes, is constant."""
    state = torch._C._get_tracing_state()
    if state is None:
        yield
        return
    set_state = torch._C._set_tracing_state  # type: ignore[attr-defined]
    set_state(None)
    try:
        yield
    finally:
        set_state(state)
