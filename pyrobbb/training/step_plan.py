"""The steps of a fit: the batch, KL weight and learning rate of each."""

from __future__ import annotations

import numbers
from collections.abc import Callable, Iterable, Iterator, Sequence

import numpy as np
import torch

from ..elbo.objectives import KLWeight, kl_weights
from ..engines.base import Engine, Steps
from .batches import Batches, BatchSource
from .config import FitConfig
from .schedules import factor_of


class StepPlan:
    """Turns the batches of a fit into steps.

    Parameters
    ----------
    config : FitConfig
    data : BatchSource
    epochs : int
    seeds : sequence of int
        One for each chain, for the order of its rows.
    weights : sequence of KLWeight
        The weight of the KL divergence in each chain.
    """

    def __init__(
        self,
        config: FitConfig,
        data: BatchSource,
        epochs: int,
        seeds: Sequence[int],
        weights: Sequence[KLWeight],
    ) -> None:
        self._config, self._data = config, data
        self.n_steps = epochs * data.n_batches
        self._lr = config.optimizer_and_lr[1]
        self._lr_factor = factor_of(config.schedule)
        is_shared = all(weight == weights[0] for weight in weights)
        self._kl_shares = [
            (weight, kl_weights(weight, data.n_batches))
            for weight in (weights[:1] if is_shared else weights)
        ]
        self._generators = [torch.Generator().manual_seed(seed) for seed in seeds]

    def steps(
        self, epochs: range, n_done: int, record_rows: Callable[[np.ndarray], None]
    ) -> Iterator[Steps]:
        """Yield the remaining steps of a range of epochs.

        Parameters
        ----------
        epochs : range
        n_done : int
            Number of steps done, which are skipped.
        record_rows : callable
            Called with the number of rows of each step before the steps are yielded.
        """
        for batches in self._data.epochs(epochs, self._generators):
            n_skipped = max(0, n_done - int(batches.number[0]))
            if n_skipped < len(batches.number):
                batches = batches.skip(n_skipped)
                record_rows(batches.n_rows_total)
                yield self._steps_of(batches)

    def _steps_of(self, batches: Batches) -> Steps:
        config, data = self._config, self._data
        n_rows, number = batches.n_rows, batches.number
        done = number / self.n_steps
        warmup = np.minimum(1.0, done / config.kl_warmup) if config.kl_warmup else 1.0
        # The loss of a step is n_data / n_rows times Blundell et al.'s F_i = pi_i KL + nll_i.
        weights = [
            warmup * share * data.n_data / np.maximum(n_rows, 1) for share in self._shares(batches)
        ]
        return Steps(
            batches.x,
            batches.y,
            batches.rows,
            n_rows,
            n_data=data.n_data,
            kl_weight=weights[0] if len(weights) == 1 else np.stack(weights, 1),
            step_weight=n_rows / data.batch_size,
            lr=self._lr * np.array([self._lr_factor(fraction) for fraction in done.tolist()]),
            row_weight=batches.row_weight,
        )

    def _shares(self, batches: Batches) -> Iterator[np.ndarray]:
        """Yield the share of the KL divergence in each batch, for each weight."""
        data, n_rows = self._data, batches.n_rows
        for weight, shares in self._kl_shares:
            if weight == "uniform" or isinstance(weight, numbers.Real):
                # In proportion to the rows, so that a smaller last batch has a smaller share.
                yield shares.sum() * n_rows / data.n_data
            else:  # processes share the KL divergence of a batch in proportion to their rows
                yield shares[batches.number % data.n_batches] * n_rows / batches.n_rows_total


def interleave(epochs: range, engine: Engine, n_batches: int) -> Iterator[range]:
    """Split epochs into ranges of about one engine call, so that few batches are held in memory."""
    first = epochs.start
    while first < epochs.stop:
        last = min(first + max(engine.max_steps_per_call // n_batches, 1), epochs.stop)
        yield range(first, last)
        first = last


def rechunk(stream: Iterable[Steps], engine: Engine) -> Iterator[Steps]:
    """Split and join steps into calls of at most `engine.max_steps_per_call` steps."""
    waiting: Steps | None = None
    for steps in stream:
        if waiting is not None:
            if waiting.x is steps.x:
                steps = waiting.then(steps)
            else:
                yield waiting
        while len(steps) > (n := engine.max_steps_per_call):  # may change while it takes steps
            yield steps[:n]
            steps = steps[n:]
        waiting = steps
    if waiting is not None:
        yield waiting
