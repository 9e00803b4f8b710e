"""Data-parallel fits of one posterior in several processes, started by torchrun.

Each process computes the gradient of its part of every batch. One all-reduce per step sums these to
the gradient of the whole batch, and every process takes the same step.
"""

from __future__ import annotations

import atexit
import logging
import os
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from datetime import timedelta
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

logger = logging.getLogger(__name__)

TORCHRUN_VARIABLES = ("RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")
"""Environment variables that torchrun sets in each process."""
JOIN_SECONDS = 60.0
"""Time in which the other processes must have joined; they are started together."""


class LostProcessError(ConnectionError):
    """Another process of the fit can no longer be reached."""


class Team:
    """The processes of a fit, often just this one.

    Attributes
    ----------
    rank : int
        Rank of this process, from 0. Rank 0 logs, writes files and shows progress.
    size : int
        Number of processes.
    """

    def __init__(self, rank: int = 0, size: int = 1) -> None:
        self.rank, self.size = rank, size

    @classmethod
    def current(cls) -> Team:
        """Return the processes of torch's default group, after joining it under torchrun.

        Raises
        ------
        ValueError
            If the environment variables of torchrun are not valid.
        LostProcessError
            If the other processes do not join.
        """
        if not dist.is_available():
            return cls()
        if not dist.is_initialized():
            if not all(name in os.environ for name in TORCHRUN_VARIABLES):
                return cls()
            _check_environment()
            _join()
        return cls(dist.get_rank(), dist.get_world_size())

    @property
    def is_rank_zero(self) -> bool:
        """Whether this process has rank 0."""
        return self.rank == 0

    def sum(self, tensors: Sequence[Tensor]) -> list[Tensor]:
        """Sum tensors over all processes, in one all-reduce.

        The sums are bitwise identical on all processes.
        """
        if self.size == 1:
            return list(tensors)
        flat = torch.cat([tensor.reshape(-1) for tensor in tensors])
        with self._raising_lost_process():
            dist.all_reduce(flat)
        parts = flat.split([tensor.numel() for tensor in tensors])
        return [part.reshape(t.shape) for part, t in zip(parts, tensors, strict=True)]

    def any(self, flag: bool) -> bool:
        """Return whether a flag is true on any process."""
        return any(self.gather(bool(flag)))

    def broadcast(self, value: Any) -> Any:
        """Return the value of rank 0 on all processes."""
        if self.size == 1:
            return value
        buffer = [value]
        with self._raising_lost_process():
            dist.broadcast_object_list(buffer, src=0)
        return buffer[0]

    def gather(self, value: Any) -> list[Any]:
        """Return the values of all processes, ordered by rank, on all processes."""
        if self.size == 1:
            return [value]
        buffer: list[Any] = [None] * self.size
        with self._raising_lost_process():
            dist.all_gather_object(buffer, value)
        return buffer

    def broadcast_tensors(self, tensors: Iterable[Tensor]) -> None:
        """Set tensors, in place, to their values on rank 0."""
        if self.size == 1:
            return
        with torch.no_grad(), self._raising_lost_process():
            for tensor in tensors:
                buffer = tensor.detach().contiguous()
                dist.broadcast(buffer, src=0)
                tensor.copy_(buffer)

    @contextmanager
    def _raising_lost_process(self) -> Iterator[None]:
        try:
            yield
        except RuntimeError as error:  # the base of all errors of torch.distributed
            raise LostProcessError(
                f"Process {self.rank} of {self.size} cannot reach the others: one has exited; see "
                "its error message. With `checkpoint`, the same command resumes from the last "
                "checkpoint; torchrun --max-restarts=3 restarts it automatically. "
                f"({str(error).strip().splitlines()[0]})"
            ) from error


def _check_environment() -> None:
    """Raise a ValueError unless the variables of torchrun are the numbers of a process."""
    size = _number_in_environment("WORLD_SIZE", 1, None)
    _number_in_environment("RANK", 0, size - 1)
    _number_in_environment("MASTER_PORT", 0, 2**16 - 1)


def _number_in_environment(name: str, least: int, most: int | None) -> int:
    text = os.environ[name]
    if not (text.isdecimal() and least <= int(text) and (most is None or int(text) <= most)):
        bounds = f"of at least {least}" if most is None else f"from {least} to {most}"
        raise ValueError(
            f"The environment variable {name} must be a whole number {bounds}, got {text!r}: unset "
            f"{_ALL_VARIABLES} to fit in one process, or start the processes by torchrun."
        )
    return int(text)


_ALL_VARIABLES = f"{', '.join(TORCHRUN_VARIABLES[:-1])} and {TORCHRUN_VARIABLES[-1]}"


def _join() -> None:
    # Import this module before the group exists. If torch's optimisers import it later, the default
    # arguments of its functions keep the group alive after `_leave`, and the threads of the group
    # outlive the interpreter.
    import torch.distributed.nn.functional
    from torch.distributed.constants import default_pg_timeout
    from torch.distributed.rendezvous import rendezvous

    has_gpu = torch.cuda.is_available()
    if has_gpu:
        torch.cuda.set_device(int(os.environ.get("LOCAL_RANK", 0)) % torch.cuda.device_count())
    limit = timedelta(seconds=JOIN_SECONDS)
    try:
        store, rank, size = next(rendezvous("env://", timeout=limit))
        if os.environ.get("GROUP_WORLD_SIZE") == "1":
            # torchrun on one machine keeps its store when it restarts the processes. Without a
            # separate prefix, the new processes would read the addresses of those that have died.
            store = dist.PrefixStore(os.environ.get("TORCHELASTIC_RESTART_COUNT", "0"), store)
        store.set(f"joined-{rank}", "")
        store.wait([f"joined-{other}" for other in range(size)], limit)
    except RuntimeError as error:  # the base of all errors of torch.distributed
        rank_text, size_text, *address = (os.environ[name] for name in TORCHRUN_VARIABLES)
        raise LostProcessError(
            f"RANK={rank_text} and WORLD_SIZE={size_text} are set, but the other processes have "
            f"not joined in {JOIN_SECONDS:g} s at {':'.join(address)}: unset {_ALL_VARIABLES} to "
            "fit in one process, or start all processes by torchrun."
        ) from error
    store.set_timeout(default_pg_timeout)
    backend = "cpu:gloo,cuda:nccl" if has_gpu else "gloo"
    dist.init_process_group(backend, store=store, rank=rank, world_size=size)
    atexit.register(_leave)
    logger.info(
        "Process %d of %d has joined the process group.", dist.get_rank(), dist.get_world_size()
    )


def _leave() -> None:
    if dist.is_initialized():
        dist.destroy_process_group()
