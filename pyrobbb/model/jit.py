"""Pyro's Jit objectives: parameters and constants while `torch.jit.trace` records a model."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from itertools import pairwise

import pyro.poutine as poutine
import torch
from pyro.poutine.runtime import _PYRO_STACK


def is_compiled_by_pyro() -> bool:
    """Return whether a Jit objective of Pyro is collecting the parameters, or recording.

    For the former it runs the program in a block with a trace of the parameters alone.
    """
    if torch._C._get_tracing_state() is not None:
        return True
    return any(
        isinstance(outer, poutine.block_messenger.BlockMessenger)
        and isinstance(inner, poutine.trace_messenger.TraceMessenger)
        and inner.param_only
        for outer, inner in pairwise(_PYRO_STACK)
    )


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
