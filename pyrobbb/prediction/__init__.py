"""Predictive distributions: draws of the weights, outputs, moments and quantiles of y."""

from .calibration import Calibration
from .predictions import ClassificationPrediction, Prediction, RegressionPrediction
from .scaling import Standardizer

__all__ = [
    "Calibration",
    "ClassificationPrediction",
    "Prediction",
    "RegressionPrediction",
    "Standardizer",
]
