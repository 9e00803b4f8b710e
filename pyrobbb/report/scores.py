"""Scores of a report, beside those of a constant prediction."""

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
LEAST = 1e-300
"""In place of a variance of 0, by which one cannot divide."""


@dataclass(frozen=True)
class Score:
    """One score, beside that of a constant prediction.

    Attributes
    ----------
    name : str
    value, constant : float
    meaning : str
    is_share : bool
        Whether it is told as a percentage.
    """

    name: str
    value: float
    constant: float
    meaning: str
    is_share: bool = False


def of_numbers(
    prediction: RegressionPrediction,
    y: np.ndarray,
    chosen_prediction: RegressionPrediction,
    chosen: np.ndarray,
    *,
    is_count: bool,
) -> tuple[Score, ...]:
    """Score a regression; by all rows, or by those chosen for what takes quantiles.

    Parameters
    ----------
    prediction, chosen_prediction : RegressionPrediction
        Of all rows, and of those chosen.
    y : ndarray of shape (n,)
    chosen : ndarray of shape (n_chosen,)
        Their positions.
    is_count : bool
        Whether the constant prediction is one of counts, too.
    """
    some = y[chosen]
    mean, variance = float(y.mean()), float(y.var())
    constant = _constant_number(mean, variance, len(y), is_count=is_count)
    constant_of_some = _constant_number(mean, variance, len(some), is_count=is_count)
    here = "" if len(some) == len(y) else f" On {len(some):,} rows, drawn at random."
    rmse = scores.rmse(prediction, y)
    return (
        Score(
            "R²",
            1 - rmse**2 / max(variance, LEAST),
            0.0,
            "Share of the variance of the target that the predicted mean explains; 1 is best.",
        ),
        Score(
            "RMSE",
            rmse,
            scores.rmse(constant, y),
            "Size of a typical error, in the units of the target; lower is better.",
        ),
        Score(
            "NLL",
            scores.nll(prediction, y),
            scores.nll(constant, y),
            "Surprise at what was seen, in nats a row: of means and widths; lower is better.",
        ),
        Score(
            "CRPS",
            scores.crps(chosen_prediction, some, CRPS_LEVELS),
            scores.crps(constant_of_some, some, CRPS_LEVELS),
            "Distance of the whole prediction from what was seen, in the units of the target; "
            f"lower is better.{here}",
        ),
        *(
            Score(
                f"{level:.0%} intervals hold",
                scores.coverage(chosen_prediction, some, level),
                scores.coverage(constant_of_some, some, level),
                f"Share of the rows inside; {level:.0%} is best.{here}",
                is_share=True,
            )
            for level in LEVELS
        ),
    )


def of_classes(
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
            scores.error_rate(prediction, y),
            scores.error_rate(constant, y),
            "Share of the rows whose most probable class is not the one seen; lower is better.",
            is_share=True,
        ),
        Score(
            "NLL",
            scores.nll(prediction, y),
            scores.nll(constant, y),
            "Surprise at the class seen, in nats a row: of the probabilities; lower is better.",
        ),
        Score(
            "Brier",
            scores.brier(prediction, y),
            scores.brier(constant, y),
            "Squared distance of the probabilities from what was seen, 0 to 2; lower is better.",
        ),
        Score(
            "ECE",
            scores.ece(prediction, y),
            scores.ece(constant, y),
            "How far the probability of the predicted class is from how often it is right, on "
            "average; 0 is best.",
            is_share=True,
        ),
    )


def _constant_number(
    mean: float, variance: float, n: int, *, is_count: bool
) -> RegressionPrediction:
    """Give the prediction of a mean and a variance for each of n rows."""
    loc, excess = torch.full((1, n), mean, dtype=torch.float64), variance - mean
    distribution: Any
    if not is_count:
        distribution = Normal(loc, max(variance, LEAST) ** 0.5)
    elif excess > 0:
        distribution = NegativeBinomial(loc**2 / excess, probs=excess / (loc + excess))
    else:
        distribution = Poisson(loc.clamp(min=LEAST))
    return RegressionPrediction([distribution], np.empty(0))
