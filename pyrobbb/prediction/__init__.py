"""Predictive distributions: draws of the weights, outputs, moments and quantiles of y."""

from .base import Prediction
from .calibration import Calibration
from .class_sets import set_levels
from .classification import ClassificationPrediction
from .predictions import make_prediction
from .regression import RegressionPrediction
from .scaling import Standardizer
from .temperature import fit_temperature

__all__ = [
    "Calibration",
    "ClassificationPrediction",
    "Prediction",
    "RegressionPrediction",
    "Standardizer",
    "fit_temperature",
    "make_prediction",
    "set_levels",
]
