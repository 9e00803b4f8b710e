"""How steps are taken: by Pyro's SVI here, faster in fused_engine and compiled_engine.

`fit` says what to step on (`Steps`, many at a time) and reads what came of it, the losses of each:
an engine is free in how it gets from one to the other.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, Protocol

import numpy as np
import pyro.optim
import pyro.poutine as poutine
import torch
from pyro.infer import ELBO, SVI
from pyro.poutine.messenger import Messenger
from pyro.poutine.util import site_is_subsample
from torch import Tensor, nn

from .._core.distributed import Team
from .._core.random_state import RandomState
from ..model.network import BayesianNetwork
from .optimizers import OptimizerFactory, packed, unpack

MOST_GATHERED = 2**20
"""Numbers in x up to which the batches of many steps are taken in one go."""

NEXT_TO_NOTHING = 1e-30
"""Pyro takes no factor of 0."""


class NonFiniteLossError(ArithmeticError):
    """The loss or its gradient is NaN or infinite."""


@dataclass(frozen=True)
class Steps:
    """What some steps need, one after the other.

    Attributes
    ----------
    x, y : Tensor of shape (n, ...)
        Rows that the batches are taken from.
    rows : Tensor of shape (n_steps, [n_chains,] batch_size), or None
        Which rows each step takes. None: all of them.
    n_rows : ndarray of shape (n_steps,)
        How many of them count; what follows only fills up.
    n_data : int
        Size of the whole data set.
    kl_weight : ndarray of shape (n_steps,)
        Factor on the KL divergence; 1 is the plain negative ELBO.
    step_weight : ndarray of shape (n_steps,)
        Factor on the whole loss. A ragged last batch weighs in proportion to its rows; so does the
        part of a batch that one of several processes takes, and their losses add up.
    lr : ndarray of shape (n_steps,)
        Learning rates.
    row_weight : Tensor of shape (n,), or None
        Factor on the nll of each row of x. None: 1.
    """

    x: Tensor
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
        """Give some of the steps."""
        rows = None if self.rows is None else self.rows[part]
        by_step: dict[str, Any] = {name: getattr(self, name)[part] for name in _BY_STEP}
        return replace(self, rows=rows, **by_step)

    def then(self, later: Steps) -> Steps:
        """Join with later steps on the same data."""
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
        """Factor on the nll of each step's rows: what each stands for, times the step's weight."""
        return self.n_data / np.maximum(self.n_rows, 1) * self.step_weight

    def batch(self, step: int) -> tuple[Tensor, Tensor]:
        """Give the x and y of a step, with a leading dimension of chains if the rows have one."""
        if self.rows is None:
            return self.x, self.y
        n = self._n_taken(step)
        if self._gathered is None:
            rows = self.rows[step][..., :n]
            return self.x[rows], self.y[rows]
        x, y = (tensor[step] for tensor in self._gathered)
        if n < self.rows.shape[-1]:
            x, y = (t[:, :n] if self.rows.dim() == 3 else t[:n] for t in (x, y))
        return x, y

    def weights_of_batch(self, step: int) -> Tensor | None:
        """Give the factors on the nll of the rows of `batch`; None where all are 1."""
        if self.row_weight is None or self.rows is None:
            return self.row_weight
        return self.row_weight[self.rows[step][..., : self._n_taken(step)]]

    def _n_taken(self, step: int) -> int:
        # A process without a row of the batch takes one that counts 0 times: many a module and
        # distribution has trouble with no rows at all.
        return max(int(self.n_rows[step]), 1)

    @cached_property
    def _gathered(self) -> tuple[Tensor, Tensor] | None:
        """The batches of all steps, taken in one go where they are small."""
        assert self.rows is not None
        if self.rows.numel() * self.x[0].numel() > MOST_GATHERED:
            return None
        return self.x[self.rows], self.y[self.rows]


_BY_STEP = ("n_rows", "kl_weight", "step_weight", "lr")


class Engine(Protocol):
    """Takes the steps of a fit."""

    @property
    def name(self) -> str:
        """As `fit` is told it."""
        ...

    @property
    def max_steps_per_call(self) -> int:
        """How many steps it is best given in one call."""
        ...

    def run(self, steps: Steps, losses: np.ndarray) -> None:
        """Take the steps, and write down the nll and the KL divergence before each.

        Parameters
        ----------
        steps : Steps
        losses : ndarray of shape (n_steps, 2, n_chains)
            Filled step by step, so that what is done is known after an interruption. Unweighted, in
            nats at the scale of the data set; the sum of the two is the negative ELBO.
        """
        ...

    def sync(self) -> None:
        """Hand the learnt values over to the networks and guides."""
        ...

    def state_dict(self) -> dict[str, Tensor]:
        """Give what the next step depends on, beyond what `sync` has handed over."""
        ...

    def load_state_dict(self, memory: Mapping[str, Tensor]) -> None:
        """Go on from there: the same engine, at the same learnt values."""
        ...


class SVIEngine:
    """One step at a time by Pyro's SVI: what defines the right answer.

    Parameters
    ----------
    network : BayesianNetwork
    guide : callable
        Any Pyro guide whose parameters are those of an `nn.Module`.
    elbo : ELBO
    optimizer : callable
        ``(parameters, lr=...) -> torch.optim.Optimizer``.
    parameters : sequence of nn.Parameter
        All that is learnt, in a fixed order.
    clip_norm : float, optional
        Bound on the norm of the whole gradient.
    team : Team
        The processes whose gradients add up.
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
        once = bool(elbo.vectorize_particles)
        self._model_sites, self._guide_sites = _Tally(once), _Tally(once)
        self._optim = _SingleOptimizer(list(parameters), optimizer, clip_norm, self._team)
        self._row_weight: Tensor | None = None
        self._svi = SVI(self._model_sites(self._model), self._guide_sites(guide), self._optim, elbo)

    def run(self, steps: Steps, losses: np.ndarray) -> None:
        """Take the steps, and write down the nll and the KL divergence before each."""
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
                culprit = first_non_finite(self._network, draws, x, y, steps.n_data)
                if culprit is None and isinstance(error, ValueError):
                    raise error
                raise non_finite(self._n_steps, culprit or "the gradient") from error
            self._n_steps += 1
            losses[i, :, 0] = parts

    def sync(self) -> None:
        """Nothing is held back here."""

    def state_dict(self) -> dict[str, Tensor]:
        """Give the state of the optimiser: the noise is drawn from torch's random state."""
        return {"optimizer": packed(self._optim.of_torch), "n_steps": torch.tensor(self._n_steps)}

    def load_state_dict(self, memory: Mapping[str, Tensor]) -> None:
        """Go on from there."""
        unpack(self._optim.of_torch, memory["optimizer"])
        self._n_steps = int(memory["n_steps"])

    def _model(self, x: Tensor, y: Tensor, n_data: int) -> Tensor:
        # Not an argument of the step: a guide has the model's, and knows nothing of weights.
        if self._row_weight is None:
            return self._network(x, y, n_data)
        return self._network(x, y, n_data, row_weight=self._row_weight)

    def _step(self, steps: Steps, i: int) -> list[float]:
        x, y = steps.batch(i)
        self._row_weight = steps.weights_of_batch(i)
        self._optim.set_lr(float(steps.lr[i]))
        for tally in (self._model_sites, self._guide_sites):
            tally.reset(float(steps.kl_weight[i]), self._row_weight)
        # A process with no row of the batch still draws the weights that the others draw.
        weight = max(float(steps.step_weight[i]), NEXT_TO_NOTHING)
        with poutine.scale(scale=weight), warnings.catch_warnings():
            warnings.filterwarnings("ignore", "Encountered NaN", UserWarning)  # we raise
            self._svi.step(x, y, steps.n_data)
        n_particles = self._elbo.num_particles
        nll = -self._model_sites.observed * steps.n_data / len(x) / n_particles
        kl = (self._guide_sites.latent - self._model_sites.latent) / n_particles
        return self._whole(torch.stack([nll, kl.to(nll)]), float(steps.step_weight[i]))

    def _whole(self, parts: Tensor, weight: float) -> list[float]:
        """Give the nll and the KL divergence of a whole batch, of which each process has a part."""
        if self._team.size == 1:
            return parts.tolist()
        nll, kl = parts.double()
        own = torch.stack([nll * weight, kl / self._team.size, torch.full_like(nll, weight)])
        nll, kl, total = self._team.sum([own])[0]
        return torch.stack([nll / total, kl]).tolist()

    def _draws(self, x: Tensor, y: Tensor, n_data: int) -> dict[str, Tensor]:
        with torch.no_grad(), pyro.validation_enabled(False), poutine.block():
            trace = poutine.trace(self._guide).get_trace(x, y, n_data)
        return {name: site["value"] for name, site in trace.iter_stochastic_nodes()}


