"""How a step is taken. An engine turns a stream of batches into a stream of losses.

That stream is the seam: `fit` says what to step on (`Batch`) and reads what came of it
(`StepLosses`); an engine is free to take many batches before it gives the losses of the first.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any, Protocol

import pyro.optim
import pyro.poutine as poutine
import torch
from pyro.infer import ELBO, SVI
from pyro.poutine.messenger import Messenger
from pyro.poutine.util import site_is_subsample
from torch import Tensor, nn

from .network import BayesianNetwork

OptimizerFactory = Callable[..., torch.optim.Optimizer]


class NonFiniteLossError(ArithmeticError):
    """The loss or its gradient is NaN or infinite."""


@dataclass(frozen=True)
class Batch:
    """What one step needs.

    Attributes
    ----------
    x, y : Tensor of shape (n_rows, ...)
    n_data : int
        Size of the whole data set.
    kl_weight : float
        Factor on the KL divergence; 1 is the plain negative ELBO.
    step_weight : float
        Factor on the whole loss. A ragged last batch weighs in proportion to its rows.
    lr : float
        Learning rate.
    """

    x: Tensor
    y: Tensor
    n_data: int
    kl_weight: float
    step_weight: float
    lr: float


@dataclass(frozen=True)
class StepLosses:
    """The negative ELBO before a step and its parts, in nats at the scale of the data set."""

    nelbo: float
    nll: float
    kl: float


class Engine(Protocol):
    """Takes the steps of a fit."""

    def run(self, batches: Iterable[Batch]) -> Iterator[StepLosses]:
        """Step on each batch in turn and give the losses in the same order."""
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
    """

    def __init__(
        self,
        network: BayesianNetwork,
        guide: Callable[..., Any],
        *,
        elbo: ELBO,
        optimizer: OptimizerFactory,
        parameters: Iterable[nn.Parameter],
        clip_norm: float | None = None,
    ) -> None:
        self._network, self._guide, self._elbo = network, guide, elbo
        self._n_steps = 0
        once = bool(elbo.vectorize_particles)
        self._model_sites, self._guide_sites = _Tally(once), _Tally(once)
        self._optim = _SingleOptimizer(list(parameters), optimizer, clip_norm)
        self._svi = SVI(self._model_sites(network), self._guide_sites(guide), self._optim, elbo)

    def run(self, batches: Iterable[Batch]) -> Iterator[StepLosses]:
        """Step on each batch in turn and give the losses in the same order."""
        for batch in batches:
            losses, error = None, None
            random_state = torch.random.get_rng_state()
            try:
                losses = self._step(batch)
            except (NonFiniteLossError, ValueError) as caught:  # Pyro's validation finds NaN too
                error = caught
            if losses is None or not math.isfinite(losses.nelbo):
                raise self._explain(batch, error, random_state) from error
            self._n_steps += 1
            yield losses

    def _step(self, batch: Batch) -> StepLosses:
        self._optim.set_lr(batch.lr)
        for tally in (self._model_sites, self._guide_sites):
            tally.reset(batch.kl_weight)
        with poutine.scale(scale=batch.step_weight), warnings.catch_warnings():
            warnings.filterwarnings("ignore", "Encountered NaN", UserWarning)  # we raise
            self._svi.step(batch.x, batch.y, batch.n_data)
        n_particles = self._elbo.num_particles
        nll = -self._model_sites.observed * batch.n_data / len(batch.x) / n_particles
        kl = (self._guide_sites.latent - self._model_sites.latent) / n_particles
        nll, kl = torch.stack([nll, kl.to(nll)]).tolist()
        return StepLosses(nll + kl, nll, kl)

    def _explain(self, batch: Batch, error: Exception | None, random_state: Tensor) -> Exception:
        torch.random.set_rng_state(random_state)  # to draw the same weights again
        culprit = _first_non_finite(self._network, self._guide, batch)
        if culprit is None:
            if error is not None and not isinstance(error, NonFiniteLossError):
                return error
            culprit = "the gradient"
        return NonFiniteLossError(
            f"The loss is not finite at step {self._n_steps}: {culprit} holds NaN or infinite "
            "values. Try a smaller `lr`, a `clip_norm`, standardised x and y, or a smaller "
            "starting scale."
        )


class _Tally(Messenger):
    """Weighs the latent sites of a model or guide, and sums the unweighted log-densities."""

    def __init__(self, once: bool) -> None:
        super().__init__()
        self._once = once
        self.reset(1.0)

    def reset(self, kl_weight: float) -> None:
        self._kl_weight = kl_weight
        self.latent = self.observed = torch.zeros(())

    def __enter__(self) -> _Tally:
        if self._once:  # a vectorised ELBO may run model and guide before, to count their plates
            self.reset(self._kl_weight)
        return super().__enter__()

    def _pyro_sample(self, msg: Any) -> None:
        if not msg["is_observed"] and not site_is_subsample(msg):
            msg["scale"] = msg["scale"] * self._kl_weight

    def _pyro_post_sample(self, msg: Any) -> None:
        if site_is_subsample(msg):
            return
        with torch.no_grad():
            log_prob = msg["fn"].log_prob(msg["value"]).sum()
        if msg["is_observed"]:
            self.observed = self.observed.to(log_prob) + log_prob
        else:
            self.latent = self.latent.to(log_prob) + log_prob


class _SingleOptimizer(pyro.optim.PyroOptim):
    """One torch optimiser over all parameters, in the form that Pyro's SVI calls."""

    def __init__(
        self, parameters: list[nn.Parameter], factory: OptimizerFactory, clip_norm: float | None
    ) -> None:
        super().__init__(factory, {})
        self._parameters = parameters
        self._optimizer = factory(parameters, lr=1.0)
        self._clip_norm = math.inf if clip_norm is None else clip_norm

    def set_lr(self, lr: float) -> None:
        for group in self._optimizer.param_groups:
            group["lr"] = lr

    def __call__(self, params: Any, *args: Any, **kwargs: Any) -> None:
        if not params:
            raise ValueError(
                "`guide` announces no parameters to Pyro, so that nothing would be learnt: make it "
                "a PyroModule that owns them."
            )
        # The set that SVI passes has no fixed order, and a sum's rounding depends on the order.
        norm = nn.utils.clip_grad_norm_(self._parameters, self._clip_norm)
        if not torch.isfinite(norm):
            raise NonFiniteLossError
        self._optimizer.step()
        self._optimizer.zero_grad()  # SVI clears only what a guide announced by pyro.param


def _first_non_finite(
    network: BayesianNetwork, guide: Callable[..., Any], batch: Batch
) -> str | None:
    for name, tensor in (("x", batch.x), ("y", batch.y)):
        if not bool(torch.isfinite(tensor).all()):
            row = int(torch.nonzero(~torch.isfinite(tensor))[0, 0])
            return f"row {row} of the batch's `{name}`"
    with torch.no_grad(), pyro.validation_enabled(False), poutine.block():
        guide_trace = poutine.trace(guide).get_trace(batch.x, batch.y, batch.n_data)
        model = poutine.replay(network, trace=guide_trace)
        model_trace = poutine.trace(model).get_trace(batch.x, batch.y, batch.n_data)
        for owner, trace in (("guide", guide_trace), ("model", model_trace)):
            for name, site in trace.nodes.items():
                if site["type"] != "sample" or site_is_subsample(site):
                    continue
                if not bool(torch.isfinite(site["value"]).all()):
                    return f"site {name!r} of the {owner}"
                if not bool(torch.isfinite(site["fn"].log_prob(site["value"])).all()):
                    return f"the log-probability of site {name!r} in the {owner}"
    return None
