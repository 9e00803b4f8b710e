"""RunState: the state of a fit that changes from step to step, except the parameters."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from .._core.distributed import Team
from .._core.random_state import RandomState
from .._core.state_dicts import with_prefix
from ..engines.base import Engine
from ..fitted import History
from .batches import BatchSource
from .early_stopping import Validation
from .loader_batches import LoaderBatches, load_record


class RunState:
    """The progress of a fit, with its engine, validation scores and losses.

    Parameters
    ----------
    engine : Engine
    validation : Validation or None
    data : BatchSource
    team : Team
    seeds : sequence of int
        One for each chain that is fitted side by side.

    Attributes
    ----------
    n_steps : int
        Steps done.
    is_over, is_interrupted : bool
        Whether the fit has ended, and whether Ctrl-C has ended it.
    losses : list of ndarray of shape (n, 2, n_chains)
        The nll and the KL divergence at each step; NaN for steps not taken after Ctrl-C.
    n_rows : list of ndarray of shape (n,)
        Number of rows of each planned step, which may be more steps than have been done.
    """

    def __init__(
        self,
        engine: Engine,
        validation: Validation | None,
        data: BatchSource,
        team: Team,
        seeds: Sequence[int],
    ) -> None:
        self.engine, self.validation, self._team = engine, validation, team
        self._data, self._seed = data, seeds[0]
        self._n_chains, self._n_batches = len(seeds), data.n_batches
        self.n_steps = 0
        self.is_over = self.is_interrupted = False
        self.losses: list[np.ndarray] = []
        self.n_rows: list[np.ndarray] = []
        self._seconds_before, self._began = 0.0, time.perf_counter()

    @property
    def seconds(self) -> float:
        """Duration of the fit so far, including the time before it was resumed."""
        return self._seconds_before + time.perf_counter() - self._began

    @property
    def n_steps_taken(self) -> int:
        """Number of steps with losses, also after Ctrl-C in the middle of an engine call."""
        return sum(int((~np.isnan(losses[:, 0, 0])).sum()) for losses in self.losses)

    def histories(self) -> list[History]:
        """Return the history of each chain."""
        losses = np.concatenate([np.empty((0, 2, self._n_chains)), *self.losses])
        losses = losses[~np.isnan(losses[:, 0, 0])]
        n_rows = np.concatenate([np.empty(0, int), *self.n_rows])[: len(losses)]
        epoch = np.arange(len(losses)) // self._n_batches
        validation_nll = np.array([] if self.validation is None else self.validation.nll)
        return [
            History(nll + kl, nll, kl, epoch, n_rows, validation_nll)
            for nll, kl in (losses[:, :, chain].T for chain in range(self._n_chains))
        ]

    def mean_losses_of_epoch(self) -> tuple[float, float]:
        """Return the nll and the KL divergence, averaged over the last epoch and the chains."""
        n = self._n_batches
        nll, kl = np.concatenate(self.losses[-n:])[-n:].mean((0, 2))
        return float(nll), float(kl)

    def state_dict(self) -> dict[str, Any]:
        """Return what the next step depends on, except the parameters; a collective call."""
        engine = self.engine.state_dict()
        best = {} if self.validation is None else self.validation.state_dict()
        of_rank = {name: tensor for name, tensor in engine.items() if name.startswith("noise.")}
        of_rank |= {f"random.{name}": t for name, t in RandomState.now().tensors().items()}
        if isinstance(self._data, LoaderBatches) and self._data.record is not None:
            given = self._data.record.state_dict(self.n_steps, self._n_batches)
            of_rank |= {f"loader.{name}": tensor for name, tensor in given.items()}
        by_rank = self._team.gather(of_rank)
        tensors = {
            **{f"engine.{name}": tensor for name, tensor in engine.items() if name not in of_rank},
            **{f"best.{name}": tensor for name, tensor in best.items()},
            **{f"rank-{r}.{n}": t for r, named in enumerate(by_rank) for n, t in named.items()},
        }
        return {
            "n_done": self.n_steps,
            "is_over": self.is_over,
            "seconds": self.seconds,
            "tensors": tensors,
            "histories": self.histories(),
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continue from a state, with an engine that starts at the same parameters."""
        self.n_steps, self.is_over = state["n_done"], state["is_over"]
        self._seconds_before = state["seconds"]
        tensors, histories = state["tensors"], state["histories"]
        self.losses = [np.stack([np.stack([h.nll, h.kl], 1) for h in histories], -1)]
        self.n_rows = [histories[0].n_rows]
        of_rank = with_prefix(tensors, f"rank-{self._team.rank}.")
        self.engine.load_state_dict(with_prefix(tensors, "engine.") | of_rank)
        if self.validation is not None:
            self.validation.nll = histories[0].validation_nll.tolist()
            self.validation.load_state_dict(with_prefix(tensors, "best."))
        if isinstance(self._data, LoaderBatches) and self._data.record is not None:
            load_record(self._data, with_prefix(of_rank, "loader."), self.n_steps, self._seed)
        RandomState.of(with_prefix(of_rank, "random.")).restore()
