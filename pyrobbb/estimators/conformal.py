"""Split conformal calibration of an estimator on held-out rows: intervals, sets, temperature."""

from __future__ import annotations

import logging
from collections.abc import Callable

import numpy as np

from ..model.network import BayesianNetwork
from ..posterior.posterior import Posterior
from ..prediction import (
    Calibration,
    ClassificationPrediction,
    RegressionPrediction,
    fit_temperature,
    set_levels,
)
from .preparation import Rows
from .stages import REFIT_FRACTION, Stages, TrainingOptions, fit_once

logger = logging.getLogger(__name__)

MIN_CALIBRATION_ROWS, MAX_CALIBRATION_ROWS = 9, 1_000
"""With fewer rows, no held-out observation bounds a 90 % interval; more rows hardly make the levels
more precise."""
MIN_ROWS_OF_REGRESSION = 4 * MIN_CALIBRATION_ROWS
"""Rows from which a regression holds out at least `MIN_CALIBRATION_ROWS`, as they also weight its
chains."""
MIN_ROWS_OF_CLASSES, MAX_FRACTION_OF_CLASSES = 24, 0.25
"""A classifier holds out at least that many rows, but of fewer than 96 rows a quarter: nine rows
hardly determine its temperature, and cannot bound sets with a probability of 95 %."""
PRIOR_ROWS = 20
"""Number of held-out rows that the levels of the mixture itself count as. They hardly matter beside
1,000 rows. Beside 27, a tenth of 273, they nearly halve the variation of the coverage between
random splits. With more of them, mixtures that are much too wide would stay so, as on data with
little noise; there, more held-out rows, or a fold of its own for each half of the chains, cost log
density."""


def n_calibration_rows(fraction: float, n_rows: int, n_classes: int = 1) -> int:
    """Return the number of rows to hold out for calibration; 0 if there are too few.

    Parameters
    ----------
    fraction : float
        Parameter `calibration` of the estimator, in [0, 1).
    n_rows : int
    n_classes : int
        Number of classes, each of which needs a row to fit; 1 for a regression.
    """
    n_held = min(int(fraction * n_rows), n_rows - n_classes, MAX_CALIBRATION_ROWS)
    if fraction > 0 and n_classes == 1 and n_rows >= MIN_ROWS_OF_REGRESSION:
        n_held = max(n_held, MIN_CALIBRATION_ROWS)
    if n_classes > 1 and n_held >= MIN_CALIBRATION_ROWS:
        n_least = min(MIN_ROWS_OF_CLASSES, int(MAX_FRACTION_OF_CLASSES * n_rows))
        n_held = min(max(n_held, n_least), n_rows - n_classes)
    if fraction > 0 and n_held < MIN_CALIBRATION_ROWS:
        what = "intervals" if n_classes == 1 else "sets of classes"
        logger.info("%d rows are too few to calibrate %s: none are held out.", n_rows, what)
        return 0
    return n_held


def fit_and_calibrate(
    make_network: Callable[[], BayesianNetwork],
    rows: Rows,
    options: TrainingOptions,
    stages: Stages,
    n_held: int,
    calibrate: Callable[[Posterior, Rows], Posterior],
) -> Posterior:
    """Fit without held-out rows, calibrate on them, and continue the fit with all rows.

    Parameters
    ----------
    make_network : callable
        Returns the network to fit, the same in each call.
    rows : Rows
    options : TrainingOptions
    stages : Stages
        Their names are "fit", and "refit" if rows are held out.
    n_held : int
        Number of held-out rows. 0: a single fit to all rows, without calibration.
    calibrate : callable
        Called with the posterior of the first fit and the held-out rows. It returns the posterior
        to continue, which may differ in the weights of its chains.
    """
    if n_held == 0:
        return fit_once(make_network(), rows, options, checkpoint=stages.folder("fit"))
    fitted, held = rows.split(n_held, options.seed)
    posterior = fit_once(make_network(), fitted, options, checkpoint=stages.folder("fit"))
    posterior = calibrate(posterior, held)
    return fit_once(
        make_network(),
        rows,
        options,
        checkpoint=stages.folder("refit"),
        start=posterior,
        fraction=REFIT_FRACTION,
    )


def calibrate_intervals(posterior: Posterior, held: Rows, n_draws: int, seed: int) -> Calibration:
    """Return the calibration of a posterior's intervals on rows that it was not fitted to.

    It is shrunk towards the intervals of the posterior itself, as if `PRIOR_ROWS` further rows had
    the levels that these expect.

    References
    ----------
    Lei et al. (2018), "Distribution-free predictive inference for regression", algorithm 2, with
    the score of Chernozhukov et al. (2021), "Distributional conformal prediction".
    """
    prediction = posterior.predict(held.x, n_draws, seed)
    assert isinstance(prediction, RegressionPrediction)
    level = prediction.central_level(held.y)
    return Calibration.of(level, held.weight, prior_rows=PRIOR_ROWS)


def calibrate_classes(
    posterior: Posterior, held: Rows, n_draws: int, seed: int
) -> tuple[float, Calibration]:
    """Return the temperature, and the calibration of sets, on rows not used in the fit.

    The sets are those of the probabilities without the temperature: with a temperature from the
    same rows, their coverage would no longer be guaranteed.

    References
    ----------
    Romano, Sesia and Candes (2020), "Classification with valid and adaptive coverage", algorithm 1.
    """
    prediction = posterior.predict(held.x, n_draws, seed)
    assert isinstance(prediction, ClassificationPrediction)
    u = np.random.default_rng(seed).random(len(held))
    level = set_levels(prediction.probs, u)[np.arange(len(held)), held.y]
    temperature = fit_temperature(prediction.probs, held.y, held.weight)
    return temperature, Calibration.of(level, held.weight)


def uniform_by_row(X: np.ndarray, seed: int) -> np.ndarray:
    """Return a number in [0, 1) for each row: a hash of its values, so that batches do not matter.

    Equal rows have different numbers, in their order.

    Parameters
    ----------
    X : ndarray of shape (n, n_features), float64
    seed : int
    """
    hashed = np.full(len(X), seed, dtype=np.uint64)
    for column in np.ascontiguousarray((X + 0.0).T):  # -0.0 becomes 0.0
        hashed = _mix(hashed ^ column.view(np.uint64))
    order = np.argsort(hashed, kind="stable")
    ordered = hashed[order]
    n_before = np.empty(len(X), dtype=np.uint64)  # equal rows before each row
    n_before[order] = np.arange(len(X)) - np.searchsorted(ordered, ordered)
    return (_mix(hashed ^ n_before) >> np.uint64(11)) * 2.0**-53


def _mix(values: np.ndarray) -> np.ndarray:
    """Return hashes of integers, by the generator SplitMix64 of Steele et al. (2014)."""
    z = values + np.uint64(0x9E3779B97F4A7C15)
    z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return z ^ (z >> np.uint64(31))
