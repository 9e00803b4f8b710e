"""Steps by the fused loss: no effect handling, several fits at once in a leading dimension."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import pyro
import torch
from torch import Tensor

from .._core.distributed import Team
from .._core.random_state import rank_seed
from .._core.state_dicts import with_prefix
from ..elbo.fused_loss import FusedLoss, LossGradients
from ..elbo.gradient_estimators import Estimator
from ..model.guides import MeanFieldGuide
from ..model.network import BayesianNetwork
from .base import Steps, first_non_finite, non_finite
from .noise import NoiseSource
from .optimizers import FlatAdam, OptimizerFactory, flat_optimizer

AT_ONCE = 64
NOISE_AHEAD = 2**17  # numbers made at once, if a step takes fewer


@dataclass(frozen=True)
class Chain:
    """One of the fits that run side by side: a network, its guide, and the seed of its noise."""

    network: BayesianNetwork
    guide: MeanFieldGuide
    seed: int

    def learnt(self) -> list[Tensor]:
        """Give what is learnt: loc, rho and the point parameters."""
        points = [point for _, point in self.network.point_parameters()]
        return [p.detach() for p in (self.guide.loc, self.guide.rho, *points)]


class FusedEngine:
    """Takes steps by `FusedLoss`, and updates flat vectors.

    Parameters
    ----------
    chains : sequence of Chain
        Fits of one network from different starts, which run side by side.
    closed_form_kl, estimator
        As for `FusedLoss`.
    n_particles : int
    optimizer : callable
        ``(parameters, lr=...) -> torch.optim.Optimizer``. Adam and AdamW take one call a step.
    clip_norm : float, optional
        Bound on the norm of the whole gradient of each fit.
    team : Team, optional
        Processes that each take a part of every batch; their gradients add up.
    noise : {"same", "own"}
        Whether the processes draw the same weights in a step, or each its own.

    Raises
    ------
    CannotFuseError
        If the model or the guide is none that `FusedLoss` covers.
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
            self.state = first.learnt()  # updated in place
        else:
            each = [chain.learnt() for chain in self.chains]
            self.state = [torch.stack(tensors) for tensors in zip(*each, strict=True)]
        self.optimizer = flat_optimizer(self.state, optimizer)
        if len(self.chains) > 1 and not isinstance(self.optimizer, FlatAdam):
            raise ValueError("Fits run side by side only by Adam and AdamW.")
        loc = first.guide.loc.detach()
        shape = (n_particles, len(loc)) if n_particles > 1 else (len(loc),)
        rank = self.team.rank if noise == "own" else 0
        self._noise = [NoiseSource(shape, rank_seed(c.seed, rank), loc) for c in self.chains]
        self.noise_size = len(self.chains) * n_particles * len(loc)
        self.max_steps_per_call = AT_ONCE

    def run(self, steps: Steps, losses: np.ndarray) -> None:
        """Take the steps, and write down the nll and the KL divergence before each."""
        self.run_with(steps, losses, self.next_noise(len(steps)))

    def reseed(self, *seeds: int) -> None:
        """Let the noise of each chain begin anew, from a seed of its own."""
        for source, seed in zip(self._noise, seeds, strict=True):
            source.reseed(seed)

    def next_noise(self, n_steps: int) -> Tensor:
        """Pass over the noise of the next steps; give where it is, for each step."""
        places = [source.places(n_steps) for source in self._noise]
        return places[0] if len(places) == 1 else torch.stack(places, 1)

    def noise_at(self, places: Tensor, *, traced: bool = False) -> Tensor:
        """Make the noise of steps from what `next_noise` gave for them."""
        first = self._noise[0]  # the others are alike, but for the places
        return first.traced_at(places) if traced else first.at(places)

    def run_with(self, steps: Steps, losses: np.ndarray, places: Tensor) -> None:
        """Take the steps with the noise at given places."""
        n_ahead = max(NOISE_AHEAD // self.noise_size, 1)
        with torch.no_grad(), pyro.validation_enabled(False):
            for i in range(len(steps)):
                if i % n_ahead == 0:
                    noise = self.noise_at(places[i : i + n_ahead])
                own = noise[i % n_ahead]
                step = self.step_at(steps, i, own)
                gradients = [step.d_loc, step.d_rho, *step.d_points]
                losses_now = torch.stack([step.nll, step.kl]).reshape((2, -1))
                weight = float(steps.step_weight[i])
                if self.team.size > 1:
                    losses_now, weight, gradients = self._add_up(losses_now, weight, gradients)
                parts = losses_now.tolist()
                if not math.isfinite(sum(map(sum, parts))):
                    raise self._explain(steps, i, own)
                if self.clip_norm is not None:
                    gradients = clipped(gradients, self.clip_norm, self._lead)
                self.optimizer.step(gradients, float(steps.lr[i]))
                self.n_steps += 1
                losses[i] = parts
                losses[i, 0] /= weight
            if not all(bool(tensor.isfinite().all()) for tensor in self.state):
                raise non_finite(self.n_steps - 1, "the gradient")

    def _add_up(
        self, losses: Tensor, weight: float, gradients: list[Tensor]
    ) -> tuple[Tensor, float, list[Tensor]]:
        """Sum the nll, the weights and the gradients over the processes, and average the KL."""
        nll, kl = losses
        own = torch.tensor([weight], dtype=nll.dtype, device=nll.device)
        nll, kl, total, *gradients = self.team.sum([nll, kl / self.team.size, own, *gradients])
        return torch.stack([nll, kl]), float(total), gradients

    def sync(self) -> None:
        """Hand the learnt values of several chains to their guides and networks."""
        if self._lead:
            with torch.no_grad():
                for i, chain in enumerate(self.chains):
                    for own, values in zip(chain.learnt(), self.state, strict=True):
                        own.copy_(values[i])

    def state_dict(self) -> dict[str, Tensor]:
        """Give the state of the optimiser and of the noise."""
        memory = {f"optimizer.{n}": tensor for n, tensor in self.optimizer.state().items()}
        for c, source in enumerate(self._noise):
            memory |= {f"noise.{c}.{i}": tensor for i, tensor in enumerate(source.state())}
        return {**memory, "n_steps": torch.tensor(self.n_steps)}

    def load_state_dict(self, memory: Mapping[str, Tensor]) -> None:
        """Go on from there."""
        self.optimizer.take_up(with_prefix(memory, "optimizer."))
        for c, source in enumerate(self._noise):
            own = with_prefix(memory, f"noise.{c}.")
            source.take_up([own[str(i)] for i in range(len(own))])
        self.n_steps = int(memory["n_steps"])

    def step_at(self, steps: Steps, i: int, noise: Tensor) -> LossGradients:
        """Give the loss and gradients of a step; the loss and its nll times the step's weight."""
        x, y = steps.batch(i)
        row_weight = steps.weights_of_batch(i)
        if self._lead and steps.rows is None:
            x, y = (t.expand((len(self.chains), *t.shape)) for t in (x, y))
            if row_weight is not None:
                row_weight = row_weight.expand(x.shape[:2])
        loc, rho, *points = self.state
        return self.loss(
            loc,
            rho,
            tuple(points),
            noise,
            x,
            y,
            data_weight=float(steps.data_weight[i]),
            kl_weight=float(steps.kl_weight[i] * steps.step_weight[i]),
            row_weight=row_weight,
        )

    def _explain(self, steps: Steps, i: int, noise: Tensor) -> Exception:
        if not all(bool(tensor.isfinite().all()) for tensor in self.state):
            return non_finite(self.n_steps - 1, "the gradient")
        self.sync()
        for c, chain in enumerate(self.chains):
            own = noise[c] if self._lead else noise
            x, y = steps.batch(i)
            if self._lead and steps.rows is not None:
                x, y = x[c], y[c]
            for draw in own.reshape((-1, own.shape[-1])):
                draws = self.loss.draws(chain.guide.loc, chain.guide.rho, draw)
                culprit = first_non_finite(chain.network, draws, x, y, steps.n_data)
                if culprit is not None:
                    return non_finite(self.n_steps, culprit)
        return non_finite(self.n_steps, "the loss")


def clipped(gradients: Sequence[Tensor], bound: float, lead: int) -> list[Tensor]:
    """Scale gradients down to a norm, taken over all of them; for each fit alone.

    Parameters
    ----------
    gradients : sequence of Tensor of shape (*lead, ...)
    bound : float
    lead : int
        Number of leading dimensions.
    """
    squares = [(g * g).flatten(lead).sum(-1) for g in gradients]
    norm = torch.stack(squares).sum(0).sqrt()
    factor = (bound / (norm + 1e-6)).clamp(max=1.0)
    return [g * factor.reshape((*factor.shape, *(1,) * (g.dim() - lead))) for g in gradients]
