"""Split conformal calibration: intervals and sets with the stated coverage of new observations.

Under a misspecified model or a mean-field approximation, all intervals may be too narrow or too
wide. Split conformal calibration computes the correction from held-out rows: the nonconformity
score of an observation is the level of the smallest central interval, or of the smallest set of
classes, that contains it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from .._core.arrays import ArrayLike, as_count, to_numpy
from .._core.messages import shown

MAX_LEVEL = 1 - 1e-9
"""Level assigned to an observation that no interval contains."""
ROUNDING = 1e-12
"""Relative rounding error of a coverage k / (m + 1)."""


@dataclass(frozen=True, eq=False)
class Calibration:
    """The level of the predictive mixture's interval or set as a function of its coverage.

    Attributes
    ----------
    share : ndarray of shape (m + 2,)
        Coverages, increasing from 0 to 1.
    level : ndarray of shape (m + 2,)
        Level of the mixture's central interval, or set of classes, for each coverage, increasing
        from 0 to 1.
    """

    share: np.ndarray
    level: np.ndarray

    def __post_init__(self) -> None:
        for name in ("share", "level"):
            given = getattr(self, name)
            try:
                values = np.asarray(given, dtype=float)
            except (TypeError, ValueError):
                raise TypeError(f"`{name}` must hold numbers, got {shown(given)}.") from None
            increases = values.ndim == 1 and len(values) > 1 and bool((np.diff(values) >= 0).all())
            if not increases or (values[0], values[-1]) != (0, 1):
                raise ValueError(f"`{name}` must increase from 0 to 1, got {shown(values)}.")
            object.__setattr__(self, name, values)
        if len(self.share) != len(self.level):
            raise ValueError(
                "`share` and `level` must have the same length, got "
                f"{len(self.share)} and {len(self.level)}."
            )

    @classmethod
    def of(
        cls, central_level: ArrayLike, weight: ArrayLike | None = None, *, prior_rows: int = 0
    ) -> Calibration:
        """Compute the calibration from held-out rows.

        If m held-out rows and a new one are exchangeable, the interval or set at the k-th smallest
        of their m levels contains the new observation with probability k / (m + 1). Between these
        levels, the coverage is interpolated linearly.

        Over random choices of the held-out rows, the coverage of an interval varies like a share
        observed in as many rows: with 27 rows, that of a 90 % interval has a standard deviation of
        6 %. With `prior_rows`, the coverage of each level is an average of that of the held-out
        rows and the level itself, weighted by the numbers of rows, as in the posterior mean under a
        Dirichlet process centred at the mixture.

        Parameters
        ----------
        central_level : array-like of shape (n, ...)
            `RegressionPrediction.central_level` of held-out observations, or the `set_levels` of
            held-out classes. Several columns of y are pooled. Without any row, every level below 1
            has an unknown coverage.
        weight : array-like of shape (n,), optional
            Weight of each row; only the ratios matter.
        prior_rows : int
            Number of rows that the mixture's own levels count as. 0: the held-out rows alone count,
            which the guaranteed coverage needs.

        References
        ----------
        Ferguson (1973), "A Bayesian analysis of some nonparametric problems", for `prior_rows`.
        Vovk, Gammerman and Shafer (2005), "Algorithmic Learning in a Random World", section 4.1.
        Lei, G'Sell, Rinaldo, Tibshirani and Wasserman (2018), "Distribution-free predictive
        inference for regression", algorithm 2. Chernozhukov, Wuethrich and Zhu (2021),
        "Distributional conformal prediction", for the central level as the nonconformity score.
        Kuleshov, Fenner and Ermon (2018), "Accurate uncertainties for deep learning using
        calibrated regression", for the interpolation.
        """
        prior_rows = as_count("prior_rows", prior_rows, least=0)
        scores = np.asarray(to_numpy(central_level), dtype=float)
        if len(scores) == 0:
            return cls(np.array([0.0, 1.0]), np.array([0.0, 1.0]))
        scores = scores.reshape((len(scores), -1))
        weights = np.ones(len(scores)) if weight is None else np.asarray(weight, dtype=float)
        order = np.argsort(scores, axis=None, kind="stable")
        cumulative = np.repeat(weights, scores.shape[1])[order].cumsum()
        share = cumulative / (cumulative[-1] * (1 + 1 / len(scores)))
        level = np.minimum(scores.flatten()[order], MAX_LEVEL)
        share = (len(scores) * share + prior_rows * level) / (len(scores) + prior_rows)
        return cls(np.array([0.0, *share, 1.0]), np.array([0.0, *level, 1.0]))

    def __call__(self, share: ArrayLike) -> Any:
        """Return the level of the mixture's central interval whose coverage is `share`."""
        return np.interp(share, self.share, self.level)

    def threshold(self, share: float) -> float:
        """Return the smallest level of a held-out row whose coverage is at least `share`.

        Unlike the interpolated level, its coverage is guaranteed for exchangeable rows. 1, the
        level of a set of all classes, if even the largest of few held-out levels has less coverage.
        """
        return float(self.level[np.searchsorted(self.share, share * (1 - ROUNDING))])

    def probability(self, q: ArrayLike) -> Any:
        """Return the probability at which the mixture's quantile is the calibrated q-quantile."""
        q = np.asarray(q)
        side = self(np.abs(2 * q - 1)).clip(max=MAX_LEVEL) / 2
        return 0.5 + np.where(q < 0.5, -side, side)
