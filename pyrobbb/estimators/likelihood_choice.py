"""Choice of the likelihood by the predictive density of held-out rows, for likelihood="auto"."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..model.network import BayesianNetwork
from ..posterior.fitting import fit
from ..prediction import RegressionPrediction, Standardizer
from ..scores import compare_log_densities
from .holdout import n_held_out
from .preparation import Rows
from .stages import Stages, TrainingOptions

logger = logging.getLogger(__name__)

REAL = ("gaussian", "heteroscedastic", "student_t")
COUNTS = ("poisson", "negative_binomial", "gaussian", "heteroscedastic")
"""The likelihoods that are tried, the simplest first."""
FEW_ROWS = 60
"""With fewer rows, the held-out ones are too few to choose by."""
HELD_OUT_FRACTION, MAX_HELD_OUT = 0.2, 2_000
FRACTION_OF_EPOCHS = 0.25
"""Fraction of the epochs of the fit that follows."""


@dataclass(frozen=True, eq=False)
class Candidate:
    """A likelihood that is tried.

    Attributes
    ----------
    network : BayesianNetwork
    rows : Rows
        In its units.
    scaling : Standardizer or None
        From these units to those of y. None: the same.
    """

    network: BayesianNetwork
    rows: Rows
    scaling: Standardizer | None


def candidate_likelihoods(y: np.ndarray) -> tuple[str, ...]:
    """Return the names of the likelihoods to try for targets of shape (n, n_targets).

    For fewer than `FEW_ROWS` rows: the one to use, of which the negative binomial includes the
    Poisson distribution as a limit.
    """
    if len(y) < FEW_ROWS:
        return ("negative_binomial",) if are_counts(y) else ("gaussian",)
    return COUNTS if are_counts(y) else REAL


def are_counts(y: np.ndarray) -> bool:
    """Return whether targets look like counts: integers from 0 or 1 up, not only these two."""
    if y.shape[1] > 1 or not bool((y == np.round(y)).all()):
        return False
    return bool(y.min() in (0, 1) and y.max() > 2)


def choose_likelihood(
    candidates: Mapping[str, Candidate],
    y: np.ndarray,
    options: TrainingOptions,
    stages: Stages,
    n_draws: int,
) -> list[dict[str, Any]]:
    """Return the held-out log density under each likelihood, with the chosen one.

    That is the simplest one whose mean log density is within one standard error, of the difference,
    of the highest. Counts have a probability each: that of a density is its integral from
    y - 1/2 to y + 1/2.

    Parameters
    ----------
    candidates : mapping of str to Candidate
        By name, the simplest first; the names are also those of the stages.
    y : ndarray of shape (n, n_targets)
        Targets in their own units.
    options : TrainingOptions
    stages : Stages
    n_draws : int
        Draws of the weights for the predictions of held-out rows.

    Returns
    -------
    list of dict
        One for each likelihood.
    """
    n_rows, as_counts = len(y), are_counts(y)
    n_held = min(n_held_out("`likelihood`='auto'", HELD_OUT_FRACTION, n_rows), MAX_HELD_OUT)
    order = np.random.default_rng(options.seed).permutation(n_rows)
    fitted, held = order[n_held:], order[:n_held]
    log_density = []
    for name, candidate in candidates.items():
        rows, test = candidate.rows.take(fitted), candidate.rows.take(held)
        posterior = fit(
            candidate.network,
            rows.x,
            rows.y,
            sample_weight=rows.weight,
            checkpoint=stages.folder(name),
            **options.arguments(rows, FRACTION_OF_EPOCHS),
        )
        prediction = posterior.predict(test.x, n_draws, options.seed)
        assert isinstance(prediction, RegressionPrediction)
        if candidate.scaling is not None:
            prediction = prediction.rescaled(candidate.scaling.loc, candidate.scaling.scale)
        log_density.append(_log_density(prediction, y[held], as_counts=as_counts))
    weight = next(iter(candidates.values())).rows.take(held).weight
    table, best = _compare(list(candidates), np.stack(log_density), weight)
    logger.info(
        "likelihood='auto': %s, whose mean log density of %d held-out rows is %.3g (%s).",
        best,
        n_held,
        next(row["log_density"] for row in table if row["is_chosen"]),
        ", ".join(f"{row['likelihood']} {row['log_density']:.3g}" for row in table),
    )
    return table


def _log_density(prediction: RegressionPrediction, y: np.ndarray, *, as_counts: bool) -> np.ndarray:
    """Return the log predictive density of each row, or the log probability of its count."""
    if not as_counts or prediction.is_discrete:
        return np.asarray(prediction.log_prob(y))
    upper, lower = (np.asarray(prediction.cdf(y + shift)) for shift in (0.5, -0.5))
    return np.log(np.maximum(upper - lower, np.finfo(float).tiny)).sum(-1)


def _compare(
    names: list[str], log_density: np.ndarray, weight: np.ndarray | None
) -> tuple[list[dict[str, Any]], str]:
    """Return the table of the likelihoods, and the name of the chosen one.

    Parameters
    ----------
    names : list of str
    log_density : ndarray of shape (n_likelihoods, n_rows)
    weight : ndarray of shape (n_rows,), optional
    """
    mean, error, is_level = compare_log_densities(log_density, weight)
    chosen = int(np.argmax(is_level))  # the first
    table = [
        {
            "likelihood": name,
            "log_density": float(mean[i]),
            "standard_error": float(error[i]),
            "is_chosen": i == chosen,
        }
        for i, name in enumerate(names)
    ]
    return table, names[chosen]
