"""Plots of predictions: intervals, and epistemic and aleatoric uncertainty."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from .._core.arrays import ArrayLike, as_tensor, to_numpy
from ..prediction import ClassificationPrediction, RegressionPrediction
from .inputs import as_class_indices, as_column, check_type
from .style import ACCENT, INK, SECOND, SOFT, add_legend, flatten, prepare_axes, sort_by_first

if TYPE_CHECKING:
    from matplotlib.axes import Axes


def plot_band(
    x: ArrayLike,
    prediction: RegressionPrediction,
    *,
    data: tuple[ArrayLike, ArrayLike] | None = None,
    ax: Axes | None = None,
    level: float = 0.9,
) -> Axes:
    """Plot the predictive mean and interval against a single input, with the epistemic part.

    The epistemic part has the share of the interval, calibrated or not, that the epistemic standard
    deviation has of the predictive one.

    Parameters
    ----------
    x : array-like of shape (n,) or (n, 1)
        Inputs of the prediction.
    prediction : RegressionPrediction
        Prediction of a single output.
    data : tuple (x, y), optional
        Observations to plot on top.
    ax : Axes, optional
        Axes to plot on. None: a new figure.
    level : float
        Probability of the interval.
    """
    check_type("prediction", prediction, RegressionPrediction)
    x = as_column("x", x, prediction)
    interval = prediction.interval(level)
    x, mean, lower, upper, inner_lower, inner_upper = sort_by_first(
        x, prediction.mean, *interval, *epistemic_part(prediction, *interval)
    )
    observed = None if data is None else _observations(data)
    ax = prepare_axes(ax)
    if observed is not None:
        ax.plot(*observed, ".", ms=4, color=INK, zorder=3, label="observed")
    ax.fill_between(x, lower, upper, color=SOFT, alpha=0.5, lw=0, label=f"{level:.0%} interval")
    ax.fill_between(
        x, inner_lower, inner_upper, color=ACCENT, alpha=0.35, lw=0, label="epistemic part"
    )
    ax.plot(x, mean, color=ACCENT, lw=2, label="mean")
    return ax


def epistemic_part(
    prediction: RegressionPrediction, lower: ArrayLike, upper: ArrayLike
) -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]:
    """Return the bounds of the epistemic part of an interval; see `plot_band`."""
    mean, sd, epistemic_sd, lower, upper = map(
        to_numpy, (prediction.mean, prediction.sd, prediction.epistemic_sd, lower, upper)
    )
    share = np.divide(epistemic_sd, sd, out=np.zeros_like(sd), where=sd > 0)
    return mean - share * np.maximum(mean - lower, 0), mean + share * np.maximum(upper - mean, 0)


def plot_parts(x: ArrayLike, prediction: RegressionPrediction, *, ax: Axes | None = None) -> Axes:
    """Plot the predictive sd and its epistemic and aleatoric parts against a single input.

    Parameters
    ----------
    x : array-like of shape (n,) or (n, 1)
    prediction : RegressionPrediction
        Prediction of a single output.
    ax : Axes, optional
        Axes to plot on. None: a new figure.
    """
    check_type("prediction", prediction, RegressionPrediction)
    x = as_column("x", x, prediction)
    ax = prepare_axes(ax)
    for values, color, width, label in (
        (prediction.sd, INK, 2.0, "predictive"),
        (prediction.epistemic_sd, ACCENT, 1.5, "epistemic"),
        (prediction.aleatoric_sd, SECOND, 1.5, "aleatoric"),
    ):
        ax.plot(*sort_by_first(x, values), color=color, lw=width, label=label)
    ax.set(ylabel="standard deviation, units of y", ylim=(0, None))
    add_legend(ax)
    return ax


def plot_intervals(
    prediction: RegressionPrediction, y: ArrayLike, *, ax: Axes | None = None, level: float = 0.9
) -> Axes:
    """Plot observations and their predictive intervals, sorted by the predictive mean.

    Observations outside their interval are highlighted.
    """
    check_type("prediction", prediction, RegressionPrediction)
    y = as_column("y", y, prediction)
    ax = prepare_axes(ax)
    mean, y, lower, upper = sort_by_first(prediction.mean, y, *prediction.interval(level))
    rank = np.arange(len(y))
    outside = (y < lower) | (y > upper)
    ax.vlines(rank, lower, upper, color=SOFT, lw=2, label=f"{level:.0%} interval")
    ax.plot(rank, mean, color=ACCENT, lw=1.5, label="mean")
    ax.plot(rank[~outside], y[~outside], "o", ms=3.5, color=INK, label="observed")
    label = f"outside ({outside.mean():.0%})"
    ax.plot(rank[outside], y[outside], "o", ms=4.5, color=SECOND, label=label)
    ax.set(xlabel="observations, sorted by predictive mean", xlim=(-1, len(y)))
    add_legend(ax)
    return ax


def plot_uncertainty(
    prediction: ClassificationPrediction, y: ArrayLike | None = None, *, ax: Axes | None = None
) -> Axes:
    """Plot histograms of the predictive entropy of correct and of incorrect predictions.

    Without `y`, a single histogram of all predictions.
    """
    check_type("prediction", prediction, ClassificationPrediction)
    entropy = flatten(prediction.entropy)
    ax = prepare_axes(ax)
    bins = np.linspace(0, max(float(entropy.max()), 1e-3), 31).tolist()
    if y is None:
        groups = [(np.full(entropy.shape, True), ACCENT, "all")]
    else:
        is_correct = flatten(prediction.label) == as_class_indices(y, prediction)
        groups = [(is_correct, ACCENT, "correct"), (~is_correct, SECOND, "incorrect")]
    for rows, color, label in groups:
        if rows.any():
            ax.hist(entropy[rows], bins, density=True, color=color, alpha=0.6, label=label)
    ax.set(xlabel="predictive entropy (nats)", ylabel="density")
    add_legend(ax)
    return ax


def _observations(data: Any) -> list[np.ndarray[Any, Any]]:
    """Return x and y of the observations as flat arrays of equal length."""
    if not isinstance(data, tuple | list) or len(data) != 2:
        raise TypeError(f"`data` must be a pair (x, y), got a {type(data).__name__}.")
    x, y = (flatten(as_tensor(f"data[{i}]", part)) for i, part in enumerate(data))
    if len(x) != len(y):
        raise ValueError(f"`data` must have as many x as y, got {len(x)} and {len(y)}.")
    return [x, y]
