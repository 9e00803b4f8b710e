"""History: the losses of a fit at each step."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from .._core.display import Displayed, Listing, count_of

SHOWN = 8
"""Epochs that a history shows."""


@dataclass(frozen=True, eq=False, repr=False)
class History(Displayed):
    """The losses of a fit, in nats at the scale of the whole data set.

    Attributes
    ----------
    nelbo, nll, kl : ndarray of shape (n_steps,)
        Sampled estimates of the negative ELBO and of its two parts, ``nelbo = nll + kl``. The KL
        divergence is not weighted here, regardless of its weight in the step.
    epoch : ndarray of shape (n_steps,)
        The epoch of each step, from 0.
    n_rows : ndarray of shape (n_steps,)
        Rows in each step's batch.
    validation_nll : ndarray of shape (n_epochs,)
        Mean negative log predictive density of the validation data after each epoch; empty
        without validation data.
    """

    nelbo: np.ndarray
    nll: np.ndarray
    kl: np.ndarray
    epoch: np.ndarray
    n_rows: np.ndarray
    validation_nll: np.ndarray = field(default_factory=lambda: np.empty(0))

    @property
    def n_epochs(self) -> int:
        """Number of epochs started."""
        return int(self.epoch[-1]) + 1 if len(self.epoch) else 0

    def _listing(self) -> Listing:
        n_steps, n_epochs = len(self.nelbo), self.n_epochs
        title = f"History: {count_of(n_steps, 'step')} in {count_of(n_epochs, 'epoch')}"
        if not n_steps:
            return Listing(title)
        means = self.per_epoch()
        epochs = sorted({round(e) for e in np.linspace(0, n_epochs - 1, min(n_epochs, SHOWN))})
        columns = [means.nelbo, means.nll, means.kl]
        header = ["epoch", "nelbo", "nll", "kl"]
        if len(self.validation_nll):
            header.append("validation nll")
            columns.append(np.append(self.validation_nll, np.full(n_epochs, np.nan)))
        rows = [(f"{e + 1}", *(f"{column[e]:.5g}" for column in columns)) for e in epochs]
        return Listing(title, tuple(header), rows, ("Means of the steps of an epoch, in nats.",))

    def per_epoch(self) -> History:
        """Return averages over the steps of each epoch, weighted by the rows of each step."""
        rows = np.bincount(self.epoch, self.n_rows, self.n_epochs)

        def mean(values: np.ndarray) -> np.ndarray:
            return np.bincount(self.epoch, values * self.n_rows, self.n_epochs) / rows

        epochs = np.arange(self.n_epochs)
        return History(
            mean(self.nelbo), mean(self.nll), mean(self.kl), epochs, rows, self.validation_nll
        )
