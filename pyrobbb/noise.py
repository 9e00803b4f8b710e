"""Standard normal noise for the steps of a fit."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import torch
from torch import Tensor

LARGE = 2**14
"""From this size on, two threads draw a step's numbers faster than one call draws many steps'."""


class NoiseSource:
    """A stream of noise that depends on the seed alone: not on how many steps are drawn at once.

    Parameters
    ----------
    shape : tuple of int
        Of one step's noise.
    seed : int
    like : Tensor
        Gives dtype and device.
    """

    def __init__(self, shape: tuple[int, ...], seed: int, like: Tensor) -> None:
        self._shape, self._like = shape, like
        self._size = int(np.prod(shape))
        self._alternate = self._size >= LARGE and like.device.type == "cpu"
        self._buffer = like.new_empty(0)
        self.reseed(seed)

    def reseed(self, seed: int) -> None:
        """Begin anew, as from this seed."""
        n = 2 if self._alternate else 1
        seeds = np.random.SeedSequence(seed).generate_state(n, np.uint64)
        self._generators = [
            torch.Generator(self._like.device).manual_seed(int(s >> np.uint64(1))) for s in seeds
        ]
        self._n_drawn = 0

    def draw(self, n_steps: int) -> Tensor:
        """Draw the noise of the next steps, shape (n_steps, *shape); valid until the next draw."""
        if self._alternate:  # two generators take turns, each in a thread of its own
            noise = self._space(n_steps, self._size)
            with ThreadPoolExecutor(2) as threads:
                for turn, generator in enumerate(self._generators):
                    first = (turn - self._n_drawn) % 2
                    threads.submit(_fill, noise[first::2], generator)
        elif self._like.device.type == "cpu":
            # torch fills a tensor in groups of 16: whole groups come out alike in any division.
            noise = self._space(n_steps, -(-self._size // 16) * 16)
            noise.normal_(generator=self._generators[0])
            noise = noise[:, : self._size].contiguous()
        else:
            noise = self._space(n_steps, self._size)
            _fill(noise, self._generators[0])
        self._n_drawn += n_steps
        return noise.reshape((n_steps, *self._shape))

    def state(self) -> list[Tensor]:
        """Give where the stream is: the state of each generator, and the number of steps drawn."""
        return [*(own.get_state() for own in self._generators), torch.tensor(self._n_drawn)]

    def take_up(self, state: Sequence[Tensor]) -> None:
        """Go on from a state."""
        *states, n_drawn = state
        for generator, own in zip(self._generators, states, strict=True):
            generator.set_state(own)
        self._n_drawn = int(n_drawn)

    def _space(self, n_steps: int, width: int) -> Tensor:
        if self._buffer.shape != (n_steps, width):  # memory fresh from the system is slow to fill
            self._buffer = self._like.new_empty((n_steps, width))
        return self._buffer


def _fill(rows: Tensor, generator: torch.Generator) -> None:
    for row in rows:
        row.normal_(generator=generator)
