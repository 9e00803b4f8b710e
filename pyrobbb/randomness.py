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
        reseed(seed)
        yield


def reseed(seed: int) -> None:
    """Set torch's random state, on each device in use."""
    # Not torch.manual_seed, which keeps a stack trace for a GPU that has not been used yet.
    torch.default_generator.manual_seed(seed)
    if torch.cuda.is_initialized():
        torch.cuda.manual_seed_all(seed)


class RandomState:
    """A random state of torch's for one purpose: what is drawn from it leaves the other as it is.

    Parameters
    ----------
    seed : int
    """

    def __init__(self, seed: int) -> None:
        self._state = torch.Generator().manual_seed(seed).get_state()

    @contextmanager
    def drawing(self) -> Iterator[None]:
        """Draw from this state instead of the process's own."""
        with ONE_AT_A_TIME:
            outside = torch.get_rng_state()
            torch.set_rng_state(self._state)
            try:
                yield
            finally:
                self._state = torch.get_rng_state()
                torch.set_rng_state(outside)


def rank_seed(seed: int, rank: int) -> int:
    """Give the seed of one of several processes; that of the first is the seed itself."""
    return int(np.random.SeedSequence([seed, rank]).generate_state(1)[0]) if rank else seed


def as_seed(seed: int | None) -> int:
    """Check a seed; for None, give one from the operating system's entropy."""
    if seed is None:
        return int(np.random.SeedSequence().generate_state(1)[0])
    check_count("seed", seed, least=0)
    return int(seed)
