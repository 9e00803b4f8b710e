"""Prediction: the predictive mixture, as the base class of regression and classification."""

from __future__ import annotations

import copy
import importlib
import math
from collections.abc import Callable, Iterable, Iterator
from functools import cached_property
from typing import TYPE_CHECKING, Any, Self

import torch
from torch import Tensor
from torch.distributions import Distribution

from .._core.arrays import ArrayLike, as_tensor, kind_of, like
from .._core.display import Displayed, Listing, count_of
from .._core.global_state import ordinary_modes
from .._core.random_state import as_seed, seeded
from ..likelihoods import as_observed
from .distribution_functions import first_tensor, log_density_of_rows
from .frame import index_of
from .rows import SelectedRows, as_positions, count_rows

if TYPE_CHECKING:
    import pandas as pd

SHOWN, MAX_SHOWN = 5, 8
"""Rows and columns of a prediction in a session."""


class Prediction(Displayed):
    """The predictive mixture at some rows: one distribution of y per draw, with equal weights.

    Parameters
    ----------
    distributions : iterable of Distribution
        Distributions of batch shape (n_draws, n_rows) for consecutive chunks of rows. It is
        iterated over once for each quantity that is not cached.
    original : array-like
        Results are tensors if this is a tensor, and NumPy arrays otherwise.

    Attributes
    ----------
    index : pandas Index or None
        Of the rows, if `original` is a pandas frame.
    """

    def __init__(self, distributions: Iterable[Distribution], original: ArrayLike) -> None:
        self._distributions = distributions
        self._original = kind_of(original)
        self.index: Any = index_of(original)

    @cached_property
    def _n_rows(self) -> int:
        return count_rows(self._distributions)

    def __len__(self) -> int:
        """Return the number of rows."""
        return self._n_rows

    def _listing(self) -> Listing:
        first = self[: min(len(self), SHOWN)]
        frame = first.indexed(None if self.index is None else first.index).to_frame()
        header = ("row", *map(str, frame.columns[:MAX_SHOWN]))
        rows = [
            (str(label), *(_cell(value) for value in values[:MAX_SHOWN]))
            for label, values in zip(frame.index, frame.to_numpy(dtype=object), strict=True)
        ]
        n_draws = next(iter(self._distributions)).batch_shape[0]
        title = f"{type(self).__name__}: {count_of(len(self), 'row')}, {count_of(n_draws, 'draw')}"
        n_more = len(self) - len(rows)
        notes = [f"... and {n_more:,} more rows"] if n_more else []
        if len(frame.columns) > MAX_SHOWN:
            notes.append(f"... and {len(frame.columns) - MAX_SHOWN} more columns in to_frame()")
        return Listing(title, header, rows, tuple(notes))

    def to_frame(self) -> pd.DataFrame:
        """Return a DataFrame with one row per predicted row."""
        raise NotImplementedError

    def __getitem__(self, index: Any) -> Self:
        """Return the prediction of some rows: a slice, a boolean mask or integers in any order."""
        positions = as_positions(index, len(self))
        labels = None if self.index is None else self.index[positions.numpy()]
        return self._derived(
            _distributions=SelectedRows(self._distributions, positions), index=labels
        )

    def indexed(self, index: Any) -> Self:
        """Return the prediction with an index of its rows, for `to_frame`; None: 0, 1, 2, ..."""
        return self._derived(index=index)

    def _derived(self, **changes: Any) -> Self:
        """Return a copy with other attributes, without what was computed from the earlier ones."""
        derived = copy.copy(self)
        for name in list(vars(derived)):
            if isinstance(getattr(type(self), name, None), cached_property):
                del vars(derived)[name]
        vars(derived).update(changes)
        return derived

    def log_prob(self, y: ArrayLike) -> Any:
        """Return the log predictive density of each row's observation.

        Parameters
        ----------
        y : array-like of shape (n, ...)

        Returns
        -------
        array of shape (n,)
            log(1 / n_draws sum_s p(y | draw s)), in nats.
        """
        return self._out(self._log_prob(self._observed(y)))

    def sample(self, seed: int | None = None) -> Any:
        """Draw y once from the distribution of each draw of the weights.

        Returns
        -------
        array of shape (n_draws, n, ...)
        """
        return self._out(self._sample(as_seed(seed)))

    def chunks(self) -> Iterator[Distribution]:
        """Yield the distributions of y under each draw, for consecutive chunks of rows.

        Their batch shape is (n_draws, n_rows). They are those of the network, before an estimator's
        scaling of y and calibration.
        """
        return iter(self._distributions)

    def _log_prob(self, y: Tensor) -> Tensor:
        (log_prob,) = concatenate_chunks(self._log_prob_by_chunk(y))
        if len(log_prob) != len(y):
            raise ValueError(
                f"`y` must have the {len(log_prob)} rows that were predicted, got {len(y)}."
            )
        return log_prob

    def _log_prob_by_chunk(self, y: Tensor) -> Iterator[tuple[Tensor]]:
        start = 0
        for distribution in self._distributions:
            _, n_rows = distribution.batch_shape
            rows = y[start : start + n_rows]
            start += n_rows
            expected = (n_rows, *distribution.event_shape)
            if rows.shape != expected:
                raise ValueError(
                    f"`y` must have shape (n, {', '.join(map(str, expected[1:]))}) with a row for "
                    f"each row predicted, got {tuple(y.shape)}."
                )
            by_draw = log_density_of_rows(
                distribution, as_observed(distribution, rows, first_tensor(distribution).dtype)
            )
            yield (by_draw.logsumexp(0) - math.log(len(by_draw)),)

    def _sample(self, seed: int) -> Tensor:
        chunks = list(self._distributions)
        with ordinary_modes(grad=False), seeded(seed):
            return torch.cat([chunk.sample() for chunk in chunks], dim=1)

    def _observed(self, y: ArrayLike) -> Tensor:
        """Check observations and move them to the device of the distributions."""
        return as_tensor("y", y).to(first_tensor(next(iter(self._distributions))).device)

    def _out(self, result: Tensor) -> Any:
        return like(self._original, result)


def _cell(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def plot_function(name: str) -> Callable[..., Any]:
    """Return a function of `pyrobbb.plots`, such as ``"plot_band"``.

    That package depends on what is plotted, so that it cannot be imported here. It is found by name
    when a plot is drawn, as pandas finds its plotting backend.
    """
    function: Callable[..., Any] = getattr(importlib.import_module("pyrobbb.plots"), name)
    return function


def concatenate_chunks(chunks: Iterable[tuple[Tensor, ...]]) -> tuple[Tensor, ...]:
    """Concatenate the results of consecutive chunks of rows along their first dimension.

    Small results allocated between large temporary blocks would fragment the heap, as described in
    `sampling.join`. The total number of rows is not known here, so the buffer doubles when full.
    """
    buffers: tuple[Tensor, ...] = ()
    n_rows = 0
    for parts in chunks:
        end = n_rows + len(parts[0])
        if not buffers:
            buffers = tuple(part.new_empty(part.shape) for part in parts)
        if end > len(buffers[0]):
            size = max(end, 2 * len(buffers[0]))
            larger = tuple(buffer.new_empty((size, *buffer.shape[1:])) for buffer in buffers)
            for new, buffer in zip(larger, buffers, strict=True):
                new[:n_rows] = buffer[:n_rows]
            buffers = larger
        for buffer, part in zip(buffers, parts, strict=True):
            buffer[n_rows:end] = part
        n_rows = end
    return tuple(buffer[:n_rows] for buffer in buffers)
