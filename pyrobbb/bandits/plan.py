"""What all bandit agents are told, and how they read contexts and seeds from it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from .._core.arrays import ArrayLike, check_count, check_positive, to_numpy
from ..model.mlp import Activation

ACT, LEARN, BATCHES = range(3)
"""What a seed is for. Each action and each update has its own, made of the agent's seed and its
number: an agent that was saved needs no random state to go on as if it had not been."""


@dataclass(frozen=True)
class Plan:
    """What all agents are told: sizes, and how they learn."""

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
            check_count(name, getattr(self, name))
        check_count("n_actions", self.n_actions, least=2)
        check_positive("lr", self.lr)
        check_positive("reward_scale", self.reward_scale)

    @property
    def n_inputs(self) -> int:
        """What the network takes: the context, and one column for each action."""
        return self.n_features + self.n_actions

    def inputs(self, context: Tensor) -> Tensor:
        """Give the rows that the network sees of a context, one for each action."""
        return torch.cat([context.expand(self.n_actions, -1), torch.eye(self.n_actions)], 1)

    def checked_context(self, context: ArrayLike) -> Tensor:
        """Give a context as a tensor, or say what is wrong with it."""
        array = to_numpy(context)
        if array.dtype.kind not in "buif":
            raise TypeError(
                f"`context` must hold numbers, got {array.dtype}. Encode it: categories as one "
                "column each."
            )
        if array.shape != (self.n_features,):
            raise ValueError(
                f"`context` must have the shape ({self.n_features},), a number for each of "
                f"n_features={self.n_features}, got {array.shape}."
            )
        with np.errstate(over="ignore"):
            row = torch.from_numpy(array.astype(np.float32))
        if not bool(row.isfinite().all()):
            i = int(torch.nonzero(~row.isfinite())[0])
            raise ValueError(
                f"`context` must be finite, got {array[i]} for feature {i}. Fill it in, or leave "
                "this step out."
            )
        return row

    def seed_of(self, purpose: int, number: int) -> int:
        """Give the seed of an action or an update, of all that it draws."""
        sequence = np.random.SeedSequence([self.seed, purpose, number])
        return int(sequence.generate_state(1, np.uint64)[0] >> np.uint64(1))
