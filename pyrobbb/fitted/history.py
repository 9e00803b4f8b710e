"""History: the losses of a fit at each step."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np


@dataclass(frozen=True, eq=False)
class History:
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

    def per_epoch(self) -> History:
        """Return averages over the steps of each epoch, weighted by the rows of each step."""
        rows = np.bincount(self.epoch, self.n_rows, self.n_epochs)

        def mean(values: np.ndarray) -> np.ndarray:
            return np.bincount(self.epoch, values * self.n_rows, self.n_epochs) / rows

        epochs = np.arange(self.n_epochs)
        return History(
            mean(self.nelbo), mean(self.nll), mean(self.kl), epochs, rows, self.validation_nll
        )
