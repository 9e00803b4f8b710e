"""Bayes by Backprop for Pyro: uncertainty from a neural network."""

import os as _os
from importlib import import_module as _import_module
from threading import RLock as _RLock
from typing import TYPE_CHECKING as _TYPE_CHECKING
from typing import Any as _Any

if _TYPE_CHECKING:
    from . import (
        acquisition,
        bandits,
        datasets,
        diagnostics,
        likelihoods,
        plots,
        priors,
        reference,
        scores,
        streams,
    )
    from .arviz_io import from_pyro
    from .comparisons import compare_with_nuts, crosscheck, sbc
    from .elbo.fused_elbo import FusedELBO
    from .engines.base import NonFiniteLossError
    from .estimators import BBBClassifier, BBBRegressor
    from .model.guides import DenseGuide, LowRankGuide, MeanFieldGuide, auto_normal
    from .model.input_scale import InputScale
    from .model.mlp import mlp
    from .model.network import BayesianNetwork
    from .model.start import init_loc_fn, init_scale
    from .posterior.closed_form import last_layer
    from .posterior.fitting import fit
    from .posterior.posterior import Posterior
    from .posterior.pruning import prune
    from .posterior.stacking import stack
    from .posterior.updating import update
    from .prediction import (
        Calibration,
        ClassificationPrediction,
        Prediction,
        RegressionPrediction,
        Standardizer,
    )
    from .training.restarts import fresh_start

    __version__: str

# Everything is imported on first access: a command line with a typo need not wait for torch, and
# `import pyrobbb` not for what only some programs use.
_MODULE_OF = {
    "BBBClassifier": "estimators",
    "BBBRegressor": "estimators",
    "BayesianNetwork": "model.network",
    "Calibration": "prediction",
    "ClassificationPrediction": "prediction",
    "DenseGuide": "model.guides",
    "FusedELBO": "elbo.fused_elbo",
    "InputScale": "model.input_scale",
    "LowRankGuide": "model.guides",
    "MeanFieldGuide": "model.guides",
    "NonFiniteLossError": "engines.base",
    "Posterior": "posterior.posterior",
    "Prediction": "prediction",
    "RegressionPrediction": "prediction",
    "Standardizer": "prediction",
    "auto_normal": "model.guides",
    "compare_with_nuts": "comparisons",
    "crosscheck": "comparisons",
    "fit": "posterior.fitting",
    "fresh_start": "training.restarts",
    "from_pyro": "arviz_io",
    "init_loc_fn": "model.start",
    "init_scale": "model.start",
    "last_layer": "posterior.closed_form",
    "mlp": "model.mlp",
    "prune": "posterior.pruning",
    "sbc": "comparisons",
    "stack": "posterior.stacking",
    "update": "posterior.updating",
}
_MODULES = {
    *(
        "acquisition",
        "arviz_io",
        "bandits",
        "comparisons",
        "datasets",
        "diagnostics",
        "elbo",
        "engines",
    ),
    *(
        "estimators",
        "export",
        "fitted",
        "last_layers",
        "likelihoods",
        "model",
        "plots",
        "posterior",
        "prediction",
        "priors",
    ),
    *("columns", "reference", "report", "scores", "storage", "streams", "surrogates", "tables"),
    "training",
}

__all__ = [
    "BBBClassifier",
    "BBBRegressor",
    "BayesianNetwork",
    "Calibration",
    "ClassificationPrediction",
    "DenseGuide",
    "FusedELBO",
    "InputScale",
    "LowRankGuide",
    "MeanFieldGuide",
    "NonFiniteLossError",
    "Posterior",
    "Prediction",
    "RegressionPrediction",
    "Standardizer",
    "acquisition",
    "auto_normal",
    "bandits",
    "compare_with_nuts",
    "crosscheck",
    "datasets",
    "diagnostics",
    "fit",
    "fresh_start",
    "from_pyro",
    "init_loc_fn",
    "init_scale",
    "last_layer",
    "likelihoods",
    "mlp",
    "plots",
    "priors",
    "prune",
    "reference",
    "sbc",
    "scores",
    "stack",
    "streams",
    "update",
]

# Modules that import each other, also those of Pyro, are seen half initialised by threads that
# begin with different ones: they take turns.
_lock = _RLock()


def _renew_lock() -> None:
    global _lock
    _lock = _RLock()


if hasattr(_os, "register_at_fork"):
    _os.register_at_fork(after_in_child=_renew_lock)  # its owner does not exist in the child


def __getattr__(name: str) -> _Any:
    if name in _MODULES or name in _MODULE_OF:
        with _lock:
            module = _import_module(f".{_MODULE_OF.get(name, name)}", __name__)
        return module if name in _MODULES else globals().setdefault(name, getattr(module, name))
    if name == "__version__":
        from importlib.metadata import version

        return globals().setdefault(name, version(__name__))
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__, "__version__"})
