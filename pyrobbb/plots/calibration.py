"""Plots of calibration: the coverage of intervals, and the reliability of class probabilities."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from .._core.arrays import ArrayLike
from ..prediction import ClassificationPrediction, RegressionPrediction
from ..scores import coverage_curve, reliability
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


def add_diagonal(ax: Axes) -> None:
    """Add the diagonal to axes without lines, and limit both axes to the range of probabilities."""
    if not ax.lines:
        ax.plot([0, 1], [0, 1], color=INK, lw=0.8, ls=":", label="calibrated")
    ax.set(xlim=(0, 1), ylim=(0, 1.02))
