"""Log-normal distributions of y in its own units, from those of y with a standardised logarithm."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import pyro.distributions as dist
import torch
from torch import Tensor
from torch.distributions import Distribution

from ..likelihoods import base_of
from .rows import count_rows


class LogRescaled:
    """The distributions of ``exp(loc + scale * log y)``, for chunks of rows with a log-normal y.

    They are log-normal too, so that densities, quantiles and moments are exact.

    Parameters
    ----------
    distributions : iterable of Distribution
    loc, scale : Tensor
        In double precision, of the shape of a row of y or ().
    lower, upper : Tensor
        Bounds of the mean of log y before it is rescaled.
    """

    def __init__(
        self,
        distributions: Iterable[Distribution],
        loc: Tensor,
        scale: Tensor,
        lower: Tensor,
        upper: Tensor,
    ) -> None:
        self._distributions, self._loc, self._scale = distributions, loc, scale
        self._lower, self._upper = lower, upper

    @property
    def n_rows(self) -> int:
        """Number of rows."""
        return count_rows(self._distributions)

    def __iter__(self) -> Iterator[Distribution]:
        for distribution in self._distributions:
            base = base_of(distribution)
            if not isinstance(base, torch.distributions.LogNormal):
                raise ValueError(
                    "`rescaled_log` needs a log-normal likelihood, got "
                    f"{type(base).__name__}: use `rescaled`."
                )
            device = base.loc.device
            mean = base.loc.double().clamp(self._lower.to(device), self._upper.to(device))
            loc, scale = self._loc.to(device), self._scale.to(device)
            rescaled = dist.LogNormal(loc + scale * mean, scale * base.scale.double())
            yield rescaled.to_event(len(distribution.event_shape))
