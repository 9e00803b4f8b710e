"""Plots of calibration: coverage of intervals, reliability of classes, risk when abstaining."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from .._core.arrays import ArrayLike
from ..prediction import ClassificationPrediction, Prediction, RegressionPrediction
from ..scores import coverage_curve, reliability, risk_coverage
from .inputs import as_class_indices, as_column, check_type
from .style import ACCENT, INK, prepare_axes

if TYPE_CHECKING:
    from matplotlib.axes import Axes


def plot_coverage(
    prediction: RegressionPrediction,
    y: ArrayLike,
    *,
    ax: Axes | None = None,
    label: str = "",
    color: str = ACCENT,
) -> Axes:
    """Plot the coverage of central predictive intervals against their probability.

    Further predictions can be added to the same axes.
    """
    check_type("prediction", prediction, RegressionPrediction)
    as_column("y", y, prediction)
    ax = prepare_axes(ax)
    levels = np.linspace(0.05, 0.95, 19)
    add_diagonal(ax)
    coverage = coverage_curve(prediction, y, levels)
    ax.plot(levels, coverage, "o-", ms=3.5, lw=1.5, color=color, label=label)
    ax.set(xlabel="probability of the interval", ylabel="fraction of observations inside")
    return ax


def plot_reliability(
    prediction: ClassificationPrediction,
    y: ArrayLike,
    *,
    ax: Axes | None = None,
    label: str = "",
    color: str = ACCENT,
    n_bins: int = 10,
) -> Axes:
    """Plot the accuracy against the probability of the predicted class, in bins.

    The area of a point grows with the fraction of predictions in its bin. Further predictions can
    be added to the same axes.
    """
    check_type("prediction", prediction, ClassificationPrediction)
    as_class_indices(y, prediction)
    ax = prepare_axes(ax)
    confidence, gap, fraction = reliability(prediction, y, n_bins)
    accuracy, sizes = confidence + gap, 12 + 150 * fraction
    add_diagonal(ax)
    ax.plot(confidence, accuracy, "-", lw=1.2, color=color, label=label)
    ax.scatter(confidence, accuracy, sizes, color=color, alpha=0.7, lw=0, clip_on=False, zorder=3)
    ax.set(xlabel="probability of the predicted class", ylabel="accuracy")
    return ax


def plot_risk_coverage(
    prediction: Prediction,
    y: ArrayLike,
    uncertainty: ArrayLike | None = None,
    *,
    ax: Axes | None = None,
    label: str = "",
    color: str = ACCENT,
) -> Axes:
    """Plot the risk of the most certain rows against their fraction of all rows.

    The risk is the error rate, or the mean squared error; see `scores.risk_coverage`. Further
    predictions can be added to the same axes.
    """
    check_type("prediction", prediction, Prediction)
    is_class = isinstance(prediction, ClassificationPrediction)
    coverage, risk = risk_coverage(prediction, y, uncertainty)
    ax = prepare_axes(ax)
    ax.plot(coverage, risk, lw=1.5, color=color, label=label)
    ax.set(xlabel="fraction of rows predicted", xlim=(0, 1))
    ax.set(ylabel="error rate of these rows" if is_class else "mean squared error of these rows")
    ax.set_ylim(bottom=0)
    return ax


def add_diagonal(ax: Axes) -> None:
    """Add the diagonal to axes without lines, and limit both axes to the range of probabilities."""
    if not ax.lines:
        ax.plot([0, 1], [0, 1], color=INK, lw=0.8, ls=":", label="calibrated")
    ax.set(xlim=(0, 1), ylim=(0, 1.02))
