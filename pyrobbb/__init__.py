"""Bayes by Backprop for Pyro: uncertainty from a neural network."""

from importlib import import_module as _import_module
from importlib.metadata import version as _version
from typing import TYPE_CHECKING as _TYPE_CHECKING
from typing import Any as _Any

from . import datasets, likelihoods, priors, streams
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
    from . import bandits, diagnostics, plots, reference, scores
    from .arviz_io import from_pyro
    from .comparisons import compare_with_nuts, crosscheck, sbc
    from .estimators import BBBClassifier, BBBRegressor

# Imported on first access: what only some programs use, so that the import stays quick.
_MODULES = {"bandits", "diagnostics", "plots", "reference", "scores"}
_MODULE_OF = {
    "BBBClassifier": "estimators",
    "BBBRegressor": "estimators",
    "compare_with_nuts": "comparisons",
    "crosscheck": "comparisons",
    "from_pyro": "arviz_io",
    "sbc": "comparisons",
}

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
    if name in _MODULES:
        return _import_module(f".{name}", __name__)
    if name in _MODULE_OF:
        return getattr(_import_module(f".{_MODULE_OF[name]}", __name__), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return [*globals(), *__all__]
