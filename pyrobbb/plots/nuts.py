"""Plots of the predictions of a variational posterior against those of NUTS."""

from __future__ import annotations

from typing import TYPE_CHECKING

from .._core.arrays import to_numpy
from .._core.trees import is_structured
from ..prediction import RegressionPrediction
from .calibration import add_diagonal
from .inputs import check_type
from .style import ACCENT, INK, add_legend, prepare_axes, sort_by_first

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from ..comparisons import NUTSComparison


def plot_nuts(comparison: NUTSComparison, *, ax: Axes | None = None, level: float = 0.9) -> Axes:
    """Plot the predictions of a variational posterior against those of NUTS.

    For a regression on a single input, plot the mean and interval of both; on several inputs, one
    epistemic sd against the other; for a classification, one probability against the other.
    """
    from ..comparisons import NUTSComparison

    check_type("comparison", comparison, NUTSComparison, "it is what compare_with_nuts returns")
    ax = prepare_axes(ax)
    if not isinstance(comparison.nuts, RegressionPrediction):
        _plot_probabilities(comparison, ax)
    elif is_structured(comparison.x) or to_numpy(comparison.x).size != len(comparison.x):
        _plot_epistemic_sd(comparison, ax)
    else:
        _plot_bands(comparison, ax, level)
    return ax


def _plot_probabilities(comparison: NUTSComparison, ax: Axes) -> None:
    table = comparison.by_input
    add_diagonal(ax)
    ax.plot(table["nuts_probability"], table["probability"], ".", color=ACCENT, ms=4)
    ax.set(xlabel="probability, NUTS", ylabel="probability, Bayes by Backprop")


def _plot_epistemic_sd(comparison: NUTSComparison, ax: Axes) -> None:
    table = comparison.by_input
    limit = float(table[["epistemic_sd", "nuts_epistemic_sd"]].to_numpy().max())
    ax.plot([0, limit], [0, limit], color=INK, lw=0.8, ls=":")
    ax.plot(table["nuts_epistemic_sd"], table["epistemic_sd"], ".", color=ACCENT, ms=4)
    ax.set(xlabel="epistemic sd, NUTS", ylabel="epistemic sd, Bayes by Backprop")


def _plot_bands(comparison: NUTSComparison, ax: Axes, level: float) -> None:
    for prediction, color, label in (
        (comparison.nuts, INK, "NUTS"),
        (comparison.variational, ACCENT, "Bayes by Backprop"),
    ):
        x, mean, lower, upper = sort_by_first(
            comparison.x, prediction.mean, *prediction.interval(level)
        )
        ax.fill_between(x, lower, upper, color=color, alpha=0.15, lw=0)
        for bound in (lower, upper):
            ax.plot(x, bound, color=color, lw=1, ls="--")
        ax.plot(x, mean, color=color, lw=2, label=label)
    ax.set(xlabel="x", ylabel=f"y: mean and {level:.0%} interval")
    add_legend(ax)
