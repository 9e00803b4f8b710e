"""Bayes by Backprop for Pyro: uncertainty from a neural network."""

from importlib.metadata import version as _version

from . import likelihoods, plots, priors, reference, scores
from .architectures import mlp
from .crosscheck import crosscheck
from .engine import NonFiniteLossError
from .fitting import fit, fresh_start
from .fused import FusedELBO
from .guides import MeanFieldGuide, auto_normal
from .network import BayesianNetwork
from .posterior import Posterior
from .prediction import ClassificationPrediction, Prediction, RegressionPrediction
from .scaling import Standardizer

__version__ = _version("pyrobbb")

__all__ = [
    "BayesianNetwork",
    "ClassificationPrediction",
    "FusedELBO",
    "MeanFieldGuide",
    "NonFiniteLossError",
    "Posterior",
    "Prediction",
    "RegressionPrediction",
    "Standardizer",
    "auto_normal",
    "crosscheck",
    "fit",
    "fresh_start",
    "likelihoods",
    "mlp",
    "plots",
    "priors",
    "reference",
    "scores",
]
