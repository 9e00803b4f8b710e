"""Plots of predictions: intervals, and epistemic and aleatoric uncertainty."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch

from .._core.arrays import ArrayLike
from ..prediction import ClassificationPrediction, RegressionPrediction
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
    ax = prepare_axes(ax)
    if data is not None:
        ax.plot(
            flatten(data[0]), flatten(data[1]), ".", ms=4, color=INK, zorder=3, label="observed"
        )
    x, mean, epistemic_sd, lower, upper = sort_by_first(
        x, prediction.mean, prediction.epistemic_sd, *prediction.interval(level)
    )
    half_width = _normal_quantile((1 + level) / 2) * epistemic_sd
    ax.fill_between(x, lower, upper, color=SOFT, alpha=0.5, lw=0, label=f"{level:.0%} interval")
    ax.fill_between(
        x,
        mean - half_width,
        mean + half_width,
        color=ACCENT,
        alpha=0.35,
        lw=0,
        label="epistemic part",
    )
    ax.plot(x, mean, color=ACCENT, lw=2, label="mean")
    return ax


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
    prediction: ClassificationPrediction, y: ArrayLike, *, ax: Axes | None = None
) -> Axes:
    """Plot histograms of the predictive entropy of correct and of incorrect predictions."""
    ax = prepare_axes(ax)
    entropy = flatten(prediction.entropy)
    is_correct = flatten(prediction.label) == flatten(y)
    bins = np.linspace(0, max(float(entropy.max()), 1e-3), 31).tolist()
    for rows, color, label in ((is_correct, ACCENT, "correct"), (~is_correct, SECOND, "incorrect")):
        if rows.any():
            ax.hist(entropy[rows], bins, density=True, color=color, alpha=0.6, label=label)
    ax.set(xlabel="predictive entropy (nats)", ylabel="density")
    add_legend(ax)
    return ax


def _normal_quantile(probability: float) -> float:
    return float(torch.special.ndtri(torch.tensor(probability, dtype=torch.float64)))
