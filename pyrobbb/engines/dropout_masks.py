"""The masks of dropout in compiled steps: those that the fused engine draws in the same steps.

Each kind of dropout of torch, that of attention included, draws a tensor by one call of
``bernoulli_``, or ``bernoulli`` under `torch.vmap`, and does the rest by arithmetic. A compiled
step takes these tensors as inputs. They are drawn before the call, from the random state of the fit
and in the order of the steps, so that compiled and fused steps have the same masks, and leave the
same random state.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from .._core.private_generators import ThreadLocalMode
from .._core.random_state import RandomState
from .._core.state_dicts import equal_tensors

aten = torch.ops.aten

RunStep = Callable[[int], object]
"""Takes a fused step with a number of rows, without an update of the parameters."""


class MaskKind(NamedTuple):
    """The properties of the tensor that dropout draws, and the probability of a 1."""

    shape: tuple[int, ...]
    stride: tuple[int, ...]
    dtype: torch.dtype
    device: torch.device
    keep_prob: float

    @property
    def part(self) -> tuple[slice, ...]:
        """The part of a larger mask that this mask fills."""
        return tuple(slice(n) for n in self.shape)

    def draw(self) -> Tensor:
        """Draw a mask from torch's random state."""
        empty = torch.empty_strided(self.shape, self.stride, dtype=self.dtype, device=self.device)
        return empty.bernoulli_(self.keep_prob)


class DropoutMasks:
    """Draws the masks of a fit's steps.

    Parameters
    ----------
    run_step : callable
        Takes a fused step with the given number of rows.
    batch_size : int
        Number of rows of a step that is not smaller than others.

    Raises
    ------
    RuntimeError
        If a step draws other random numbers than masks.
    """

    def __init__(self, run_step: RunStep, batch_size: int) -> None:
        self._run_step: RunStep | None = run_step
        self._kinds: dict[int, list[MaskKind]] = {}
        self._full = self._of(batch_size)
        if not self._full:
            self._run_step = None  # which may hold data

    @property
    def size(self) -> int:
        """Number of elements of the masks of a step."""
        return sum(int(np.prod(kind.shape)) for kind in self._full)

    def __len__(self) -> int:
        return len(self._full)

    def empty(self, n_steps: int) -> list[Tensor]:
        """Return tensors for the masks of steps, each of shape (n_steps, *mask), filled with 1."""
        return [
            torch.ones((n_steps, *kind.shape), dtype=torch.bool, device=kind.device)
            for kind in self._full
        ]

    def draw(self, n_rows: np.ndarray) -> list[Tensor]:
        """Draw the masks of steps with these numbers of rows, from torch's random state.

        Returns
        -------
        list of Tensor of shape (n_steps, *mask)
            The masks of a step with fewer rows are padded with ones.
        """
        masks = self.empty(len(n_rows))
        if masks:
            for i, n in enumerate(n_rows.tolist()):
                for mask, kind in zip(masks, self._of(n), strict=True):
                    mask[i][kind.part] = kind.draw()
        return masks

    def of_step(self, masks: Iterable[Tensor], n_rows: int) -> list[Tensor]:
        """Return the masks of the first step without their padding."""
        return [mask[0][kind.part] for mask, kind in zip(masks, self._of(n_rows), strict=True)]

    def _of(self, n_rows: int) -> list[MaskKind]:
        if self._run_step is None:
            return []
        if n_rows not in self._kinds:
            kinds = _kinds_of(partial(self._run_step, n_rows))
            full = self._kinds[next(iter(self._kinds))] if self._kinds else kinds
            if len(kinds) != len(full) or not all(map(_fits, kinds, full)):
                raise RuntimeError("dropout has masks of other shapes in a smaller batch")
            self._kinds[n_rows] = kinds
        return self._kinds[n_rows]


class GivenMasks(ThreadLocalMode):
    """A block in which dropout takes the given masks, in order, in place of random ones."""

    def __init__(self, masks: Sequence[Tensor]) -> None:
        super().__init__()
        self._masks, self._n_taken = masks, 0

    def __torch_dispatch__(
        self,
        func: Any,
        types: Iterable[type],
        args: tuple[Any, ...] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        """Run an operation, or return the next mask."""
        if not _is_mask(func, kwargs):
            return func(*args, **(kwargs or {}))
        self._n_taken += 1
        if self._n_taken > len(self._masks):
            raise RuntimeError("dropout has another number of masks than in a fused step")
        mask = self._masks[self._n_taken - 1]
        return args[0].copy_(mask) if func is aten.bernoulli_.float else mask.to(args[0].dtype)

    def __exit__(self, *error: object) -> None:
        super().__exit__(*error)
        if error[0] is None and self._n_taken < len(self._masks):
            raise RuntimeError("dropout has another number of masks than in a fused step")


class _MaskRecorder(ThreadLocalMode):
    """Records the masks that dropout draws."""

    def __init__(self) -> None:
        super().__init__()
        self.kinds: list[MaskKind] = []

    def __torch_dispatch__(
        self,
        func: Any,
        types: Iterable[type],
        args: tuple[Any, ...] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        result = func(*args, **(kwargs or {}))
        if _is_mask(func, kwargs):
            keep_prob = args[1] if len(args) > 1 else (kwargs or {}).get("p", 0.5)
            kind = tuple(result.shape), result.stride(), result.dtype, result.device
            self.kinds.append(MaskKind(*kind, keep_prob))
        return result


def _kinds_of(run_step: Callable[[], object]) -> list[MaskKind]:
    """Return the masks that a step draws; raise if it draws other random numbers.

    Activation checkpoints, which draw the masks once more, are among these.
    """
    before, recorder = RandomState.now(), _MaskRecorder()
    try:
        with recorder:
            run_step()
        after = RandomState.now()
        before.restore()
        for kind in recorder.kinds:
            kind.draw()
        if not equal_tensors(RandomState.now().tensors(), after.tensors()):
            raise RuntimeError("the module draws random numbers, and not only masks of dropout")
    finally:
        before.restore()
    return recorder.kinds


def _is_mask(func: Any, kwargs: Mapping[str, Any] | None) -> bool:
    is_drawn = func is aten.bernoulli_.float or func is aten.bernoulli.p
    return is_drawn and (kwargs or {}).get("generator") is None


def _fits(kind: MaskKind, full: MaskKind) -> bool:
    is_within = len(kind.shape) == len(full.shape) and all(
        n <= most for n, most in zip(kind.shape, full.shape, strict=True)
    )
    return is_within and kind.keep_prob == full.keep_prob
