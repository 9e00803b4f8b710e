"""Early stopping: the validation score decides when to stop and which parameters to keep."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from .._core.arrays import ArrayLike
from ..model.functional import evaluating
from ..model.network import BayesianNetwork
from ..prediction import make_prediction
from ..prediction.drawn_distributions import DrawnDistributions
from ..prediction.sampling import Source

VALIDATION_DRAWS = 16


class Validation:
    """Scores the parameters on held-out data after each epoch, and keeps the best.

    Parameters
    ----------
    network : BayesianNetwork
    data : tuple (x, y)
    seed : int
        Of the draws, which are the same in each epoch.
    n_warmup_epochs : int
        Number of initial epochs that are scored but cannot be the best.
    """

    def __init__(
        self,
        network: BayesianNetwork,
        data: tuple[ArrayLike, ArrayLike],
        seed: int,
        n_warmup_epochs: int,
    ) -> None:
        if not isinstance(data, tuple | list) or len(data) != 2:
            raise TypeError(f"`validation` must be a pair (x, y), got a {type(data).__name__}.")
        self._network, self._seed, self._n_warmup_epochs = network, seed, n_warmup_epochs
        try:
            self._x, self._y = network.prepare(*data)
        except (TypeError, ValueError) as error:
            raise type(error)(f"`validation`: {error}") from None
        self.nll: list[float] = []
        self._best: list[Tensor] = []

    @property
    def data(self) -> tuple[Any, Tensor]:
        """The converted x and y."""
        return self._x, self._y

    def score(self, guide: Callable[..., Any], fitted: list[nn.Parameter]) -> None:
        """Score the current parameters, and keep a copy of them if they are the best so far."""
        with evaluating(self._network):
            distributions = DrawnDistributions(
                # The same noise in each epoch, so that epochs can be compared.
                [Source(self._network, guide, VALIDATION_DRAWS, self._seed)],
                self._x,
                max_memory=2**28,
            )
            prediction = make_prediction(distributions, self._x)
            self.nll.append(-float(prediction.log_prob(self._y).mean()))
        if self._epochs_since_best() == 0:
            self._best = [tensor.detach().clone() for tensor in self._tensors(fitted)]

    def is_exhausted(self, patience: int | None) -> bool:
        """Return whether the score has not improved for `patience` epochs."""
        since_best = self._epochs_since_best()
        return patience is not None and since_best is not None and since_best >= patience

    def _epochs_since_best(self) -> int | None:
        eligible = self.nll[self._n_warmup_epochs :]
        return len(eligible) - 1 - int(np.argmin(eligible)) if eligible else None

    def restore(self, fitted: list[nn.Parameter]) -> None:
        """Set the parameters and buffers to the best ones."""
        with torch.no_grad():
            for tensor, best in zip(self._tensors(fitted), self._best, strict=False):
                tensor.copy_(best)

    def state_dict(self) -> dict[str, Tensor]:
        """Return the best parameters and buffers so far; `nll` is part of the history."""
        return {str(i): tensor for i, tensor in enumerate(self._best)}

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """Continue from a state; the caller restores `nll`."""
        self._best = [state[str(i)] for i in range(len(state))]

    def _tensors(self, fitted: list[nn.Parameter]) -> list[Tensor]:
        return [*fitted, *self._network.buffers()]
