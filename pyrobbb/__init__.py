"""Bayes by Backprop for Pyro: uncertainty from a neural network."""

from importlib.metadata import version as _version
from typing import TYPE_CHECKING as _TYPE_CHECKING
from typing import Any as _Any

from . import bandits, datasets, diagnostics, likelihoods, plots, priors, reference, scores, streams
from .arviz_io.from_pyro import from_pyro
from .comparisons import compare_with_nuts, crosscheck, sbc
from .elbo.fused_elbo import FusedELBO
from .engines.base import NonFiniteLossError
from .model.guides import MeanFieldGuide, auto_normal
from .model.mlp import mlp
from .model.network import BayesianNetwork
from .posterior.fitting import fit
from .posterior.posterior import Posterior
from .posterior.pruning import prune
from .posterior.updating import update
from .prediction import (
    Calibration,
    ClassificationPrediction,
    Prediction,
    RegressionPrediction,
    Standardizer,
)
from .training.restarts import fresh_start

if _TYPE_CHECKING:
    from .estimators import BBBClassifier, BBBRegressor

__version__ = _version("pyrobbb")

__all__ = [
    "BBBClassifier",
    "BBBRegressor",
    "BayesianNetwork",
    "Calibration",
    "ClassificationPrediction",
    "FusedELBO",
    "MeanFieldGuide",
    "NonFiniteLossError",
    "Posterior",
    "Prediction",
    "RegressionPrediction",
    "Standardizer",
    "auto_normal",
    "bandits",
    "compare_with_nuts",
    "crosscheck",
    "datasets",
    "diagnostics",
    "fit",
    "fresh_start",
    "from_pyro",
    "likelihoods",
    "mlp",
    "plots",
    "priors",
    "prune",
    "reference",
    "sbc",
    "scores",
    "streams",
    "update",
]


def __getattr__(name: str) -> _Any:
    """Import the estimators, which need scikit-learn, on first access."""
    if name in ("BBBClassifier", "BBBRegressor"):
        from . import estimators

        return getattr(estimators, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
