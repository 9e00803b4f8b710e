"""Steps by the fused loss, without effect handlers; several fits run along a leading dimension."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from .._core.distributed import Team
from .._core.global_state import without_validation
from .._core.random_state import rank_seed
from .._core.state_dicts import with_prefix
from .._core.trees import map_arrays, rows_of
from ..elbo.fused_loss import FusedLoss, LossGradients
from ..elbo.gradient_estimators import Estimator
from ..model.flat_guide import FlatGuide
from ..model.network import BayesianNetwork
from .base import Steps, find_non_finite, non_finite_loss_error
from .noise import NoiseSource
from .optimizers import FlatAdam, OptimizerFactory, flat_optimizer

MAX_STEPS_PER_CALL = 64
NOISE_BLOCK_SIZE = 2**17
"""Elements of noise computed ahead in one call, unless a single step needs more."""


@dataclass(frozen=True)
class Chain:
    """One of several fits that run in parallel: a network, its guide, and the seed of its noise."""

    network: BayesianNetwork
    guide: FlatGuide
    seed: int

    def parameters(self) -> list[Tensor]:
        """Return the trained tensors: those of the guide and the point parameters."""
        points = [point for _, point in self.network.point_parameters()]
        return [p.detach() for p in (*self.guide.parameters(), *points)]


class FusedEngine:
    """Engine that takes steps by `FusedLoss` and updates flat vectors.

    Parameters
    ----------
    chains : sequence of Chain
        Fits of one network from different starting values, which run in parallel.
    closed_form_kl, estimator
        As for `FusedLoss`.
    n_particles : int
    optimizer : callable
        ``(parameters, lr=...) -> torch.optim.Optimizer``. Adam and AdamW take one kernel call per
        step.
    clip_norm : float, optional
        Maximum norm of the whole gradient of each fit.
    team : Team, optional
        Processes that each take a part of every batch; their gradients are summed.
    noise : {"same", "own"}
        Whether the processes draw the same weights in a step, or different ones.

    Raises
    ------
    CannotFuseError
        If `FusedLoss` does not support the model or the guide.
    """

    name = "fused"

    def __init__(
        self,
        chains: Sequence[Chain],
        *,
        closed_form_kl: bool,
        estimator: Estimator,
        n_particles: int,
        optimizer: OptimizerFactory,
        clip_norm: float | None = None,
        team: Team | None = None,
        noise: Literal["same", "own"] = "same",
    ) -> None:
        self.chains, self.team = tuple(chains), team or Team()
        first = self.chains[0]
        self.loss = FusedLoss(
            first.network, first.guide, closed_form_kl=closed_form_kl, estimator=estimator
        )
        self.clip_norm = clip_norm
        self.n_steps = 0
        self._lead = int(len(self.chains) > 1)  # the number of leading dimensions
        if len(self.chains) == 1:
            self.state = first.parameters()  # updated in place
        else:
            each = [chain.parameters() for chain in self.chains]
            self.state = [torch.stack(tensors) for tensors in zip(*each, strict=True)]
        self.optimizer = flat_optimizer(self.state, optimizer)
        if len(self.chains) > 1 and not isinstance(self.optimizer, FlatAdam):
            raise ValueError("Several chains can be fitted in parallel only by Adam and AdamW.")
        loc, n_noise = first.guide.loc.detach(), sum(first.guide.noise_sizes)
        self.n_guide = len(list(first.guide.parameters()))
        shape = (n_particles, n_noise) if n_particles > 1 else (n_noise,)
        rank = self.team.rank if noise == "own" else 0
        self._noise = [NoiseSource(shape, rank_seed(c.seed, rank), loc) for c in self.chains]
        self.noise_size = len(self.chains) * n_particles * n_noise
        self.max_steps_per_call = MAX_STEPS_PER_CALL

    def run(self, steps: Steps, losses: np.ndarray) -> None:
        """Take the steps; write the nll and the KL divergence before each step to `losses`."""
        self.run_with_noise(steps, losses, self.advance_noise(len(steps)))

    def reseed(self, *seeds: int) -> None:
        """Restart the noise of each chain from a seed."""
        for source, seed in zip(self._noise, seeds, strict=True):
            source.reseed(seed)

    def advance_noise(self, n_steps: int) -> Tensor:
        """Skip the noise of the next steps, and return its positions in the stream.

        Returns
        -------
        Tensor of shape (n_steps,) or (n_steps, n_chains)
        """
        positions = [source.advance(n_steps) for source in self._noise]
        return positions[0] if len(positions) == 1 else torch.stack(positions, 1)

    def noise_at(self, positions: Tensor, *, functional: bool = False) -> Tensor:
        """Compute the noise at positions; with `functional`, without in-place operations."""
        source = self._noise[0]  # the sources of all chains differ only in their positions
        return source.functional_at(positions) if functional else source.at(positions)

    def run_with_noise(self, steps: Steps, losses: np.ndarray, positions: Tensor) -> None:
        """Take the steps with the noise at the given positions."""
        n_ahead = max(NOISE_BLOCK_SIZE // self.noise_size, 1)
        with torch.no_grad(), without_validation():
            for i in range(len(steps)):
                if i % n_ahead == 0:
                    block = self.noise_at(positions[i : i + n_ahead])
                noise = block[i % n_ahead]
                step = self.step_at(steps, i, noise)
                gradients = [*step.d_guide, *step.d_points]
                losses_now = torch.stack([step.nll, step.kl]).reshape((2, -1))
                weight = float(steps.step_weight[i])
                if self.team.size > 1:
                    losses_now, weight, gradients = self._sum_over_processes(
                        losses_now, weight, gradients
                    )
                parts = losses_now.tolist()
                if not math.isfinite(sum(map(sum, parts))):
                    raise self._explain(steps, i, noise)
                if self.clip_norm is not None:
                    gradients = clip_gradients(gradients, self.clip_norm, self._lead)
                self.optimizer.step(gradients, float(steps.lr[i]))
                self.n_steps += 1
                losses[i] = parts
                losses[i, 0] /= weight
            if not all(bool(tensor.isfinite().all()) for tensor in self.state):
                raise non_finite_loss_error(self.n_steps - 1, "the gradient")

    def _sum_over_processes(
        self, losses: Tensor, weight: float, gradients: list[Tensor]
    ) -> tuple[Tensor, float, list[Tensor]]:
        """Sum the nll, the weights and the gradients over the processes, and average the KL."""
        nll, kl = losses
        local_weight = torch.tensor([weight], dtype=nll.dtype, device=nll.device)
        nll, kl, total, *gradients = self.team.sum(
            [nll, kl / self.team.size, local_weight, *gradients]
        )
        return torch.stack([nll, kl]), float(total), gradients

    def sync(self) -> None:
        """Copy the parameters of several chains to their guides and networks."""
        if self._lead:
            with torch.no_grad():
                for i, chain in enumerate(self.chains):
                    for parameter, values in zip(chain.parameters(), self.state, strict=True):
                        parameter.copy_(values[i])

    def state_dict(self) -> dict[str, Tensor]:
        """Return the state of the optimiser and of the noise."""
        state = {f"optimizer.{n}": tensor for n, tensor in self.optimizer.state_dict().items()}
        for c, source in enumerate(self._noise):
            state |= {f"noise.{c}.{n}": tensor for n, tensor in source.state_dict().items()}
        return {**state, "n_steps": torch.tensor(self.n_steps)}

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """Restore a state returned by `state_dict`."""
        self.optimizer.load_state_dict(with_prefix(state, "optimizer."))
        for c, source in enumerate(self._noise):
            source.load_state_dict(with_prefix(state, f"noise.{c}."))
        self.n_steps = int(state["n_steps"])

    def step_at(self, steps: Steps, i: int, noise: Tensor) -> LossGradients:
        """Return the loss and gradients of a step; its nll includes the weight of the step."""
        x, y = steps.batch(i)
        row_weight = steps.weights_of_batch(i)
        if self._lead and steps.rows is None:

            def expand(tensor: Tensor) -> Tensor:
                return tensor.expand((len(self.chains), *tensor.shape))

            x, y = map_arrays(expand, x), expand(y)
            if row_weight is not None:
                row_weight = row_weight.expand(y.shape[:2])
        return self.loss(
            self.state[: self.n_guide],
            tuple(self.state[self.n_guide :]),
            noise,
            x,
            y,
            data_weight=float(steps.data_weight[i]),
            kl_weight=_number_or_tensor(steps.kl_factor[i], self.state[0]),
            row_weight=row_weight,
        )

    def _explain(self, steps: Steps, i: int, noise: Tensor) -> Exception:
        if not all(bool(tensor.isfinite().all()) for tensor in self.state):
            return non_finite_loss_error(self.n_steps - 1, "the gradient")
        self.sync()
        for c, chain in enumerate(self.chains):
            chain_noise = noise[c] if self._lead else noise
            x, y = steps.batch(i)
            if self._lead and steps.rows is not None:
                x, y = rows_of((x, y), c)
            for draw in chain_noise.reshape((-1, chain_noise.shape[-1])):
                draws = self.loss.draws(chain.parameters()[: self.n_guide], draw)
                culprit = find_non_finite(chain.network, draws, x, y, steps.n_data)
                if culprit is not None:
                    return non_finite_loss_error(self.n_steps, culprit)
        return non_finite_loss_error(self.n_steps, "the loss")


def _number_or_tensor(values: np.ndarray, like: Tensor) -> float | Tensor:
    """Return the value of all chains as a number, and one value per chain as a tensor."""
    return torch.as_tensor(values).to(like) if values.ndim else float(values)


def clip_gradients(gradients: Sequence[Tensor], bound: float, lead: int) -> list[Tensor]:
    """Scale gradients down to a maximum norm, computed over all tensors of a fit.

    Parameters
    ----------
    gradients : sequence of Tensor of shape (*lead, ...)
    bound : float
    lead : int
        Number of leading dimensions.
    """
    # flatten(lead) fails for one number a fit.
    squares = [(g * g).reshape(*g.shape[:lead], -1).sum(-1) for g in gradients]
    norm = torch.stack(squares).sum(0).sqrt()
    factor = (bound / (norm + 1e-6)).clamp(max=1.0)
    return [g * factor.reshape((*factor.shape, *(1,) * (g.dim() - lead))) for g in gradients]
