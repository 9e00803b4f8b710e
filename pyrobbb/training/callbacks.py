"""What `fit` tells a callback at the end of each epoch."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, fields

from ..posterior.posterior import Posterior


@dataclass(frozen=True)
class EpochEnd:
    """How far a fit is, at the end of an epoch.

    Attributes
    ----------
    epoch, n_epochs : int
        Epochs done, from 1 on, and how many there will be at most.
    n_steps : int
        Steps done.
    nelbo, nll, kl : float
        Means over the steps of the epoch, and over fits side by side, in nats at the scale of the
        data set. The KL divergence is not weighted.
    kl_weight : float
        Factor on the KL divergence at the last step: below 1 during the warm-up.
    lr : float
        Learning rate of the last step.
    validation_nll : float or None
        Of this epoch, in nats a row; None without `validation`.
    seconds : float
        Since the first step.
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
    _snapshot: Callable[[], Posterior] = field(repr=False)

    def metrics(self) -> dict[str, float]:
        """Give the numbers by name, in the order above, for a logger; without what is None."""
        names = (own.name for own in fields(self) if not own.name.startswith("_"))
        values = {name: getattr(self, name) for name in names}
        return {name: value for name, value in values.items() if value is not None}

    def posterior(self) -> Posterior:
        """Give the posterior as it now is: a copy, which the rest of the fit does not change."""
        return self._snapshot()


Callback = Callable[[EpochEnd], object]
