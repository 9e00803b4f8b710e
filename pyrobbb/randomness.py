"""Random states: drawn from a seed, and left as they were."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch

from .data import check_count

ONE_AT_A_TIME = threading.RLock()
"""torch's random state and Pyro's stack of handlers belong to the process: threads take turns."""


@contextmanager
def seeded(seed: int) -> Iterator[None]:
    """Draw from a given seed, and leave the caller's random state as it was."""
    devices = range(torch.cuda.device_count()) if torch.cuda.is_initialized() else ()
    with ONE_AT_A_TIME, torch.random.fork_rng(devices=list(devices)):
        # Not torch.manual_seed, which keeps a stack trace for a GPU that has not been used yet.
        torch.default_generator.manual_seed(seed)
        if devices:
            torch.cuda.manual_seed_all(seed)
        yield


def as_seed(seed: int | None) -> int:
    """Check a seed; for None, give one from the operating system's entropy."""
    if seed is None:
        return int(np.random.SeedSequence().generate_state(1)[0])
    check_count("seed", seed, least=0)
    return int(seed)