class _Tally(Messenger):
    """Weighs the latent sites of a model or guide, and sums the log-densities without that."""

    def __init__(self, once: bool) -> None:
        super().__init__()
        self._once = once
        self.reset(1.0)

    def reset(self, kl_weight: float, row_weight: Tensor | None = None) -> None:
        self._kl_weight, self._row_weight = kl_weight, row_weight
        self.latent = self.observed = torch.zeros(())

    def __enter__(self) -> _Tally:
        if self._once:  # a vectorised ELBO may run model and guide before, to count their plates
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
    """One torch optimiser over all parameters, in the form that Pyro's SVI calls."""

    def __init__(
        self,
        parameters: list[nn.Parameter],
        factory: OptimizerFactory,
        clip_norm: float | None,
        team: Team,
    ) -> None:
        super().__init__(factory, {})
        self._parameters, self._team = parameters, team
        self.of_torch = factory(parameters, lr=1.0)
        self._clip_norm = math.inf if clip_norm is None else clip_norm

    def set_lr(self, lr: float) -> None:
        for group in self.of_torch.param_groups:
            group["lr"] = lr

    def __call__(self, params: Any, *args: Any, **kwargs: Any) -> None:
        if not params:
            raise ValueError(
                "`guide` announces no parameters to Pyro, so that nothing would be learnt: make it "
                "a PyroModule that owns them."
            )
        # The set that SVI passes has no fixed order, and a sum's rounding depends on the order.
        if self._team.size > 1:
            own = [torch.zeros_like(p) if p.grad is None else p.grad for p in self._parameters]
            for parameter, whole in zip(self._parameters, self._team.sum(own), strict=True):
                parameter.grad = whole
        norm = nn.utils.clip_grad_norm_(self._parameters, self._clip_norm)
        if not torch.isfinite(norm):
            raise NonFiniteLossError
        self.of_torch.step()
        self.of_torch.zero_grad()  # SVI clears only what a guide announced by pyro.param


