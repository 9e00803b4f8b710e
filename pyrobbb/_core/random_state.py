"""Random states: seeding within a block of code, and restoring the state afterwards."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from .arrays import as_count
from .global_state import global_state_locked, isolated_from_pyro, undone_after_fork
from .private_generators import PrivateGenerators, without_private_generators


def seeded(seed: int) -> AbstractContextManager[Any]:
    """Return a block in which torch draws as if it were seeded, in this thread only.

    The numbers are those that follow ``torch.manual_seed(seed)``, but torch's default generators
    are neither used nor changed: draws in other threads make no difference.
    """
    return PrivateGenerators(seed)


@contextmanager
def globally_seeded(seed: int) -> Iterator[None]:
    """Seed torch within the block, and restore the caller's random state afterwards.

    For long computations, such as Markov chains. Another thread must not draw from torch's default
    generator meanwhile; `seeded` does not have this restriction, at some cost for each operation.
    """
    with global_state_locked(), without_private_generators():
        before = RandomState.now()
        with undone_after_fork(before.restore):
            try:
                reseed(seed)
                yield
            finally:
                before.restore()


@dataclass(frozen=True)
class RandomState:
    """torch's random states on the CPU and on all GPUs in use."""

    cpu: Tensor
    cuda: list[Tensor]
    mps: Tensor | None

    @classmethod
    def now(cls) -> RandomState:
        """Return the current states."""
        return cls(
            torch.random.get_rng_state(),
            torch.cuda.get_rng_state_all() if torch.cuda.is_initialized() else [],
            torch.mps.get_rng_state() if torch.backends.mps.is_available() else None,
        )

    def restore(self) -> None:
        """Set torch's random states to the stored ones."""
        torch.random.set_rng_state(self.cpu)
        if self.cuda:
            torch.cuda.set_rng_state_all(self.cuda)
        if self.mps is not None:
            torch.mps.set_rng_state(self.mps)

    def tensors(self) -> dict[str, Tensor]:
        """Return the states by name."""
        named = {"cpu": self.cpu, **{f"cuda.{i}": state for i, state in enumerate(self.cuda)}}
        return named if self.mps is None else {**named, "mps": self.mps}

    @classmethod
    def of(cls, tensors: Mapping[str, Tensor]) -> RandomState:
        """Build the random states from the result of `tensors`."""
        cuda = [t for n, t in sorted(tensors.items()) if n.startswith("cuda.")]
        return cls(tensors["cpu"], cuda, tensors.get("mps"))


def reseed(seed: int) -> None:
    """Seed torch's random state on each device in use."""
    # Not torch.manual_seed, which stores a stack trace for a GPU that is not in use yet.
    torch.default_generator.manual_seed(seed)
    if torch.cuda.is_initialized():
        torch.cuda.manual_seed_all(seed)
    if torch.backends.mps.is_available():
        torch.mps.manual_seed(seed)


class PrivateRandomState:
    """A separate random state of torch: draws from it leave the global one unchanged.

    While it is active it takes the place of the global state, for code that makes many small calls
    of torch, such as a data loader or a step of a fit.

    Parameters
    ----------
    seed : int
    """

    def __init__(self, seed: int) -> None:
        self._state = torch.Generator().manual_seed(seed).get_state()

    @contextmanager
    def active(self) -> Iterator[None]:
        """Draw from this state within the block instead of the global one."""
        with global_state_locked(), without_private_generators():
            outside = torch.get_rng_state()
            with undone_after_fork(lambda: torch.set_rng_state(outside)):
                torch.set_rng_state(self._state)
                try:
                    yield
                finally:
                    self._state = torch.get_rng_state()
                    torch.set_rng_state(outside)


class IsolatedState:
    """The global state of a fit: torch's random state, and Pyro's param store and handlers.

    The fit makes it active for each of its calls, so that other threads can take turns.

    Parameters
    ----------
    seed : int
    """

    def __init__(self, seed: int) -> None:
        self._seed = seed
        self._random_state: RandomState | None = None
        self._store: dict[str, Any] = {"params": {}, "constraints": {}}

    @contextmanager
    def active(self) -> Iterator[None]:
        """Put this state in the place of the global one within the block."""
        with isolated_from_pyro(self._store), without_private_generators():
            outside = RandomState.now()
            with undone_after_fork(outside.restore):
                try:
                    if self._random_state is None:
                        reseed(self._seed)
                    else:
                        self._random_state.restore()
                    yield
                finally:
                    self._random_state = RandomState.now()
                    outside.restore()


def child_seed(seed: int, number: int) -> int:
    """Derive the seed of a part of a fit, such as a chain or an epoch."""
    return int(np.random.SeedSequence([seed, number]).generate_state(1)[0])


def rank_seed(seed: int, rank: int) -> int:
    """Derive the seed of a process from its rank; for rank 0 it is the seed itself."""
    return child_seed(seed, rank) if rank else seed


def as_seed(seed: int | None) -> int:
    """Check a seed; if it is None, draw one from the operating system's entropy."""
    if seed is None:
        return int(np.random.SeedSequence().generate_state(1)[0])
    seed = as_count("seed", seed, least=0)
    return int(seed)
