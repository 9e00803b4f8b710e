"""Colours and axes shared by all plots."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from .._core.arrays import ArrayLike, to_numpy

if TYPE_CHECKING:
    from matplotlib.axes import Axes

INK, ACCENT, SECOND, SOFT = "#333333", "#2a6f97", "#c8553d", "#a9c6d9"
"""Colours of data and text, of the posterior, of what is compared with it, and of intervals."""


def prepare_axes(ax: Axes | None) -> Axes:
    """Return the axes, or those of a new figure, without top and right spines."""
    if ax is not None and not hasattr(ax, "spines"):
        raise TypeError(f"`ax` must be Axes of matplotlib or None, got a {type(ax).__name__}.")
    if ax is None:
        from matplotlib.figure import Figure  # Unlike pyplot, this keeps no global state.

        ax = Figure(figsize=(5, 3.6), layout="constrained").subplots()
    ax.spines[["top", "right"]].set_visible(False)
    return ax


def add_legend(ax: Axes) -> None:
    """Add a legend without a frame."""
    ax.legend(frameon=False, fontsize="small")


def flatten(values: ArrayLike) -> Any:
    """Return values as a one-dimensional NumPy array."""
    return to_numpy(values).reshape(-1)


def sort_by_first(*columns: ArrayLike) -> list[Any]:
    """Return columns as one-dimensional arrays, all sorted by the first."""
    arrays = [flatten(column) for column in columns]
    order = np.argsort(arrays[0])
    return [array[order] for array in arrays]
