"""Fixtures for the tests of the engines."""

import pytest
import torch
import torch._inductor
from engine_fits import python_loop

from pyrobbb.engines import compiled, compiled_loop, fused


@pytest.fixture
def loop_cache(monkeypatch):
    """Replace the cache of compiled loops by an empty one."""
    cache = compiled_loop.LoopCache()
    monkeypatch.setattr(compiled_loop, "LOOPS", cache)
    return cache


@pytest.fixture
def no_compiler(loop_cache, monkeypatch):
    """Make torch's compiler fail as it does where there is none for C++."""

    def fail(*args, **kwargs):
        raise RuntimeError("No working C++ compiler found\nin any of these places: ...")

    monkeypatch.setattr(torch._inductor, "compile", fail)


@pytest.fixture
def python_compiler(loop_cache, monkeypatch):
    """Replace the compiler by a Python loop over the traced step; return the compiled graphs."""
    graphs = []

    def compile_graph(traced, n_by_step, max_steps):
        graphs.append(traced)
        return python_loop(traced, None, None, None, max_steps, "")

    monkeypatch.setattr(compiled_loop, "_compile", compile_graph)
    return graphs


@pytest.fixture
def calls_of_256_steps(monkeypatch):
    """Split fits of 500 steps into several calls; tests of one network share a compiled loop."""
    monkeypatch.setattr(compiled, "MAX_STEPS_PER_CALL", 256)
    monkeypatch.setattr(fused, "MAX_STEPS_PER_CALL", 256)
