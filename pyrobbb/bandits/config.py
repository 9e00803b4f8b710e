"""AgentConfig: the validated arguments of an agent, and the seeds derived from them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from .._core.arrays import ArrayLike, as_count, check_positive, to_numpy
from ..model.mlp import Activation

ACT, LEARN, BATCHES = range(3)
"""Purposes of seeds. The seed of each action and update is derived from the agent's seed, a purpose
and a counter, so that a loaded agent continues as the saved one would, without a random state."""


@dataclass(frozen=True)
class AgentConfig:
    """Validated arguments that all agents have; see `ThompsonSampler`."""

    n_features: int
    n_actions: int
    hidden: Sequence[int]
    activation: Activation
    replay_size: int
    batch_size: int
    update_every: int
    n_steps: int
    lr: float
    reward_scale: float
    seed: int

    def __post_init__(self) -> None:
        for name in ("n_features", "replay_size", "batch_size", "update_every", "n_steps"):
            object.__setattr__(self, name, as_count(name, getattr(self, name)))
        object.__setattr__(self, "n_actions", as_count("n_actions", self.n_actions, least=2))
        check_positive("lr", self.lr)
        check_positive("reward_scale", self.reward_scale)

    @property
    def n_inputs(self) -> int:
        """Number of inputs of the network: the context, and an indicator for each action."""
        return self.n_features + self.n_actions

    def inputs(self, context: Tensor) -> Tensor:
        """Return the network's inputs for a context, one row per action."""
        return torch.cat([context.expand(self.n_actions, -1), torch.eye(self.n_actions)], 1)

    def checked_context(self, context: ArrayLike) -> Tensor:
        """Return a context as a tensor, or raise if its type, shape or values are wrong."""
        if np.ma.is_masked(context):
            raise ValueError("`context` must not be masked: fill the masked features in.")
        try:
            array = to_numpy(context)
        except ValueError:
            raise ValueError(
                f"`context` must have the shape ({self.n_features},), got ragged lists."
            ) from None
        if array.dtype.kind not in "buif":
            raise TypeError(
                f"`context` must hold numbers, got {array.dtype}. Encode it: one "
                "column of 0 and 1 per category."
            )
        if array.shape != (self.n_features,):
            raise ValueError(
                f"`context` must have the shape ({self.n_features},), because "
                f"n_features={self.n_features}, got {array.shape}."
            )
        with np.errstate(over="ignore"):
            row = torch.from_numpy(array.astype(np.float32))
        if not bool(row.isfinite().all()):
            i = int(torch.nonzero(~row.isfinite())[0])
            raise ValueError(
                f"`context` must be finite, got {array[i]} for feature {i}. Impute it, or skip "
                "this step."
            )
        return row

    def seed_of(self, purpose: int, number: int) -> int:
        """Return the seed of the `number`-th action or update, for one purpose."""
        sequence = np.random.SeedSequence([self.seed, purpose, number])
        return int(sequence.generate_state(1, np.uint64)[0] >> np.uint64(1))
