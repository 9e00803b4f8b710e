"""Losses of a fit in few numbers, for the stages of an estimator whose chains are not kept."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..fitted import FittedChain, History

MAX_POINTS = 150
LOSSES = ("nelbo", "nll", "kl")


@dataclass(frozen=True, eq=False)
class LossCurve:
    """The losses of one fit, averaged over groups of epochs.

    Attributes
    ----------
    epoch : ndarray of shape (n_points,)
        Middle of each group, from 1.
    nelbo, nll, kl : ndarray of shape (n_points,)
        Negative ELBO and its two parts, in nats per row.
    n_epochs, n_steps, n_rows : int
        Of the whole fit; rows are those of an epoch.
    """

    epoch: np.ndarray
    nelbo: np.ndarray
    nll: np.ndarray
    kl: np.ndarray
    n_epochs: int
    n_steps: int
    n_rows: int

    @classmethod
    def of(cls, history: History, max_points: int = MAX_POINTS) -> LossCurve:
        """Return the losses of a history that has steps, in at most so many groups."""
        epochs = history.per_epoch()
        n_rows = max(int(epochs.n_rows[0]), 1)
        groups = np.array_split(np.arange(history.n_epochs), min(history.n_epochs, max_points))

        def average(values: np.ndarray) -> np.ndarray:
            return np.array([values[group].mean() for group in groups])

        losses = {name: average(getattr(epochs, name)) / n_rows for name in LOSSES}
        n_epochs, n_steps = history.n_epochs, len(history.nelbo)
        return cls(
            1 + average(np.arange(n_epochs)),
            **losses,
            n_epochs=n_epochs,
            n_steps=n_steps,
            n_rows=n_rows,
        )

    def to_json(self) -> dict[str, Any]:
        """Return the fields as plain data, with five significant digits."""
        return {
            name: [float(f"{v:.5g}") for v in value] if isinstance(value, np.ndarray) else value
            for name, value in vars(self).items()
        }

    @classmethod
    def from_json(cls, stored: Mapping[str, Any]) -> LossCurve:
        """Return the curve from the plain data that `to_json` returned, or raise a ValueError."""
        fields: dict[str, Any] = {
            name: np.array(value, float) if isinstance(value, list) else value
            for name, value in stored.items()
        }
        curve = cls(**fields)
        sizes = {np.shape(getattr(curve, name)) for name in ("epoch", *LOSSES)}
        counts = (curve.n_epochs, curve.n_steps, curve.n_rows)
        if len(sizes) > 1 or not all(type(count) is int and count > 0 for count in counts):
            raise ValueError("its curves of losses must have equal lengths, and counts")
        return curve


def loss_curves(chains: Sequence[FittedChain]) -> tuple[LossCurve, ...]:
    """Return the losses of each chain; of none if they are not known."""
    return tuple(LossCurve.of(chain.history) for chain in chains if len(chain.history.nelbo))
