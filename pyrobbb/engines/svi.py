"""Steps by Pyro's SVI, one at a time: the reference that every other engine must agree with."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import numpy as np
import pyro.optim
import pyro.poutine as poutine
import torch
from pyro.infer import ELBO, SVI
from pyro.poutine.messenger import Messenger
from pyro.poutine.util import site_is_subsample
from torch import Tensor, nn

from .._core.distributed import Team
from .._core.global_state import global_state_locked, without_validation
from .._core.random_state import RandomState
from .._core.state_dicts import with_prefix
from .._core.trees import Inputs
from ..model.network import BayesianNetwork
from .base import NonFiniteLossError, Steps, find_non_finite, non_finite_loss_error
from .optimizer_state import pack_state, unpack_state
from .optimizers import OptimizerFactory

MIN_STEP_WEIGHT = 1e-30
"""Used in place of a weight of 0, which `pyro.poutine.scale` rejects."""


class SVIEngine:
    """Engine that takes one step at a time by Pyro's SVI.

    Parameters
    ----------
    network : BayesianNetwork
    guide : callable
        Any Pyro guide whose parameters are those of an `nn.Module`.
    elbo : ELBO
    optimizer : callable
        ``(parameters, lr=...) -> torch.optim.Optimizer``.
    parameters : sequence of nn.Parameter
        All trained parameters, in a fixed order.
    clip_norm : float, optional
        Maximum norm of the whole gradient.
    team : Team
        The processes whose gradients are summed.
    """

    name = "svi"
    max_steps_per_call = 1

    def __init__(
        self,
        network: BayesianNetwork,
        guide: Callable[..., Any],
        *,
        elbo: ELBO,
        optimizer: OptimizerFactory,
        parameters: Iterable[nn.Parameter],
        clip_norm: float | None = None,
        team: Team | None = None,
    ) -> None:
        self._network, self._guide, self._elbo = network, guide, elbo
        self._team = team or Team()
        self._n_steps = 0
        is_vectorized = bool(elbo.vectorize_particles)
        self._model_sites = _LogProbSum(is_vectorized)
        self._guide_sites = _LogProbSum(is_vectorized)
        self._optim = _SingleOptimizer(list(parameters), optimizer, clip_norm, self._team)
        self._row_weight: Tensor | None = None
        self._svi = SVI(self._model_sites(self._model), self._guide_sites(guide), self._optim, elbo)

    def run(self, steps: Steps, losses: np.ndarray) -> None:
        """Take the steps; write the nll and the KL divergence before each step to `losses`."""
        for i in range(len(steps)):
            parts, error = None, None
            random_state = RandomState.now()
            try:
                parts = self._step(steps, i)
            except (NonFiniteLossError, ValueError) as caught:  # Pyro's validation finds NaN too
                error = caught
            if parts is None or not math.isfinite(sum(parts)):
                random_state.restore()  # to draw the same weights again
                x, y = steps.batch(i)
                draws = self._draws(x, y, steps.n_data)
                culprit = find_non_finite(self._network, draws, x, y, steps.n_data)
                if culprit is None and isinstance(error, ValueError):
                    raise error
                raise non_finite_loss_error(self._n_steps, culprit or "the gradient") from error
            self._n_steps += 1
            losses[i, :, 0] = parts

    def sync(self) -> None:
        """Do nothing: SVI updates the parameters of the network and the guide in place."""

    def state_dict(self) -> dict[str, Tensor]:
        """Return the state of the optimiser; the noise is drawn from torch's random state."""
        return {
            **{f"optimizer.{n}": t for n, t in pack_state(self._optim.torch_optimizer).items()},
            "n_steps": torch.tensor(self._n_steps),
        }

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """Restore a state returned by `state_dict`."""
        unpack_state(self._optim.torch_optimizer, with_prefix(state, "optimizer."))
        self._n_steps = int(state["n_steps"])

    def _model(self, x: Inputs, y: Tensor, n_data: int) -> Tensor:
        # The row weights are not an argument of the step, because SVI passes the same arguments to
        # the guide, which does not accept them.
        if self._row_weight is None:
            return self._network(x, y, n_data)
        return self._network(x, y, n_data, row_weight=self._row_weight)

    def _step(self, steps: Steps, i: int) -> list[float]:
        x, y = steps.batch(i)
        self._row_weight = steps.weights_of_batch(i)
        self._optim.set_lr(float(steps.lr[i]))
        for sites in (self._model_sites, self._guide_sites):
            sites.reset(float(steps.kl_weight[i]), self._row_weight)
        # A process without rows of the batch must still draw the weights that the others draw.
        weight = max(float(steps.step_weight[i]), MIN_STEP_WEIGHT)
        with poutine.scale(scale=weight), warnings.catch_warnings():
            warnings.filterwarnings("ignore", "Encountered NaN", UserWarning)  # `run` raises
            self._svi.step(x, y, steps.n_data)
        n_particles = self._elbo.num_particles
        nll = -self._model_sites.observed * steps.n_data / len(y) / n_particles
        kl = (self._guide_sites.latent - self._model_sites.latent) / n_particles
        return self._sum_over_processes(torch.stack([nll, kl.to(nll)]), float(steps.step_weight[i]))

    def _sum_over_processes(self, parts: Tensor, weight: float) -> list[float]:
        """Return the nll and the KL divergence of a batch that is divided among the processes."""
        if self._team.size == 1:
            return parts.tolist()
        nll, kl = parts.double()
        weighted = torch.stack([nll * weight, kl / self._team.size, torch.full_like(nll, weight)])
        nll, kl, total = self._team.sum([weighted])[0]
        return torch.stack([nll / total, kl]).tolist()

    def _draws(self, x: Inputs, y: Tensor, n_data: int) -> dict[str, Tensor]:
        with torch.no_grad(), without_validation(), global_state_locked(), poutine.block():
            trace = poutine.trace(self._guide).get_trace(x, y, n_data)
        return {name: site["value"] for name, site in trace.iter_stochastic_nodes()}


