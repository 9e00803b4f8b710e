"""LoaderRecord: what a DataLoader has given, to find out whether it gives the same when resumed."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from .._core.digests import digest

MAX_HASHED = 2**20
"""Elements of a batch that are hashed; of a larger one, evenly spaced elements."""


class LoaderRecord:
    """The hashes of the batches of the current epoch.

    Attributes
    ----------
    epoch : int
    given : list of int
        A hash of each batch of this epoch so far.
    """

    def __init__(self) -> None:
        self.epoch, self.given = 0, list[int]()
        self._expected: dict[tuple[int, int], int] = {}  # by epoch and number in it

    def add(self, epoch: int, number: int, pair: tuple[Tensor, Tensor]) -> None:
        """Add a batch; raise a ValueError if the loader gave another one before the checkpoint."""
        if epoch != self.epoch:
            self.epoch, self.given = epoch, []
        hashed = _hash(pair)
        if self._expected.get((epoch, number), hashed) != hashed:
            raise ValueError(
                f"`x` is a DataLoader that does not repeat batch {number} of epoch {epoch}, which "
                "the fit took before its last checkpoint: pass the same data in the same order, or "
                "delete the folder `checkpoint` to start from the beginning."
            )
        self.given[number:] = [hashed]

    def state_dict(self) -> dict[str, Tensor]:
        """Return the epoch and the hashes."""
        return {"epoch": torch.tensor(self.epoch), "given": torch.tensor(self.given).long()}

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """Expect the batches of a state from now on."""
        self.epoch, self.given = int(state["epoch"]), state["given"].tolist()
        self._expected = {(self.epoch, i): hashed for i, hashed in enumerate(self.given)}


def _hash(pair: tuple[Tensor, Tensor]) -> int:
    parts = (part.detach().reshape(-1) for part in pair)
    sampled = [part[:: part.numel() // MAX_HASHED + 1] for part in parts]
    shapes = [tuple(part.shape) for part in pair]
    return int.from_bytes(bytes.fromhex(digest([shapes, sampled])), "big", signed=True)
