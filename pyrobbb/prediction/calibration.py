"""Calibration: intervals that hold as many new observations as they say.

A posterior under a wrong model, or a mean-field one, may be too sure or too unsure throughout. How
far central intervals must be widened or narrowed is read off from rows that the fit has not seen.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from .._core.arrays import ArrayLike, to_numpy

HIGHEST = 1 - 1e-9
"""An observation beyond all intervals is held by this one."""


@dataclass(frozen=True, eq=False)
class Calibration:
    """Which central interval of the predictive mixture holds a given share of the observations.

    Attributes
    ----------
    share : ndarray of shape (m + 2,)
        Shares, rising from 0 to 1.
    level : ndarray of shape (m + 2,)
        Probability that the mixture gives the interval that holds each, rising from 0 to 1.
    """

    share: np.ndarray
    level: np.ndarray

    def __post_init__(self) -> None:
        for name in ("share", "level"):
            values = np.asarray(getattr(self, name), dtype=float)
            rises = values.ndim == 1 and len(values) > 1 and bool((np.diff(values) >= 0).all())
            if not rises or (values[0], values[-1]) != (0, 1):
                raise ValueError(f"`{name}` must rise from 0 to 1, got {values}.")
            object.__setattr__(self, name, values)
        if len(self.share) != len(self.level):
            raise ValueError(
                f"`share` and `level` must be as many, got {len(self.share)} and {len(self.level)}."
            )

    @classmethod
    def of(cls, central_level: ArrayLike, weight: ArrayLike | None = None) -> Calibration:
        """Read it off from rows that were held out.

        For m rows and a new one, exchangeable, the interval of the level in place k of m holds the
        new one with probability k / (m + 1); between places it is interpolated.

        Parameters
        ----------
        central_level : array-like of shape (n, ...)
            Of observations in rows that the fit has not seen: `RegressionPrediction.central_level`.
            Of several columns of y all are taken together.
        weight : array-like of shape (n,), optional
            How often each row counts.

        References
        ----------
        Vovk, Gammerman and Shafer (2005), "Algorithmic Learning in a Random World", section 4.1,
        with the central level as the nonconformity score. Kuleshov, Fenner and Ermon (2018),
        "Accurate uncertainties for deep learning using calibrated regression".
        """
        needed = np.asarray(to_numpy(central_level), dtype=float)
        needed = needed.reshape((len(needed), -1))
        weights = np.ones(len(needed)) if weight is None else np.asarray(weight, dtype=float)
        order = np.argsort(needed, axis=None, kind="stable")
        counted = np.repeat(weights, needed.shape[1])[order].cumsum()
        share = counted / (counted[-1] * (1 + 1 / len(needed)))
        level = np.minimum(needed.flatten()[order], HIGHEST)
        return cls(np.array([0.0, *share, 1.0]), np.array([0.0, *level, 1.0]))

    def __call__(self, share: ArrayLike) -> Any:
        """Give the level of the central interval that holds a share of the observations."""
        return np.interp(share, self.share, self.level)

    def probability(self, q: ArrayLike) -> Any:
        """Give the probability of the mixture's quantile that is the q-quantile as corrected."""
        q = np.asarray(q)
        side = self(np.abs(2 * q - 1)).clip(max=HIGHEST) / 2
        return 0.5 + np.where(q < 0.5, -side, side)
