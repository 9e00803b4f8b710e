"""Scores of a report, with those of a constant prediction as a baseline."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch.distributions import Categorical, NegativeBinomial, Normal, Poisson

from .. import scores
from ..prediction import ClassificationPrediction, RegressionPrediction

CRPS_LEVELS = 99
LEVELS = (0.5, 0.9)
MIN_VARIANCE = 1e-300
"""Replaces a variance of 0 in divisions."""


@dataclass(frozen=True)
class Score:
    """A score of the model, with that of a constant prediction.

    Attributes
    ----------
    key, name : str
    value, constant : float
    meaning : str
    is_share : bool
        Whether to show the score as a percentage.
    """

    key: str
    name: str
    value: float
    constant: float
    meaning: str
    is_share: bool = False


def score_numbers(
    prediction: RegressionPrediction,
    y: np.ndarray,
    sampled_prediction: RegressionPrediction,
    sampled: np.ndarray,
    *,
    is_count: bool,
) -> tuple[Score, ...]:
    """Score a regression on all rows, or on the sampled rows where quantiles are needed.

    Parameters
    ----------
    prediction, sampled_prediction : RegressionPrediction
        Predictions for all rows, and for the sampled rows.
    y : ndarray of shape (n,)
    sampled : ndarray of shape (n_sampled,)
        Positions of the sampled rows.
    is_count : bool
        Whether the constant prediction is a distribution of counts.
    """
    some = y[sampled]
    mean, variance = float(y.mean()), float(y.var())
    constant = _constant_number(mean, variance, len(y), is_count=is_count)
    constant_of_some = _constant_number(mean, variance, len(some), is_count=is_count)
    here = "" if len(some) == len(y) else f" On {len(some):,} rows, drawn at random."
    rmse = scores.rmse(prediction, y)
    return (
        Score(
            "r2",
            "R²",
            1 - rmse**2 / max(variance, MIN_VARIANCE),
            0.0,
            "Share of the variance of the target that the predicted mean explains; 1 is best.",
        ),
        Score(
            "rmse",
            "RMSE",
            rmse,
            scores.rmse(constant, y),
            "Typical size of an error, in the units of the target; lower is better.",
        ),
        Score(
            "nll",
            "NLL",
            scores.nll(prediction, y),
            scores.nll(constant, y),
            "Negative log predictive density, in nats per row; lower is better.",
        ),
        Score(
            "crps",
            "CRPS",
            scores.crps(sampled_prediction, some, CRPS_LEVELS),
            scores.crps(constant_of_some, some, CRPS_LEVELS),
            "Distance of the predictive distribution from the observation, in the units of the "
            f"target; lower is better.{here}",
        ),
        *(
            Score(
                f"coverage_{level * 100:.0f}",
                f"coverage of {level:.0%} intervals",
                scores.coverage(sampled_prediction, some, level),
                scores.coverage(constant_of_some, some, level),
                f"Share of the rows inside the interval; {level:.0%} is best.{here}",
                is_share=True,
            )
            for level in LEVELS
        ),
    )


def score_classes(
    prediction: ClassificationPrediction, y: np.ndarray, n_classes: int
) -> tuple[Score, ...]:
    """Score a classification.

    Parameters
    ----------
    prediction : ClassificationPrediction
    y : ndarray of shape (n,)
        Indices of classes.
    n_classes : int
    """
    shares = np.bincount(y, minlength=n_classes) / len(y)
    probs = torch.as_tensor(shares).expand(1, len(y), n_classes)
    constant = ClassificationPrediction([Categorical(probs)], np.empty(0))
    return (
        Score(
            "error",
            "error",
            scores.error_rate(prediction, y),
            scores.error_rate(constant, y),
            "Share of the rows whose most probable class is not the observed one; lower is better.",
            is_share=True,
        ),
        Score(
            "nll",
            "NLL",
            scores.nll(prediction, y),
            scores.nll(constant, y),
            "Negative log probability of the observed class, in nats per row; lower is better.",
        ),
        Score(
            "brier",
            "Brier",
            scores.brier(prediction, y),
            scores.brier(constant, y),
            "Squared distance of the probabilities from the observed class, from 0 to 2; lower is "
            "better.",
        ),
        Score(
            "ece",
            "ECE",
            scores.ece(prediction, y),
            scores.ece(constant, y),
            "Average difference between the probability of the predicted class and its accuracy; "
            "0 is best.",
            is_share=True,
        ),
        Score(
            "aurc",
            "AURC",
            scores.aurc(prediction, y),
            scores.aurc(constant, y),
            "Error rate of the most certain predictions, averaged over their number; lower is "
            "better.",
            is_share=True,
        ),
    )


def _constant_number(
    mean: float, variance: float, n: int, *, is_count: bool
) -> RegressionPrediction:
    """Return a prediction with the same mean and variance for all n rows."""
    loc, excess = torch.full((1, n), mean, dtype=torch.float64), variance - mean
    distribution: Any
    if not is_count:
        distribution = Normal(loc, max(variance, MIN_VARIANCE) ** 0.5)
    elif excess > 0:
        distribution = NegativeBinomial(loc**2 / excess, probs=excess / (loc + excess))
    else:
        distribution = Poisson(loc.clamp(min=MIN_VARIANCE))
    return RegressionPrediction([distribution], np.empty(0))
