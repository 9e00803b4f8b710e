"""Several processes that fit one posterior together: started by torchrun, joined by torch.

Each process computes the gradient of its part of every batch; one sum over all processes a step
makes of these the gradient of the whole batch, and every process takes the same step.
"""

from __future__ import annotations

import atexit
import logging
import os
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

logger = logging.getLogger(__name__)

LAUNCHED = ("RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")
"""What torchrun tells each process of the others."""


class LostProcessError(ConnectionError):
    """A process that took part in a fit can no longer be reached."""


class Team:
    """The processes that fit together; often this one alone.

    Attributes
    ----------
    rank : int
        Number of this process, from 0. The first speaks for all: it writes and shows progress.
    size : int
        How many there are.
    """

    def __init__(self, rank: int = 0, size: int = 1) -> None:
        self.rank, self.size = rank, size

    @classmethod
    def current(cls) -> Team:
        """Give the processes of torch's default group; joined now if torchrun has started us."""
        if not dist.is_available():
            return cls()
        if not dist.is_initialized():
            if not all(name in os.environ for name in LAUNCHED):
                return cls()
            _join()
        return cls(dist.get_rank(), dist.get_world_size())

    @property
    def is_rank_zero(self) -> bool:
        """Whether this process speaks for all."""
        return self.rank == 0

    def sum(self, tensors: Sequence[Tensor]) -> list[Tensor]:
        """Add up tensors over all processes, in one exchange.

        The sums are the same in all processes, to the last bit.
        """
        if self.size == 1:
            return list(tensors)
        flat = torch.cat([tensor.reshape(-1) for tensor in tensors])
        with self._together():
            dist.all_reduce(flat)
        parts = flat.split([tensor.numel() for tensor in tensors])
        return [part.reshape(t.shape) for part, t in zip(parts, tensors, strict=True)]

    def any(self, flag: bool) -> bool:
        """Say whether something is so in any process."""
        return any(self.gather(bool(flag)))

    def broadcast(self, value: Any) -> Any:
        """Give all processes what the first one has."""
        if self.size == 1:
            return value
        held = [value]
        with self._together():
            dist.broadcast_object_list(held, src=0)
        return held[0]

    def gather(self, value: Any) -> list[Any]:
        """Give all processes what each has, by rank."""
        if self.size == 1:
            return [value]
        held: list[Any] = [None] * self.size
        with self._together():
            dist.all_gather_object(held, value)
        return held

    def broadcast_tensors(self, tensors: Iterable[Tensor]) -> None:
        """Set tensors to the values that they have in the first process."""
        if self.size == 1:
            return
        with torch.no_grad(), self._together():
            for tensor in tensors:
                held = tensor.detach().contiguous()
                dist.broadcast(held, src=0)
                tensor.copy_(held)

    @contextmanager
    def _together(self) -> Iterator[None]:
        try:
            yield
        except RuntimeError as error:  # the base of all errors of torch.distributed
            raise LostProcessError(
                f"Process {self.rank} of {self.size} cannot reach the others: one has ended, and "
                "its own message says why. With a `checkpoint`, the same command goes on from the "
                "last one; torchrun --max-restarts=3 repeats it by itself. "
                f"({str(error).strip().splitlines()[0]})"
            ) from error


def _join() -> None:
    # Imported later on, as torch's optimisers do, this module would take the group for the defaults
    # of its functions and keep it beyond `_leave`: its threads would meet the interpreter's end.
    import torch.distributed.nn.functional
    from torch.distributed.rendezvous import rendezvous

    has_gpu = torch.cuda.is_available()
    if has_gpu:
        torch.cuda.set_device(int(os.environ.get("LOCAL_RANK", 0)) % torch.cuda.device_count())
    store, rank, size = next(rendezvous("env://"))
    if os.environ.get("GROUP_WORLD_SIZE") == "1":
        # torchrun on one machine keeps its store when it starts the processes again: without a
        # place of their own there, they find the addresses of those that have died.
        store = dist.PrefixStore(os.environ.get("TORCHELASTIC_RESTART_COUNT", "0"), store)
    backend = "cpu:gloo,cuda:nccl" if has_gpu else "gloo"
    dist.init_process_group(backend, store=store, rank=rank, world_size=size)
    atexit.register(_leave)
    logger.info("Process %d of %d has joined the others.", dist.get_rank(), dist.get_world_size())


def _leave() -> None:
    if dist.is_initialized():
        dist.destroy_process_group()
