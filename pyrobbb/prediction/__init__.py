"""Predictive distributions: draws of the weights, outputs, moments and quantiles of y."""

from .base import Prediction
from .calibration import Calibration
from .classification import ClassificationPrediction
from .predictions import make_prediction
from .regression import RegressionPrediction
from .scaling import Standardizer

__all__ = [
    "Calibration",
    "ClassificationPrediction",
    "Prediction",
    "RegressionPrediction",
    "Standardizer",
    "make_prediction",
]
