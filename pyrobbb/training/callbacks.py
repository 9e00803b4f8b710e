"""EpochEnd: the argument of a callback at the end of each epoch."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, fields
from typing import Any


@dataclass(frozen=True)
class EpochEnd:
    """The progress of a fit at the end of an epoch.

    Attributes
    ----------
    epoch, n_epochs : int
        Number of epochs done, from 1, and the maximum number of epochs.
    n_steps : int
        Number of steps done.
    nelbo, nll, kl : float
        Means over the steps of the epoch and over chains, in nats at the scale of the data set.
        The KL divergence is not weighted.
    kl_weight : float
        Factor on the KL divergence in the last step, below 1 during the warm-up; the mean over
        the chains if they differ.
    lr : float
        Learning rate of the last step.
    validation_nll : float or None
        Score of the validation data after this epoch, in nats per row; None without `validation`.
    seconds : float
        Time since the first step.
    """

    epoch: int
    n_epochs: int
    n_steps: int
    nelbo: float
    nll: float
    kl: float
    kl_weight: float
    lr: float
    validation_nll: float | None
    seconds: float
    _snapshot: Callable[[], Any] = field(repr=False)

    def metrics(self) -> dict[str, float]:
        """Return the fields by name, in the order above, without those that are None."""
        names = (f.name for f in fields(self) if not f.name.startswith("_"))
        values = {name: getattr(self, name) for name in names}
        return {name: value for name, value in values.items() if value is not None}

    def posterior(self) -> Any:
        """Return a `Posterior` with copies of the chains as they are now."""
        return self._snapshot()


Callback = Callable[[EpochEnd], object]
