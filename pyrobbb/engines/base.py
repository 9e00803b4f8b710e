"""The interface of all engines: `Steps`, the `Engine` protocol, and `NonFiniteLossError`.

`fit` passes many steps at a time (`Steps`) to an engine, which returns the losses of each step. How
they are computed is up to the engine.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, Protocol

import numpy as np
import pyro.poutine as poutine
import torch
from pyro.poutine.util import site_is_subsample
from torch import Tensor

from .._core.global_state import global_state_locked, without_validation
from .._core.trees import Inputs, named_arrays, row_size, rows_of
from ..model.network import BayesianNetwork

MAX_GATHERED_SIZE = 2**20
"""Elements of x up to which the batches of all steps are gathered by one indexing operation."""


class NonFiniteLossError(ArithmeticError):
    """The loss or its gradient is NaN or infinite: the message names the step, and site or row."""


@dataclass(frozen=True)
class Steps:
    """Consecutive training steps: the data, and the rows, weights and learning rate of each.

    Attributes
    ----------
    x : Inputs of shape (n, ...)
    y : Tensor of shape (n, ...)
        Rows that the batches are taken from.
    rows : Tensor of shape (n_steps, [n_chains,] batch_size), or None
        Indices of the rows of each step. None: every step uses all rows.
    n_rows : ndarray of shape (n_steps,)
        Number of leading indices in `rows` that belong to the step; the others are padding.
    n_data : int
        Size of the whole data set.
    kl_weight : ndarray of shape (n_steps,) or (n_steps, n_chains)
        Factor on the KL divergence; 1 for the plain negative ELBO.
    step_weight : ndarray of shape (n_steps,)
        Factor on the whole loss. A ragged last batch is weighted in proportion to its rows; so is
        the part of a batch in one of several processes, whose losses are summed.
    lr : ndarray of shape (n_steps,)
        Learning rates.
    row_weight : Tensor of shape (n,), or None
        Factor on the nll of each row of x. None: 1.
    """

    x: Inputs
    y: Tensor
    rows: Tensor | None
    n_rows: np.ndarray
    n_data: int
    kl_weight: np.ndarray
    step_weight: np.ndarray
    lr: np.ndarray
    row_weight: Tensor | None = None

    def __len__(self) -> int:
        return len(self.lr)

    def __getitem__(self, part: slice) -> Steps:
        """Return a slice of the steps."""
        rows = None if self.rows is None else self.rows[part]
        by_step: dict[str, Any] = {name: getattr(self, name)[part] for name in _BY_STEP}
        return replace(self, rows=rows, **by_step)

    def then(self, later: Steps) -> Steps:
        """Return these steps followed by later steps on the same data."""
        if self.x is not later.x or self.y is not later.y:
            raise ValueError("Only steps on the same data can be joined.")
        rows = None
        if self.rows is not None and later.rows is not None:
            rows = torch.cat([self.rows, later.rows])
        by_step: dict[str, Any] = {
            n: np.concatenate([getattr(self, n), getattr(later, n)]) for n in _BY_STEP
        }
        return replace(self, rows=rows, **by_step)

    @cached_property
    def data_weight(self) -> np.ndarray:
        """Factor on the nll of each step: `n_data` per row of the batch, times the step weight."""
        return self.n_data / np.maximum(self.n_rows, 1) * self.step_weight

    @cached_property
    def kl_factor(self) -> np.ndarray:
        """Factor on the KL divergence of each step, including the step weight; as `kl_weight`."""
        return (self.kl_weight.T * self.step_weight).T

    def batch(self, step: int) -> tuple[Any, Tensor]:
        """Return x and y of a step, with a leading dimension of chains if the rows have one."""
        if self.rows is None:
            return self.x, self.y
        n = self._n_gathered(step)
        if self._gathered is None:
            rows = self.rows[step][..., :n]
            return rows_of(self.x, rows), self.y[rows]
        x, y = (rows_of(data, step) for data in self._gathered)
        if n < self.rows.shape[-1]:
            first = (slice(None), slice(n)) if self.rows.dim() == 3 else slice(n)
            x, y = rows_of(x, first), y[first]
        return x, y

    def weights_of_batch(self, step: int) -> Tensor | None:
        """Return the factors on the nll of the rows of `batch`; None where all are 1."""
        if self.row_weight is None or self.rows is None:
            return self.row_weight
        return self.row_weight[self.rows[step][..., : self._n_gathered(step)]]

    def _n_gathered(self, step: int) -> int:
        # A process without a row of the batch computes on one row whose weight is 0: many modules
        # and distributions do not accept an empty batch.
        return max(int(self.n_rows[step]), 1)

    @cached_property
    def _gathered(self) -> tuple[Any, Tensor] | None:
        """The batches of all steps, gathered by one indexing operation if they are small."""
        assert self.rows is not None
        if self.rows.numel() * row_size(self.x) > MAX_GATHERED_SIZE:
            return None
        return rows_of(self.x, self.rows), self.y[self.rows]


_BY_STEP = ("n_rows", "kl_weight", "step_weight", "lr")


class Engine(Protocol):
    """An engine, which takes the training steps of a fit."""

    @property
    def name(self) -> str:
        """The value of `fit`'s argument `engine` that selects it."""
        ...

    @property
    def max_steps_per_call(self) -> int:
        """Maximum number of steps per call of `run`."""
        ...

    def run(self, steps: Steps, losses: np.ndarray) -> None:
        """Take the steps; write the nll and the KL divergence before each step to `losses`.

        Parameters
        ----------
        steps : Steps
        losses : ndarray of shape (n_steps, 2, n_chains)
            Filled after each step, so that the completed steps are known after an interruption.
            Unweighted, in nats at the scale of the data set; the sum of the two is the negative
            ELBO.
        """
        ...

    def sync(self) -> None:
        """Copy the current parameters to the networks and guides."""
        ...

    def state_dict(self) -> dict[str, Tensor]:
        """Return the state that the next step needs besides the parameters that `sync` copies."""
        ...

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """Restore a state returned by `state_dict` of the same kind of engine."""
        ...


def non_finite_loss_error(step: int, culprit: str) -> NonFiniteLossError:
    """Return the error for a loss that is not finite, naming the step and the cause."""
    return NonFiniteLossError(
        f"The loss is not finite at step {step}: {culprit} holds NaN or infinite values. Try a "
        "smaller `lr`, a `clip_norm`, standardised x and y, or a smaller initial scale."
    )


def find_non_finite(
    network: BayesianNetwork, draws: Mapping[str, Tensor], x: Inputs, y: Tensor, n_data: int
) -> str | None:
    """Return a phrase for what is not finite: the data, the draw of a site, or its log-probability.

    Returns
    -------
    str or None
        None if everything is finite.
    """
    for name, tensor in (*named_arrays("x", x), ("y", y)):
        if not bool(torch.isfinite(tensor).all()):
            row = int(torch.nonzero(~torch.isfinite(tensor))[0, 0])
            return f"row {row} of the batch's `{name}`"
    for name, value in draws.items():
        if not bool(torch.isfinite(value).all()):
            return f"site {name!r} of the guide"
    with torch.no_grad(), without_validation(), global_state_locked(), poutine.block():
        model = poutine.condition(network, data=dict(draws))
        trace = poutine.trace(model).get_trace(x, y, n_data)
    for name, site in trace.nodes.items():
        if site["type"] != "sample" or site_is_subsample(site):
            continue
        if not bool(torch.isfinite(site["fn"].log_prob(site["value"])).all()):
            return f"the log-probability of site {name!r} in the model"
    return None
