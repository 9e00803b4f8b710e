"""FusedELBO: the fused loss as a `pyro.infer.ELBO`."""

from __future__ import annotations

import operator
from typing import Any, Literal, get_args

import pyro.poutine as poutine
import torch
from pyro.infer import ELBO
from pyro.poutine.runtime import _PYRO_STACK
from torch import Tensor

from .._core.arrays import as_count
from .._core.global_state import without_validation
from .._core.messages import is_one_of, not_one_of, shown
from .._core.trees import Inputs
from ..model.flat_guide import FlatGuide
from ..model.network import BayesianNetwork
from ..model.observation import check_n_data, check_row_weight
from ..model.sites import param_site
from .fused_loss import CannotFuseError, FusedLoss
from .gradient_estimators import Estimator


class FusedELBO(ELBO):
    """The negative ELBO of a `BayesianNetwork` under a guide of pyrobbb, without tracing.

    The guide is a `MeanFieldGuide` or a `LowRankGuide`.

    It computes the same loss and gradients as Pyro's `Trace_ELBO` or `TraceMeanField_ELBO` from the
    same random state, many times faster. Pass it to Pyro's `SVI`, or call it on
    ``(network, guide)`` to get an `nn.Module` for any torch optimizer.

    Parameters
    ----------
    objective : {"trace", "mean_field"}
        Whether the KL divergence is sampled, or computed in closed form where there is one: for a
        `MeanFieldGuide`.
    num_particles : int
        Number of draws of the weights, vectorised.
    estimator : {"reparam", "local", "flipout"}
        Whether the rows of a batch share one draw of the weights (``"reparam"``), or each row has a
        different draw, as described for `pyrobbb.fit`. The latter two need rows that do not affect
        each other.

    Raises
    ------
    CannotFuseError
        If used on another model or guide, or under Pyro handlers that would have no effect.

    Examples
    --------
    >>> svi = pyro.infer.SVI(network, MeanFieldGuide(network), optim, FusedELBO())
    >>> svi.step(x, y)
    """

    def __init__(
        self,
        objective: Literal["trace", "mean_field"] = "trace",
        num_particles: int = 1,
        estimator: Estimator = "reparam",
    ) -> None:
        num_particles = as_count("num_particles", num_particles)
        if not is_one_of(objective, ("trace", "mean_field")):
            raise ValueError(
                f"`objective` must be 'trace' or 'mean_field', got {shown(objective)}."
            )
        super().__init__(num_particles=num_particles, vectorize_particles=True)
        if not is_one_of(estimator, get_args(Estimator)):
            raise ValueError(not_one_of("estimator", estimator, get_args(Estimator)))
        self.objective, self.estimator = objective, estimator
        self._last: tuple[FusedLoss, tuple[Any, ...], Any] | None = None

    def loss(self, model: Any, guide: Any, *args: Any, **kwargs: Any) -> float:
        """Compute the loss as a float."""
        return self.differentiable_loss(model, guide, *args, **kwargs).item()

    def loss_and_grads(self, model: Any, guide: Any, *args: Any, **kwargs: Any) -> float:
        """Compute the loss as a float, and add its gradients to those of the parameters."""
        loss = self.differentiable_loss(model, guide, *args, **kwargs)
        loss.backward()
        return loss.item()

    def differentiable_loss(
        self,
        model: BayesianNetwork,
        guide: FlatGuide,
        x: Inputs,
        y: Tensor,
        n_data: int | None = None,
        row_weight: Tensor | None = None,
    ) -> Tensor:
        """Compute the loss as a tensor that can be differentiated once.

        Parameters
        ----------
        model : BayesianNetwork
        guide : MeanFieldGuide or LowRankGuide
        x, y, n_data, row_weight
            As for `BayesianNetwork.forward`.
        """
        fused = self._fuse(model, guide)
        _check_handlers()
        n_rows = len(y)
        n_data = check_n_data(n_data, n_rows)
        check_row_weight(row_weight, n_rows)
        values = [param_site(f"guide.{name}", p) for name, p in guide.named_parameters()]
        points = [param_site(f"net.{name}", p) for name, p in model.point_parameters()]
        with torch.no_grad(), without_validation():
            loss = fused(
                [value.detach() for value in values],
                tuple(point.detach() for point in points),
                fused.noise(self.num_particles),
                x,
                y,
                data_weight=(n_data or n_rows) / n_rows,
                row_weight=row_weight,
            )
        gradients = (*loss.d_guide, *loss.d_points)
        return _WithGradients.apply(loss.nll + loss.kl, gradients, *values, *points)

    def _get_trace(self, *args: Any, **kwargs: Any) -> Any:
        raise NotImplementedError("`FusedELBO` does not trace the model.")

    def _fuse(self, model: Any, guide: Any) -> FusedLoss:
        key = (model, guide, *(getattr(model, n, None) for n in ("net", "prior", "likelihood")))
        loc = getattr(guide, "loc", None)
        kind: tuple[Any, ...] = ()
        if isinstance(loc, Tensor) and isinstance(model, BayesianNetwork):
            kind = (loc.dtype, loc.device, *(name for name, _ in model.point_parameters()))
        if self._last is not None:
            fused, last_key, last_kind = self._last
            if all(map(operator.is_, key, last_key)) and kind == last_kind:
                return fused
        fused = FusedLoss(
            model,
            guide,
            closed_form_kl=self.objective == "mean_field",
            estimator=self.estimator,
        )
        self._last = fused, key, kind
        return fused


class _WithGradients(torch.autograd.Function):
    """A value whose gradients have already been computed."""

    @staticmethod
    def forward(ctx: Any, value: Tensor, gradients: tuple[Tensor, ...], *inputs: Tensor) -> Tensor:
        ctx.gradients = gradients
        return value.clone()

    @staticmethod
    def backward(ctx: Any, upstream: Tensor) -> tuple[Tensor | None, ...]:
        return None, None, *(upstream * gradient for gradient in ctx.gradients)


def _check_handlers() -> None:
    passive = (poutine.trace_messenger.TraceMessenger, poutine.block_messenger.BlockMessenger)
    for handler in _PYRO_STACK:
        if not isinstance(handler, passive):
            raise CannotFuseError(
                f"a {type(handler).__name__} is active, which has no effect without tracing"
            )
