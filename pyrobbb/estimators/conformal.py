"""Split conformal calibration of a regressor's intervals on held-out rows."""

from __future__ import annotations

import logging

from ..posterior.posterior import Posterior
from ..prediction import Calibration, RegressionPrediction
from .preparation import Rows

logger = logging.getLogger(__name__)

MIN_CALIBRATION_ROWS, MAX_CALIBRATION_ROWS = 9, 1_000
"""With fewer rows, no held-out observation bounds a 90 % interval; more rows hardly make the levels
more precise."""
REFIT_FRACTION = 0.25
"""Factor on the epochs and the learning rate of the refit that includes the held-out rows."""


def n_calibration_rows(fraction: float, n_rows: int) -> int:
    """Return the number of rows to hold out for calibration; 0 if there are too few.

    Parameters
    ----------
    fraction : float
        Parameter `calibration` of the regressor, in [0, 1).
    n_rows : int
    """
    n_held = min(int(fraction * n_rows), MAX_CALIBRATION_ROWS)
    if fraction > 0 and n_held < MIN_CALIBRATION_ROWS:
        logger.info("%d rows are too few to calibrate intervals: none are held out.", n_rows)
        return 0
    return n_held


def calibrate(posterior: Posterior, held: Rows, n_draws: int, seed: int) -> Calibration:
    """Return the calibration of a posterior's intervals on rows that it was not fitted to.

    References
    ----------
    Lei et al. (2018), "Distribution-free predictive inference for regression", algorithm 2, with
    the score of Chernozhukov et al. (2021), "Distributional conformal prediction".
    """
    prediction = posterior.predict(held.x, n_draws, seed)
    assert isinstance(prediction, RegressionPrediction)
    return Calibration.of(prediction.central_level(held.y), held.weight)
