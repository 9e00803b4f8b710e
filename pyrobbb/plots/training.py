"""Plot of the training: the negative ELBO and its two parts."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from ..fitted import History
from .inputs import check_type
from .style import ACCENT, INK, SECOND, add_legend, prepare_axes

if TYPE_CHECKING:
    from matplotlib.axes import Axes

MAX_POINTS = 200
"""Maximum number of points per line. In a longer fit, each point is the mean of several epochs."""


def plot_history(history: History, *, ax: Axes | None = None) -> Axes:
    """Plot the negative ELBO, the negative log-likelihood and the KL divergence per epoch."""
    check_type("history", history, History, "pass posterior.history, or that of one of its chains")
    if not history.n_epochs:
        raise ValueError(
            "`history` must have at least one epoch, got none: a posterior made by "
            "Posterior.from_guide has none."
        )
    ax = prepare_axes(ax)
    epochs = history.per_epoch()
    groups = np.array_split(epochs.epoch + 1, min(len(epochs.epoch), MAX_POINTS))
    bounds = np.cumsum([len(group) for group in groups])[:-1]
    positions = [group.mean() for group in groups]
    for values, color, label in (
        (epochs.nelbo, INK, "negative ELBO"),
        (epochs.nll, SECOND, "negative log-likelihood"),
        (epochs.kl, ACCENT, "KL divergence"),
    ):
        means = [group.mean() for group in np.split(values, bounds)]
        ax.plot(positions, means, color=color, lw=1.5, label=label)
    ax.set(xlabel="epoch", ylabel="nats", yscale="symlog", xlim=(1, max(history.n_epochs, 2)))
    add_legend(ax)
    return ax
