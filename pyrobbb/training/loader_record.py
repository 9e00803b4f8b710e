"""LoaderRecord: what a DataLoader has given, to find out whether it gives the same again."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from .._core.digests import digest
from .._core.trees import Inputs, arrays_of

MAX_HASHED = 2**20
"""Elements of a batch that are hashed; of a larger one, evenly spaced elements."""


class LoaderRecord:
    """The hashes of the batches of the last two epochs: a loader is read ahead of the steps."""

    def __init__(self) -> None:
        self._given: dict[int, list[int]] = {}  # by epoch
        self._expected: dict[tuple[int, int], int] = {}  # by epoch and number in it

    def add(self, epoch: int, number: int, pair: tuple[Inputs, Tensor]) -> None:
        """Add a batch; raise a ValueError if the loader gave another one before the checkpoint."""
        self._given = {e: given for e, given in self._given.items() if e >= epoch - 1}
        hashed = _hash(pair)
        if self._expected.get((epoch, number), hashed) != hashed:
            raise ValueError(
                f"`x` is a DataLoader that does not repeat batch {number} of epoch {epoch}, which "
                "the fit took before its last checkpoint: pass the same data in the same order, or "
                "delete the folder `checkpoint` to start from the beginning."
            )
        self._given.setdefault(epoch, [])[number:] = [hashed]

    def state_dict(self, n_done: int, n_batches: int) -> dict[str, Tensor]:
        """Return the epoch of the last step that is done, and the hashes of its batches so far."""
        epoch = (n_done - 1) // n_batches
        given = self._given.get(epoch, [])[: n_done - epoch * n_batches]
        return {"epoch": torch.tensor(epoch), "given": torch.tensor(given).long()}

    def load_state_dict(self, state: Mapping[str, Tensor]) -> tuple[int, int]:
        """Expect the batches of a state from now on; return its epoch and their number."""
        epoch, given = int(state["epoch"]), state["given"].tolist()
        self._given = {epoch: given}
        self._expected = {(epoch, i): hashed for i, hashed in enumerate(given)}
        return epoch, len(given)


def _hash(pair: tuple[Inputs, Tensor]) -> int:
    arrays = arrays_of(pair)
    parts = (array.detach().reshape(-1) for array in arrays)
    sampled = [part[:: part.numel() // MAX_HASHED + 1] for part in parts]
    shapes = [tuple(array.shape) for array in arrays]
    return int.from_bytes(bytes.fromhex(digest([shapes, sampled])), "big", signed=True)
