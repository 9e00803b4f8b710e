"""The libraries that are compared, one module each.

A module is imported only in the process that times it: the thread pools of JAX and of PyTorch
disturb each other.
"""

from __future__ import annotations

from dataclasses import dataclass
from importlib import import_module
from typing import Any, Literal, Protocol

import numpy as np

from problems import Problem


class Learner(Protocol):
    """Bayes by Backprop on a problem, one step at a time."""

    def __init__(self, problem: Problem, lr: float = 1e-3) -> None: ...

    def batch(self, rows: np.ndarray) -> tuple[Any, Any]:
        """Return the rows of x and y as the library's tensors."""

    def step(self, x: Any, y: Any) -> float:
        """Take a step, and give the loss before it: the negative ELBO, in nats of all rows."""


@dataclass(frozen=True)
class Weights:
    """The posterior of a layer: means and standard deviations.

    Attributes
    ----------
    weight, weight_scale : ndarray of shape (n_out, n_in)
    bias, bias_scale : ndarray of shape (n_out,)
    """

    weight: np.ndarray
    weight_scale: np.ndarray
    bias: np.ndarray
    bias_scale: np.ndarray


@dataclass(frozen=True)
class Peer:
    """What is compared.

    Attributes
    ----------
    label : str
    module : str
        Its module in this package.
    learner : str
        The `Learner` in it; empty where steps are not taken one by one.
    engine : str
        pyrobbb's way to take steps.
    """

    label: str
    module: str
    learner: str = ""
    engine: str = ""

    @property
    def library(self) -> Literal["torch", "jax"]:
        """What it computes with."""
        return "jax" if self.module == "numpyro_svi" else "torch"

    def load(self) -> Any:
        """Import its learner."""
        return getattr(import_module(f"peers.{self.module}"), self.learner)


PEERS = {
    "deterministic": Peer("deterministic net", "deterministic", "DeterministicNet"),
    "by-hand": Peer("loop by hand", "by_hand", "HandWritten"),
    "pyro": Peer("Pyro SVI", "pyro_svi", "PyroSVI"),
    "tyxe": Peer("TyXe", "tyxe_bnn", "TyXe"),
    "blitz": Peer("blitz", "blitz_layers", "Blitz"),
    "bayesian-torch": Peer("bayesian-torch", "bayesian_torch_layers", "BayesianTorch"),
    "torchbnn": Peer("torchbnn", "torchbnn_layers", "TorchBNN"),
    "numpyro": Peer("NumPyro, step by step", "numpyro_svi", "NumPyroSVI"),
    "numpyro-scan": Peer("NumPyro, scan of 100 steps", "numpyro_svi", "NumPyroSVI"),
    "pyrobbb-svi": Peer("pyrobbb, svi", "pyrobbb_fit", engine="svi"),
    "pyrobbb-fused": Peer("pyrobbb, fused", "pyrobbb_fit", engine="fused"),
    "pyrobbb-compiled": Peer("pyrobbb, compiled", "pyrobbb_fit", engine="compiled"),
}
