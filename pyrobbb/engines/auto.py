"""The choice between fused and compiled steps, and the number of threads."""

from __future__ import annotations

import logging
import math
import os
import shutil
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import numpy as np
import torch
from torch import Tensor

from .base import Steps
from .compiled import CompiledEngine, obstacle_to_compiling
from .fused import FusedEngine

logger = logging.getLogger(__name__)

COMPILE_SECONDS = 6.0
"""Estimated time of a compilation. Measured: 6 s without torch's cache on disk, 2 s with it."""
CACHED_COMPILE_SECONDS = 0.5
"""Estimated time of a compilation if this process has already compiled a similar loop."""
PYTHON_SAVING = 0.9
ARITHMETIC_SAVING = 0.42
"""Fractions of a fused step's time in Python, and of its time in arithmetic, that compilation saves
(benchmarks/RESULTS.md)."""
PYTHON_SECONDS = 0.28e-3
"""Time in Python of a fused step."""
CALL_SECONDS = 1e-3
"""Overhead of a compiled call."""
N_PROBES, PROBE_STEPS = 3, 16
"""Number of calls that are timed before the choice, and number of steps in each."""

MAX_SINGLE_THREAD_SIZE = 2**15
"""Number of elements per step up to which one thread is faster than several."""
DEFAULT_THREADS = torch.get_num_threads()


class AutoEngine:
    """Engine that takes fused steps, and switches to compiled ones if this saves time overall.

    Parameters
    ----------
    fused : FusedEngine
    n_steps : int
        Number of steps of the fit.
    n_consecutive : int
        Number of consecutive steps between two evaluations of the parameters, such as those for
        validation.
    batch_size, ragged
        As for `CompiledEngine`.
    """

    def __init__(
        self, fused: FusedEngine, n_steps: int, *, n_consecutive: int, batch_size: int, ragged: bool
    ) -> None:
        self._engine: FusedEngine | CompiledEngine = fused
        self._fused, self._n_consecutive = fused, n_consecutive
        self._batch_size, self._ragged = batch_size, ragged
        self._n_left = n_steps
        self._seconds: list[float] = []

    @property
    def name(self) -> str:
        """The name of the engine currently in use."""
        return self._engine.name

    @property
    def max_steps_per_call(self) -> int:
        """Maximum number of steps per call of `run`."""
        n = self._engine.max_steps_per_call
        return min(n, PROBE_STEPS) if self._is_probing else n

    def run(self, steps: Steps, losses: np.ndarray) -> None:
        """Take the steps; write the nll and the KL divergence before each step to `losses`."""
        start = time.perf_counter()
        self._engine.run(steps, losses)
        self._n_left -= len(steps)
        if self._is_probing:
            self._seconds.append((time.perf_counter() - start) / len(steps))
            if len(self._seconds) == N_PROBES and self._pays_to_compile(steps):
                self._engine = self._compiled()

    def sync(self) -> None:
        """Copy the current parameters to the networks and guides."""
        self._engine.sync()

    def state_dict(self) -> dict[str, Tensor]:
        """Return the state of the engine in use, and which it is: the choice depends on timings."""
        return {
            **self._engine.state_dict(),
            "n_left": torch.tensor(self._n_left),
            "n_probes": torch.tensor(len(self._seconds)),
            "is_compiled": torch.tensor(self._engine is not self._fused),
        }

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """Restore a state returned by `state_dict`, and the engine that was in use."""
        self._fused.load_state_dict(state)
        self._n_left = int(state["n_left"])
        self._seconds = [math.inf] * int(state["n_probes"])
        if bool(state["is_compiled"]):
            self._engine = self._compiled()

    @property
    def _is_probing(self) -> bool:
        return self._engine is self._fused and len(self._seconds) < N_PROBES

    def _compiled(self) -> CompiledEngine:
        return CompiledEngine(self._fused, batch_size=self._batch_size, ragged=self._ragged)

    def _pays_to_compile(self, steps: Steps) -> bool:
        seconds, pays = min(self._seconds), False
        reason = obstacle_here(self._fused)
        if reason is None:
            try:
                is_cached = self._compiled().is_cached(steps)
            except RuntimeError as error:  # the module draws numbers that are not masks of dropout
                reason = str(error)
            else:
                cost = CACHED_COMPILE_SECONDS if is_cached else COMPILE_SECONDS
                pays = pays_to_compile(seconds, self._n_left, self._n_consecutive, cost)
        logger.info(
            "A fused step takes %.2g ms, and %d are left: they will %sbe compiled%s.",
            1e3 * seconds,
            self._n_left,
            "" if pays else "not ",
            f" ({reason})" if reason else "",
        )
        return pays


def pays_to_compile(seconds: float, n_steps: int, n_consecutive: int, cost: float) -> bool:
    """Return whether compiling saves more time than it costs.

    Parameters
    ----------
    seconds : float
        Time of a fused step.
    n_steps : int
        Number of steps left.
    n_consecutive : int
        Number of consecutive steps between two evaluations of the parameters.
    cost : float
        Time of the compilation, in seconds.
    """
    in_python = min(seconds, PYTHON_SECONDS)
    saved = PYTHON_SAVING * in_python + ARITHMETIC_SAVING * (seconds - in_python)
    return n_steps * (saved - CALL_SECONDS / n_consecutive) > cost


def obstacle_here(fused: FusedEngine) -> str | None:
    """Return why steps are not compiled on this device or machine, or None."""
    device = fused.chains[0].guide.loc.device.type
    if device != "cpu":
        return f"on the device {device!r}"
    if not any(shutil.which(name) for name in (os.environ.get("CXX", "c++"), "g++", "clang++")):
        return "there is no C++ compiler"
    return obstacle_to_compiling(fused)


@contextmanager
def limit_threads(n_elements: int) -> Iterator[None]:
    """Run torch on one thread where that is faster, unless the user has set the number of threads.

    Parameters
    ----------
    n_elements : int
        Number of elements of the vectors that a step computes on.
    """
    before = torch.get_num_threads()
    is_set = before != DEFAULT_THREADS or any(
        name in os.environ for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS")
    )
    if is_set or n_elements > MAX_SINGLE_THREAD_SIZE or before == 1:
        yield
        return
    try:
        torch.set_num_threads(1)
        yield
    finally:
        torch.set_num_threads(before)
