"""Scores of a report: of the model, and of a linear and a constant prediction beside it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np

from .. import scores
from ..prediction import ClassificationPrediction, RegressionPrediction
from ..tables.held_out import class_auc, explained_variance

CRPS_LEVELS = 99
LEVELS = (0.5, 0.9)


@dataclass(frozen=True)
class Score:
    """A score of the model, and of what it is compared with.

    Attributes
    ----------
    key, name : str
    values : mapping of str to float
        By ``"model"``, ``"linear"`` (not on rows that the model was not fitted to) and
        ``"constant"``.
    meaning : str
    is_share : bool
        Whether to show the score as a percentage.
    """

    key: str
    name: str
    values: Mapping[str, float]
    meaning: str
    is_share: bool = False

    @classmethod
    def of(
        cls,
        key: str,
        name: str,
        compute: Callable[[Any, np.ndarray], float],
        compared: Mapping[str, Any],
        y: np.ndarray,
        meaning: str,
        *,
        is_share: bool = False,
    ) -> Score:
        """Compute a score of all predictions that are compared."""
        values = {name: compute(prediction, y) for name, prediction in compared.items()}
        return cls(key, name, values, meaning, is_share)


def score_numbers(
    compared: Mapping[str, RegressionPrediction],
    of_sample: Mapping[str, RegressionPrediction],
    y: np.ndarray,
    y_of_sample: np.ndarray,
) -> tuple[Score, ...]:
    """Score a regression on all rows, or on the sampled rows where quantiles are needed.

    Parameters
    ----------
    compared, of_sample : mapping of str to RegressionPrediction
        Predictions for all rows, and for the sampled rows, by what they are of.
    y : ndarray of shape (n,)
    y_of_sample : ndarray of shape (n_sampled,)
    """
    n = len(y_of_sample)
    here = "" if n == len(y) else f" On {n:,} rows, drawn at random."
    return (
        Score.of(
            "r2",
            "R²",
            lambda prediction, y: round(explained_variance(prediction, y), 12) + 0.0,
            compared,
            y,
            "Share of the variance of the target that the predicted mean explains; 1 is best.",
        ),
        Score.of(
            "rmse",
            "RMSE",
            scores.rmse,
            compared,
            y,
            "Typical size of an error, in the units of the target; lower is better.",
        ),
        Score.of(
            "nll",
            "NLL",
            scores.nll,
            compared,
            y,
            "Negative log predictive density, in nats per row; lower is better.",
        ),
        Score.of(
            "crps",
            "CRPS",
            lambda prediction, y: scores.crps(prediction, y, CRPS_LEVELS),
            of_sample,
            y_of_sample,
            "Distance of the predictive distribution from the observation, in the units of the "
            f"target; lower is better.{here}",
        ),
        *(
            Score.of(
                f"coverage_{level * 100:.0f}",
                f"coverage of {level:.0%} intervals",
                partial(scores.coverage, level=level),
                of_sample,
                y_of_sample,
                f"Share of the rows inside the interval; {level:.0%} is best.{here}",
                is_share=True,
            )
            for level in LEVELS
        ),
    )


def score_classes(
    compared: Mapping[str, ClassificationPrediction], y: np.ndarray
) -> tuple[Score, ...]:
    """Score a classification.

    Parameters
    ----------
    compared : mapping of str to ClassificationPrediction
        Predictions by what they are of.
    y : ndarray of shape (n,)
        Indices of classes.
    """
    return (
        Score.of(
            "error",
            "error",
            scores.error_rate,
            compared,
            y,
            "Share of the rows whose most probable class is not the observed one; lower is better.",
            is_share=True,
        ),
        Score.of(
            "nll",
            "NLL",
            scores.nll,
            compared,
            y,
            "Negative log probability of the observed class, in nats per row; lower is better.",
        ),
        Score.of(
            "brier",
            "Brier",
            scores.brier,
            compared,
            y,
            "Squared distance of the probabilities from the observed class, from 0 to 2; lower is "
            "better.",
        ),
        Score.of(
            "auc",
            "AUC",
            lambda prediction, y: class_auc(np.asarray(prediction.probs), y),
            compared,
            y,
            "Probability that a row of a class has a higher probability of it than one of another, "
            "averaged over classes; 1 is best, 0.5 is chance.",
        ),
        Score.of(
            "ece",
            "ECE",
            scores.ece,
            compared,
            y,
            "Average difference between the probability of the predicted class and its accuracy; "
            "0 is best.",
            is_share=True,
        ),
        Score.of(
            "aurc",
            "AURC",
            scores.aurc,
            compared,
            y,
            "Error rate of the most certain predictions, averaged over their number; lower is "
            "better.",
            is_share=True,
        ),
    )
