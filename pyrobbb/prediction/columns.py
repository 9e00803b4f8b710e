"""The marginal distributions of one column of y."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from torch.distributions import Distribution

from ..likelihoods import base_of
from .parts import selected
from .rows import count_rows


class Columns:
    """The marginal distributions of column j of y, for chunks of rows of shape (n, k)."""

    def __init__(self, distributions: Iterable[Distribution], j: int) -> None:
        self._distributions, self._j = distributions, j

    @property
    def n_rows(self) -> int:
        """Number of rows."""
        return count_rows(self._distributions)

    def __iter__(self) -> Iterator[Distribution]:
        for distribution in self._distributions:
            base = base_of(distribution)
            if len(distribution.event_shape) != 1:
                raise ValueError(
                    "`column` needs a prediction of y of shape (n, k), got rows of shape "
                    f"{tuple(distribution.event_shape)}."
                )
            if base.event_shape:
                raise ValueError(
                    "`column` needs a likelihood with independent columns, got "
                    f"{type(base).__name__}: select the column of `mean`, `quantile` or `sample`."
                )
            yield selected(base, len(base.batch_shape) - 1, self._j)
