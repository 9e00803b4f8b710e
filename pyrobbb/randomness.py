"""Random states: drawn from a seed, and left as they were."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from .data import check_count

ONE_AT_A_TIME = threading.RLock()
"""torch's random state and Pyro's stack of handlers belong to the process: threads take turns."""


@contextmanager
def seeded(seed: int) -> Iterator[None]:
    """Draw from a given seed, and leave the caller's random state as it was."""
    with ONE_AT_A_TIME:
        before = RandomState.now()
        try:
            # Not torch.manual_seed, which keeps a stack trace for a GPU that is not used yet.
            torch.default_generator.manual_seed(seed)
            if before.cuda:
                torch.cuda.manual_seed_all(seed)
            if before.mps is not None:
                torch.mps.manual_seed(seed)
            yield
        finally:
            before.restore()


@dataclass(frozen=True)
class RandomState:
    """torch's random states, on the processor and on the GPUs that are in use."""

    cpu: Tensor
    cuda: list[Tensor]
    mps: Tensor | None

    @classmethod
    def now(cls) -> RandomState:
        """Give those of this moment."""
        return cls(
            torch.random.get_rng_state(),
            torch.cuda.get_rng_state_all() if torch.cuda.is_initialized() else [],
            torch.mps.get_rng_state() if torch.backends.mps.is_available() else None,
        )

    def restore(self) -> None:
        """Go back to them."""
        torch.random.set_rng_state(self.cpu)
        if self.cuda:
            torch.cuda.set_rng_state_all(self.cuda)
        if self.mps is not None:
            torch.mps.set_rng_state(self.mps)


def as_seed(seed: int | None) -> int:
    """Check a seed; for None, give one from the operating system's entropy."""
    if seed is None:
        return int(np.random.SeedSequence().generate_state(1)[0])
    check_count("seed", seed, least=0)
    return int(seed)
