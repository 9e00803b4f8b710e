"""Standard normal noise for the steps of a fit, as a function of a seed and a stream position.

The bits come from SplitMix64 (Steele, Lea and Flood 2014, "Fast splittable pseudorandom number
generators"), which mixes the bits of a counter, and the Box-Muller transform (1958) makes them
normal. The noise of any step can therefore be computed independently, on any device, in a compiled
step, and by all threads in parallel; torch's generator is sequential and slower.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np
import torch
from torch import Tensor
from torch.func import functionalize

GOLDEN = 0x9E3779B97F4A7C15
"""Increment of SplitMix64's counter: 2^64 divided by the golden ratio."""
MIXING = ((30, 0xBF58476D1CE4E5B9), (27, 0x94D049BB133111EB), (31, 1))
"""Rounds of a right shift, an exclusive or with the unshifted word, and a multiplication."""

BLOCK_SIZE = 2**18
"""Number of 64-bit words computed at a time, so that the working memory stays in the CPU cache."""


class NoiseSource:
    """A stream of noise that depends on the seed alone, not on the number of steps drawn per call.

    Parameters
    ----------
    shape : tuple of int
        Shape of the noise of one step.
    seed : int
    like : Tensor
        The noise has its dtype and device.
    """

    def __init__(self, shape: tuple[int, ...], seed: int, like: Tensor) -> None:
        self._shape, self._like = shape, like
        self._size = int(np.prod(shape))
        # A pair of normal numbers needs 64 random bits, and twice as many in double precision.
        is_double = like.dtype == torch.float64
        self._dtype = torch.float64 if is_double else torch.float32
        words = (1 + is_double, -(-self._size // 2))
        counts = np.arange(1, words[0] * words[1] + 1, dtype=np.uint64).reshape(words)
        self._counters = _signed(counts * np.uint64(GOLDEN)).to(like.device)
        self._work: tuple[Tensor, ...] = ()
        self.reseed(seed)

    def reseed(self, seed: int) -> None:
        """Restart the stream from a seed."""
        (self._start,) = np.random.SeedSequence(seed).generate_state(1, np.uint64)
        self._n_drawn = 0

    def advance(self, n_steps: int) -> Tensor:
        """Skip the noise of the next steps, and return its positions in the stream.

        Returns
        -------
        Tensor of shape (n_steps,)
            int64, for `at`.
        """
        n = np.arange(self._n_drawn, self._n_drawn + n_steps, dtype=np.uint64)
        stride = np.uint64(self._counters.numel() * GOLDEN % 2**64)
        self._n_drawn += n_steps
        return _signed(self._start + n * stride).to(self._like.device)

    def at(self, positions: Tensor) -> Tensor:
        """Compute the noise at positions of this stream, or of another of the same shape.

        Parameters
        ----------
        positions : Tensor of shape (*lead,)

        Returns
        -------
        Tensor of shape (*lead, *shape)
        """
        n_pairs = self._counters.shape[-1]
        noise = torch.empty(
            (*positions.shape, 2, n_pairs), dtype=self._dtype, device=positions.device
        )
        block = max(BLOCK_SIZE // positions.numel(), 1)
        for first in range(0, n_pairs, block):
            here = slice(first, first + block)
            counters = self._counters[:, here]
            if not self._work or self._work[0].shape != (*positions.shape, *counters.shape):
                self._work = self._workspace(positions, counters)
            _fill_pairs(noise[..., here].unbind(-2), counters, positions, *self._work)
        return self._reshaped(noise.flatten(-2))

    def functional_at(self, positions: Tensor) -> Tensor:
        """Compute the same noise as `at` without in-place operations, as compiled code requires."""

        def pairs(positions: Tensor) -> tuple[Tensor, Tensor]:
            word, shifted, radius, angle = self._workspace(positions, self._counters)
            halves = torch.empty_like(radius), torch.empty_like(radius)
            _fill_pairs(halves, self._counters, positions, word, shifted, radius, angle)
            return halves

        return self._reshaped(torch.cat(functionalize(pairs)(positions), -1))

    def state_dict(self) -> dict[str, Tensor]:
        """Return the start of the stream and the number of steps drawn.

        Checkpoints store them by number, so their names are "0" and "1".
        """
        return {"0": _signed(np.asarray(self._start)), "1": torch.tensor(self._n_drawn)}

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """Restore a state returned by `state_dict`."""
        kinds = {name: (tensor.dtype, tensor.dim()) for name, tensor in state.items()}
        if kinds != dict.fromkeys(("0", "1"), (torch.int64, 0)):
            raise ValueError(
                "The checkpoint was written by an earlier version of pyrobbb, which generated "
                "other noise: resume the fit with that version, or start a new fit in another "
                "folder."
            )
        self._start = state["0"].numpy().view(np.uint64)[()]
        self._n_drawn = int(state["1"])

    def _workspace(self, positions: Tensor, counters: Tensor) -> tuple[Tensor, ...]:
        shape, device = (*positions.shape, *counters.shape), counters.device
        words = [torch.empty(shape, dtype=torch.int64, device=device) for _ in range(2)]
        pair_shape = (*positions.shape, counters.shape[-1])
        pair = [torch.empty(pair_shape, dtype=self._dtype, device=device) for _ in range(2)]
        return (*words, *pair)

    def _reshaped(self, noise: Tensor) -> Tensor:
        return noise[..., : self._size].unflatten(-1, self._shape).to(self._like.dtype)


def _fill_pairs(
    halves: Sequence[Tensor],
    counters: Tensor,
    positions: Tensor,
    word: Tensor,
    shifted: Tensor,
    radius: Tensor,
    angle: Tensor,
) -> None:
    """Write both numbers of each pair into `halves`; the last four tensors are working memory."""
    torch.add(counters, positions[..., None, None], out=word)
    for shift, factor in MIXING:
        torch.bitwise_right_shift(word, shift, out=shifted)
        shifted.bitwise_and_(2 ** (64 - shift) - 1)  # torch's shift is arithmetic
        word.bitwise_xor_(shifted)
        if factor != 1:
            word.mul_(factor - 2**64)
    radius.copy_(word[..., 0, :])
    if radius.dtype == torch.float32:
        word.bitwise_left_shift_(32)  # single precision uses the upper bits for the radius
    angle.copy_(word[..., -1, :])
    # A uniform number in (0, 1]: offset by half a unit, so that it is never 0.
    radius.mul_(2.0**-63).add_(2.0**-64).abs_().log_().mul_(-2).sqrt_()
    angle.mul_(math.pi * 2.0**-63)
    torch.cos(angle, out=halves[0]).mul_(radius)
    torch.sin(angle, out=halves[1]).mul_(radius)


def _signed(words: np.ndarray) -> Tensor:
    return torch.from_numpy(words.view(np.int64))
