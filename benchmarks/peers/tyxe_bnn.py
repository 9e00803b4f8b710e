"""TyXe: Bayesian neural networks in Pyro, by a module that it lifts."""

from __future__ import annotations

from functools import partial
from operator import attrgetter
from typing import Any

import pyro
import pyro.distributions as dist
from pyro.infer import SVI, TraceMeanField_ELBO
from torch import Tensor

from problems import Problem

from .torch_learner import TorchLearner, plain_net


def _deep_getattr(owner: Any, name: str) -> Any:
    return attrgetter(name)(owner)


# TyXe 0.0.2 calls a function that Pyro has dropped since.
pyro.util.deep_getattr = _deep_getattr

import tyxe  # noqa: E402


class TyXe(TorchLearner):
    """Takes steps by `SVI.step` with the objective that TyXe's own `fit` takes."""

    def __init__(self, problem: Problem, lr: float = 1e-3) -> None:
        super().__init__(problem, lr)
        pyro.clear_param_store()
        if problem.task == "regression":
            likelihood = tyxe.likelihoods.HomoskedasticGaussian(
                problem.n_data, scale=problem.noise_scale
            )
        else:
            likelihood = tyxe.likelihoods.Categorical(problem.n_data)
        bnn = tyxe.VariationalBNN(
            plain_net(problem),
            tyxe.priors.IIDPrior(dist.Normal(0.0, problem.prior_scale)),
            likelihood,
            partial(tyxe.guides.AutoNormal, init_scale=0.05),
        )
        optimizer = pyro.optim.Adam({"lr": lr})
        self.svi = SVI(bnn.model, bnn.guide, optimizer, TraceMeanField_ELBO())

    def step(self, x: Tensor, y: Tensor) -> float:
        """Take a step, and give the loss before it."""
        return self.svi.step(x, y)
