"""The band of a regression: its interval, and the part of it that is epistemic."""

import numpy as np
import pytest
import torch
from scipy import stats
from torch.distributions import Normal

from pyrobbb import Calibration, RegressionPrediction, plots

X = np.arange(5.0)
LOC = torch.linspace(-1, 1, 200, dtype=torch.float64)[:, None].expand(200, 5)


def prediction(scale):
    return RegressionPrediction([Normal(LOC, torch.full((200, 5), scale).double())], np.empty(0))


def widths(of_prediction):
    """Return the widths of the interval and of its epistemic part at each x."""
    ax = plots.plot_band(X, of_prediction)
    bands = [band.get_paths()[0].vertices for band in ax.collections]
    return [[np.ptp(band[band[:, 0] == x, 1]) for x in X] for band in bands]


def test_without_calibration_the_epistemic_part_is_that_of_its_normal_approximation():
    _, epistemic = widths(prediction(30.0))  # nearly normal, as the noise dominates
    sd = float(LOC[:, 0].std(correction=0))
    assert epistemic == pytest.approx([2 * stats.norm.ppf(0.95) * sd] * 5, rel=0.01)


@pytest.mark.parametrize("level", [0.3, 0.999])
def test_the_epistemic_part_is_calibrated_as_its_interval_is(level):
    raw = prediction(1.0)
    calibrated = raw.calibrated(Calibration.of([level] * 99))
    interval, epistemic = widths(calibrated)
    lower, upper = calibrated.interval(0.9)
    assert interval == pytest.approx(upper - lower)
    assert np.divide(epistemic, interval) == pytest.approx(raw.epistemic_sd / raw.sd)
    assert interval != pytest.approx(widths(raw)[0], rel=0.2)
