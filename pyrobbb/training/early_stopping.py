"""Held-out data: when to stop, and which parameters to keep."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from .._core.arrays import ArrayLike
from ..model.network import BayesianNetwork, evaluating
from ..prediction.predictions import make_prediction
from ..prediction.sampling import DrawnDistributions, Source

VALIDATION_DRAWS = 16


class Validation:
    """Watches the negative log predictive density of held-out data; keeps the best parameters."""

    def __init__(
        self,
        network: BayesianNetwork,
        data: tuple[ArrayLike, ArrayLike],
        seed: int,
        unripe: int,
    ) -> None:
        if not isinstance(data, tuple | list) or len(data) != 2:
            raise TypeError(f"`validation` must be a pair (x, y), got a {type(data).__name__}.")
        self._network, self._seed, self._unripe = network, seed, unripe
        try:
            self._x, self._y = network.prepare(*data)
        except (TypeError, ValueError) as error:
            raise type(error)(f"`validation`: {error}") from None
        self.nll: list[float] = []
        self._best: list[Tensor] = []

    def is_over(
        self, guide: Callable[..., Any], learnt: list[nn.Parameter], patience: int | None
    ) -> bool:
        """Score the parameters of an epoch; say whether patience is at its end."""
        with evaluating(self._network):
            distributions = DrawnDistributions(
                # The same noise each time, so that epochs are comparable.
                [Source(self._network, guide, VALIDATION_DRAWS, self._seed)],
                self._x,
                max_memory=2**28,
            )
            prediction = make_prediction(distributions, self._x)
            self.nll.append(-float(prediction.log_prob(self._y).mean()))
        ripe = self.nll[self._unripe :]
        if not ripe:
            return False
        since_best = len(ripe) - 1 - int(np.argmin(ripe))
        if since_best == 0:
            self._best = [tensor.detach().clone() for tensor in self._state(learnt)]
        return patience is not None and since_best >= patience

    def restore(self, learnt: list[nn.Parameter]) -> None:
        """Put the best parameters and buffers back."""
        with torch.no_grad():
            for tensor, best in zip(self._state(learnt), self._best, strict=False):
                tensor.copy_(best)

    def state(self) -> dict[str, Tensor]:
        """Give the best parameters and buffers so far."""
        return {str(i): tensor for i, tensor in enumerate(self._best)}

    def take_up(self, nll: list[float], state: Mapping[str, Tensor]) -> None:
        """Go on from the scores of the epochs so far, and from a state."""
        self.nll = nll
        self._best = [state[str(i)] for i in range(len(state))]

    def _state(self, learnt: list[nn.Parameter]) -> list[Tensor]:
        return [*learnt, *self._network.buffers()]