def non_finite(step: int, culprit: str) -> NonFiniteLossError:
    """Say at which step the loss was not finite, and by what."""
    return NonFiniteLossError(
        f"The loss is not finite at step {step}: {culprit} holds NaN or infinite values. Try a "
        "smaller `lr`, a `clip_norm`, standardised x and y, or a smaller starting scale."
    )


def first_non_finite(
    network: BayesianNetwork, draws: Mapping[str, Tensor], x: Tensor, y: Tensor, n_data: int
) -> str | None:
    """Find what is not finite: the data, a site's draw, or its log-probability."""
    for name, tensor in (("x", x), ("y", y)):
        if not bool(torch.isfinite(tensor).all()):
            row = int(torch.nonzero(~torch.isfinite(tensor))[0, 0])
            return f"row {row} of the batch's `{name}`"
    for name, value in draws.items():
        if not bool(torch.isfinite(value).all()):
            return f"site {name!r} of the guide"
    with torch.no_grad(), pyro.validation_enabled(False), poutine.block():
        model = poutine.condition(network, data=dict(draws))
        trace = poutine.trace(model).get_trace(x, y, n_data)
    for name, site in trace.nodes.items():
        if site["type"] != "sample" or site_is_subsample(site):
            continue
        if not bool(torch.isfinite(site["fn"].log_prob(site["value"])).all()):
            return f"the log-probability of site {name!r} in the model"
    return None