class _LogProbSum(Messenger):
    """Scale the latent sites of a model or guide, and sum the log-probabilities without the scale.

    Parameters
    ----------
    is_vectorized : bool
        Whether the ELBO draws its particles in a plate. It may then run model and guide once more,
        to count their plates, so the sums are reset at each run.
    """

    def __init__(self, is_vectorized: bool) -> None:
        super().__init__()
        self._is_vectorized = is_vectorized
        self.reset(1.0)

    def reset(self, kl_weight: float, row_weight: Tensor | None = None) -> None:
        self._kl_weight, self._row_weight = kl_weight, row_weight
        self.latent = self.observed = torch.zeros(())

    def __enter__(self) -> _LogProbSum:
        if self._is_vectorized:
            self.reset(self._kl_weight, self._row_weight)
        return super().__enter__()

    def _pyro_sample(self, msg: Any) -> None:
        if not msg["is_observed"] and not site_is_subsample(msg):
            msg["scale"] = msg["scale"] * self._kl_weight

    def _pyro_post_sample(self, msg: Any) -> None:
        if site_is_subsample(msg):
            return
        with torch.no_grad():
            log_prob = msg["fn"].log_prob(msg["value"])
            if self._row_weight is not None and msg["name"] == "y":
                log_prob = log_prob * self._row_weight
            log_prob = log_prob.sum()
        if msg["is_observed"]:
            self.observed = self.observed.to(log_prob) + log_prob
        else:
            self.latent = self.latent.to(log_prob) + log_prob


class _SingleOptimizer(pyro.optim.PyroOptim):
    """Adapt one torch optimiser of all parameters to the interface that Pyro's SVI expects."""

    def __init__(
        self,
        parameters: list[nn.Parameter],
        factory: OptimizerFactory,
        clip_norm: float | None,
        team: Team,
    ) -> None:
        super().__init__(factory, {})
        self._parameters, self._team = parameters, team
        self.torch_optimizer = factory(parameters, lr=1.0)
        self._clip_norm = math.inf if clip_norm is None else clip_norm

    def set_lr(self, lr: float) -> None:
        for group in self.torch_optimizer.param_groups:
            group["lr"] = lr

    def __call__(self, params: Any, *args: Any, **kwargs: Any) -> None:
        if not params:
            raise ValueError(
                "`guide` registers no parameters with Pyro, so that nothing would be trained: make "
                "it a PyroModule that owns them."
            )
        # Not `params`: SVI passes a set, without a fixed order, on which the rounding of sums would
        # depend.
        if self._team.size > 1:
            gradients = [
                torch.zeros_like(p) if p.grad is None else p.grad for p in self._parameters
            ]
            for parameter, total in zip(self._parameters, self._team.sum(gradients), strict=True):
                parameter.grad = total
        norm = nn.utils.clip_grad_norm_(self._parameters, self._clip_norm)
        if not torch.isfinite(norm):
            raise NonFiniteLossError
        self.torch_optimizer.step()
        self.torch_optimizer.zero_grad()  # SVI clears only the parameters of pyro.param
