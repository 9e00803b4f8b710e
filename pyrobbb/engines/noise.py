"""Standard normal noise for the steps of a fit, computed from a seed and a place in its stream.

Numbers come from SplitMix64 (Steele, Lea and Flood 2014, "Fast splittable pseudorandom number
generators"), which mixes the bits of a counter, and become normal by Box and Muller (1958). So any
step's noise can be had by itself, on any device, in a compiled step too, and by all threads at
once; torch's own generator gives numbers one after another, and takes longer.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor
from torch.func import functionalize

GOLDEN = 0x9E3779B97F4A7C15
"""SplitMix64's counter goes in steps of 2^64 over the golden ratio."""
MIXING = ((30, 0xBF58476D1CE4E5B9), (27, 0x94D049BB133111EB), (31, 1))
"""Each turn shifts to the right, takes the exclusive or with what was, and multiplies."""

AT_ONCE = 2**18
"""How many numbers of 64 bits are made at once: what is needed for them stays in the cache."""


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
        # A pair of normal numbers takes 64 bits, or twice as many in double precision.
        is_double = like.dtype == torch.float64
        self._dtype = torch.float64 if is_double else torch.float32
        words = (1 + is_double, -(-self._size // 2))
        counts = np.arange(1, words[0] * words[1] + 1, dtype=np.uint64).reshape(words)
        self._counters = _signed(counts * np.uint64(GOLDEN)).to(like.device)
        self._work: tuple[Tensor, ...] = ()
        self.reseed(seed)

    def reseed(self, seed: int) -> None:
        """Begin anew, as from this seed."""
        (self._start,) = np.random.SeedSequence(seed).generate_state(1, np.uint64)
        self._n_drawn = 0

    def places(self, n_steps: int) -> Tensor:
        """Pass over the noise of the next steps; give where it is, int64 of shape (n_steps,)."""
        n = np.arange(self._n_drawn, self._n_drawn + n_steps, dtype=np.uint64)
        stride = np.uint64(self._counters.numel() * GOLDEN % 2**64)
        self._n_drawn += n_steps
        return _signed(self._start + n * stride).to(self._like.device)

    def at(self, places: Tensor) -> Tensor:
        """Make the noise at places of this stream, or of another of the same shape.

        Parameters
        ----------
        places : Tensor of shape (*lead,)

        Returns
        -------
        Tensor of shape (*lead, *shape)
        """
        n_pairs = self._counters.shape[-1]
        noise = torch.empty((*places.shape, 2, n_pairs), dtype=self._dtype, device=places.device)
        n_at_once = max(AT_ONCE // places.numel(), 1)
        for first in range(0, n_pairs, n_at_once):
            here = slice(first, first + n_at_once)
            counters = self._counters[:, here]
            if not self._work or self._work[0].shape != (*places.shape, *counters.shape):
                self._work = self._space(places, counters)
            _fill_pairs(noise[..., here].unbind(-2), counters, places, *self._work)
        return self._shaped(noise.flatten(-2))

    def traced_at(self, places: Tensor) -> Tensor:
        """Make the same without changing anything in place, as code that is compiled must do."""

        def pairs(places: Tensor) -> tuple[Tensor, Tensor]:
            word, shifted, radius, angle = self._space(places, self._counters)
            halves = torch.empty_like(radius), torch.empty_like(radius)
            _fill_pairs(halves, self._counters, places, word, shifted, radius, angle)
            return halves

        return self._shaped(torch.cat(functionalize(pairs)(places), -1))

    def state(self) -> list[Tensor]:
        """Give where the stream is: its start, and the number of steps drawn."""
        return [_signed(np.asarray(self._start)), torch.tensor(self._n_drawn)]

    def take_up(self, state: Sequence[Tensor]) -> None:
        """Go on from a state."""
        if [(t.dtype, t.dim()) for t in state] != [(torch.int64, 0)] * 2:
            raise ValueError(
                "The checkpoint is of an earlier version of pyrobbb, whose noise was another: "
                "resume the fit by that version, or fit anew in another folder."
            )
        start, n_drawn = state
        self._start = start.numpy().view(np.uint64)[()]
        self._n_drawn = int(n_drawn)

    def _space(self, places: Tensor, counters: Tensor) -> tuple[Tensor, ...]:
        shape, device = (*places.shape, *counters.shape), counters.device
        words = [torch.empty(shape, dtype=torch.int64, device=device) for _ in range(2)]
        one_each = (*places.shape, counters.shape[-1])
        pair = [torch.empty(one_each, dtype=self._dtype, device=device) for _ in range(2)]
        return (*words, *pair)

    def _shaped(self, noise: Tensor) -> Tensor:
        return noise[..., : self._size].unflatten(-1, self._shape).to(self._like.dtype)


def _fill_pairs(
    halves: Sequence[Tensor],
    counters: Tensor,
    places: Tensor,
    word: Tensor,
    shifted: Tensor,
    radius: Tensor,
    angle: Tensor,
) -> None:
    """Write both numbers of each pair; the last four tensors are room to work in."""
    torch.add(counters, places[..., None, None], out=word)
    for shift, factor in MIXING:
        torch.bitwise_right_shift(word, shift, out=shifted)
        shifted.bitwise_and_(2 ** (64 - shift) - 1)  # torch's shift repeats the sign
        word.bitwise_xor_(shifted)
        if factor != 1:
            word.mul_(factor - 2**64)
    radius.copy_(word[..., 0, :])
    if radius.dtype == torch.float32:
        word.bitwise_left_shift_(32)  # single precision takes the upper bits for the radius
    angle.copy_(word[..., -1, :])
    # A uniform number, by its distance from 0, which it never is.
    radius.mul_(2.0**-63).add_(2.0**-64).abs_().log_().mul_(-2).sqrt_()
    angle.mul_(math.pi * 2.0**-63)
    torch.cos(angle, out=halves[0]).mul_(radius)
    torch.sin(angle, out=halves[1]).mul_(radius)


def _signed(words: np.ndarray) -> Tensor:
    return torch.from_numpy(words.view(np.int64))
