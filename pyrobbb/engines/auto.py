"""Which engine will be done first, and with how many threads."""

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
from .compiled import CompiledEngine, is_plain, was_compiled
from .fused import FusedEngine

logger = logging.getLogger(__name__)

COMPILE_SECONDS = 6.0
"""Between what compilation was seen to take: 5 s where torch has it in its cache on the disk, 12 s
where not (benchmarks/RESULTS.md)."""
KNOWN_SECONDS = 0.5
"""What is left of that if such steps have been compiled in this process."""
SAVED_IN_PYTHON = 0.9
SAVED_IN_ARITHMETIC = 0.42
"""The parts of a fused step that compilation saves: where Python takes most of it, and where
arithmetic does. See benchmarks/RESULTS.md."""
PYTHON_SECONDS = 0.28e-3
"""What Python takes of a fused step."""
CALL_SECONDS = 1e-3
"""What a compiled call takes beside its steps."""
PROBES, PROBE_STEPS = 3, 16

TINY = 2**15
"""Up to so many numbers of noise a step, one thread is faster than several."""
DEFAULT_THREADS = torch.get_num_threads()


class AutoEngine:
    """Takes fused steps, and goes over to compiled ones if enough are left to pay for compiling.

    Parameters
    ----------
    fused : FusedEngine
    n_steps : int
        How many steps there will be.
    n_in_a_row : int
        How many there will be before their results are looked at.
    batch_size, ragged
        As for `CompiledEngine`.
    """

    def __init__(
        self, fused: FusedEngine, n_steps: int, *, n_in_a_row: int, batch_size: int, ragged: bool
    ) -> None:
        self._engine: FusedEngine | CompiledEngine = fused
        self._fused, self._n_in_a_row = fused, n_in_a_row
        self._batch_size, self._ragged = batch_size, ragged
        self._n_left = n_steps
        self._seconds: list[float] = []

    @property
    def name(self) -> str:
        """The engine that takes the steps now."""
        return self._engine.name

    @property
    def max_steps_per_call(self) -> int:
        """How many steps it is best given in one call."""
        is_probing = self._engine is self._fused and len(self._seconds) < PROBES
        return (
            min(self._engine.max_steps_per_call, PROBE_STEPS)
            if is_probing
            else self._engine.max_steps_per_call
        )

    def run(self, steps: Steps, losses: np.ndarray) -> None:
        """Take the steps, and write down the nll and the KL divergence before each."""
        start = time.perf_counter()
        self._engine.run(steps, losses)
        self._n_left -= len(steps)
        if self._engine is self._fused and len(self._seconds) < PROBES:
            self._seconds.append((time.perf_counter() - start) / len(steps))
            if len(self._seconds) == PROBES and self._pays_to_compile(steps):
                self._engine = self._compiled()

    def sync(self) -> None:
        """Hand the learnt values over."""
        self._engine.sync()

    def state_dict(self) -> dict[str, Tensor]:
        """Give the state of the engine, and which one it is: that goes by the clock."""
        return {
            **self._engine.state_dict(),
            "n_left": torch.tensor(self._n_left),
            "n_probes": torch.tensor(len(self._seconds)),
            "is_compiled": torch.tensor(self._engine is not self._fused),
        }

    def load_state_dict(self, memory: Mapping[str, Tensor]) -> None:
        """Go on from there, by the engine that took the steps then."""
        self._fused.load_state_dict(memory)
        self._n_left = int(memory["n_left"])
        self._seconds = [math.inf] * int(memory["n_probes"])
        if bool(memory["is_compiled"]):
            self._engine = self._compiled()

    def _compiled(self) -> CompiledEngine:
        return CompiledEngine(self._fused, batch_size=self._batch_size, ragged=self._ragged)

    def _pays_to_compile(self, steps: Steps) -> bool:
        seconds = min(self._seconds)
        cost = KNOWN_SECONDS if was_compiled(self._fused, steps) else COMPILE_SECONDS
        pays = pays_to_compile(seconds, self._n_left, self._n_in_a_row, cost)
        pays = pays and can_compile(self._fused)
        logger.info(
            "A fused step takes %.2g ms, and %d are left: they will %s.",
            1e3 * seconds,
            self._n_left,
            "be compiled" if pays else "go on like this",
        )
        return pays


def pays_to_compile(seconds: float, n_steps: int, n_in_a_row: int, cost: float) -> bool:
    """Say whether compiling saves more than it costs over so many steps of so many seconds."""
    in_python = min(seconds, PYTHON_SECONDS)
    saved = SAVED_IN_PYTHON * in_python + SAVED_IN_ARITHMETIC * (seconds - in_python)
    return n_steps * (saved - CALL_SECONDS / n_in_a_row) > cost


def can_compile(fused: FusedEngine) -> bool:
    """Say whether there is a compiler, and nothing that is known not to compile."""
    if fused.chains[0].guide.loc.device.type != "cpu" or not is_plain(fused):
        return False
    return any(shutil.which(name) for name in (os.environ.get("CXX", "c++"), "g++", "clang++"))


@contextmanager
def limit_threads(n_numbers: int) -> Iterator[None]:
    """Run torch on one thread where that is faster, unless the user has set how many.

    Parameters
    ----------
    n_numbers : int
        Numbers of noise a step.
    """
    before = torch.get_num_threads()
    is_set = before != DEFAULT_THREADS or any(
        name in os.environ for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS")
    )
    if is_set or n_numbers > TINY or before == 1:
        yield
        return
    try:
        torch.set_num_threads(1)
        yield
    finally:
        torch.set_num_threads(before)
